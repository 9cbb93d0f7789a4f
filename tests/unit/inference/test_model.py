"""A model in Python: what may be asked, what comes back, and that nothing else in the program changes."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import signal
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.engine.compute import Compute
from tagmask.errors import ConfigError, DataError
from tagmask.model import Model, load
from tagmask.models.trained import build_method, save_method
from tagmask.store.labels import read_mask
from tests.contract.test_methods import TINY
from tests.seams.pictures import CLASSES
from tests.seams.pixel import PixelMaps, chart, trained
from tests.seams.test_one_way import BlockSegmenter, picture

CPU = Compute.choose("cpu")


@pytest.fixture
def model():
    return Model(trained(), CPU)


def test_every_form_of_an_image_gives_the_same(model, tmp_path, monkeypatch):
    pixels, labels = chart((40, 56))
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    monkeypatch.setenv("HOME", str(tmp_path))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    content = path.read_bytes()
    palette = Image.fromarray(pixels).quantize(16)
    forms = [
        path, str(path), "~/a.png", pixels, pixels[:, ::-1][:, ::-1], tensor, tensor / 255, tensor[None],
        Image.fromarray(pixels), palette, content, bytearray(content), memoryview(content),
        io.BytesIO(content),
    ]  # fmt: skip
    for form in forms:
        assert np.array_equal(model.predict(form).mask, labels)
    with path.open("rb") as file:
        assert model(file).path == path
    several = model.predict(forms[:5])
    assert isinstance(several, list)
    assert [result.path for result in several] == [path, path, path, None, None]
    assert all(np.array_equal(result.mask, labels) for result in several)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, "an image is a path"),
        (np.zeros((4, 4), np.uint8), "RGB"),
        (np.zeros((4, 4, 3), np.float32), "uint8"),
        (torch.full((3, 4, 4), 2.0), "not normalised"),
        (torch.full((3, 4, 4), float("nan")), "not normalised"),
        (torch.zeros(4, 4, 3), "tensor is one RGB image"),
        (b"", "is empty"),
        (io.StringIO("x"), "open it for bytes"),
        (Image.new("I;16", (4, 4)), "more than 8 bits"),
        (".", "predict_iter"),
        ("~/nobody-has-this.png", "does not exist"),
    ],
)
def test_what_is_no_image_is_refused(model, given, said):
    with pytest.raises(DataError, match=said):
        model.predict(given)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2)])
@pytest.mark.parametrize("name", ["more", "mctformer", "weaktr", "afa", "psa"])
def test_the_smallest_pictures_are_predicted(name, size):
    torch.manual_seed(0)
    method = build_method(name, TINY[name], 3).eval()
    result = Model.from_method(method, CLASSES).predict(np.full((*size, 3), 99, np.uint8), [CLASSES[0]])
    assert result.mask.shape == size
    assert all(maps.shape == (1, *size) for maps in result.maps.values())


@pytest.mark.parametrize(
    ("tags", "said"),
    [([1], "names of classes, got 1"), ("first", "list"), (["frist"], "first"), ([None], "names of classes")],
)
def test_wrong_tags_are_refused(model, tags, said):
    with pytest.raises(DataError, match=said):
        model.predict(chart((40, 56))[0], tags)


def test_a_list_takes_tags_for_all_or_for_each(model):
    pixels, labels = chart((40, 56))
    first, second = model.predict([pixels, pixels], ["third"])
    assert first.present == second.present == ("third",)
    first, second = model.predict([pixels, pixels], [["third"], None])
    assert first.present == ("third",)
    assert np.array_equal(second.mask, labels)
    assert model.predict([]) == []
    with pytest.raises(DataError, match="2 images need"):
        model.predict([pixels, pixels], [["third"]])


def test_options_are_those_of_the_command():
    own, pixels = trained(BlockSegmenter), picture((40, 150))
    model = Model(own, CPU)
    plain = model.predict(pixels)
    assert not np.array_equal(model.predict(pixels, tile=64).mask, plain.mask)
    assert not np.array_equal(model.predict(pixels, max_side=64).mask, plain.mask)
    assert not np.array_equal(model.predict(pixels, scales=(0.5,)).mask, plain.mask)
    assert np.array_equal(model.predict(pixels, flip="none", batch_size=1).mask, plain.mask)
    assert model.predict(pixels, crf="afa").mask.shape == plain.mask.shape
    assert model.predict(pixels, maps=False).maps == {}
    assert list(model.predict(pixels, maps="cam").maps) == ["cam"]
    maps = Model(trained(PixelMaps, background=0.3), CPU)
    assert maps.predict(pixels, list(CLASSES), background=1.0).present == ()
    for wrong, said in (
        ({"tiles": 3}, "tile"), ({"background": 2}, "0 to 1"), ({"maps": ["lam"]}, "lam"),
        ({"tile": 3}, "tile"), ({"crf": "no"}, "crf|CRF"), ({"flip": "max"}, "flip"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            model.predict(pixels, **wrong)


def test_a_result_says_what_it_is(model, tmp_path):
    pixels, labels = chart((40, 56))
    result = model.predict(pixels, ["third", "first"])
    assert result.classes == tuple(CLASSES)
    assert set(result.present) == {"first", "third"}
    for label in np.unique(result.mask):
        assert label == 0 or result.classes[label - 1] in result.present
    assert result.confidence.shape == labels.shape
    assert 0 < result.confidence.min() <= result.confidence.max() <= 1
    assert list(result.tag_scores) == list(CLASSES)
    assert repr(result) == "Result(56 x 40 px, first, third)"
    assert "\n" not in repr(result)
    assert result != model.predict(pixels, ["third", "first"])
    assert result._repr_html_().startswith("<figure")
    said = json.loads(json.dumps(result.to_dict()))
    assert said["present"] == list(result.present)
    assert sum(said["shares"].values()) == pytest.approx(1, abs=1e-4)
    assert result.plot().axes


def test_outlines_enclose_what_the_mask_holds(model):
    mask = np.zeros((20, 30), np.uint8)
    mask[3:9, 4:12] = 2
    mask[5:7, 6:8] = 0
    mask[12:15, 20:30] = 2
    result = model.predict(np.zeros((20, 30, 3), np.uint8))
    object.__setattr__(result, "mask", mask)
    (regions,) = result.polygons().values()
    assert list(result.polygons()) == [CLASSES[1]]
    assert sorted(len(rings) for rings in regions) == [1, 2]

    def area(ring):
        x, y = ring.T
        return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2

    covered = sum(area(rings[0]) - sum(map(area, rings[1:])) for rings in regions)
    assert covered == pytest.approx((mask == 2).sum(), abs=2)  # corners are cut
    outer = np.concatenate([rings[0] for rings in regions])
    assert outer.min(0).tolist() == [4, 3]
    assert outer.max(0).tolist() == [30, 15]


def test_a_result_is_saved_by_its_ending(model, tmp_path):
    result = model.predict(chart((40, 56))[0])
    assert np.array_equal(read_mask(result.save(tmp_path / "a.png")), result.mask)
    assert json.loads(result.save(tmp_path / "a.json").read_text(encoding="utf-8")) == result.to_dict()
    with np.load(result.save(tmp_path / "a.npz")) as arrays:
        assert np.array_equal(arrays["mask"], result.mask)
        assert np.array_equal(arrays["cam"], result.maps["cam"])
    folder = result.save(tmp_path / "all")
    assert {p.name for p in folder.iterdir()} == {"mask.png", "overlay.png", "cam.npz"}
    for name in ("a.jpg", "a.tif"):
        with pytest.raises(DataError, match="ending"):
            result.save(tmp_path / name)
        assert not (tmp_path / name).exists()


def test_detections_need_their_package(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ConfigError, match="supervision"):
        model.predict(chart((40, 56))[0]).to_supervision()


def test_many_pictures_come_one_after_the_other(model, tmp_path, caplog):
    pixels, labels = chart((40, 56))
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        Image.fromarray(pixels).save(tmp_path / "in" / f"{name}.png")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(tmp_path / "in" / "a.png", "a.png")
    Image.fromarray(pixels).save(
        tmp_path / "film.gif", save_all=True, append_images=[Image.fromarray(pixels[::-1])]
    )
    counts = {
        tmp_path / "in": 2,
        tmp_path / "in.zip": 1,
        tmp_path / "film.gif": 2,
        tmp_path / "in" / "a.png": 1,
    }
    for source, count in counts.items():
        results = list(model.predict_iter(tmp_path / source))
        assert len(results) == count
        assert np.array_equal(results[0].mask, labels)
    assert len(list(model.predict_iter(iter([pixels, tmp_path / "in" / "a.png"])))) == 2
    (tmp_path / "in" / "aa.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"aa\.png"):
        list(model.predict_iter(tmp_path / "in"))
    with caplog.at_level(logging.WARNING, "tagmask"):
        assert len(list(model.predict_iter(tmp_path / "in", errors="skip"))) == 2
        assert len(list(model.predict_iter([pixels, 3], errors="skip"))) == 1
    assert sum("left out" in record.message for record in caplog.records) == 2
    with pytest.raises(ConfigError, match="raise"):
        model.predict_iter([pixels], errors="ignore")


def test_the_device_is_chosen_and_told(model):
    assert model.device == torch.device("cpu")
    assert model.to("cpu") is model
    with pytest.raises(ConfigError, match="not here"):
        model.to(99)


def test_eight_threads_get_what_one_gets():
    torch.manual_seed(0)
    method = build_method("more", TINY["more"], 3).eval()
    model = Model.from_method(method, CLASSES)
    pictures = [picture((33 + 7 * i, 64)) for i in range(4)]
    alone = [model.predict(one) for one in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(model.predict, pictures * 4))
    for i, result in enumerate(together):
        assert np.array_equal(result.mask, alone[i % 4].mask)
        for kind, maps in result.maps.items():
            assert np.array_equal(maps, alone[i % 4].maps[kind])


def test_two_precisions_live_side_by_side():
    torch.manual_seed(0)
    method = build_method("more", TINY["more"], 3).eval()
    full, half = (Model.from_method(method, CLASSES, precision=p) for p in ("fp32", "bf16"))
    pixels = picture((64, 64))
    first = full.predict(pixels, list(CLASSES))
    other = half.predict(pixels, list(CLASSES))
    again = full.predict(pixels, list(CLASSES))
    kind = next(iter(first.maps))
    assert np.array_equal(first.maps[kind], again.maps[kind])
    assert not np.array_equal(first.maps[kind], other.maps[kind])


def state():
    """What a library must leave alone."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    root = logging.getLogger()
    return {
        "products": torch.get_float32_matmul_precision(),
        "tf32": (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
        "logging": (list(root.handlers), root.level),
        "signals": handlers,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
    }


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_nothing_else_changes(tmp_path, precision):
    torch.manual_seed(0)
    method = build_method("more", TINY["more"], 3).eval()
    saved = trained()
    save_method(tmp_path, method, "more", saved.classes, {}, {})
    before = state()
    torch.set_float32_matmul_precision("medium")
    try:
        model = load(tmp_path, "cpu", precision)
        model.predict(picture((40, 40)))
        list(model.predict_iter([picture((40, 40))]))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before["products"])
    assert state() == before


OPTIONAL = (
    *("accelerate", "matplotlib", "pandas", "ray", "supervision", "onnx", "onnxruntime", "starlette"),
    *("uvicorn", "fiftyone", "cvat_sdk", "transformers", "datasets", "pyarrow", "wandb", "mlflow"),
    *("tensorboard", "tifffile", "rasterio", "nibabel", "pydicom", "highdicom", "openslide", "pillow_heif"),
)
"""What only some uses need, extras included."""


def test_what_is_not_needed_is_not_imported(tmp_path):
    torch.manual_seed(0)
    save_method(tmp_path, build_method("more", TINY["more"], 3), "more", trained().classes, {}, {})
    code = (
        "import sys, tagmask\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        f"model = tagmask.load({str(tmp_path)!r}, 'cpu')\n"
        "import numpy as np\n"
        "model.predict(np.zeros((40, 40, 3), np.uint8))\n"
        f"found = set({OPTIONAL!r}) & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(tmp_path, "weights.safetensors").exists()
