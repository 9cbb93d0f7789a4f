"""Exported files say what PyTorch says, at any size, and carry what is needed to read them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import tagmask
from tagmask.backbones.bands import with_bands
from tagmask.cli.main import app
from tagmask.data.levels import Reading
from tagmask.data.readers.pixels import PixelInfo
from tagmask.engine.compute import Compute
from tagmask.errors import CheckpointError, ConfigError
from tagmask.export.module import Levels, TakeAway
from tagmask.export.programs import ProgramConfig, export_for
from tagmask.export.write import ExportConfig, _traced, export_model, read_metadata, run_onnx
from tagmask.inference.predictor import Predictor, Use
from tagmask.inference.reading import read_by
from tagmask.inference.views import MapConfig, image_maps, image_scores, image_tags
from tagmask.methods.base import SegmentationViews
from tagmask.models.trained import build_method, save_method
from tagmask.ops.images import unit
from tagmask.ops.resize import resize_positions, resize_positions_traced
from tests.contract.test_methods import TINY
from tests.docs.blocks import ROOT
from tests.unit.export.cases import CASES, CLASSES, MORE, SIZES, traced, trained


@pytest.mark.parametrize("case", CASES)
def test_the_exported_view_is_what_the_stages_make_of_one_view(case):
    from tagmask.engine.runtime import Runtime

    method = trained(case).method
    runtime = Runtime.create("cpu", "fp32", None)
    model = TakeAway(method, None, 0.5)
    images = torch.rand(2, 3, 80, 96)  # Conformer's pages ask for whole patches
    with torch.no_grad():
        found = dict(zip(model.outputs, model(images), strict=True))
    if method.segments:
        want = image_scores(method, images, runtime, SegmentationViews())
        assert torch.equal(found["scores"], want)
        assert torch.equal(found["labels"].long(), want.argmax(1))
    if method.map_kinds and case not in ("transcam",):  # whose own plan changes the shape of images
        kind = method.map_kinds[0]
        config = MapConfig(kinds=(kind,), scales=(1.0,), flip="none")
        want = image_maps(method, images, runtime, config)[kind]
        assert torch.allclose(found[kind], want.clamp_min(0), atol=1e-6)


@pytest.mark.parametrize("case", ["transcam", "aream on Conformer"])
def test_tags_are_recognised_in_images_of_any_size(case):
    from tagmask.engine.runtime import Runtime

    method, images = trained(case).method, torch.rand(2, 3, 75, 90)
    found = image_tags(method, images, Runtime.create("cpu", "fp32", None), "classifier")
    with torch.no_grad():
        logits = TakeAway(method, None, 0.5)(images)[0]
    assert torch.equal(found, (logits > 0).float())


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_method_exports_to_what_pytorch_says(case, tmp_path, monkeypatch):
    monkeypatch.setattr("tagmask.export.write._traced", lambda _: traced(case))
    model = trained(case)
    for kind, ending in (("torch", ".pt2"), ("onnx", ".onnx")):
        out = tmp_path / kind / f"model{ending}"
        found = export_model(ExportConfig(format=kind, check_sizes=SIZES), model, out)
        assert set(found["check"]) == set(found["outputs"])
        assert max(found["check"].values()) <= 1e-4
        assert read_metadata(out)["classes"] == ["background", "cat", "dog", "sofa"]
        assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (3, 7), (9, 2)])
def test_traced_positions_are_those_of_the_eager_path(size):
    rows = torch.randn(1, 16, 6, generator=torch.Generator().manual_seed(0))
    traced = resize_positions_traced(rows, size, (4, 4), 0.1, torch.tensor(False))
    assert torch.allclose(traced, resize_positions(rows, size, (4, 4), offset=0.1), atol=1e-5)
    if size == (4, 4):
        assert torch.equal(resize_positions_traced(rows, size, (4, 4), 0.1, torch.tensor(True)), rows)


def test_what_cannot_be_exported_is_told(tmp_path):
    torch.manual_seed(0)
    pairs = build_method("affinity_net", TINY["affinity_net"], 3)
    with pytest.raises(ConfigError, match="random walk"):
        TakeAway(pairs, None, 0.5)
    with pytest.raises(ConfigError, match="'walk' maps are not made from one view"):
        TakeAway(trained("afa").method, ("walk",), 0.5)
    with pytest.raises(ConfigError, match="needs one kind of maps"):
        TakeAway(trained("psa").method, (), 0.5)
    with pytest.raises(ConfigError, match=r"end in \.onnx"):
        export_model(ExportConfig(), trained("psa"), tmp_path / "model.pt2")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A tiny MoRe as ONNX file, made by the command."""
    folder = tmp_path_factory.mktemp("exported")
    model = trained("more")
    save_method(folder / "model", model.method, "more", CLASSES, {"miou": 0.5}, {})
    out = folder / "there" / "model.onnx"
    with pytest.MonkeyPatch.context() as patch:  # the same weights were read back, so the graph is the same
        patch.setattr("tagmask.export.write._traced", lambda _: traced("more"))
        result = CliRunner().invoke(app, ["export", str(folder / "model"), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "largest difference from PyTorch at 64 x 64" in result.output
    return out


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["zeroed", "cut", "swapped"])
def test_a_damaged_file_is_named(exported, tmp_path, damage):
    content, path = exported.read_bytes(), tmp_path / "model.onnx"
    damaged = {"zeroed": bytes(len(content)), "cut": content[:-100], "swapped": b"\x08\x01"}
    path.write_bytes(damaged[damage])
    with pytest.raises(CheckpointError, match=r"model\.onnx is no exported model"):
        read_metadata(path)


@pytest.mark.slow
def test_the_file_carries_what_reads_it(exported):
    about = read_metadata(exported)
    assert about["outputs"] == ["tag_logits", "cam", "scores", "labels"]
    assert about["palette"][:2] == [[0, 0, 0], [230, 159, 0]]
    assert about["settings"]["backbone"] == MORE["backbone"]
    assert about["metrics"] == {"miou": 0.5}
    assert json.dumps(about)


@pytest.mark.slow
def test_the_example_runs_where_there_is_nothing_but_the_file(exported, tmp_path):
    """NumPy, ONNX Runtime and Pillow only: an import of anything else of ours fails."""
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(exported, alone / "model.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (75, 101, 3), dtype=np.uint8)
    picture = tmp_path / "picture.png"
    Image.fromarray(pixels).save(picture)
    script = ROOT / "examples" / "onnx_only.py"
    block = "import sys; sys.modules.update(dict.fromkeys(['torch', 'tagmask', 'timm']));"
    code = f"{block} import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for extra in ([], ["--tags", "dog"]):
        words = [sys.executable, "-c", code, str(script), "model.onnx", str(picture), *extra]
        subprocess.run(words, cwd=alone, env=environment, check=True, timeout=300)
        mask = np.array(Image.open(alone / "picture.png"))
        model = tagmask.load(exported.parent.parent / "model", device="cpu")
        want = model.predict(pixels, tags=["dog"] if extra else None).mask
        assert (mask == want).mean() > 0.999


@pytest.mark.slow
def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch):
    def wrong(path):
        module = torch.export.load(path).module()
        return lambda images: [value + 1 for value in module(images)]

    monkeypatch.setattr("tagmask.export.write._run_torch", wrong)
    monkeypatch.setattr("tagmask.export.write._traced", lambda _: traced("psa"))
    with pytest.raises(CheckpointError, match=r"in tag_logits.* by 1 for 1 image of 64 x 64 pixels"):
        export_model(ExportConfig(format="torch"), trained("psa"), tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "kind"), [("m.pt2", "torch"), ("m.onnx", "onnx")])
