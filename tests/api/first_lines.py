"""The lines people type first, each with what it gives; strict type checking finds nothing wrong in them."""

# ruff: noqa: NPY002, PT017 (as people write them)

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import tagmask
from tagmask.losses import dense_energy_loss, mean_cross_entropy, multilabel_soft_margin
from tagmask.methods import create_method, list_methods
from tagmask.metrics import ConfusionMatrix, mean_iou
from tagmask.ops import (
    class_maps,
    dense_crf,
    multi_scale,
    par,
    propagate,
    transition,
    unary_from_probabilities,
)


@dataclass(frozen=True)
class Place:
    """Where the lines are typed: a data set, a trained run, a folder to write into."""

    data: Path
    run: Path
    out: Path

    @property
    def image(self) -> Path:
        """One image of the data set."""
        return self.data / "images" / "00012.png"


SMALL: dict[str, Any] = {
    "model": {"backbone": "vit:patch=8,dim=32,depth=2,heads=2,size=64", "weights": "none", "aux_block": -2},
    "train": {"size": 64, "batch_size": 2, "eval_every": 0, "tensorboard": False},
    "localize": {"kinds": ["cam"]},
    "refine": {"maps": "cam"},
    "runtime": {"device": "cpu", "threads": 1},
}


def load(place: Place) -> None:
    model = tagmask.load(place.run)
    assert model.classes == ("stripes", "dots", "checker", "rings", "marble")


def load_on_a_device(place: Place) -> None:
    assert tagmask.load(place.run, device="cpu").device == torch.device("cpu")


def move(place: Place) -> None:
    assert tagmask.load(place.run).to("cpu").device.type == "cpu"


def predict_a_path(place: Place) -> None:
    assert tagmask.load(place.run).predict(place.image).mask.shape == (64, 64)


def predict_a_text(place: Place) -> None:
    assert tagmask.load(place.run).predict(str(place.image)).mask.dtype == np.uint8


def predict_pillow(place: Place) -> None:
    assert tagmask.load(place.run).predict(Image.open(place.image)).mask.shape == (64, 64)


def predict_an_array(place: Place) -> None:
    assert tagmask.load(place.run).predict(np.zeros((40, 50, 3), np.uint8)).mask.shape == (40, 50)


def predict_bytes(place: Place) -> None:
    assert tagmask.load(place.run).predict(place.image.read_bytes()).mask.shape == (64, 64)


def predict_a_file(place: Place) -> None:
    assert tagmask.load(place.run).predict(io.BytesIO(place.image.read_bytes())).mask.shape == (64, 64)


def predict_a_list(place: Place) -> None:
    results = tagmask.load(place.run).predict([place.image, place.image])
    assert len(results) == 2


def call(place: Place) -> None:
    model = tagmask.load(place.run)
    assert np.array_equal(model(place.image).mask, model.predict(place.image).mask)


def predict_a_folder(place: Place) -> None:
    assert sum(1 for _ in tagmask.load(place.run).predict_iter(place.data / "images")) == 16


def predict_with_tags(place: Place) -> None:
    assert set(tagmask.load(place.run).predict(place.image, tags=["dots"]).present) <= {"dots"}


def print_a_result(place: Place) -> None:
    assert "\n" not in repr(tagmask.load(place.run).predict(place.image))


def save_a_result(place: Place) -> None:
    assert tagmask.load(place.run).predict(place.image).save(place.out / "mask.png").is_file()


def result_as_values(place: Place) -> None:
    assert isinstance(tagmask.load(place.run).predict(place.image).to_dict(), dict)


def train(place: Place) -> None:
    model = tagmask.train(
        place.data, method="more", out=place.out / "run", iterations=1, settings=SMALL, progress=False
    )
    assert model.classes[0] == "stripes"


def train_with_a_callback(place: Place) -> None:
    tagmask.train(
        place.data,
        method="more",
        out=place.out / "stopped",
        iterations=1,
        settings=SMALL,
        callbacks=[tagmask.EarlyStop(patience=3)],
        progress=False,
    )


def train_with_tags_of_a_program(place: Place) -> None:
    tags = {"00000.png": ["dots"], "00001.png": ["rings"], "00002.png": ["dots", "rings"]}
    model = tagmask.train(
        place.data,
        tags=tags,
        method="more",
        out=place.out / "tags",
        iterations=1,
        settings=SMALL,
        progress=False,
    )
    assert set(model.classes) >= {"dots", "rings"}


def resume(place: Place) -> None:
    assert tagmask.train(out=place.run, resume=True, progress=False).classes[0] == "stripes"


def run_a_recipe(place: Place) -> None:
    run = tagmask.run(place.run, until="segment", progress=False)
    assert (run.folder / "masks").is_dir()


