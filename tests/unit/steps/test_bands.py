"""A class that shows in the fifth band only is learned, and is not where that band is left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import tagmask
from tagmask import methods
from tagmask.backbones.bands import with_bands
from tagmask.losses.tags import multilabel_soft_margin
from tagmask.methods import MethodConfig, register_method
from tagmask.methods.base import Method
from tagmask.types import OptimPlan, ParamGroup, StepResult

tifffile = pytest.importorskip("tifffile")


class BrightSpots(Method):
    """Two small convolutions and their mean."""

    config_class = MethodConfig
    map_kinds = ("cam",)

    def __init__(self, config, num_classes):
        super().__init__(config, num_classes)
        self.config = config
        for name, value in (("mean", 0.45), ("std", 0.22)):
            self.register_buffer(name, torch.full((3, 1, 1), value), persistent=False)
        self.first, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, num_classes, 1)

    def view_maps(self, images, kinds):
        return {kind: self.last(self.first((images - self.mean) / self.std).relu()) for kind in kinds}

    def classify(self, images):
        return self.view_maps(images, ("cam",))["cam"].flatten(2).topk(16, 2).values.mean(2)

    def forward(self, batch, step):
        return StepResult(multilabel_soft_margin(self.classify(batch.images), batch.tags))

    def optim_plan(self, iterations):
        return OptimPlan("adamw", [ParamGroup("all", list(self.parameters()), 0.02, 0.0)], lambda step: 1.0)

    def initialise(self, weights):
        pass


@pytest.fixture
def bright_spots(monkeypatch):
    """The method has a name for one test only: others of this process count the methods."""
    monkeypatch.setattr(methods, "_REGISTERED", dict(methods._REGISTERED))
    register_method("bright_spots")(BrightSpots)


def _data(root, count, seed):
    """Spots of class "a" are bright in band 1, those of "b" in band 5; 12 bits."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = ["image,tags"]
    for number in range(count):
        values = rng.integers(500, 1500, (40, 40, 5)).astype(np.uint16)
        tags = [name for name in "ab" if rng.random() < 0.5]
        for name, band in (("a", 0), ("b", 4)):
            if name in tags:
                top, left = rng.integers(0, 28, 2)
                values[top : top + 12, left : left + 12, band] += 2500
        tifffile.imwrite(
            root / f"images/{number}.tif", values, photometric="minisblack", planarconfig="contig"
        )
        rows.append(f"{number}.tif,{' '.join(tags)}")
    (root / "tags.csv").write_text("\n".join(rows) + "\n")
    return root


def _learn(data, out, bands):
    settings = {"data.bands": bands, "data.holdout": 0, "train.eval_every": 0, "train.tensorboard": False}
    settings |= {"model.backbone": "none", "model.weights": "none"}
    long = {"size": 32, "iterations": 60, "batch_size": 16, "device": "cpu", "progress": False}
    return tagmask.train(data, method=BrightSpots, out=out, settings=settings, **long)


def _right(model, data):
    """Share of images about which the classifier is right, for each class."""
    lines = (data / "tags.csv").read_text().splitlines()[1:]
    right = {"a": 0, "b": 0}
    for line in lines:
        file, _, tags = line.partition(",")
        scores = model.predict(data / "images" / file, maps=False).tag_scores
        for name in right:
            right[name] += (scores[name] > 0.5) == (name in tags)
    return {name: count / len(lines) for name, count in right.items()}


@pytest.mark.slow
@pytest.mark.usefixtures("bright_spots")
def test_a_class_of_the_fifth_band_needs_the_fifth_band(tmp_path):
    data, other = _data(tmp_path / "data", 48, 0), _data(tmp_path / "other", 40, 1)
    with_five = _learn(data, tmp_path / "five", "all")
    assert with_five.method.first.in_channels == 5
    found = _right(with_five, other)
    assert min(found.values()) > 0.9, found
    again = tagmask.load(tmp_path / "five")
    assert again.reading.bands == (1, 2, 3, 4, 5)
    assert _right(again, other) == found
    result = again.predict(other / "images" / "0.tif")
    assert result.image.shape == (40, 40, 3)
    four = _right(_learn(data, tmp_path / "four", [1, 2, 3, 4]), other)
    assert four["a"] > 0.9
    assert four["b"] < 0.75


def test_weights_are_repeated_as_timm_does_it():
    from timm.models._manipulate import adapt_input_conv

    method = BrightSpots(MethodConfig(backbone="none"), 2)
    before = method.first.weight.detach().clone()
    with_bands(method, 6)
    torch.testing.assert_close(method.first.weight, adapt_input_conv(6, before))
    assert method.mean.shape == method.std.shape == (6, 1, 1)
    same = torch.rand(1, 1, 8, 8)
    three = BrightSpots(MethodConfig(backbone="none"), 2)
    three.load_state_dict({**method.state_dict(), "first.weight": before})
    six, seen = (x.classify(same.expand(1, n, 8, 8)) for x, n in ((method, 6), (three, 3)))
    torch.testing.assert_close(six, seen)
