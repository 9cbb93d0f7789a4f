"""What one room leaves for the next means the same there: keys, labels, thresholds, headers, annotations."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import tagmask
from tagmask.annotations import formats
from tagmask.annotations.exchange import export_masks, import_masks
from tagmask.annotations.read import Subjects, find_subjects, predicted_subjects, read_annotations
from tagmask.data import open_dataset
from tagmask.data.classes import ClassTable
from tagmask.data.parts import DataConfig
from tagmask.engine.log import Display
from tagmask.engine.runtime import Runtime
from tagmask.inference.predict import PredictConfig, predict
from tagmask.inference.predictor import remembered_use
from tagmask.methods.more import MoRe
from tagmask.model import Model
from tagmask.models.checkpoint import read_header
from tagmask.ops.tiles import join_tiles, tile_spans
from tagmask.pipeline.config import read_config
from tagmask.steps.refine import REFINE, RefineConfig
from tagmask.steps.walk import WALK, WalkConfig
from tagmask.store.files import file_for
from tagmask.store.labels import read_mask, write_mask
from tagmask.store.maps import save_maps
from tagmask.training.corrections import corrected_images
from tests.seams.pictures import CLASSES, LIGHTS, photograph, stripes, write_folder
from tests.seams.pixel import PixelMaps, PixelSegmenter, chart, trained
from tests.seams.steps import context_of, do

SIZE = (48, 80)
QUIET = Display(quiet=True)


@pytest.fixture(scope="module")
def runtime():
    return Runtime.create("cpu", seed=0)


@pytest.fixture
def context(runtime, tmp_path):
    write_folder(tmp_path / "data", SIZE)
    data = DataConfig(root=tmp_path / "data", masks=tmp_path / "data" / "masks")
    return context_of(tmp_path / "run", runtime, data, trained(_Affinity))


# Maps on disk become labels on disk.


def write_maps(context, heights, keys=(0, 2)):
    """Each class has its own upright third of the picture, the last third is nobody's."""
    for light in LIGHTS:
        maps = np.zeros((len(keys), *SIZE), np.float32)
        for i, height in enumerate(heights):
            maps[i, :, i * 24 : (i + 1) * 24] = height
        path = file_for(context.folder / "maps" / "cam", light, ".npz")
        save_maps(path, maps, np.asarray(keys), SIZE)


def thirds(first, second, rest):
    """The label of each third, as `write_maps` places them."""
    label = np.full(SIZE, rest, np.uint8)
    label[:, :24], label[:, 24:48] = first, second
    return label


@pytest.mark.parametrize(
    ("settings", "heights", "expected"),
    [
        ({"method": "none", "background": 0.5}, (0.9, 0.6), (1, 3, 0)),
        ({"method": "none", "background": 0.7}, (0.9, 0.6), (1, 0, 0)),
        ({"method": "none", "high": 0.7, "low": 0.25}, (0.9, 0.6), (1, 255, 0)),
        ({"method": "none", "high": 0.7, "low": 0.25}, (0.2, 0.8), (0, 3, 0)),
        ({"method": "par", "high": 0.7, "low": 0.25}, (0.9, 0.5), (1, 255, 0)),
        ({"method": "par", "background": 0.4}, (0.9, 0.2), (1, 0, 0)),
        ({"method": "crf", "crf": "label_50_5", "high": 0.7, "low": 0.25}, (0.9, 0.8), (1, 3, 0)),
    ],
)
def test_labels_name_the_classes_of_the_maps(context, settings, heights, expected):
    write_maps(context, heights)
    do(REFINE, RefineConfig(**settings), context)
    for light in LIGHTS:
        found = read_mask(context.folder / "labels" / f"{light}.png")
        assert found.shape == SIZE
        wanted = thirds(*expected)
        # Refinement may move the borders, and nothing else.
        middle = np.ones(SIZE, bool)
        for border in (24, 48):
            middle[:, border - 8 : border + 8] = settings["method"] == "none"
        assert (found == wanted)[middle].mean() > 0.99
        with Image.open(context.folder / "labels" / f"{light}.png") as picture:
            assert picture.mode == "P"


