from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from tagmask.data.classes import voc_palette
from tagmask.errors import DataError
from tagmask.store.labels import read_mask, write_mask
from tagmask.store.maps import load_maps, save_maps

RNG = np.random.default_rng(0)


def test_maps_come_back_within_half_precision_and_exactly_in_full(tmp_path):
    maps = RNG.random((2, 5, 7)).astype(np.float32)
    for half, tolerance in ((True, 2.5e-4), (False, 0.0)):
        save_maps(tmp_path / "a.npz", maps, np.array([3, 9]), (50, 70), half=half)
        back = load_maps(tmp_path / "a.npz")
        assert back.keys.tolist() == [3, 9]
        assert back.size == (50, 70)
        assert back.maps.dtype == np.float32
        assert np.abs(back.maps - maps).max() <= tolerance


def test_equal_maps_give_equal_bytes(tmp_path, monkeypatch):
    maps = RNG.random((1, 4, 4)).astype(np.float32)
    save_maps(tmp_path / "a.npz", maps, np.array([0]), (4, 4))
    monkeypatch.setattr(time, "time", lambda: 2e9)
    save_maps(tmp_path / "b.npz", maps, np.array([0]), (4, 4))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_an_image_without_classes_has_an_empty_stack(tmp_path):
    save_maps(tmp_path / "a.npz", np.zeros((0, 4, 6)), np.zeros(0, np.int64), (4, 6))
    assert load_maps(tmp_path / "a.npz").maps.shape == (0, 4, 6)


def test_damaged_map_files_are_named(tmp_path):
    save_maps(tmp_path / "a.npz", np.zeros((1, 4, 6)), np.zeros(1, np.int64), (4, 6))
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.npz").write_text("no")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "objects.npz", maps=np.array([{}], dtype=object), keys=np.zeros(1), size=np.zeros(2))
    for name in ("cut", "text", "other", "objects", "missing"):
        with pytest.raises(DataError, match=name):
            load_maps(tmp_path / f"{name}.npz")


def test_masks_keep_their_numbers_under_a_palette(tmp_path):
    mask = RNG.integers(0, 256, (9, 5)).astype(np.uint8)
    write_mask(tmp_path / "a.png", mask, voc_palette())
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "P"
        assert picture.getpalette()[3:6] == [128, 0, 0]
    assert np.array_equal(read_mask(tmp_path / "a.png"), mask)
    write_mask(tmp_path / "grey.png", mask)
    assert np.array_equal(read_mask(tmp_path / "grey.png"), mask)


def test_colour_pictures_and_rubbish_are_not_masks(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "rgb.png")
    (tmp_path / "junk.png").write_bytes(b"junk")
    for name in ("rgb", "junk", "missing"):
        with pytest.raises(DataError, match=name):
            read_mask(tmp_path / f"{name}.png")
