from __future__ import annotations

import math

import pytest
import torch

from tagmask.ops import pixel_refinement as par_module
from tagmask.ops.pixel_refinement import PAR_DILATIONS, apply_par, par, par_kernel


def neighbours(values, dilations):
    """All neighbours as copies, (B, C, M, H, W): the formulation that takes the memory."""
    height, width = values.shape[2:]
    planes = []
    for d in dilations:
        padded = torch.nn.functional.pad(values, [d] * 4, mode="replicate")
        for dy, dx in ((a, b) for a in (0, d, 2 * d) for b in (0, d, 2 * d) if (a, b) != (d, d)):
            planes.append(padded[:, :, dy : dy + height, dx : dx + width])
    return torch.stack(planes, 2)


def slow_par(images, maps, dilations, iterations):
    near = neighbours(images, dilations)
    spread = near.std(2, keepdim=True)
    colour = -(((near - images.unsqueeze(2)).abs() / (spread + 1e-8) / 0.3) ** 2)
    r = math.sqrt(2)
    distance = torch.tensor([d * f for d in dilations for f in (r, 1, r, 1, 1, r, 1, r)])
    place = torch.softmax(-((distance / (distance.std() + 1e-8) / 0.3) ** 2), 0)
    kernel = torch.softmax(colour.mean(1), 1) + 0.01 * place.view(1, -1, 1, 1)
    for _ in range(iterations):
        maps = (neighbours(maps, dilations) * kernel.unsqueeze(1)).sum(2)
    return maps


def pictures(batch, channels, height, width, seed=0):
    random = torch.Generator().manual_seed(seed)
    return (
        torch.rand(batch, 3, height, width, generator=random),
        torch.rand(batch, channels, height, width, generator=random),
    )


@pytest.mark.parametrize(
    ("shape", "dilations"), [((2, 3, 30, 41), PAR_DILATIONS), ((1, 1, 7, 50), (3,)), ((3, 9, 16, 16), (5, 1))]
)
def test_equals_the_stacked_formulation(shape, dilations):
    images, maps = pictures(*shape)
    wanted = slow_par(images, maps, dilations, 4)
    torch.testing.assert_close(par(images, maps, dilations, 4), wanted, rtol=0, atol=2e-6)


def test_blocks_of_rows_change_nothing(monkeypatch):
    images, maps = pictures(2, 3, 33, 20)
    kernel, wanted = par_kernel(images), par(images, maps)
    monkeypatch.setattr(par_module, "rows_per_block", lambda *_: 7)
    torch.testing.assert_close(par_kernel(images), kernel, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(par(images, maps), wanted, rtol=1e-6, atol=1e-6)


def test_both_ways_of_averaging_agree(monkeypatch):
    images, maps = pictures(2, 4, 21, 30)
    planes = par(images, maps)
    monkeypatch.setattr(par_module, "_MANY_MAPS", 1)
    torch.testing.assert_close(par(images, maps), planes, rtol=1e-6, atol=1e-6)
    assert par(images, maps).is_contiguous()


def test_one_kernel_serves_stacks_of_maps():
    images, maps = pictures(2, 9, 20, 24)
    kernel = par_kernel(images)
    together = apply_par(kernel, maps)
    for part in (slice(0, 1), slice(1, 9)):
        torch.testing.assert_close(par(images, maps[:, part]), together[:, part])
    zeros = torch.cat([maps, torch.zeros(2, 3, 20, 24)], 1)
    assert not apply_par(kernel, zeros)[:, 9:].any()


def test_every_iteration_scales_by_the_position_term():
    images, _ = pictures(1, 1, 12, 12)
    ones = torch.ones(1, 1, 12, 12)
    torch.testing.assert_close(par(images, ones, iterations=3), ones * 1.01**3)
    torch.testing.assert_close(par_kernel(images).sum(1), torch.full((1, 12, 12), 1.01))
    assert torch.equal(par(images, ones, iterations=0), ones)


def test_maps_stop_at_colour_edges():
    images = torch.zeros(1, 3, 32, 32)
    images[..., 16:] = 1.0
    images += 0.02 * torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
    maps = torch.zeros(1, 1, 32, 32)
    maps[..., 20:24] = 1.0
    refined = par(images, maps)[0, 0]
    assert float(refined[:, 17:].mean()) > 3 * float(refined[:, :15].mean())
    assert float(refined[:, 30].mean()) > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computes_in_float32_under_autocast(dtype):
    images, maps = pictures(1, 2, 16, 18)
    with torch.autocast("cpu", torch.bfloat16):
        refined = par(images.to(dtype), maps.to(dtype))
    assert refined.dtype == torch.float32
    assert torch.equal(refined, par(images.to(dtype).float(), maps.to(dtype).float()))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 2)])
def test_tiny_and_narrow_images(size):
    images, maps = pictures(2, 1, *size)
    refined = par(images, maps)
    assert refined.shape == maps.shape
    assert torch.isfinite(refined).all()


def test_no_maps_give_no_maps():
    images, _ = pictures(2, 1, 8, 8)
    assert par(images, torch.zeros(2, 0, 8, 8)).shape == (2, 0, 8, 8)


def test_gradients_end_here():
    images, maps = pictures(1, 1, 8, 8)
    assert not par(images.requires_grad_(), maps.requires_grad_()).requires_grad


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"maps": torch.zeros(1, 2, 8, 9)}, "resize one of them"),
        ({"maps": torch.full((1, 2, 8, 8), float("nan"))}, "maps hold NaN"),
        ({"images": torch.full((1, 3, 8, 8), float("inf"))}, "images hold NaN or infinite"),
        ({"images": torch.zeros(1, 1, 8, 8)}, r"\(B, 3, H, W\)"),
        ({"images": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, "floating point"),
        ({"dilations": ()}, "one or more distances"),
        ({"dilations": (1, 0)}, "at least 1"),
        ({"iterations": -1}, "0 or more"),
    ],
)
def test_unusable_input_is_refused(change, complaint):
    images, maps = pictures(1, 2, 8, 8)
    with pytest.raises(ValueError, match=complaint):
        par(**({"images": images, "maps": maps} | change))


def test_a_kernel_of_other_dilations_is_refused():
    images, maps = pictures(1, 2, 8, 8)
    with pytest.raises(ValueError, match="16 neighbours"):
        apply_par(par_kernel(images, (1,)), maps, (1, 2))
