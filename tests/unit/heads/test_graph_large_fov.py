import pytest
import torch
import torch.nn.functional as F

from tagmask.heads.graph import GraphRepresentation
from tagmask.heads.large_fov import LargeFOV


def by_hand(graph, tokens, patches, weight):
    head = graph.head_proj(tokens)
    tail = graph.tail_proj(torch.cat([tokens, patches]))
    rows = []
    for c, e in zip(tokens, head, strict=True):
        best = (tail @ e / e.numel() ** 0.5).topk(max(len(tokens) // 2, 1))
        near, share = tail[best.indices], best.values.softmax(0)[:, None]
        gate = torch.tanh(e + (1 - share) * e + share * near)
        a = near.sum(1) * gate.sum(1) if weight == "sum_product" else (near * gate).sum(1)
        message = (a.softmax(0)[:, None] * near).sum(0)
        out = F.leaky_relu(graph.linear1(0.1 * (e + message) + c))
        rows.append(graph.norm(out + F.leaky_relu(graph.linear2(0.1 * e * message + c))))
    return torch.stack(rows)


@pytest.mark.parametrize("weight", ["sum_product", "dot"])
@pytest.mark.parametrize("classes", [1, 5])
def test_graph_is_what_the_formulas_say(weight, classes):
    torch.manual_seed(0)
    graph = GraphRepresentation(8, weight=weight)
    tokens, patches = torch.randn(2, classes, 8), torch.randn(2, 6, 8)
    found = graph(tokens, patches)
    for image in range(2):
        torch.testing.assert_close(found[image], by_hand(graph, tokens[image], patches[image], weight))


def test_patches_get_no_gradient_from_the_graph():
    graph = GraphRepresentation(8)
    tokens, patches = torch.randn(1, 4, 8, requires_grad=True), torch.randn(1, 6, 8, requires_grad=True)
    graph(tokens, patches).square().sum().backward()
    assert patches.grad is None
    assert tokens.grad.abs().sum() > 0
    assert all(p.grad is not None for p in graph.parameters())


def test_large_fov_keeps_the_grid_and_sees_far():
    torch.manual_seed(0)
    head = LargeFOV(4, 3, width=8)
    features = torch.zeros(1, 4, 24, 24)
    centre = features.clone()
    centre[0, :, 12, 12] = 1
    changed = (head(centre) != head(features)).any(1)[0]
    assert head(features).shape == (1, 3, 24, 24)
    assert changed[2, 12]
    assert changed[22, 22]
    assert not changed[12, 11]
    assert sorted(head.state_dict()) == ["conv6.weight", "conv7.weight", "conv8.weight"]
