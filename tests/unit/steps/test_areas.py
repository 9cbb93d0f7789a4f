"""Masks cover as much of the images as the labels that taught them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tagmask.config import validate
from tagmask.data import ClassTable
from tagmask.engine.log import Display
from tagmask.methods import get
from tagmask.methods.more import MoReConfig
from tagmask.models.trained import load_trained, save_method
from tagmask.pipeline.config import read_config
from tagmask.pipeline.run import run
from tagmask.steps import areas
from tagmask.steps.areas import area_shift
from tests.toy import toy_root

TINY = {
    "model": {"backbone": "vit:patch=8,dim=32,depth=5,heads=2,size=64", "weights": "none", "aux_block": -2},
    "train": {"iterations": 2, "batch_size": 4, "size": 64},
    "localize": {"size": 64},
    "segment": {"size": 64},
    "student": {"train": {"iterations": 8, "batch_size": 4, "size": 64}},
}


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_the_shift_makes_the_areas_equal(share):
    torch.manual_seed(0)
    margins, foreground = torch.randn(5000), torch.rand(5000) < share
    shift = area_shift(margins, foreground)
    found = float((margins + shift < 0).float().mean())
    assert found == pytest.approx(float(foreground.float().mean()), abs=1e-3)


@pytest.mark.parametrize("labels", [torch.zeros(100), torch.ones(100)])
def test_labels_without_background_or_without_anything_say_nothing(labels):
    assert area_shift(torch.randn(100), labels.bool()) is None


def test_a_student_of_recipe_auto_is_fitted_and_the_shift_goes_with_its_model(tmp_path):
    values = {"data.root": str(toy_root(tmp_path)), "runtime.device": "cpu", **_flat(TINY)}
    config = read_config("auto", values)
    done = run(config, tmp_path / "run", ("train", "localize", "refine", "student", "segment"))
    results = done.results["student"]
    method = load_trained(tmp_path / "run" / "student" / "model").method
    assert 0 < results["label_area"] < 1
    assert float(method.background_shift) == pytest.approx(results["background_shift"], abs=1e-4)
    assert float(load_trained(tmp_path / "run" / "model").method.background_shift) == 0


def _flat(values, prefix=""):
    found = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


@pytest.mark.parametrize("before", [0.0, 1.5])
@pytest.mark.parametrize(("found", "shifted"), [(0.9, True), (0.12, False)])
def test_only_masks_clearly_larger_than_labels_are_mended(tmp_path, monkeypatch, found, shifted, before):
    method = get("more")(validate(MoReConfig, {**TINY["model"], "match_area": True}, "model"), 2)
    folder = tmp_path / "model"
    method.background_shift.fill_(before)
    save_method(folder, method, "more", ClassTable(("a", "b")), {}, {})
    margins = torch.linspace(-found, 1 - found, 1000)
    foreground = torch.arange(1000) < 100
    monkeypatch.setattr(areas, "_margins", lambda *_: (margins, foreground))
    context = SimpleNamespace(runtime=SimpleNamespace(device="cpu"), display=Display(quiet=True))
    told = areas.match_area(folder, None, tmp_path, None, context)
    kept = float(load_trained(folder).method.background_shift)
    assert kept == pytest.approx(told["background_shift"], abs=1e-4)
    assert kept == pytest.approx(before + ((found - 0.1) / 2 if shifted else 0), abs=2e-3)


def test_the_area_is_that_of_the_decoder_not_of_what_classes_exclude(monkeypatch):
    torch.manual_seed(0)
    settings = {**TINY["model"], "classes_per_image": "at_most_one", "tag_weight": 1.0, "match_area": True}
    method = get("more")(validate(MoReConfig, settings, "model"), 3).eval()
    seen = []
    monkeypatch.setattr(
        areas,
        "image_scores",
        lambda own, *_: seen.append(own.config.classes_per_image) or torch.zeros(1, 4, 8, 8),
    )
    image, label = torch.rand(1, 3, 8, 8), np.zeros((8, 8), np.uint8)
    monkeypatch.setattr(areas, "some_tagged", lambda *_: None)
    monkeypatch.setattr(areas, "eval_images", lambda _: [(0, SimpleNamespace(images=image, names=("a",)))])
    monkeypatch.setattr(areas, "file_for", lambda *_: SimpleNamespace(exists=lambda: True))
    monkeypatch.setattr(areas, "read_mask", lambda _: label)
    context = SimpleNamespace(runtime=SimpleNamespace(device=torch.device("cpu")))
    areas._margins(method, None, None, None, context)
    assert seen == ["any"]
    assert method.config.classes_per_image == "at_most_one"
