"""Every reader and every kind of data set: the colours, sizes, tags and labels of the files themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagmask.data import names, open_dataset
from tagmask.data.classes import VOC_CLASSES, ClassTable, voc_palette
from tagmask.data.datasets.writing import png_bytes
from tagmask.data.loader import eval_images
from tagmask.data.readers.archive import open_tree
from tagmask.data.readers.images import (
    IMAGE_SUFFIXES,
    read_image,
    read_indices,
    read_picture,
    read_size,
    rgb_tensor,
)
from tagmask.data.readers.masks import mask_values
from tagmask.data.readers.onehot import read_onehot
from tagmask.data.readers.rle import count_runs, decode_counts, format_counts, parse_counts, region_mask
from tagmask.store.labels import read_mask, write_mask
from tagmask.store.maps import load_maps, save_maps
from tests.seams.pictures import CLASSES, LIGHTS, figures, grey_levels, photograph, stripes, write_folder

SIZE = (48, 80)
EXACT = {".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pnm", ".pgm", ".pbm"}
JPEG = {".jpg", ".jpeg", ".jpe", ".jfif", ".jif"}
MODES = {".pgm": "L", ".pbm": "1"}  # these endings hold no colours


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
@pytest.mark.parametrize("light", sorted(LIGHTS))
def test_every_picture_file_keeps_channels_size_and_levels(tmp_path, suffix, light):
    path, own = tmp_path / f"a{suffix}", photograph(light, SIZE)
    settings = {"format": "JPEG"} if suffix == ".jif" else {}
    quality = {"quality": 98} if suffix in JPEG | {".webp"} else {}
    quality |= {"quality": 100, "subsampling": "4:4:4"} if suffix == ".avif" else {}
    if suffix in (".heic", ".heif", ".hif"):
        pytest.importorskip("pillow_heif").register_heif_opener()
        settings, quality = {"format": "HEIF"}, {"quality": 100, "chroma": 444}
    Image.fromarray(own).convert(MODES.get(suffix, "RGB")).save(path, **settings, **quality)
    own = np.asarray(Image.fromarray(own).convert(MODES.get(suffix, "RGB")).convert("RGB"))
    found = read_image(path)
    assert found.shape == (*SIZE, 3)
    assert read_size(path) == SIZE
    gap = np.abs(found.astype(int) - own)
    assert gap.max() <= (0 if suffix in EXACT else 40 if suffix == ".gif" else 8)
    assert gap.mean() <= 2
    assert np.abs(found.reshape(-1, 3).mean(0) - own.reshape(-1, 3).mean(0)).max() <= 2
    assert np.array_equal(np.asarray(read_picture("there", content=path.read_bytes())), found)
    tensor = rgb_tensor(found)
    assert tensor.shape == (3, *SIZE)
    assert np.abs(grey_levels(tensor) - found).max() < 1e-3


# How a camera that notes an orientation stores what was upright.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", sorted(STORED))
def test_turned_photographs_stand_upright_everywhere(tmp_path, orientation):
    upright = photograph("bright", SIZE)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](upright))
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    assert read_size(tmp_path / "a.png") == SIZE
    assert np.array_equal(read_image(tmp_path / "a.png"), upright)


def test_shrunk_pictures_keep_shape_and_colours(tmp_path):
    for light in LIGHTS:
        own = photograph(light, (96, 160))
        Image.fromarray(own).save(tmp_path / "a.jpg", quality=98)
        small = read_image(tmp_path / "a.jpg", max_side=80)
        assert small.shape == (48, 80, 3)
        gap = figures(small.reshape(-1, 3).astype(float)) - figures(own.reshape(-1, 3).astype(float))
        assert np.abs(gap[:2]).max() <= 2


def test_grey_transparent_and_indexed_pictures_become_rgb(tmp_path):
    own = photograph("dark", SIZE)
    grey = Image.fromarray(own).convert("L")
    grey.save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(np.asarray(grey)[..., None], 3, 2))
    seen = np.where(np.arange(SIZE[1]) < 40, 255, 0).astype(np.uint8)
    rgba = np.dstack([own, np.broadcast_to(seen, SIZE)])
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    found = read_image(tmp_path / "rgba.png")
    assert np.array_equal(found[:, :40], own[:, :40])
    assert not found[:, 40:].any()


@pytest.mark.parametrize("how", ["palette", "grey", "png_bytes", "write_mask", "write_mask_grey"])
def test_label_images_keep_0_and_255_and_their_shape(tmp_path, how):
    mask, path = stripes("bright", SIZE, (0, 255, 1, 254, 21)), tmp_path / "mask.png"
    if how == "png_bytes":
        path.write_bytes(png_bytes(mask))
    elif how.startswith("write_mask"):
        write_mask(path, mask, voc_palette() if how == "write_mask" else None)
    else:
        picture = Image.fromarray(mask)
        if how == "palette":
            picture.putpalette(voc_palette().tobytes())
        picture.save(path)
    assert np.array_equal(read_indices(path), mask)
    assert np.array_equal(read_mask(path), mask)


def test_what_the_numbers_in_masks_mean(tmp_path):
    classes = ClassTable(("cat", "dog", "car"))
    values = np.array([[0, 7, 8, 12, 255]], np.uint8)
    assert mask_values("voc", classes).labels(values, tmp_path).tolist() == [[0, 3, 1, 2, 255]]
    assert mask_values(None, classes).labels(values.clip(0, 3), tmp_path).tolist() == [[0, 3, 3, 3, 3]]
    given = {7: "dog", "8": "ignore", "other": "background"}
    assert mask_values(given, classes).labels(values, tmp_path).tolist() == [[0, 2, 255, 0, 255]]


def test_regions_of_rle_and_polygons_are_rows_by_columns():
    bits = np.zeros((6, 11), bool)
    bits[1:3, 4:10] = True
    counts = count_runs(bits)
    assert counts == [4 * 6 + 1, *[2, 4] * 5, 2, 3 + 6]  # down the columns, as COCO counts
    assert np.array_equal(decode_counts(parse_counts(format_counts(counts)), (6, 11)), bits)
    for written in (counts, format_counts(counts)):
        assert np.array_equal(region_mask({"size": [6, 11], "counts": written}, (6, 11)), bits)
    outline = [[4, 1, 10, 1, 10, 3, 4, 3]]  # x before y
    assert np.array_equal(region_mask(outline, (6, 11)), bits)


def test_published_tags_are_in_the_order_of_their_vector(tmp_path):
    rows = {"a": np.array([0, 1, 0], np.float32), "b": np.array([1, 0, 1], np.float32)}
    np.save(tmp_path / "tags.npy", rows, allow_pickle=True)
    assert {k: v.tolist() for k, v in read_onehot(tmp_path / "tags.npy", 3).items()} == {
        "a": [0, 1, 0],
        "b": [1, 0, 1],
    }


def test_maps_come_back_with_their_classes_shape_and_values(tmp_path):
    rng = np.random.default_rng(0)
    maps = rng.random((2, 5, 9), dtype=np.float32)
    for half, slack in ((True, 2.5e-4), (False, 0)):
        save_maps(tmp_path / "m.npz", maps, np.array([3, 7]), (50, 90), half)
        found = load_maps(tmp_path / "m.npz")
        assert found.keys.tolist() == [3, 7]
        assert found.size == (50, 90)
        assert np.abs(found.maps - maps).max() <= slack


# Kinds of data sets.


def _folder(root):
    write_folder(root, SIZE, split="val")
    return "val", CLASSES


def _class_folders(root):
    for light, name in (("bright", "second"), ("dark", "first")):
        (root / name).mkdir(parents=True)
        Image.fromarray(photograph(light, SIZE)).save(root / name / f"{light}.png")
    return None, ("first", "second")


def _voc(root):
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for light in LIGHTS:
        Image.fromarray(photograph(light, SIZE)).save(root / "JPEGImages" / f"{light}.jpg", quality=98)
        write_mask(root / "SegmentationClass" / f"{light}.png", stripes(light, SIZE, (0, 1, 3, 255)))
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("bright\ndark\n")
    return "val", VOC_CLASSES


def _coco(root):
    (root / "annotations").mkdir(parents=True)
    (root / "val2014").mkdir()
    images, entries = [], []
    for number, light in enumerate(LIGHTS, 1):
        Image.fromarray(photograph(light, SIZE)).save(root / "val2014" / f"{light}.jpg", quality=98)
        images.append({"id": number, "file_name": f"{light}.jpg", "height": SIZE[0], "width": SIZE[1]})
        for category, (left, right) in ((90, (40, 60)), (7, (20, 40))):
            square = [[left, 0, right, 0, right, SIZE[0], left, SIZE[0]]]
            row = {"id": len(entries) + 1, "image_id": number, "category_id": category}
            entries.append(row | {"segmentation": square, "area": 960, "iscrowd": 0})
    categories = [{"id": 90, "name": "third"}, {"id": 7, "name": "first"}, {"id": 40, "name": "second"}]
    content = {"images": images, "annotations": entries, "categories": categories}
    (root / "annotations" / "instances_val2014.json").write_text(json.dumps(content))
    return "val", CLASSES


KINDS = {"folder": _folder, "voc": _voc, "coco": _coco}


def test_every_kind_is_in_this_suite():
    # Folders of the kind hugging_face hold no masks; tests/tools/test_hugging_face_data.py reads them.
    assert set(names()) - {"hugging_face"} == set(KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("prefetch", [0, 2])
def test_every_kind_hands_on_photographs_tags_and_masks(tmp_path, monkeypatch, kind, prefetch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "data"
    split, classes = KINDS[kind](root)
    data = open_dataset(root, kind, split, masks=True)
    assert data.classes.names == tuple(classes)
    assert set(data.names) == set(LIGHTS)
    for index, batch in eval_images(data, prefetch=prefetch):
        light = data.names[index]
        assert batch.names == (light,)
        own = figures(photograph(light, SIZE).reshape(-1, 3).astype(np.float64))
        found = figures(grey_levels(batch.images[0]).reshape(-1, 3))
        assert np.abs(found[:2] - own[:2]).max() <= 2
        assert np.abs(found[2:] - own[2:]).max() <= (2 if kind == "folder" else 8)  # JPEG
        assert data.size(index) == tuple(batch.images.shape[2:]) == SIZE
        assert batch.tags[0].nonzero().flatten().tolist() == [0, 2]
        mask = data.mask(index)
        expected = stripes(light, SIZE, (0, 1, 3, 0 if kind == "coco" else 255))
        assert np.array_equal(mask, expected)


def test_folders_named_by_classes_tag_their_pictures(tmp_path):
    _class_folders(tmp_path)
    data = open_dataset(tmp_path, "folder")
    assert data.classes.names == ("first", "second")
    tags = {name: data.items[i].tags for i, name in enumerate(data.names)}
    assert {name.rsplit("/", 1)[-1]: own for name, own in tags.items()} == {"bright": (1,), "dark": (0,)}


def test_an_archives_files_are_what_was_packed(tmp_path):
    write_folder(tmp_path / "in", SIZE)
    packed = shutil.make_archive(str(tmp_path / "in"), "zip", tmp_path / "in")
    tree = open_tree(Path(packed))
    assert {"images/bright.png", "masks/dark.png", "tags.csv"} <= set(tree.names)
    for light in LIGHTS:
        content = tree.read(f"images/{light}.png")
        picture = read_picture(light, content=content)
        assert np.array_equal(np.asarray(picture), photograph(light, SIZE))
    tree.close()
