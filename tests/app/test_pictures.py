from __future__ import annotations

import re

import numpy as np

from tagmask.app.lab import View
from tagmask.app.pictures import PALETTES, colours_of, label_layer, legend, map_layer, panels


def view(names=("a", "b")):
    maps = {"cam": np.full((1, 4, 6), 0.5, np.float16)}
    mask = np.zeros((8, 12), np.uint8)
    mask[:4] = 2
    label = np.full((4, 6), 255, np.uint8)
    return View("<x>", np.zeros((4, 6, 3), np.uint8), (8, 12), (1,), (1,), maps, mask, True, label)


def test_a_map_is_as_opaque_as_it_is_high():
    maps = np.array([[[0.2, 1.0]], [[0.8, 0.0]]])
    layer = map_layer(maps, (0, 1), np.array([[255, 0, 0], [0, 255, 0]], np.uint8))
    assert layer[0].tolist() == [[0, 255, 0, 204], [255, 0, 0, 255]]
    assert map_layer(np.zeros((0, 2, 3)), (), np.zeros((2, 3), np.uint8)).shape == (2, 3, 4)


def test_background_is_clear_and_undecided_pixels_are_striped():
    labels = np.array([[0, 1, 255, 255, 255, 255, 255, 255]], np.uint8)
    layer = label_layer(labels, np.array([[9, 8, 7]], np.uint8))
    assert layer[0, 0].tolist() == [0, 0, 0, 0]
    assert layer[0, 1].tolist() == [9, 8, 7, 255]
    assert layer[0, 2:, 0].tolist() == [255, 255, 0, 0, 0, 0]
    assert (layer[0, 2:, 3] == 255).all()


def test_palettes():
    assert colours_of(PALETTES[0], 2).tolist() == [[0xE6, 0x9F, 0], [0x56, 0xB4, 0xE9]]
    assert colours_of(PALETTES[1], 2).tolist() == [[128, 0, 0], [0, 128, 0]]
    assert colours_of("anything", 30).shape == (30, 3)


def test_panels_hold_everything_they_show_and_escape_names():
    page = panels(view(), colours_of(PALETTES[0], 2), ("a", "<b>"))
    assert re.findall("<figcaption>(.*?)</figcaption>", page) == [
        "image", "CAM", "pseudo label", "mask (run)",
    ]  # fmt: skip
    assert not re.search(r"(src=\"|url\(')(?!data:)", page)
    assert "<b>" not in page
    assert "<x>" not in page
    assert 'alt="mask (run): &lt;b&gt; 50 %"' in page
    assert page.count('tabindex="0"') == 4


def test_legend_names_every_class_in_sight():
    page = legend(view(), colours_of(PALETTES[0], 2), ("a", "<b>"))
    assert "&lt;b&gt;" in page
    assert "50.0 %" in page
    assert "undecided" in page
    assert "100.0 %" in page
    assert "E69F00".lower() not in page
