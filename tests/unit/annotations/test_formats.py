"""Every export is read back by a reader that is not ours, and by our own import."""

from __future__ import annotations

import base64
import io
import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from tagmask.annotations import formats
from tagmask.annotations.formats.base import Images, Labelled
from tagmask.annotations.formats.brush import decode_brush, encode_brush
from tagmask.annotations.formats.matching import Names, addressed
from tagmask.annotations.formats.regions import components, outlines, polygon_mask
from tagmask.data.classes import ClassTable, voc_palette
from tagmask.data.datasets.scenes import CLASSES, render
from tagmask.data.readers.rle import count_runs, decode_counts, format_counts, parse_counts
from tagmask.errors import ConfigError, DataError

TABLE = ClassTable(CLASSES)
MASKS = {f"sub/{i}": render(i, 3, size=80).mask for i in range(6)}
RING = np.zeros((60, 70), np.uint8)
RING[5:50, 8:60] = 2
RING[15:35, 20:30] = 0
RING[18:30, 36:50] = 4
RING[22:25, 40:44] = 2
RING[59, 69] = 1
MASKS |= {"ring": RING, "empty": np.zeros((4, 5), np.uint8), "pixel": np.ones((1, 1), np.uint8)}
EXACT = [("coco", "exact"), ("cvat", "exact"), ("cvat-coco", "exact"), ("label-studio", "exact")]
EXACT += [("labelme", "exact"), ("voc", "exact")]
DRAWN = [("coco", "polygons"), ("cvat-coco", "polygons"), ("labelme", "polygons"), ("yolo", "polygons")]


class Files(dict):
    """Files of an export, as `read` sees them."""

    @property
    def names(self):
        return sorted(self)

    def read(self, name):
        return self[name]


def written(name, shapes, masks=MASKS):
    files = Files()
    items = [Labelled(n, f"{n}.jpg", m) for n, m in masks.items()]
    formats.get(name).write(items, TABLE, files.__setitem__, shapes)
    return files


def known(masks=MASKS):
    sizes = {name: partial(np.shape, mask) for name, mask in masks.items()}
    return Images(TABLE, sizes, {name: f"{name}.jpg" for name in masks}, empty=None)


def iou(first, second):
    union = ((first > 0) | (second > 0)).sum()
    return 1.0 if union == 0 else ((first == second) & (first > 0)).sum() / union


@pytest.mark.parametrize(("name", "shapes"), EXACT)
def test_exact_formats_come_back_pixel_by_pixel(name, shapes):
    found = dict(formats.get(name).read(written(name, shapes), known()))
    assert found.keys() == MASKS.keys()
    for key, mask in MASKS.items():
        np.testing.assert_array_equal(found[key], mask)


@pytest.mark.parametrize(("name", "shapes"), DRAWN)
def test_polygons_come_back_nearly(name, shapes):
    found = dict(formats.get(name).read(written(name, shapes), known()))
    assert found.keys() == MASKS.keys()
    for key, mask in MASKS.items():
        assert iou(found[key], mask) >= 0.94, key


@given(st.integers(0, 10_000), st.integers(2, 24))
@settings(max_examples=25, deadline=None)
def test_outlines_keep_what_they_promise(seed, side):
    rng = np.random.default_rng(seed)
    mask = (rng.random((side, side + 3)) < 0.5).astype(np.uint8)
    for region in components(mask):
        whole = region.whole(mask.shape)
        drawn = polygon_mask(outlines(region, 0.9), mask.shape)
        assert (drawn & whole).sum() / (drawn | whole).sum() >= 0.9


def test_run_lengths_are_those_of_pycocotools():
    for mask in MASKS.values():
        bits = mask > 0
        theirs = coco_mask.encode(np.asfortranarray(bits.astype(np.uint8)))
        counts = count_runs(bits)
        assert format_counts(counts) == theirs["counts"].decode()
        assert parse_counts(format_counts(counts)) == counts
        np.testing.assert_array_equal(decode_counts(counts, bits.shape), bits)


@pytest.mark.parametrize("name", ["coco", "cvat-coco"])
@pytest.mark.parametrize("shapes", ["exact", "polygons"])
def test_pycocotools_reads_coco_files(name, shapes, tmp_path, capsys):
    (file, content), *_ = written(name, shapes).items()
    assert file == ("instances.json" if name == "coco" else "annotations/instances_default.json")
    path = tmp_path / "file.json"
    path.write_bytes(content)
    coco = COCO(str(path))
    assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == dict(enumerate(CLASSES, 1))
    for image in coco.loadImgs(coco.getImgIds()):
        truth = MASKS[image["file_name"].removesuffix(".jpg")]
        drawn = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"], iscrowd=None)):
            drawn[coco.annToMask(annotation) > 0] = annotation["category_id"]
            ys, xs = np.nonzero(coco.annToMask(annotation))
            box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert shapes != "exact" or annotation["bbox"] == box
            if name == "cvat-coco" and shapes == "exact":
                assert annotation["iscrowd"] == 1  # CVAT makes masks of these only
                assert isinstance(annotation["segmentation"]["counts"], list)
        if shapes == "exact":
            np.testing.assert_array_equal(drawn, truth)
        else:
            assert iou(drawn, truth) >= 0.94
    capsys.readouterr()


