"""Parts for researchers: public modules, registries, a loop of one's own."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tagmask
from tagmask import data, losses, methods, metrics, ops
from tagmask.backbones import register_backbone
from tagmask.methods import Method, MethodConfig, create_method, list_methods, register_method
from tagmask.types import Batch, OptimPlan, ParamGroup, StepResult
from tests.toy import toy_root

PARTS = ("backbones", "data", "heads", "losses", "methods", "metrics", "ops")


@pytest.mark.parametrize("name", PARTS)
def test_a_part_holds_what_it_promises_and_nothing_by_another_name(name):
    part = getattr(tagmask, name)
    assert len(set(part.__all__)) == len(part.__all__)
    for public in part.__all__:
        assert getattr(part, public) is not None, public
    modules = {module.name for module in pkgutil.iter_modules(part.__path__)}
    # A module of a public name would take its place as soon as someone imports it; `par` is the old one.
    assert modules & set(part.__all__) <= {"par"}
    with pytest.raises(AttributeError, match="nonsense"):
        _ = part.nonsense


def test_importing_parts_loads_no_pytorch():
    code = f"import sys, tagmask; [getattr(tagmask, n) for n in {PARTS}]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_function_par_is_found_even_after_the_old_module():
    from tagmask.ops import par

    rng = np.random.default_rng(0)
    images, maps = rng.random((1, 3, 12, 10), np.float32), rng.random((1, 2, 12, 10), np.float32)
    expected = par(images, maps)
    with pytest.warns(FutureWarning, match=r"tagmask\.ops\.par\.par_kernel is now tagmask\.ops\.pixel_ref"):
        old = importlib.import_module("tagmask.ops.par").par_kernel
    assert old is importlib.import_module("tagmask.ops.pixel_refinement").par_kernel
    assert np.array_equal(ops.par(images, maps), expected)


def cases() -> dict[str, tuple[Any, list[np.ndarray[Any, Any]]]]:
    """Every operation with arrays it takes."""
    rng = np.random.default_rng(0)
    images = rng.random((1, 3, 12, 10), np.float32)
    maps = rng.random((1, 2, 12, 10), np.float32)
    pixels = (rng.random((12, 10, 3)) * 255).astype(np.uint8)
    labels = rng.integers(0, 3, (12, 10))
    tags = np.ones((1, 2), np.float32)
    return {
        "par": (ops.par, [images, maps]),
        "dense_crf": (ops.dense_crf, [pixels, maps[0]]),
        "crf_on_labels": (lambda a, b: ops.crf_on_labels(a, b, 3, "label_50_5"), [pixels, labels]),
        "unary_from_probabilities": (ops.unary_from_probabilities, [maps[0]]),
        "unary_from_labels": (lambda a: ops.unary_from_labels(a, 3), [labels]),
        "multi_scale": (lambda a: ops.multi_scale(lambda x: x[:, :2], a, scales=(0.5, 1.0)), [images]),
        "transition": (ops.transition, [rng.random((1, 12, 12), np.float32)]),
        "propagate": (ops.propagate, [maps[:, :, :4, :3], rng.random((1, 12, 12), np.float32)]),
        "affinity_labels": (ops.affinity_labels, [labels[None, :4, :4]]),
        "class_maps": (ops.class_maps, [images, rng.random((5, 3), np.float32)]),
        "keep_present": (ops.keep_present, [maps, tags]),
        "min_max": (ops.min_max, [maps]),
        "fuse": (ops.fuse, [maps, maps]),
        "labels_from_maps": (lambda a, b: ops.labels_from_maps(a, b, 0.5), [maps, tags]),
        "labels_with_ignore": (lambda a, b: ops.labels_with_ignore(a, b, 0.6, 0.4), [maps, tags]),
    }


def test_every_operation_is_among_the_cases():
    functions = {name for name in ops.__all__ if callable(getattr(ops, name)) and name[0].islower()}
    assert functions == set(cases())


@pytest.mark.parametrize("name", cases())
def test_arrays_give_arrays_and_tensors_tensors_with_the_same_values(name):
    fn, arrays = cases()[name]
    from_arrays = fn(*arrays)
    from_tensors = fn(*(torch.from_numpy(array) for array in arrays))
    assert isinstance(from_arrays, np.ndarray)
    assert isinstance(from_tensors, torch.Tensor)
    assert np.array_equal(from_arrays, from_tensors.numpy())
    mirrored = [array[..., ::-1] for array in arrays]
    for array in mirrored:
        array.flags.writeable = False
    assert isinstance(fn(*mirrored), np.ndarray)
    with pytest.raises(TypeError, match="must be a PyTorch tensor or a NumPy array, got list"):
        fn(*([array.tolist() for array in arrays[:1]] + arrays[1:]))


GREY = np.zeros((1, 3, 8, 8), np.uint8)
ONE = np.zeros((1, 2, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ops.par(GREY, ONE), "divided by 255"),
        (lambda: ops.par(GREY[0].astype("f"), ONE), r"\(B, C, H, W\)"),
        (lambda: ops.multi_scale(lambda x: x, GREY), "divided by 255"),
        (lambda: ops.multi_scale(lambda x: x, GREY / 255, scales=()), "scales"),
        (lambda: ops.dense_crf(np.zeros((8, 8, 3)), ONE[0]), r"uint8 \(H, W, 3\), got torch.float64"),
        (lambda: ops.dense_crf(np.zeros((8, 8, 3), np.uint8), ONE), r"\(K, 8, 8\)"),
        (lambda: ops.transition(-np.ones((1, 4, 4))), "at least 0"),
        (lambda: ops.transition(np.ones((1, 4, 5))), r"\(B, N, N\)"),
        (lambda: ops.propagate(ONE, np.ones((1, 4, 4))), "do not fit a walk"),
        (lambda: ops.class_maps(ONE, np.ones((3, 5))), "features must be"),
        (lambda: ops.labels_from_maps(ONE, np.ones((1, 3)), 0.5), "tags"),
        (lambda: metrics.mean_iou(np.zeros((2, 2)), np.zeros((2, 2), int), 2), "integer labels"),
        (lambda: metrics.mean_iou([[0]], np.zeros((1, 1), int), 2), "tensor or an array"),
        (lambda: metrics.mean_iou(np.full((2, 2), 7), np.zeros((2, 2), int), 2), "0 to 1"),
    ],
)
def test_sizes_and_ranges_are_checked_with_one_clear_error(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_presets_of_the_crf_by_name():
    pixels, unary = np.zeros((8, 8, 3), np.uint8), ONE[0]
    assert np.array_equal(ops.dense_crf(pixels, unary), ops.dense_crf(pixels, unary, ops.PRESETS["more"]))
    with pytest.raises(tagmask.ConfigError, match="Did you mean 'more'"):
        ops.dense_crf(pixels, unary, params="mroe")


@pytest.mark.parametrize("images", [torch.randn(1, 3, 8, 8), torch.full((1, 3, 8, 8), 200.0)])
def test_the_energy_loss_refuses_normalised_images_and_grey_levels(images):
    logits, labels = torch.randn(1, 2, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long)
    with pytest.raises(ValueError, match="between 0 and 1"):
        losses.dense_energy_loss(logits, images, labels)
    assert losses.dense_energy_loss(logits, torch.rand(1, 3, 8, 8), labels) <= 0


def test_metrics_as_others_call_them():
    preds, target = np.array([[0, 1], [1, 1]]), np.array([[0, 1], [0, 255]])
    matrix = metrics.ConfusionMatrix(2)
    matrix.update(preds=preds, target=torch.from_numpy(target))
    assert matrix.counts.tolist() == [[1, 1], [0, 1]]
    assert (matrix + matrix).counts.tolist() == [[2, 2], [0, 2]]
    assert sum([matrix, matrix], metrics.ConfusionMatrix(2)).counts.sum() == 6
    assert metrics.mean_iou(preds, target, num_classes=2) == matrix.compute().miou == pytest.approx(0.5)
    matrix.reset()
    assert matrix.counts.sum() == 0


def test_old_words_of_metrics_and_losses_warn_and_work():
    matrix = metrics.ConfusionMatrix(2)
    with pytest.warns(FutureWarning, match=r"target=\.\.\., preds=\.\.\."):
        matrix.update(np.array([0, 0]), np.array([0, 1]))  # truth first, as it was
    with pytest.warns(FutureWarning, match="truth= of"):
        matrix.update(truth=np.array([0]), preds=np.array([1]))
    assert matrix.counts.tolist() == [[1, 2], [0, 0]]
    with pytest.warns(FutureWarning, match="ignore= of"):
        metrics.ConfusionMatrix(2, ignore=7).update(preds=np.array([0]), target=np.array([7]))
    with pytest.warns(FutureWarning, match="ignore= of"):
        losses.pixel_cross_entropy(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long), ignore=3)
    with pytest.warns(FutureWarning, match="ignore_index"):
        assert data.ClassTable(("a",)).ignore == 255
    with pytest.raises(TypeError, match="both"):
        losses.pixel_cross_entropy(
            torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long), ignore=3, ignore_index=4
        )


class GapConfig(MethodConfig):
    """A classifier of one layer."""

    backbone: str = "none"
    weights: str = "none"
    width: int = 8
    """Channels."""


class Gap(Method):
    """One convolution and a pooled classifier."""

    config_class = GapConfig
    map_kinds = ("cam",)

    def __init__(self, config: GapConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        self.features = nn.Conv2d(3, config.width, 4, 4)
        self.head = nn.Linear(config.width, num_classes, bias=False)

    def forward(self, batch: Batch, step: int) -> StepResult:
        loss = losses.multilabel_soft_margin(self.classify(batch.images), batch.tags)
        return StepResult(loss, {"cls": loss.detach()})

    def classify(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images).relu().mean((2, 3)))

    def view_maps(self, images: torch.Tensor, kinds: Any) -> dict[str, torch.Tensor]:
        return {"cam": ops.class_maps(self.features(images).relu(), self.head.weight).detach()}

    def optim_plan(self, iterations: int) -> OptimPlan:
        return OptimPlan("adamw", [ParamGroup("all", list(self.parameters()), 1e-2, 0.0)], lambda step: 1.0)

    def initialise(self, weights: str) -> None:
        assert weights == "none"


@pytest.fixture
def clean(monkeypatch):
    monkeypatch.setattr(methods, "_REGISTERED", {})
    monkeypatch.setattr(data, "_REGISTERED", {})


def test_methods_by_filter_and_by_name():
    assert list_methods("mct*") == ["mctformer"]
    assert "more" in list_methods()
    method = create_method("more", 4, backbone="vit:patch=8,dim=32,depth=2,heads=2,size=32", aux_block=-2)
    assert method.num_classes == 4
    with pytest.raises(tagmask.ConfigError, match="Did you mean 'more'"):
        create_method("mroe", 4)
    with pytest.raises(tagmask.ConfigError, match="aux_block"):
        create_method("more", 4, aux_blok=3)
    with pytest.raises(tagmask.ConfigError, match="at least 1"):
        create_method("more", 0)


@pytest.mark.usefixtures("clean")
def test_a_class_of_a_notebook_is_a_method():
    assert register_method("mine")(Gap) is Gap
    assert "mine" in list_methods()
    assert isinstance(create_method("mine", 3, width=4), Gap)
    assert isinstance(create_method(Gap, 3), Gap)
    with pytest.raises(tagmask.ConfigError, match="already"):
        register_method("more")(Gap)
    with pytest.raises(tagmask.ConfigError, match="subclass"):
        register_method(nn.Linear)  # type: ignore[type-var]
    with pytest.raises(tagmask.ConfigError, match="lower-case"):
        register_method("My Method")(Gap)


@pytest.mark.usefixtures("clean")
def test_a_loop_of_ones_own_saves_and_predicts(tmp_path):
    opened = tagmask.open_dataset(toy_root(tmp_path), "folder", "train")
    method = create_method(Gap, opened.num_classes)
    batches = data.train_batches(opened, data.make_view("resized_crop", 32), batch_size=4, seed=0)
    optimizer = torch.optim.AdamW(method.parameters(), 1e-2)
    for step in range(3):
        loss = method(next(batches), step).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model = tagmask.Model.from_method(method, opened.classes)
    picture = opened.items[0].image
    mine = model.predict(picture, tags=["dots"])
    again = tagmask.load(model.save(tmp_path / "model"), device="cpu").predict(picture, tags=["dots"])
    assert np.array_equal(mine.mask, again.mask)
    assert np.array_equal(mine.maps["cam"], again.maps["cam"])
    with pytest.raises(tagmask.ConfigError, match="5 classes, got 1 names"):
        tagmask.Model.from_method(method, ["cat"])
    with pytest.raises(tagmask.ConfigError, match="instance of"):
        tagmask.Model.from_method(nn.Linear(1, 1), ["cat"])  # type: ignore[arg-type]


@pytest.mark.usefixtures("clean")
def test_a_model_of_a_class_that_is_not_registered_says_so(tmp_path):
    folder = tagmask.Model.from_method(create_method(Gap, 1), ["cat"]).save(tmp_path / "model")
    methods._REGISTERED.clear()
    with pytest.raises(tagmask.ConfigError, match="register_method"):
        tagmask.load(folder)


@pytest.mark.usefixtures("clean")
def test_data_sets_and_views_of_ones_own(tmp_path):
    root = toy_root(tmp_path)

    @data.register_dataset("mine", matches=lambda path: (path / "tags.csv").is_file())
    def scan(source: data.Source) -> data.Scan:
        return data.scan_dataset("folder", source)

    assert "mine" in data.list_datasets("m*")
    assert len(tagmask.open_dataset(root, "mine", "train")) == 12
    assert data.find_kind(data.Source(root)) == "mine"
    with pytest.raises(tagmask.ConfigError, match="already"):
        data.register_dataset("voc")

    @data.register_view("corner")
    @dataclass(frozen=True)
    class Corner:
        size: int
        left: int = 0

        def __call__(self, image: Any, rng: Any, label: Any = None) -> data.View:
            part = torch.from_numpy(image[: self.size, self.left : self.left + self.size].copy())
            return data.View(part.permute(2, 0, 1) / 255, torch.tensor([0, self.size, 0, self.size]))

    view = data.make_view("corner", 16, left=3)
    batch = next(data.train_batches(tagmask.open_dataset(root, split="train"), view, batch_size=2, seed=0))
    assert batch.images.shape == (2, 3, 16, 16)
    with pytest.raises(tagmask.ConfigError, match="no setting 'top'"):
        data.make_view("corner", 16, top=3)
    with pytest.raises(tagmask.ConfigError, match="dataclass"):
        data.register_view("other")(int)


def test_backbones_of_ones_own():
    from timm.models.vision_transformer import VisionTransformer

    from tagmask.backbones import ViT

    @register_backbone("my_vit")
    def build(drop_path: float) -> VisionTransformer:
        return VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=0)

    backbone = ViT("my_vit", num_class_tokens=3)
    backbone.initialise("hub")
    method = create_method("more", 2, backbone="my_vit", weights="none", aux_block=-2)
    assert method.num_classes == 2
    with pytest.raises(tagmask.ConfigError, match="taken"):
        register_backbone("vit_tiny_patch16_224")


def test_data_sets_in_the_order_of_check_data(tmp_path):
    root = toy_root(tmp_path)
    assert len(tagmask.open_dataset(root)) == 16
    assert tagmask.open_dataset(root, "folder", "val", masks=True).mask(0).shape == (64, 64)
    assert tagmask.open_dataset(root, split="val", masks=root / "masks").mask(0).shape == (64, 64)
    with pytest.warns(FutureWarning, match="open_dataset"):
        old = tagmask.open_dataset("folder", root, "val")
    assert old.names == tagmask.open_dataset(root, "folder", "val").names
    with pytest.warns(FutureWarning, match="mask_folder= of"):
        moved = tagmask.open_dataset(root, "folder", "val", masks=True, mask_folder=root / "masks")
    assert moved.mask(0).shape == (64, 64)
    with pytest.warns(FutureWarning, match="mask_folder= of"):
        assert tagmask.check_data(root, mask_folder=root / "masks").num_masks == 4
    assert tagmask.check_data(root, masks=root / "masks").ok


def tags_of(root: Any) -> dict[str, tuple[str, ...]]:
    opened = tagmask.open_dataset(root, "folder", "train")
    names = opened.classes.names
    return {item.image.name: tuple(names[k] for k in item.tags or ()) for item in opened.items}


@pytest.mark.parametrize("kind", ["mapping", "frame", "one-hot"])
def test_tags_that_a_program_holds(tmp_path, kind):
    root = toy_root(tmp_path)
    given: Any = tags_of(root)
    if kind != "mapping":
        pandas = pytest.importorskip("pandas")
        names = tagmask.open_dataset(root).classes.names
        rows = [{"image": image, "tags": list(tags)} for image, tags in given.items()]
        if kind == "one-hot":
            rows = [{"image": i, **{n: int(n in tags) for n in names}} for i, tags in given.items()]
        given = pandas.DataFrame(rows)
    opened = tagmask.open_dataset(root, tags=given)
    assert tags_of(root) == {
        item.image.name: tuple(opened.classes.names[k] for k in item.tags or ()) for item in opened.items
    }


@pytest.mark.parametrize("tags", [7, {"a.png": 3}, {"a.png": [1]}])
def test_tags_that_are_none(tmp_path, tags):
    with pytest.raises(tagmask.DataError, match="tags"):
        tagmask.open_dataset(toy_root(tmp_path), tags=tags)
