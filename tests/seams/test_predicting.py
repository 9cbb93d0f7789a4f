"""Every way from a picture to a map or mask: what the network is shown, and where its answer lies."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask import methods
from tagmask.app.lab import Controls, Lab
from tagmask.config import validate
from tagmask.data import open_dataset
from tagmask.data.classes import ClassTable
from tagmask.data.loader import eval_images
from tagmask.data.parts import DataConfig
from tagmask.engine.log import Display
from tagmask.engine.runtime import Runtime
from tagmask.export.module import TakeAway
from tagmask.inference.animate import AnimateConfig, animate
from tagmask.inference.predict import PredictConfig, predict
from tagmask.inference.predictor import Predictor, remembered_use
from tagmask.inference.views import MapConfig, image_maps, image_scores, image_tags
from tagmask.methods.afa import AFAViews
from tagmask.methods.segmenter import SegmenterViews
from tagmask.model import Model
from tagmask.models.trained import Trained
from tagmask.steps.evaluate import EVALUATE, EvaluateConfig
from tagmask.steps.localize import LOCALIZE, LocalizeConfig
from tagmask.steps.segment import SEGMENT, SegmentConfig
from tagmask.store.labels import read_mask
from tagmask.store.maps import load_maps
from tagmask.training.validate import validate_method
from tests.contract.test_methods import TINY
from tests.seams.pictures import (
    CLASSES,
    HALF,
    IMAGENET,
    LIGHTS,
    entering,
    figures,
    grey_levels,
    photograph,
    tied,
    write_folder,
)
from tests.seams.pixel import PLAIN, PixelMaps, PixelSegmenter, chart, trained
from tests.seams.steps import context_of, do

SIZE = (80, 64)


@pytest.fixture(scope="module")
def runtime():
    return Runtime.create("cpu", seed=0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    write_folder(folder, SIZE)
    return folder


@pytest.fixture
def context(root, runtime, tmp_path):
    data = DataConfig(root=root, masks=root / "masks")
    return context_of(tmp_path / "run", runtime, data, trained())


def check_seen(seen, light, size=SIZE):
    """All of what a network was shown is the photograph; at its own size to two grey levels."""
    assert seen
    reference = figures(photograph(light, size).reshape(-1, 3).astype(np.float64))
    for images in seen:
        for image in images:
            levels = grey_levels(image)
            ours = tied(levels, light)
            assert ours.mean() >= 0.75  # the rest is padding
            assert np.abs(levels[ours].mean(0) - reference[0]).max() <= 6
            if levels.shape[:2] == size:
                assert np.abs(figures(levels.reshape(-1, 3)) - reference).max() <= 2


def ways(folder, light, size=SIZE):
    """The same photograph as people have it: file, Pillow image, array."""
    return (
        folder / "images" / f"{light}.png",
        Image.fromarray(photograph(light, size)),
        photograph(light, size),
    )


@pytest.mark.parametrize("name", [name for name in methods.names() if name != "affinity_net"])
def test_every_method_is_shown_the_photograph_when_it_predicts(name, root):
    torch.manual_seed(0)
    kind = methods.get(name)
    method = kind(validate(kind.config_class, TINY[name]), 3).eval()
    # TransCAM stretches everything to a large square, which one scale shows as well as four.
    meta = {"extra": {"use": {"localize": {"scales": [1.0], "flip": "none"}}}} if name == "transcam" else {}
    model = Model(Trained(method, name, ClassTable(CLASSES), "", meta), Runtime.create("cpu", seed=None))
    for light in LIGHTS:
        for picture in ways(root, light):
            with entering(method, IMAGENET) as seen:
                result = model.predict(picture, ["first"])
            check_seen(seen, light)
            assert any(tuple(images.shape[2:]) == SIZE for images in seen) or name in ("transcam",)
            assert np.array_equal(result.image, photograph(light, SIZE))
            assert result.mask.shape == SIZE
            assert all(maps.shape == (1, *SIZE) for maps in result.maps.values())


def test_the_walk_is_shown_the_photograph(root):
    torch.manual_seed(0)
    kind = methods.get("affinity_net")
    method = kind(validate(kind.config_class, {**TINY["affinity_net"], "radius": 4}), 3).eval()
    for index, batch in eval_images(open_dataset(root, "folder")):
        with entering(method, IMAGENET) as seen:
            method.walk(batch.images[0], torch.rand(2, *SIZE), steps=1)
        check_seen(seen, open_dataset(root, "folder").names[index])


@pytest.mark.parametrize("backbone", ["mask:vit:patch=16,dim=24,depth=2,heads=2,size=64"])
@pytest.mark.parametrize("sampling", ["sizes", "factors", "corners", "opencv"])
def test_every_sampling_and_window_keeps_the_colours(root, runtime, backbone, sampling):
    torch.manual_seed(0)
    kind = methods.get("segmenter")
    settings = {"backbone": backbone, "position_size": 64}
    method = kind(validate(kind.config_class, settings), 3).eval()
    own = AFAViews if sampling == "factors" else SegmenterViews
    config = own(sampling=sampling, scales=(1.0, 1.5), flip="mean", merge="mean")
    if sampling == "opencv":
        config = config.model_copy(update={"short_side": 64, "window": 64, "window_stride": 32})
    for index, batch in eval_images(open_dataset(root, "folder")):
        light = open_dataset(root, "folder").names[index]
        with entering(method, HALF) as seen:
            image_scores(method, batch.images, runtime, config)
        reference = photograph(light, SIZE).reshape(-1, 3).mean(0)
        for images in seen:
            levels = grey_levels(images[0])
            assert tied(levels, light).mean() >= 0.75
            if sampling != "opencv":
                assert np.abs(levels[tied(levels, light)].mean(0) - reference).max() <= 6


@pytest.mark.parametrize("kind", [PixelMaps, PixelSegmenter])
@pytest.mark.parametrize("tile", [1024, 64])
def test_bulk_prediction_is_shown_the_photograph(root, runtime, tmp_path, kind, tile):
    packed = tmp_path / "pictures.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for light in LIGHTS:
            archive.write(root / "images" / f"{light}.png", f"{light}.png")
    for source in (root / "images" / "bright.png", root / "images", packed):
        own = trained(kind)
        config = PredictConfig(tile=tile, overlap=16)
        with entering(own.method, PLAIN) as seen:
            done = predict(
                config, own, runtime, Display(quiet=True), [str(source)], tmp_path / f"out-{source.name}"
            )
        assert done["failed"] == 0
        assert seen
        for images in seen:
            for image in images:
                levels = grey_levels(image)
                assert any(tied(levels, light).mean() > 0.98 for light in LIGHTS)


@pytest.mark.parametrize("light", sorted(LIGHTS))
def test_other_ways_are_shown_the_photograph(root, runtime, tmp_path, light):
    path = root / "images" / f"{light}.png"
    own = trained()
    with entering(own.method, PLAIN) as seen:
        Lab(Model(own, runtime)).open(light, path, [0], None, Controls("cam"))
        check_seen(seen, light)
        seen.clear()
        (tmp_path / "frames").mkdir()
        Image.open(path).save(tmp_path / "frames" / f"{light}.png")
        config = AnimateConfig(panels=("image", "map", "mask"), opacity=0.0)
        animate(config, own, runtime, Display(quiet=True), tmp_path / "frames", tmp_path / "film")
        check_seen(seen, light)
        seen.clear()
        pixels = np.asarray(Image.open(path))
        TakeAway(own.method, None, 0.5)(torch.from_numpy(pixels / np.float32(255)).permute(2, 0, 1)[None])
        check_seen(seen, light)
    with Image.open(tmp_path / "film" / f"{light}.png") as frame:
        drawn = np.asarray(frame.convert("RGB"))
    found = [drawn[y : y + SIZE[0], x : x + SIZE[1]] for y in range(5) for x in range(5)]
    assert any(np.abs(part.astype(int) - photograph(light, SIZE)).max() <= 2 for part in found)


def test_steps_and_scores_on_the_way_are_shown_the_photograph(context, runtime):
    own = context.models.get()
    dataset = open_dataset(context.settings.data.root, "folder", masks=True)
    with entering(own.method, PLAIN) as seen:
        do(LOCALIZE, LocalizeConfig(), context)
        do(SEGMENT, SegmentConfig(), context)
        validate_method(own.method, dataset, runtime, context.display, MapConfig(), 0.5)
    shown = [image[None] for images in seen for image in images]
    by_light = {light: [one for one in shown if tied(grey_levels(one[0]), light).all()] for light in LIGHTS}
    assert len(shown) == sum(len(images) for images in by_light.values())
    for light, images in by_light.items():
        assert len(images) >= 4
        check_seen(images, light)


# Answers stay where their pixels were.


def save_chart(path, size, mode="RGB"):
    picture, labels = chart(size)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).convert(mode).save(path)
    return picture, labels


@pytest.mark.parametrize("size", [(70, 130), (150, 90), (33, 40)])
@pytest.mark.parametrize(("tile", "overlap"), [(1024, 128), (64, 16), (64, 32), (80, 0)])
def test_masks_of_tiles_lie_where_the_picture_has_them(tmp_path, runtime, size, tile, overlap):
    _, labels = save_chart(tmp_path / "in" / "chart.png", size)
    config = PredictConfig(tile=tile, overlap=overlap, batch_size=2)
    predict(config, trained(), runtime, Display(quiet=True), [str(tmp_path / "in")], tmp_path / "out")
    assert np.array_equal(read_mask(tmp_path / "out" / "masks" / "chart.png"), labels)
    row = json.loads((tmp_path / "out" / "summary.jsonl").read_text())
    assert (row["height"], row["width"]) == size
    shares = {name: (labels == k).mean() for k, name in enumerate(CLASSES, 1) if (labels == k).any()}
    assert row["classes"] == pytest.approx(shares, abs=1e-6)


def test_every_way_to_a_mask_gives_the_same_labels(tmp_path, runtime):
    size = (70, 130)
    picture, labels = save_chart(tmp_path / "in" / "images" / "chart.png", size)
    (tmp_path / "in" / "tags.csv").write_text("image,tags\nchart.png,first;second;third\n")
    (tmp_path / "in" / "classes.txt").write_text("\n".join(CLASSES))
    own = trained()
    found = {"model": Model(own, runtime).predict(picture).mask}
    context = context_of(tmp_path / "run", runtime, DataConfig(root=tmp_path / "in"), own)
    do(SEGMENT, SegmentConfig(), context)
    found["step"] = read_mask(tmp_path / "run" / "masks" / "chart.png")
    floats = torch.from_numpy(picture / np.float32(255)).permute(2, 0, 1)[None]
    found["export"] = TakeAway(own.method, None, 0.5)(floats)[-1][0].numpy()
    found["lab"] = Lab(Model(own, runtime)).open(
        "chart", tmp_path / "in" / "images" / "chart.png", None, None, Controls("cam")
    ).mask  # fmt: skip
    found["predictor"] = (
        Predictor(own.method, runtime, remembered_use({})).predict(Image.fromarray(picture)).mask
    )
    for way, mask in found.items():
        assert np.array_equal(mask, labels), way


def test_maps_lie_where_the_picture_has_them_and_keep_their_class(tmp_path, runtime):
    size = (70, 130)
    picture, labels = save_chart(tmp_path / "in" / "images" / "sub" / "chart.png", size)
    (tmp_path / "in" / "tags.csv").write_text("image,tags\nsub/chart.png,third;first\n")
    (tmp_path / "in" / "classes.txt").write_text("\n".join(CLASSES))
    data = DataConfig(root=tmp_path / "in")
    do(LOCALIZE, LocalizeConfig(), context_of(tmp_path / "run", runtime, data, trained(PixelMaps)))
    stored = load_maps(tmp_path / "run" / "maps" / "cam" / "sub" / "chart.npz")
    assert stored.keys.tolist() == [0, 2]
    assert stored.size == size
    result = Model(trained(PixelMaps), runtime).predict(picture, ["third", "first"])
    assert result.keys == (0, 2)
    assert result.map_classes == ("first", "third")
    for maps in (stored.maps, result.maps["cam"]):
        assert maps.shape == (2, *size)
        assert np.array_equal(maps[0] > 0.5, labels == 1)
        assert np.array_equal(maps[1] > 0.5, labels == 3)


def test_tags_decide_which_labels_may_appear(tmp_path, runtime):
    picture, labels = save_chart(tmp_path / "in" / "chart.png", (70, 130))
    (tmp_path / "tags.csv").write_text("image,tags\nchart.png,third\n")
    predict(
        PredictConfig(tags=tmp_path / "tags.csv"),
        trained(),
        runtime,
        Display(quiet=True),
        [str(tmp_path / "in")],
        tmp_path / "out",
    )
    expected = np.where(labels == 3, 3, 0)
    assert np.array_equal(read_mask(tmp_path / "out" / "masks" / "chart.png"), expected)
    for kind in (PixelMaps, PixelSegmenter):
        result = Model(trained(kind), runtime).predict(picture, ["third"])
        assert np.array_equal(result.mask, expected)
        assert result.present == ("third",)
    with torch.inference_mode():
        images = torch.from_numpy(picture / np.float32(255)).permute(2, 0, 1)[None]
        assert image_tags(trained(PixelMaps).method, images, runtime, "classifier").tolist() == [[1, 1, 1]]
        dim = images * torch.tensor([1, 0.5, 1]).view(3, 1, 1)
        assert image_tags(trained(PixelMaps).method, dim, runtime, "classifier").tolist() == [[1, 0, 1]]


# What a model remembers about its use is what everybody does with it.


def ramp(size=(40, 101)):
    """Red from 0 at the left to 250 at the right; its map is the share of the way."""
    picture = np.zeros((*size, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 250, size[1]).round().astype(np.uint8)
    return picture


@pytest.mark.parametrize("background", [0.2, 0.5, 0.83])
def test_a_remembered_background_is_used_by_everybody(tmp_path, runtime, background):
    picture = ramp()
    expected = (picture[..., 0] / 250 > background).astype(np.uint8)
    clear = np.abs(picture[..., 0] / 250 - background) > 0.01
    own = trained(PixelMaps, background=background)
    Image.fromarray(picture).save(tmp_path / "ramp.png")
    predict(
        PredictConfig(), own, runtime, Display(quiet=True), [str(tmp_path / "ramp.png")], tmp_path / "out"
    )
    found = {
        "model": Model(own, runtime).predict(picture).mask,
        "tagged": Model(own, runtime).predict(picture, ["first"]).mask,
        "bulk": read_mask(tmp_path / "out" / "masks" / "ramp.png"),
    }
    for way, mask in found.items():
        assert np.array_equal(mask[clear], expected[clear]), way


def test_remembered_views_are_used_by_everybody(tmp_path, runtime):
    picture, _ = save_chart(tmp_path / "in" / "chart.png", (64, 96))
    own = trained(
        localize={"scales": [0.5, 2.0], "flip": "sum", "kinds": ["cam"]},
        segment={"scales": [0.25, 1.5], "flip": "mean"},
        background=0.4,
    )
    use = remembered_use(own.meta)
    assert (use.maps.scales, use.maps.flip, use.maps.kinds) == ((0.5, 2.0), "sum", ("cam",))
    assert (use.views.scales, use.views.flip, use.background) == ((0.25, 1.5), "mean", 0.4)
    with entering(own.method, PLAIN) as seen:
        Model(own, runtime).predict(picture, ["first"])
    views = {tuple(images.shape) for images in seen}
    # With a mirror image each; what the classifier says about tags comes from the picture as it is.
    twins = {(2, 3, *size) for size in ((32, 48), (128, 192), (16, 24), (96, 144))}
    assert views - {(1, 3, 64, 96)} == twins
    with entering(own.method, PLAIN) as seen:
        predict(PredictConfig(), own, runtime, Display(quiet=True), [str(tmp_path / "in")], tmp_path / "out")
    assert {tuple(images.shape[2:]) for images in seen} == {(16, 24), (96, 144)}
    with entering(own.method, PLAIN) as seen:
        predict(
            PredictConfig(scales=(1.0,), flip="none"),
            own,
            runtime,
            Display(quiet=True),
            [str(tmp_path / "in")],
            tmp_path / "again",
        )
    assert [tuple(images.shape) for images in seen] == [(1, 3, 64, 96)]


def test_map_views_and_thresholds_of_a_map_model_are_used_in_bulk(tmp_path, runtime):
    save_chart(tmp_path / "in" / "chart.png", (64, 96))
    own = trained(PixelMaps, localize={"scales": [0.5], "flip": "none"})
    with entering(own.method, PLAIN) as seen:
        predict(PredictConfig(), own, runtime, Display(quiet=True), [str(tmp_path / "in")], tmp_path / "out")
    assert {tuple(images.shape) for images in seen} == {(1, 3, 64, 96), (1, 3, 32, 48)}  # tags, maps


def test_scores_are_of_the_masks_and_maps_that_were_written(context):
    """The photographs' masks are stripes of 0, 1, 3 and 255; what is right scores 1, label by label."""
    from tagmask.store.labels import write_mask
    from tagmask.store.maps import save_maps

    dataset = open_dataset(context.settings.data.root, "folder", masks=True)
    for i, name in enumerate(dataset.names):
        truth = dataset.mask(i)
        assert set(np.unique(truth).tolist()) == {0, 1, 3, 255}
        mask = np.where(truth == 255, 2, truth).astype(np.uint8)  # anything goes where the truth says ignore
        write_mask(context.folder / "masks" / f"{name}.png", mask, dataset.classes.palette)
        swapped = np.where(truth == 255, 255, np.array([0, 3, 2, 1] + [0] * 252, np.uint8)[truth])
        write_mask(context.folder / "labels" / f"{name}.png", swapped.astype(np.uint8))
        maps = np.stack([truth == 1, truth == 3]).astype(np.float32) * 0.6
        save_maps(context.folder / "maps" / "cam" / f"{name}.npz", maps, np.array([0, 2]), SIZE)
        save_maps(context.folder / "maps" / "lam" / f"{name}.npz", maps, np.array([0, 1]), SIZE)
    config = EvaluateConfig(background=0.5, what=("segmentation", "label", "cam", "lam"))
    found = do(EVALUATE, config, context)
    assert found["segmentation"] == pytest.approx(1)
    assert found["cam"] == pytest.approx(1)
    assert found["label"] == pytest.approx(1 / 3)  # only the background is right
    assert found["lam"] == pytest.approx(2 / 3)
    high = do(EVALUATE, EvaluateConfig(background=0.65, what=("cam",)), context)
    assert high["cam"] == pytest.approx(1 / 9)


def test_image_maps_go_to_the_class_they_are_of(runtime):
    picture = np.zeros((40, 48, 3), np.uint8)
    picture[5:9, 30:44, 2] = 250
    images = torch.from_numpy(picture / np.float32(255)).permute(2, 0, 1)[None]
    maps = image_maps(trained(PixelMaps).method, images, runtime, MapConfig())["cam"][0]
    assert np.array_equal(maps[2].numpy() > 0.5, picture[..., 2] > 0)
    assert not maps[:2].any()