class _Affinity(PixelMaps):
    """Spreads nothing, so that the maps decide alone."""

    def walk(self, image, scores, beta=8.0, steps=64, full=False):
        assert tuple(image.shape) == (3, *SIZE)
        return scores


def test_walked_maps_keep_their_classes_too(context):
    write_maps(context, (0.9, 0.3))
    do(WALK, WalkConfig(background=0.4), context)
    for light in LIGHTS:
        assert np.array_equal(read_mask(context.folder / "walks" / f"{light}.png"), thirds(1, 0, 0))
    shutil.rmtree(context.folder / "walks")
    write_maps(context, (0.9, 0.3), keys=(1, 2))
    do(WALK, WalkConfig(background=0.2), context)
    assert np.array_equal(read_mask(context.folder / "walks" / "dark.png"), thirds(2, 3, 0))


# Masks to annotation tools and back, and on to a training.


def masks_of(folder, names, labels=(0, 1, 2, 3)):
    for i, name in enumerate(names):
        mask = np.roll(chart(SIZE)[1], 5 * i, 1)
        write_mask(file_for(folder, name, ".png"), np.asarray(labels, np.uint8)[mask], None)


@pytest.mark.parametrize("name", formats.names())
@pytest.mark.parametrize("packed", ["folder", "zip"])
def test_masks_come_back_from_every_tool_as_they_were(tmp_path, name, packed):
    names = ["first/1", "second/1", "2"]
    for image in names:
        path = tmp_path / "images" / f"{image}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph("bright", SIZE)).save(path)
    masks_of(tmp_path / "masks", names)
    subjects = find_subjects(tmp_path / "images", ClassTable(CLASSES))
    out = tmp_path / ("out.zip" if packed == "zip" else "out")
    export_masks(tmp_path / "masks", subjects, name, out, None, QUIET)
    import_masks(out, subjects, name, tmp_path / "back", QUIET)
    for image in names:
        before, after = (read_mask(file_for(tmp_path / part, image, ".png")) for part in ("masks", "back"))
        assert after.shape == SIZE
        assert (before == after).mean() > (0.9 if name in ("labelme", "yolo") else 0.9999)
        # Every class keeps its own number, whatever the outlines lose at the borders.
        for label in range(4):
            values, counts = np.unique(after[before == label], return_counts=True)
            assert values[counts.argmax()] == label


def test_undecided_pixels_come_back_undecided_where_a_format_holds_them(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(photograph("bright", SIZE)).save(tmp_path / "images" / "a.png")
    write_mask(tmp_path / "masks" / "a.png", stripes("bright", SIZE))
    subjects = find_subjects(tmp_path / "images", ClassTable(CLASSES))
    export_masks(tmp_path / "masks", subjects, "voc", tmp_path / "out", None, QUIET)
    ((_, mask),) = read_annotations(tmp_path / "out", subjects, "voc")
    assert np.array_equal(mask, stripes("bright", SIZE))


def test_predicted_masks_go_to_a_tool_under_their_names_and_sizes(tmp_path, runtime):
    picture, labels = chart(SIZE)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "in" / "sub" / "a.png")
    predict(PredictConfig(), trained(), runtime, QUIET, [str(tmp_path / "in")], tmp_path / "out")
    subjects = predicted_subjects(tmp_path / "out")
    assert subjects.classes.names == CLASSES
    export_masks(tmp_path / "out" / "masks", subjects, "coco", tmp_path / "coco.json", None, QUIET)
    ((_, found),) = read_annotations(tmp_path / "coco.json", subjects)
    assert np.array_equal(found, labels)


