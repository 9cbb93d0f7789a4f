from __future__ import annotations

import matplotlib
import numpy as np
import pytest

from tagmask.data.classes import voc_palette
from tagmask.report.draw import heat_colours, label_colours, overlay_labels, overlay_maps, picture_grid

IMAGE = np.full((4, 6, 3), 100, np.uint8)


def test_heat_colours_are_matplotlibs_jet():
    values = np.linspace(-0.1, 1.1, 500)
    expected = matplotlib.colormaps["jet"](np.clip(values, 0, 1))[:, :3] * 255
    np.testing.assert_allclose(heat_colours(values), expected, atol=1e-6)


def test_overlay_of_maps_takes_the_strongest():
    maps = np.zeros((2, 4, 6))
    maps[0, 0, 0], maps[1, 0, 0] = 0.2, 1.0
    drawn = overlay_maps(IMAGE, maps)
    assert drawn.dtype == np.uint8
    assert drawn[0, 0].tolist() == [113, 50, 50]
    assert np.array_equal(overlay_maps(IMAGE, maps[:0]), overlay_maps(IMAGE, np.zeros((1, 4, 6))))


def test_overlay_of_labels_leaves_the_background_alone():
    labels = np.zeros((4, 6), np.uint8)
    labels[1, 1] = 1
    drawn = overlay_labels(IMAGE, labels, voc_palette())
    assert drawn[1, 1].tolist() == [114, 50, 50]
    assert (np.delete(drawn.reshape(-1, 3), 7, axis=0) == 100).all()
    assert label_colours(labels, voc_palette())[1, 1].tolist() == [128, 0, 0]


def test_grid_fills_rows_and_frames_every_picture():
    grid = picture_grid([IMAGE, IMAGE, IMAGE], columns=2, padding=1, level=9)
    assert grid.shape == (11, 15, 3)
    assert (grid[1:5, 1:7] == 100).all()
    assert (grid[6:10, 8:14] == 9).all()
    assert picture_grid([IMAGE], columns=5).shape == (8, 10, 3)


def test_sizes_must_fit():
    with pytest.raises(ValueError, match="resize"):
        overlay_maps(IMAGE, np.zeros((1, 4, 5)))
    with pytest.raises(ValueError, match="resize"):
        overlay_labels(IMAGE, np.zeros((4, 5), np.uint8), voc_palette())
    with pytest.raises(ValueError, match="one size"):
        picture_grid([IMAGE, IMAGE[:2]])
    with pytest.raises(ValueError, match="none"):
        picture_grid([])
