"""The image-segmentation pipeline of the real package `transformers`."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tagmask.data import ClassTable
from tagmask.models.trained import build_method, save_method
from tests.contract.test_methods import TINY

transformers = pytest.importorskip("transformers")
from tagmask.model import load  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    method = build_method("more", TINY["more"], 2)
    save_method(place / "run", method, "more", ClassTable(("cat", "dog")), {}, {})
    return load(place / "run", "cpu").save_pretrained(place / "published")


def test_the_pipeline_gives_the_models_own_masks(folder, caplog):
    import tagmask.integrations.transformers  # noqa: F401

    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (48, 80, 3), np.uint8))
    with caplog.at_level(logging.ERROR):
        pipe = transformers.pipeline("image-segmentation", model=str(folder), trust_remote_code=False)
        found = pipe(picture)
    assert not caplog.records
    mask = load(folder, "cpu").predict(picture).mask
    names = ("background", "cat", "dog")
    assert {one["label"] for one in found} == {names[k] for k in np.unique(mask)}
    for one in found:
        assert np.array_equal(np.array(one["mask"]) > 0, mask == names.index(one["label"]))


def test_nothing_is_registered_before_it_is_asked_for(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "tagmask"
    code = "import tagmask, sys; tagmask.load; assert 'transformers' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_damaged_model_is_one_clear_error(folder, tmp_path):
    import tagmask.integrations.transformers  # noqa: F401

    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(Exception, match=r"model\.safetensors|damaged"):
        transformers.pipeline("image-segmentation", model=str(tmp_path))