@pytest.mark.parametrize("source", ["folder", "coco"])
def test_corrections_teach_the_classes_a_person_drew(context, tmp_path, source):
    dataset = open_dataset(context.settings.data.root, "folder")
    mask = stripes("dark", SIZE, (0, 2, 3, 3))
    write_mask(tmp_path / "fixed" / "dark.png", mask)
    given = tmp_path / "fixed"
    if source == "coco":
        given = tmp_path / "fixed.json"
        export_masks(tmp_path / "fixed", Subjects.of_dataset(dataset), "coco", given, None, QUIET)
    truth = context.settings.data.root / "masks"
    folder = tmp_path / "corrections"
    found = corrected_images(given, folder, dataset, PixelSegmenter, truth, context.runtime, QUIET)
    assert np.array_equal(read_mask(found.labels / "dark.png"), mask)
    assert found.corrected.names == ("dark",)
    tags = {item.name: item.tags for item in found.dataset.items}
    assert tags == {"bright": (0, 2), "dark": (1, 2)}
    # What stays undecided may still show what the image was tagged with.
    write_mask(tmp_path / "fixed" / "dark.png", stripes("dark", SIZE, (0, 2, 2, 255)))
    again = corrected_images(
        tmp_path / "fixed", folder, dataset, PixelSegmenter, truth, context.runtime, QUIET
    )
    assert {item.name: item.tags for item in again.dataset.items}["dark"] == (0, 1, 2)


def test_corrected_batches_carry_those_labels(context, tmp_path):
    from tagmask.data.loader import train_batches
    from tagmask.data.transforms.base import make_view
    from tagmask.training.corrections import BothBatches, WithCorrections

    mask = stripes("dark", SIZE, (0, 2, 3, 255))
    write_mask(tmp_path / "fixed" / "dark.png", mask)
    dataset = open_dataset(context.settings.data.root, "folder")
    found = corrected_images(
        tmp_path / "fixed",
        tmp_path / "corrections",
        dataset,
        PixelSegmenter,
        context.settings.data.root / "masks",
        context.runtime,
        QUIET,
    )
    view = make_view("short_side_crop", 96, scale=(1, 1), short_side=48, jitter=0, flip=0)
    batches = BothBatches(
        train_batches(found.dataset, view, 2, 0),
        train_batches(found.corrected, view, 1, 0, labels=found.labels),
    )
    batch = next(batches)
    assert batch.labels is None
    assert batch.corrected.names == ("dark",)
    label = batch.corrected.labels[0].numpy()
    assert np.array_equal(label[: SIZE[0], : SIZE[1]], mask)
    assert (label[SIZE[0] :] == 255).all()
    method = trained().method
    with torch.no_grad():
        result = WithCorrections(method, 0, 0.5)(batch, 0)
        scores = method.segment(batch.corrected.images)
    kept = torch.from_numpy(label != 255)
    picked = scores[0].log_softmax(0).gather(0, torch.from_numpy(label).clamp(max=3)[None])[0][kept]
    assert float(result.loss) == pytest.approx(-0.5 * float(picked.mean()), rel=1e-5)


# A model's header.

ASKED = {
    "localize.scales": [1.0, 0.5],
    "localize.flip": "none",
    "localize.kinds": ["cam"],
    "segment.scales": [1.0, 1.5],
    "segment.flip": "mean",
    "segment.merge": "mean",
    "evaluate.background": 0.37,
}
TINY = {
    "model.backbone": "vit:patch=8,dim=32,depth=2,heads=2,size=64",
    "model.weights": "none",
    "model.aux_block": -2,
    "model.scales": [1.0],
    "model.refine_steps": 2,
    "train.iterations": 1,
    "train.batch_size": 2,
    "train.size": 64,
    "train.eval_every": 0,
    "train.save_every": 0,
    "train.tensorboard": False,
    "runtime.device": "cpu",
}


