from __future__ import annotations

import pytest
import torch

from tagmask.losses.energy import dense_energy, dense_energy_loss


def inputs(batch=2, classes=4, height=12, width=15, seed=0):
    random = torch.Generator().manual_seed(seed)
    colours = torch.rand(batch, 3, 3, 3, generator=random) * 255
    return {
        "prob": torch.softmax(2 * torch.randn(batch, classes, height, width, generator=random), 1),
        "image_255": torch.nn.functional.interpolate(colours, (height, width), mode="bilinear"),
        "roi": (torch.rand(batch, height, width, generator=random) > 0.2).float(),
        "unlabelled": torch.rand(batch, height, width, generator=random) > 0.5,
        "sigma_rgb": 30.0,
        "sigma_xy": 6.0,
    }


def crop(batch=2, classes=5, height=20, width=26, seed=0):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, height, width, generator=random)
    images = torch.rand(batch, 3, 4, 4, generator=random)
    images = torch.nn.functional.interpolate(images, (height, width), mode="bilinear")
    labels = torch.randint(0, classes, (batch, height, width), generator=random)
    labels[:, ::3] = 255
    return logits, images, labels


def slope(function, point, direction, step):
    return (function(point + step * direction) - function(point - step * direction)) / (2 * step)


@pytest.mark.parametrize("gate", [True, False])
def test_exact_gradient_is_the_slope_of_the_value(gate):
    given = inputs()
    prob = given.pop("prob").requires_grad_()
    (grad,) = torch.autograd.grad(dense_energy(prob, **given, gate=gate, gradient="exact"), prob)
    direction = torch.randn(prob.shape, generator=torch.Generator().manual_seed(1))

    def value(at):
        return dense_energy(at, **given, gate=gate)

    with torch.no_grad():
        # The value is quadratic without gate, so a wide step is exact; gated, it has kinks.
        measured = slope(value, prob, direction, 2e-3 if gate else 0.2)
    torch.testing.assert_close((grad * direction).sum(), measured, rtol=5e-3 if gate else 1e-4, atol=1e-3)


def test_published_gradient_is_the_documented_formula():
    given = inputs()
    prob = given.pop("prob").requires_grad_()
    loss = dense_energy(prob, **given)
    (grad,) = torch.autograd.grad(3.0 * loss, prob)
    # The value is -(1/B) sum S g F(S) = half the product of prob with its own gradient.
    torch.testing.assert_close((prob * grad).sum() / 3, 2 * loss, rtol=1e-5, atol=0)
    roi, unlabelled = given["roi"].unsqueeze(1), given["unlabelled"].unsqueeze(1)
    assert not grad[(roi == 0).expand_as(grad)].any()
    doubt = (roi - prob.amax(1, keepdim=True)).clamp_min(0)
    no_gate = dense_energy(prob, **given, gate=False)
    (plain,) = torch.autograd.grad(3.0 * no_gate, prob)
    wanted = plain * torch.where(unlabelled, torch.ones_like(doubt), doubt)
    torch.testing.assert_close(grad, wanted, rtol=1e-5, atol=1e-6)


def test_without_gate_both_gradients_agree_up_to_the_lattice_asymmetry():
    given = inputs()
    prob = given.pop("prob").requires_grad_()
    grads = [
        torch.autograd.grad(dense_energy(prob, **given, gate=False, gradient=kind), prob)[0]
        for kind in ("published", "exact")
    ]
    gap = float((grads[0] - grads[1]).norm() / grads[1].norm())
    assert 0 < gap < 0.06
    gated = [
        torch.autograd.grad(dense_energy(prob, **given, gradient=kind), prob)[0]
        for kind in ("published", "exact")
    ]
    assert float((gated[0] - gated[1]).norm() / gated[1].norm()) > 0.1


