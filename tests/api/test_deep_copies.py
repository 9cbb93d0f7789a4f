"""A data set in 12 of 16 bits is learned from like its 8-bit original."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import tagmask
from tagmask.data.parts import DataConfig, Parts
from tests.toy import toy_root

tifffile = pytest.importorskip("tifffile")


def deep_copy(root, out):
    """Every picture as a 16-bit TIFF whose white is 4095."""
    shutil.copytree(root, out)
    for path in list((out / "images").iterdir()):
        levels = np.asarray(Image.open(path).convert("RGB"))
        deep = np.round(levels * (4095 / 255)).astype(np.uint16)
        tifffile.imwrite(path.with_suffix(".tif"), deep, photometric="rgb")
        path.unlink()
    tags = out / "tags.csv"
    tags.write_text(tags.read_text().replace(".png", ".tif"))
    return out


def scores(data, out):
    settings = {"train.tensorboard": False, "train.eval_every": 0, "localize.kinds": ["cam"]}
    how = {"iterations": 20, "size": 64, "device": "cpu", "progress": False, "until": "evaluate"}
    tagmask.run("demo", data, out=out, settings=settings, **how)
    return {path.stem: json.loads(path.read_text())["miou"] for path in (out / "scores").glob("*.json")}


@pytest.mark.slow
def test_12_bits_give_the_scores_of_8_bits(tmp_path):
    eight = toy_root(tmp_path, 32, 12)
    deep = deep_copy(eight, tmp_path / "deep")
    first, second = scores(eight, tmp_path / "run8"), scores(deep, tmp_path / "run16")
    assert first.keys() == second.keys() >= {"val-cam", "val-label"}
    assert first["val-cam"] > 0.3  # otherwise there is nothing to compare
    for what, miou in first.items():
        assert second[what] == pytest.approx(miou, abs=0.01), what


def test_8_bits_are_read_as_ever(tmp_path):
    root = toy_root(tmp_path, 4, 2)
    dataset = Parts(DataConfig(root=root)).open("train")
    assert dataset.reading is None
    assert dataset.pixels == {}
    for index, item in enumerate(dataset.items):
        np.testing.assert_array_equal(dataset.image(index), np.asarray(Image.open(item.image).convert("RGB")))
