"""The demo's first look at its masks, while it still trains."""

from __future__ import annotations

import shutil

from PIL import Image

from tagmask.model import load
from tagmask.pipeline.demo import FirstLook
from tagmask.training.callbacks import Training


def test_the_first_evaluation_gives_a_picture_of_images_and_masks(finished, toy, tmp_path):
    shutil.copytree(finished / "model", tmp_path / "best")
    images, said = sorted((toy / "images").iterdir())[:3], []
    look = FirstLook(images, tmp_path / "first.png", said.append)
    training = Training(load(finished).method, ("stripes", "dots"), tmp_path, 600, step=150)
    look.on_evaluate(training)
    with Image.open(images[0]) as one, Image.open(tmp_path / "first.png") as picture:
        assert picture.size == (2 * 3 * one.width, 2 * 2 * one.height)
    assert said == [f"first masks, after 150 of 600 updates: {tmp_path / 'first.png'}"]
    look.on_evaluate(training)
    assert len(said) == 1
