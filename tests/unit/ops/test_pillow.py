from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.ops.pillow import pillow_bicubic


def by_pillow(levels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pillow, one axis after the other, rows first; newer releases choose the order by size."""
    rows = Image.fromarray(levels).resize((size[1], levels.shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(rows.resize((size[1], size[0]), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [(30, 40), (55, 23), (13, 90), (37, 52), (1, 1), (80, 41)])
def test_every_grey_level_is_pillows(size: tuple[int, int]) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (37, 41, 3), dtype=np.uint8)
    images = torch.from_numpy(levels).permute(2, 0, 1)[None].float() / 255
    ours = (pillow_bicubic(images, size)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    np.testing.assert_array_equal(ours, by_pillow(levels, size))


def test_images_of_the_wanted_size_are_left_alone() -> None:
    images = torch.rand(1, 3, 5, 7)
    assert pillow_bicubic(images, (5, 7)) is images