def test_the_ending_tells_the_format(monkeypatch, tmp_path, name, kind):
    asked = []

    def note(config, trained, out):
        asked.append(config.format)
        out.write_bytes(b"")
        return {"outputs": ["labels"], "check": {"labels": 0.0}}

    monkeypatch.setattr("tagmask.export.write.export_model", note)
    monkeypatch.setattr("tagmask.models.trained.load_trained", lambda path: None)
    result = CliRunner().invoke(app, ["export", str(tmp_path), "--out", str(tmp_path / name)])
    assert result.exit_code == 0, result.output
    assert asked == [kind]


def five_bands(case="more"):
    """A model of five bands with ranges of their own, and a picture with a hole."""
    model = trained(case)
    with_bands(model.method, 5)
    ends = tuple((100.0 * band, 1000.0 + 300 * band) for band in range(5))
    reading = Reading((5, 1, 2, 3, 4), ends, True, "by hand")
    pixels = np.random.default_rng(0).normal(700, 500, (5, 75, 101)).astype(np.float32)
    pixels[:, 10:20, 30:50] = np.nan
    return replace(model, reading=reading), pixels


def test_levels_in_the_graph_are_those_of_the_reader():
    model, pixels = five_bands()
    chosen = torch.from_numpy(pixels[[band - 1 for band in model.reading.bands]])
    want = model.reading.levels(pixels, PixelInfo(None, 5), "a")
    found = Levels(model.reading.fixed)(chosen[None])[0].permute(1, 2, 0)
    assert torch.equal(found, unit(torch.from_numpy(want)))
    assert Reading(None, "file").fixed is None
    assert Reading((1, 2), ((0, 1), (2, 3))).fixed == ((0, 1), (2, 3), (0, 1))


@pytest.mark.slow
def test_a_file_of_five_bands_takes_numbers_and_says_what_predict_says(tmp_path, monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    model, pixels = five_bands("segmenter on a ViT")  # the shortest graph that gives masks
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="separate")
    predictor = Predictor.of(model, Compute.choose("cpu"), Use(views=SegmentationViews()))
    want = predictor.predict(read_by(model.reading, path)).mask
    assert len(np.unique(want)) > 1
    # Both formats are written from the same trace, which takes longest.
    traces = []
    monkeypatch.setattr(
        "tagmask.export.write._traced",
        lambda made: traces[0] if traces else traces.append(_traced(made)) or traces[0],
    )
    images = torch.from_numpy(pixels[[band - 1 for band in model.reading.bands]])[None]
    for kind, ending in (("torch", ".pt2"), ("onnx", ".onnx")):
        out = tmp_path / f"model{ending}"
        export_model(ExportConfig(format=kind), model, out)
        assert "numbers of the bands" in read_metadata(out)["input"]
        assert Reading.from_values(read_metadata(out)["pixels"]) == model.reading
        run = run_onnx(out) if kind == "onnx" else torch.export.load(out).module()
        assert (run(images)[-1][0].numpy() == want).mean() > 0.999


def test_programs_that_give_colours_take_no_model_of_five_bands(tmp_path):
    with pytest.raises(ConfigError, match="gives red, green and blue, and more wants 5 bands"):
        export_for(ProgramConfig(program="deepness"), five_bands()[0], tmp_path / "a.onnx")