def test_cvat_mask_archives_follow_its_rules():
    files = written("cvat", "exact", MASKS | {"edge": np.full((3, 3), 255, np.uint8)})
    names = files["ImageSets/Segmentation/default.txt"].decode().split()
    assert names == [*MASKS, "edge"]
    colours = {}
    for line in files["labelmap.txt"].decode().splitlines()[1:]:
        label, colour, parts, actions = line.split(":")
        assert parts == actions == ""
        colours[tuple(map(int, colour.split(",")))] = label
    assert list(colours.values()) == ["background", *CLASSES]
    assert colours[0, 0, 0] == "background"
    for name in names:
        with Image.open(io.BytesIO(files[f"SegmentationClass/{name}.png"])) as picture:
            assert picture.mode == "RGB"
            seen = {colours[c] for c in map(tuple, np.asarray(picture).reshape(-1, 3).tolist())}
        expected = np.unique(MASKS[name]) if name in MASKS else [0]
        assert seen == {TABLE.labels[label] for label in expected}
        assert f"SegmentationObject/{name}.png" in files


def test_voc_pictures_are_indexed_and_keep_ignored_pixels():
    mask = np.asarray([[0, 1, 255], [5, 5, 0]], np.uint8)
    files = written("voc", "exact", {"a": mask})
    with Image.open(io.BytesIO(files["SegmentationClass/a.png"])) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), mask)
        np.testing.assert_array_equal(np.reshape(picture.getpalette(), (-1, 3)), voc_palette())
    found = dict(formats.get("voc").read(files, known({"a": mask})))
    np.testing.assert_array_equal(found["a"], mask)


def independent_brush_reader(code, height, width):
    """Label Studio's documented rules once more, on a text of bits."""
    bits = "".join(f"{byte:08b}" for byte in code)
    place = 0

    def take(count):
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word, sizes = take(32), take(5) + 1, [0] * 4
    sizes = [take(4) + 1 for _ in sizes]
    values = []
    while len(values) < total:
        run = take(1)
        count = take(sizes[take(2)]) + 1
        values += [take(word)] * count if run else [take(word) for _ in range(count)]
    assert len(values) == total
    return np.reshape(values, (height, width, 4))


def test_brushes_follow_label_studios_rules():
    files = written("label-studio", "exact")
    assert b'<Label value="marble"/>' in files["config.xml"]
    for task in json.loads(files["tasks.json"]):
        name = task["data"]["tagmask_name"]
        drawn = np.zeros_like(MASKS[name])
        for result in task["predictions"][0]["result"]:
            assert result["type"] == "brushlabels"
            assert result["value"]["format"] == "rle"
            size = result["original_height"], result["original_width"]
            pixels = independent_brush_reader(result["value"]["rle"], *size)
            assert (pixels == pixels[..., :1]).all()
            drawn[pixels[..., 3] == 255] = CLASSES.index(result["value"]["brushlabels"][0]) + 1
        np.testing.assert_array_equal(drawn, MASKS[name])


def test_brush_codes_with_single_values_are_read():
    # Label Studio itself writes short stretches value by value: flag 0, size 3 bits, then the values.
    bits = f"{16:032b}" + f"{7:05b}" + "0010" + "0011" + "0111" + "1111"
    bits += "0" + "01" + f"{15:04b}" + "".join(f"{v:08b}" for v in [0, 0, 0, 255] * 2 + [0] * 8)
    bits += "0" * (-len(bits) % 8)
    code = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert decode_brush(code, (2, 2)).tolist() == [[True, True], [False, False]]
    large = np.ones((150, 150), bool)  # 90,000 values: more than one run can hold
    assert decode_brush(encode_brush(large), large.shape).all()


@pytest.mark.parametrize("shapes", ["polygons", "exact"])
def test_labelme_files_follow_its_schema(shapes):
    for file, content in written("labelme", shapes).items():
        data = json.loads(content)
        # What LabelMe's loader asks for, and what its converter draws (PIL, outline included).
        assert {"version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"} == set(
            data
        )
        truth = MASKS[file.removesuffix(".json")]
        assert (data["imageHeight"], data["imageWidth"]) == truth.shape
        assert "/" not in data["imagePath"]
        drawn = np.zeros_like(truth)
        for shape in data["shapes"]:
            assert {"label", "points", "shape_type", "flags", "group_id", "description", "mask"} == set(shape)
            canvas = Image.new("1", truth.shape[::-1])
            if shape["shape_type"] == "mask":
                (left, top), (right, bottom) = shape["points"]
                pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"]))))
                part = np.zeros(truth.shape, bool)
                part[top : bottom + 1, left : right + 1] = pixels
            else:
                assert len(shape["points"]) >= 3
                ImageDraw.Draw(canvas).polygon([tuple(p) for p in shape["points"]], outline=1, fill=1)
                part = np.asarray(canvas)
            drawn[part] = CLASSES.index(shape["label"]) + 1
        # LabelMe draws the outline itself as well: about half a pixel all around.
        assert iou(drawn, truth) >= (1.0 if shapes == "exact" else 0.75), file


