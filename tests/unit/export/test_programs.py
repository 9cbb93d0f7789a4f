"""Files for Deepness and X-AnyLabeling, read as those programs' own rules say."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tagmask.errors import ConfigError
from tagmask.export.module import TakeAway
from tagmask.export.programs import ProgramConfig, export_for
from tagmask.export.write import read_metadata
from tagmask.models.trained import save_method
from tests.cli import tagmask
from tests.unit.export.cases import CLASSES, trained

onnxruntime = pytest.importorskip("onnxruntime")
SIDE = 64
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def labels_of(model, pixels):
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        return TakeAway(model.method, (), 0.5).eval()(images)[-1][0].numpy()


@pytest.fixture(scope="module")
def model():
    return trained("more")


@pytest.fixture(scope="module")
def pixels():
    small = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    return np.array(Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


@pytest.mark.slow
def test_deepness_finds_classes_tiles_and_one_output_of_probabilities(model, pixels, tmp_path):
    out = tmp_path / "m.onnx"
    config = ProgramConfig(program="deepness", side=SIDE, resolution=10.0, overlap=20)
    assert export_for(config, model, out)["check"] < 1e-3
    session = onnxruntime.InferenceSession(str(out))
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert given.shape == [1, 3, SIDE, SIDE]  # the tile's size is read from here
    assert made.shape == [1, 4, SIDE, SIDE]
    notes = session.get_modelmeta().custom_metadata_map
    names = sorted(json.loads(notes["class_names"]).items(), key=lambda pair: int(pair[0]))
    assert names == [("0", "background"), ("1", "cat"), ("2", "dog"), ("3", "sofa")]
    assert json.loads(notes["model_type"]).capitalize() == "Segmentor"
    assert [json.loads(notes[key]) for key in ("resolution", "tile_size", "tiles_overlap")] == [
        10.0,
        SIDE,
        20,
    ]
    assert float(json.loads(notes["seg_thresh"])) == 0
    # The plugin cuts a tile, divides by 255 and takes the strongest class.
    tile = np.float32(pixels[None] * 1.0 / 255).transpose(0, 3, 1, 2)
    (found,) = session.run(None, {given.name: tile})
    assert np.allclose(found.sum(1), 1, atol=1e-4)
    assert (found.argmax(1)[0] == labels_of(model, pixels)).mean() > 0.999
    assert read_metadata(out)["classes"] == ["background", "cat", "dog", "sofa"]


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


@pytest.mark.slow
def test_x_anylabeling_finds_a_mask_a_box_and_a_score_for_every_class(model, pixels, tmp_path):
    out = tmp_path / "m.onnx"
    save_method(tmp_path / "model", model.method, "more", CLASSES, {}, {})
    given = ("export", tmp_path / "model", "--for", "x-anylabeling", "--out", out)
    done = tagmask(*given, "--maps", "cam")
    assert (done.exit_code, "leave out --format and --maps" in done.stderr) == (2, True)
    done = tagmask(*given, "--set", f"side={SIDE}")
    assert (done.exit_code, "m.yaml" in done.stdout) == (0, True), done.stderr
    config = yaml.safe_load((tmp_path / "m.yaml").read_text())
    wanted = {"type", "name", "display_name", "model_path", "conf_threshold", "classes"}
    assert wanted <= set(config)
    assert (config["type"], config["model_path"]) == ("rfdetr_seg", "m.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / config["model_path"]))
    assert session.get_inputs()[0].shape == [1, 3, SIDE, SIDE]
    picture = pixels.astype(np.float32) / 255
    blob = ((picture - MEAN) / STD).transpose(2, 0, 1)[None]
    boxes, logits, masks = session.run(None, {session.get_inputs()[0].name: blob})
    # The program sorts all cells and keeps so many.
    chances = sigmoid(logits).reshape(1, -1)
    best = np.argpartition(-chances, config["num_select"], axis=1)[:, : config["num_select"]]
    labels = labels_of(model, pixels)
    shown = set()
    for cell in best[0]:
        row, column = divmod(int(cell), logits.shape[2])
        if chances[0, cell] <= config["conf_threshold"]:
            continue
        assert config["classes"][column] == CLASSES.names[column - 1]
        inside = labels == column
        assert ((masks[0, row] > 0) == inside).mean() > 0.999
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        x, y, width, height = boxes[0, row] * SIDE
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        expected = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert np.allclose(box, expected, atol=1.01)
        shown.add(column)
    absent = set(range(1, 4)) - set(np.unique(labels).tolist())
    assert shown
    assert not shown & absent


def test_what_cannot_be_exported_is_said(model, tmp_path):
    with pytest.raises(ConfigError, match="reads"):
        export_for(ProgramConfig(program="deepness"), model, tmp_path / "m.pt2")
    with pytest.raises(ConfigError, match="does not segment"):
        export_for(ProgramConfig(program="deepness"), trained("mctformer"), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
