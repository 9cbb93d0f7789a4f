from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from tagmask.backbones.attention_sums import AttentionSums, Part
from tagmask.backbones.conformer import Conformer
from tagmask.errors import CheckpointError, ConfigError

SMALL = "conformer:dim=24,depth=6,heads=2,ratio=1,base=8"


def make(double=True):
    torch.manual_seed(0)
    return Conformer(SMALL, double_class_token=double, drop_path=0.0).eval()


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_shapes_follow_the_image(size):
    out = make()(torch.rand(2, 3, *size))
    grid = (size[0] // 16, size[1] // 16)
    assert out.map.shape == (2, 32, *grid)
    assert out.tokens.shape == (2, 1 + grid[0] * grid[1], 24)
    assert out.scores == {}


def test_the_published_network_has_its_parameters():
    with torch.device("meta"):
        net = Conformer("conformer_small", double_class_token=True)
    # 36.47 M with TransCAM's heads, (384 + 1) * 21 and (1024 * 9 + 1) * 21 of which are theirs
    heads = 385 * 21 + (1024 * 9 + 1) * 21
    assert sum(p.numel() for p in net.parameters()) + heads == pytest.approx(36.47e6, abs=5e3)
    assert len(net.state_dict()) == 714


def test_tapping_changes_nothing_and_only_what_is_scored_is_kept():
    net, images = make(), torch.rand(1, 3, 64, 64)
    plain = net(images)
    scored = net(images, scores=(1, 4))
    assert sorted(scored.scores) == [1, 4]
    assert scored.scores[1].shape == (1, 2, 17, 17)
    torch.testing.assert_close(scored.tokens, plain.tokens, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scored.map, plain.map, atol=1e-5, rtol=1e-4)


def test_doubling_the_class_token_is_the_only_difference_of_the_dialects():
    first, second = make(double=True), make(double=False)
    second.load_state_dict(first.state_dict())
    images = torch.rand(1, 3, 64, 64)
    assert not torch.allclose(first(images).tokens[:, 0], second(images).tokens[:, 0], atol=1e-3)
    second.double_class_token = True
    assert torch.equal(first(images).tokens, second(images).tokens)


def test_sides_must_fill_whole_patches():
    with pytest.raises(ValueError, match="multiples of 16, got 64 x 72"):
        make()(torch.rand(1, 3, 64, 72))


@pytest.mark.parametrize(
    "name", ["conformer_smal", "conformer:dim", "conformer:dim=10,heads=3", "conformer:depth=4"]
)
def test_unknown_shapes_are_refused(name):
    with pytest.raises(ConfigError):
        Conformer(name, double_class_token=True)


def test_initial_weights_leave_heads_out(tmp_path):
    net, other = make(), Conformer(SMALL, double_class_token=True)
    path = tmp_path / "Conformer.safetensors"
    save_file({**other.state_dict(), "trans_cls_head.weight": torch.zeros(1000, 24)}, path)
    net.initialise(str(path))
    assert torch.equal(net.trans_1.attn.qkv.weight, other.trans_1.attn.qkv.weight)
    with pytest.raises(CheckpointError, match="Conformer_small_patch16"):
        net.initialise("hub")


def test_attention_sums_equal_the_stacked_attention():
    net, images = make(), torch.rand(2, 3, 64, 48)
    kept = net(images, scores=range(6)).scores
    weights = [0.0, 0.5, 1.0, 0.0, 2.0, 0.25]
    sums = AttentionSums(
        everything=Part([1.0] * 6, lambda mean: mean), patches=Part(weights, lambda mean: mean[:, 1:, 1:])
    )
    assert all(left.numel() == 0 for left in net(images, scores=range(6), reduce=sums).scores.values())
    means = [kept[block].softmax(-1).mean(1) for block in range(6)]
    torch.testing.assert_close(sums.totals["everything"], torch.stack(means).sum(0))
    expected = sum(w * mean[:, 1:, 1:] for w, mean in zip(weights, means, strict=True))
    torch.testing.assert_close(sums.totals["patches"], expected)