def test_yolo_lines_are_shares_of_the_image():
    files = written("yolo", "polygons")
    assert '2: "checker"' in files["data.yaml"].decode()
    for name, mask in MASKS.items():
        height, width = mask.shape
        drawn = np.zeros_like(mask)
        for line in files[f"labels/{name}.txt"].decode().splitlines():
            key, *shares = line.split()
            points = np.asarray(shares, float).reshape(-1, 2)
            assert len(points) >= 3
            assert ((points >= 0) & (points <= 1)).all()
            runs = coco_mask.frPyObjects([(points * (width, height)).reshape(-1).tolist()], height, width)
            drawn[coco_mask.decode(coco_mask.merge(runs)) > 0] = int(key) + 1
        assert iou(drawn, mask) >= 0.94, name


WRONG = [
    ("coco", {"x.json": b"[]"}, "no COCO file"),
    ("coco", {"x.json": b"{"}, "not JSON"),
    ("coco", {"x.json": b'{"images": [], "annotations": [{}], "categories": []}'}, "layout"),
    ("cvat", {"a.txt": b""}, r"no \.png"),
    ("cvat", {"SegmentationClass/pixel.png": b"\x89PNG"}, "cannot be decoded"),
    ("cvat", {"labelmap.txt": b"cat:1,2\n", "SegmentationClass/pixel.png": b""}, "red,green,blue"),
    ("label-studio", {"x.json": b"{}"}, "list of tasks"),
    (
        "label-studio",
        {"x.json": b'[{"data": {"image": "nope.jpg"}, "annotations": [{"result": []}]}]'},
        "no image for 'nope.jpg'",
    ),
    ("labelme", {"ring.json": b"{}"}, "no list of 'shapes'"),
    ("yolo", {"labels/ring.txt": b"0 0.1 nan\n"}, "line 1"),
    ("yolo", {"labels/ring.txt": b"9 0 0 1 0 1 1\n"}, "line 1"),
]


@pytest.mark.parametrize(("name", "files", "message"), WRONG, ids=[f"{w[0]}-{w[2]}" for w in WRONG])
def test_files_that_do_not_fit_are_named(name, files, message):
    with pytest.raises(DataError, match=message):
        list(formats.get(name).read(Files(files), known()))


def test_names_of_classes_images_and_formats_are_suggested():
    files = written("labelme", "polygons", {"ring": RING})
    files = Files({k: v.replace(b'"dots"', b'"dost"') for k, v in files.items()})
    with pytest.raises(DataError, match="Did you mean 'dots'"):
        list(formats.get("labelme").read(files, known()))
    with pytest.raises(ConfigError, match="Did you mean 'labelme'"):
        formats.get("labelmee")


@pytest.mark.parametrize(
    "path",
    [
        "sub/3.jpg",
        "3.png",
        "/data/local-files/?d=here/sub/3.jpg",
        "/data/upload/1/0a1b2c3d-3.jpg",
        "https://host.org/x/sub/3.jpg?token=1",
        "3",
        "sub\\3.jpg",
        "images/sub/3.jpg",
    ],
)
def test_images_are_found_however_tools_write_them(path):
    (plain, *_) = addressed(path)
    assert known().names.upload(plain, "here") == "sub/3"


@pytest.mark.parametrize("path", ["other/3.jpg", "x/other/3.jpg", "3.1.jpg", "/data/upload/1/nothex00-3.jpg"])
def test_another_folder_or_another_name_is_another_image(path):
    (plain, *_) = addressed(path)
    with pytest.raises(DataError, match="no image for"):
        known().names.upload(plain, "here")


def test_a_name_that_several_images_share_is_refused():
    both = Names({"a/1": "a/1.jpg", "b/1": "b/1.jpg"})
    with pytest.raises(DataError, match="could be any of a/1, b/1"):
        both.find("1.jpg", "here")
    assert both.find("x/b/1.jpg", "here") == "b/1"


def test_long_runs_of_a_brush_are_cut_up():
    pixels = np.zeros((200, 300), bool)
    pixels[150:, 3:] = True  # 45,003 pixels of four channels before the first stroke
    code = encode_brush(pixels)
    assert max(code) <= 255
    np.testing.assert_array_equal(decode_brush(code, (200, 300)), pixels)


def test_pixels_that_touch_at_a_corner_are_one_region():
    mask = np.eye(6, 9, dtype=np.uint8) * 3
    (region,) = components(mask)
    assert (region.label, region.area, region.pixels.shape) == (3, 6, (6, 6))
    np.testing.assert_array_equal(region.whole(mask.shape), mask > 0)