def localize(place: Place) -> None:
    run = tagmask.localize(place.run, maps="cam", progress=False)
    assert (run.folder / "maps" / "cam").is_dir()


def evaluate(place: Place) -> None:
    tagmask.segment(place.run, progress=False)
    assert 0 <= tagmask.evaluate(place.run, what="segmentation", progress=False).scores["segmentation"] <= 1


def settings(place: Place) -> None:
    config = tagmask.read_config("small", {"train": {"iterations": 5}})
    assert (config.train.iterations, config.train.batch_size) == (5, 16)


def open_data(place: Place) -> None:
    assert len(tagmask.open_dataset(place.data)) == 16


def open_a_split(place: Place) -> None:
    data = tagmask.open_dataset(place.data, "folder", "val", masks=True)
    assert data.mask(0).shape == (64, 64)


def check(place: Place) -> None:
    assert tagmask.check_data(place.data).ok


def methods_by_filter(place: Place) -> None:
    assert list_methods("*tag*") == []
    assert "more" in list_methods()


def a_method(place: Place) -> None:
    method = create_method("more", 3, **SMALL["model"])
    assert method.classify(torch.rand(1, 3, 64, 64)).shape == (1, 3)


def save_a_method(place: Place) -> None:
    model = tagmask.Model.from_method(create_method("more", 1, **SMALL["model"]), ["cat"])
    assert tagmask.load(model.save(place.out / "model"), device="cpu").classes == ("cat",)


def refine_with_arrays(place: Place) -> None:
    refined = par(np.random.rand(1, 3, 16, 16).astype(np.float32), np.random.rand(1, 2, 16, 16))
    assert isinstance(refined, np.ndarray)


def refine_with_tensors(place: Place) -> None:
    assert isinstance(par(torch.rand(1, 3, 16, 16), torch.rand(1, 2, 16, 16)), torch.Tensor)


def clean_with_a_crf(place: Place) -> None:
    probabilities = np.full((2, 16, 16), 0.5)
    cleaned = dense_crf(
        np.zeros((16, 16, 3), np.uint8), unary_from_probabilities(probabilities), params="more"
    )
    assert np.allclose(cleaned.sum(0), 1)


def several_scales(place: Place) -> None:
    maps = multi_scale(lambda views: views[:, :2], torch.rand(1, 3, 16, 16), scales=(0.5, 1.0), flip="max")
    assert maps.shape == (1, 2, 16, 16)


def walk(place: Place) -> None:
    assert propagate(np.random.rand(1, 2, 4, 4), transition(np.random.rand(1, 16, 16))).shape == (1, 2, 4, 4)


def activation_maps(place: Place) -> None:
    assert class_maps(torch.rand(1, 8, 4, 4), torch.rand(5, 8)).shape == (1, 5, 4, 4)


def score(place: Place) -> None:
    assert mean_iou(np.array([[0, 1]]), np.array([[0, 1]]), num_classes=2) == 1.0


def score_a_set(place: Place) -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(preds=torch.tensor([0, 1]), target=torch.tensor([0, 1]))
    assert (matrix + matrix).compute().miou == 1.0
    matrix.reset()


def loss_of_tags(place: Place) -> None:
    assert multilabel_soft_margin(torch.zeros(2, 3), torch.ones(2, 3)) > 0


def loss_of_labels(place: Place) -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    assert mean_cross_entropy(torch.zeros(1, 2, 8, 8), labels, ignore_index=255) > 0
    assert dense_energy_loss(torch.zeros(1, 2, 8, 8), torch.rand(1, 3, 8, 8), labels) <= 0


def parts_by_attribute(place: Place) -> None:
    assert tagmask.losses.pixel_cross_entropy is not None
    assert tagmask.heads.SegFormerHead is not None
    assert tagmask.backbones.ViT is not None


def an_error_to_catch(place: Place) -> None:
    try:
        tagmask.load(place.out / "nowhere")
    except tagmask.UserError as error:
        assert "--" not in str(error)
    else:
        raise AssertionError("nothing was raised")


LINES: tuple[Callable[[Place], None], ...] = (
    load, load_on_a_device, move, predict_a_path, predict_a_text, predict_pillow, predict_an_array,
    predict_bytes, predict_a_file, predict_a_list, call, predict_a_folder, predict_with_tags,
    print_a_result, save_a_result, result_as_values, train, train_with_a_callback,
    train_with_tags_of_a_program, resume, run_a_recipe, localize, evaluate, settings, open_data,
    open_a_split, check, methods_by_filter, a_method, save_a_method, refine_with_arrays,
    refine_with_tensors, clean_with_a_crf, several_scales, walk, activation_maps, score, score_a_set,
    loss_of_tags, loss_of_labels, parts_by_attribute, an_error_to_catch,
)  # fmt: skip
