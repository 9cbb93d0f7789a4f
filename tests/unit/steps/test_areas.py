"""Masks cover as much of the images as the labels that taught them."""

from __future__ import annotations

import pytest
import torch

from tagmask.models.trained import load_trained
from tagmask.pipeline.config import read_config
from tagmask.pipeline.run import run
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
    assert results["background_shift"] != 0
    assert float(method.background_shift) == pytest.approx(results["background_shift"], abs=1e-4)
    assert float(load_trained(tmp_path / "run" / "model").method.background_shift) == 0


def _flat(values, prefix=""):
    found = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