def test_loss_gradient_flows_through_softmax_and_scaling():
    logits, images, labels = crop()
    logits.requires_grad_()
    loss = dense_energy_loss(logits, images, labels, weight=1.0)
    (grad,) = torch.autograd.grad(loss, logits)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))

    def reduced(at):
        prob = torch.softmax(at, 1)
        return torch.nn.functional.interpolate(prob, (10, 13), mode="bilinear", align_corners=False)

    small = reduced(logits.detach()).requires_grad_()
    unlabelled = (labels == 255)[:, ::2, ::2]
    near = images[:, :, ::2, ::2] * 255
    energy = dense_energy(small, near, torch.ones(2, 10, 13), unlabelled, 15.0, 50.0)
    (pull,) = torch.autograd.grad(energy, small)
    torch.testing.assert_close(loss, energy, rtol=1e-6, atol=0)
    measured = slope(lambda at: (reduced(at).double() * pull).sum(), logits.detach(), direction, 1e-2)
    torch.testing.assert_close((grad * direction).sum().double(), measured, rtol=2e-3, atol=1e-3)


def test_two_boxes_in_one_batch():
    logits, images, labels = crop()
    boxes = torch.tensor([[0, 20, 4, 22], [6, 18, 0, 26]])
    logits.requires_grad_()
    both = dense_energy_loss(logits, images, labels, boxes)
    alone = [
        dense_energy_loss(logits[i : i + 1], images[i : i + 1], labels[i : i + 1], boxes[i : i + 1])
        for i in range(2)
    ]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)
    (grad,) = torch.autograd.grad(both, logits)
    assert not grad[0, :, :, :4].any()
    assert not grad[1, :, :6].any()
    assert grad[0, :, :, 4:22].any()
    whole = torch.tensor([[0, 20, 0, 26]] * 2)
    assert torch.equal(
        dense_energy_loss(logits, images, labels, whole), dense_energy_loss(logits, images, labels)
    )


def test_size_rules_differ_on_odd_sides_only():
    for size, same in ((20, True), (21, False)):
        given = crop(height=size, width=size)
        kinds = [dense_energy_loss(*given, size_rule=rule) for rule in ("recomputed", "given")]
        assert torch.allclose(*kinds, rtol=1e-6, atol=0) is same


def test_agreeing_neighbours_cost_less():
    _, images, labels = crop(1, 2)
    labels[:] = 255
    smooth = torch.zeros(1, 2, 20, 26)
    smooth[:, 0] = 4.0
    striped = smooth.clone()
    striped[:, :, ::4] = striped[:, :, ::4].flip(1)
    striped[:, :, 1::4] = striped[:, :, 1::4].flip(1)
    calm, torn = (dense_energy_loss(x, images, labels) for x in (smooth, striped))
    assert float(calm) < float(torn) < 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computes_in_float32_under_autocast(dtype):
    logits, images, labels = crop()
    half = logits.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = dense_energy_loss(half, images, labels, weight=1.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert half.grad.dtype == dtype
    assert torch.equal(loss, dense_energy_loss(half.detach().float(), images, labels, weight=1.0))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 2)])
@pytest.mark.parametrize("rule", ["recomputed", "given"])
def test_tiny_images_and_one_class(size, rule):
    logits, images, labels = crop(1, 1, *size)
    loss = dense_energy_loss(logits.requires_grad_(), images, labels, size_rule=rule)
    loss.backward()
    assert loss.shape == ()
    assert torch.isfinite(loss)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"logits": torch.full((2, 5, 20, 26), float("nan"))}, "class probabilities hold NaN"),
        ({"images": torch.full((2, 3, 20, 26), float("inf"))}, "images hold NaN or infinite"),
        ({"images": torch.zeros(2, 3, 20, 20)}, "must agree"),
        ({"labels": torch.zeros(2, 20)}, "must agree"),
        ({"boxes": torch.zeros(1, 4)}, r"\(2, 4\)"),
        ({"scale": 0.0}, "scale must be"),
        ({"sigma_rgb": 0.0}, "sigmas must be positive"),
        ({"size_rule": "other"}, "size_rule"),
        ({"gradient": "none"}, "gradient must be"),
    ],
)
def test_unusable_input_is_refused(change, complaint):
    logits, images, labels = crop()
    given = {"logits": logits, "images": images, "labels": labels} | change
    with pytest.raises(ValueError, match=complaint):
        dense_energy_loss(**given)