def test_a_trained_model_remembers_how_it_wants_to_be_used(tmp_path):
    write_folder(tmp_path / "data", SIZE)
    classes = ("third", "first", "second")
    (tmp_path / "data" / "classes.txt").write_text("\n".join(classes))
    out = tmp_path / "run"
    own = tagmask.train(tmp_path / "data", out=out, method="more", settings=TINY | ASKED, progress=False)
    assert own.classes == classes
    use = remembered_use(read_header(out / "model"))
    assert (use.maps.scales, use.maps.flip, use.maps.kinds) == ((1.0, 0.5), "none", ("cam",))
    assert (use.views.scales, use.views.flip, use.views.merge) == ((1.0, 1.5), "mean", "mean")
    assert use.background == 0.37
    # From the model folder alone, settings and classes are the same again.
    shutil.copytree(out / "model", tmp_path / "model")
    config = read_config(tmp_path / "model")
    assert (config.method, config.localize.scales, config.segment.scales) == ("more", (1.0, 0.5), (1.0, 1.5))
    again = tagmask.load(tmp_path / "model", device="cpu")
    assert isinstance(again.method, MoRe)
    assert again.classes == classes
    assert again.kinds == ("cam",)
    first, second = (model.predict(photograph("dark", SIZE), ["first"]) for model in (own, again))
    assert first.keys == second.keys == (1,)
    assert np.array_equal(first.mask, second.mask)
    assert np.array_equal(first.maps["cam"], second.maps["cam"])


def test_a_picture_turned_by_its_camera_is_predicted_upright(tmp_path, runtime):
    picture, labels = chart(SIZE)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(picture))).save(tmp_path / "a.png", exif=exif)
    model = Model(trained(), runtime)
    for way in (tmp_path / "a.png", Image.open(tmp_path / "a.png"), picture):
        assert np.array_equal(model.predict(way).mask, labels)
    predict(PredictConfig(), trained(), runtime, QUIET, [str(tmp_path / "a.png")], tmp_path / "out")
    assert np.array_equal(read_mask(tmp_path / "out" / "masks" / "a.png"), labels)


# Tiles.


def ramp_reference(spans):
    """Shares of every tile at every pixel: linear, centred on pixels, adding up to 1."""
    side = spans.starts[-1] + spans.length
    shares = np.zeros((len(spans.starts), side))
    for i, start in enumerate(spans.starts):
        shares[i, start : start + spans.length] = 1
    for i in range(1, len(spans.starts)):
        begin, width = spans.starts[i], spans.overlap
        up = (np.arange(width) + 0.5) / width if width else np.zeros(0)
        shares[i, begin : begin + width] = up
        shares[i - 1, begin : begin + width] = 1 - up
        shares[i - 1, begin + width :] = 0
    return shares


@pytest.mark.parametrize(
    ("size", "tile", "overlap"), [((120, 200), 64, 16), ((64, 150), 64, 20), ((90, 90), 50, 7)]
)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_joined_tiles_fade_evenly_from_one_into_the_next(size, tile, overlap, batch_size):
    rows, columns = (tile_spans(side, tile, overlap) for side in size)
    assert len(columns.starts) > 1
    corners = torch.zeros(1, *size)  # a picture whose pixels say where they are
    corners[0] = torch.arange(size[0])[:, None] * 1000 + torch.arange(size[1])
    result = torch.full(size, torch.nan)

    def cut(top, left, height, width):
        return corners[:, top : top + height, left : left + width].expand(3, -1, -1)

    def constant(images):
        # All of a tile is the number of its first pixel.
        return images[:, :1, :1, :1].expand(-1, -1, *images.shape[2:]).clone()

    def emit(top, left, values):
        result[top : top + values.shape[1], left : left + values.shape[2]] = values[0]

    join_tiles(constant, cut, emit, rows, columns, batch_size)
    down, across = ramp_reference(rows), ramp_reference(columns)
    assert np.allclose(down.sum(0), 1)
    expected = 1000 * (np.asarray(rows.starts) @ down)[:, None] + np.asarray(columns.starts) @ across
    assert np.abs(result.numpy() - expected).max() < 0.05
