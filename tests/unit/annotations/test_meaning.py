"""What tools' files mean: names over positions, untouched is not empty, sizes and labels compared."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tagmask.annotations import formats
from tagmask.annotations.formats.brush import encode_brush
from tagmask.annotations.formats.label_studio import _newest
from tagmask.errors import ConfigError, DataError
from tagmask.store.labels import write_mask
from tests.unit.annotations.scenario import BOX, MASK, Desk, coco, labelme, polygon, task

COLOURS = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0)], np.uint8)
HEAD = "# label:color_rgb:parts:actions\n"


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path).pictures("im0.png")


@pytest.mark.parametrize("background", ["", "background:0,0,0::\n", "_background_:0,0,0::\n"])
def test_black_is_background_with_and_without_a_line_for_it(desk, background):
    desk.write("labelmap.txt", f"{HEAD}cat:0,128,0::\n{background}dog:128,0,0:head,hand:walk\n")
    desk.write("SegmentationClass/im0.png", COLOURS[MASK])
    assert desk.take() == {"im0": {0: 1710, 1: 450, 2: 240}}


def test_a_palette_is_read_by_its_colours(desk):
    desk.write("labelmap.txt", f"{HEAD}cat:0,128,0::\ndog:128,0,0::\n")
    picture = Image.fromarray(MASK)
    picture.putpalette(COLOURS.tobytes())
    (desk.root / "given" / "SegmentationClass").mkdir()
    picture.save(desk.root / "given" / "SegmentationClass" / "im0.png")
    assert desk.take() == {"im0": {0: 1710, 1: 450, 2: 240}}


def test_numbers_under_a_map_without_background_have_two_readings(desk):
    desk.write("labelmap.txt", f"{HEAD}cat:0,128,0::\ndog:128,0,0::\n")
    desk.write("SegmentationClass/im0.png", MASK)
    with pytest.raises(DataError, match="0 may be 'cat' or the background"):
        desk.take()


def test_two_classes_of_one_colour_are_refused_where_it_matters(desk):
    desk.write("labelmap.txt", f"{HEAD}background:0,0,0::\ncat:0,128,0::\ndog:0,128,0::\nbus:1,1,1::\n")
    mask = np.where(MASK == 2, 2, 0)
    desk.write("SegmentationClass/im0.png", COLOURS[mask])
    with pytest.raises(DataError, match="gives to cat and dog"):
        desk.take()
    desk.write("labelmap.txt", f"{HEAD}background:0,0,0::\ncat:0,128,0::\na:9,9,9::\nb:9,9,9::\n")
    assert desk.take() == {"im0": {0: 2160, 2: 240}}


def test_class_names_of_labelme2voc_number_its_pictures(desk):
    desk.write("class_names.txt", "_background_\ncat\ndog\n")
    desk.write("SegmentationClassPNG/im0.png", MASK)
    assert desk.take() == {"im0": {0: 1710, 1: 240, 2: 450}}


@pytest.mark.parametrize("form", ["grey", "colour", "palette of greys"])
def test_white_on_black_is_the_only_class(tmp_path, capsys, form):
    desk = Desk(tmp_path, ("cat",)).pictures("im0.png", "im1.png")
    white = np.where(MASK == 2, 255, 0).astype(np.uint8)
    if form == "palette of greys":
        picture = Image.fromarray(white).convert("P")
        picture.putpalette([v for v in range(256) for _ in range(3)])
        (tmp_path / "given").mkdir()
        picture.save(tmp_path / "given" / "im0.png")
    else:
        desk.write("im0.png", white if form == "grey" else np.stack([white] * 3, 2))
    assert desk.take()["im0"] == {0: 2160, 1: 240}
    assert "255 is read as 'cat'" in capsys.readouterr().err
    # Another mask that holds the label itself says that 255 are ignored pixels.
    desk.write("im1.png", np.where(MASK == 2, 1, 0).astype(np.uint8))
    if form != "colour":
        assert desk.take()["im0"] == {0: 2160, 255: 240}


@pytest.mark.parametrize("form", ["grey", "colour"])
def test_white_on_black_is_refused_with_several_classes(desk, form):
    white = np.where(MASK == 2, 255, 0).astype(np.uint8)
    desk.write("im0.png", white if form == "grey" else np.stack([white] * 3, 2))
    with pytest.raises(DataError, match=r"one of the classes \(dog, cat\), or ignored pixels"):
        desk.take()
    desk.write("labelmap.txt", "cat:255,255,255::\n")
    assert desk.take()["im0"] == {0: 2160, 2: 240}


def test_ignored_pixels_that_we_wrote_stay_ignored(tmp_path):
    desk = Desk(tmp_path, ("cat",)).pictures("im0.png")
    mask = np.where(MASK == 2, 255, 0).astype(np.uint8)
    write_mask(tmp_path / "masks" / "im0.png", mask, desk.subjects.classes.palette)
    assert desk.take(desk.root / "masks")["im0"] == {0: 2160, 255: 240}


def test_names_for_ignored_pixels_and_background(desk):
    shapes = [
        ("cat", BOX),
        ("__ignore__", [40, 5, 55, 5, 55, 35, 40, 35]),
        ("_background_", [0, 0, 5, 0, 5, 5]),
    ]
    desk.write("im0.json", labelme(shapes))
    found = desk.take()["im0"]
    assert (found[2], found[255]) == (400, 450)


CATEGORIES = [
    ((0, "pets"), (1, "dog"), (2, "cat")),
    ((0, "cat"), (2, "cat")),
    ((0, "background"), (2, "cat"), (3, "no class at all")),
    ((7, "unused"), (2, "cat")),
]


@pytest.mark.parametrize("cats", CATEGORIES)
def test_unused_categories_do_not_matter(desk, cats):
    desk.write("a.json", coco([("im0.png", 60, 40)], [(1, 2, [BOX])], cats))
    assert desk.take() == {"im0": {0: 2000, 2: 400}}


LINE = "0 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6\n"
NAMED = {
    "classes.txt": "cat\ndog\n",
    "obj.names": "cat\r\ndog\r\n",
    "notes.json": {"categories": [{"id": 1, "name": "dog"}, {"id": 0, "name": "cat"}]},
    "data.yaml": "nc: 2\nnames: [cat, dog]\n",
    "data.yml": "names:\n  1: dog\n  0: cat\n  2: no class of ours\n",
}


@pytest.mark.parametrize("file", NAMED)
def test_yolo_numbers_are_named_by_whatever_lies_beside(desk, file):
    desk.write(file, NAMED[file])
    desk.write("labels/abcdef12-im0.txt", LINE)
    assert desk.take() == {"im0": {0: 1920, 2: 480}}


def test_yolo_lists_that_contradict_each_other_are_refused(desk):
    desk.write("classes.txt", "cat\ndog\n")
    desk.write("data.yaml", "names: [dog, cat]\n")
    desk.write("labels/im0.txt", LINE)
    with pytest.raises(DataError, match=r"calls number 0 'cat', .* 'dog'"):
        desk.take()


def test_yolo_without_names_follows_the_classes_and_says_so(desk, capsys):
    desk.write("labels/im0.txt", LINE)
    assert desk.take() == {"im0": {0: 1920, 1: 480}}
    assert "in the order of the classes (0 is 'dog')" in " ".join(capsys.readouterr().err.split())
    desk.write("labels/im0.txt", LINE.replace("0", "2", 1))
    with pytest.raises(DataError, match="there is no class 2; the numbers are 0 dog, 1 cat"):
        desk.take()


def test_yolo_names_are_texts(tmp_path):
    desk = Desk(tmp_path, ("yes", "010", "null")).pictures("im0.png")
    desk.write("data.yaml", "names: [null, yes, 010]\n")
    desk.write("labels/im0.txt", LINE.replace("0", "2", 1))
    assert desk.take() == {"im0": {0: 1920, 2: 480}}


UNTOUCHED = {
    "coco": {"a.json": coco([("im0.png", 60, 40), ("im1.png", 60, 40)], [(1, 2, [BOX])])},
    "labelme": {
        "im0.json": labelme([("cat", BOX)]),
        "im1.json": labelme([], path="im1.png"),
    },
    "label-studio": {
        "a.json": [
            task([{"id": 1, "result": [polygon("cat")]}]),
            task([], "/data/upload/1/abcdef12-im1.png", predictions=[{"result": [polygon("dog")]}]),
        ]
    },
    "yolo": {"labels/im0.txt": LINE, "labels/im1.txt": "\n", "classes.txt": "cat\n"},
    "cvat": {
        "labelmap.txt": f"{HEAD}background:0,0,0::\ndog:128,0,0::\ncat:0,128,0::\n",
        "SegmentationClass/im0.png": COLOURS[MASK],
        "SegmentationClass/im1.png": COLOURS[MASK * 0],
    },
    "voc": {
        "SegmentationClass/im0.png": MASK,
        "ImageSets/Segmentation/default.txt": "im0\nim1\n",
    },
}


@pytest.mark.parametrize("kind", UNTOUCHED)
def test_images_nobody_looked_at_are_left_out_unless_named(desk, kind):
    desk.pictures("im1.png")
    for name, content in UNTOUCHED[kind].items():
        desk.write(name, content)
    assert set(desk.take()) == {"im0"}
    assert desk.figures == {"images": 1, "left": "1 without annotation"}
    for empty in (["im1"], ["all"]):
        found = desk.take(empty=empty)
        assert found.keys() == {"im0", "im1"}
        assert found["im1"] == {0: 2400}
        assert desk.figures == {"images": 2, "left": ""}
    with pytest.raises(ConfigError, match="Did you mean 'im1'"):
        desk.take(empty=["im11"])


def test_untouched_images_of_other_folders_do_not_matter(desk):
    desk.write("a.json", coco([("im0.png", 60, 40), ("gone.png", 60, 40)], [(1, 2, [BOX])]))
    assert set(desk.take()) == {"im0"}


BOXES = {
    "coco": {"a.json": coco([("im0.png", 60, 40)], [(1, 2, []), (1, 1, [[]])])},
    "label-studio": {"a.json": [task([{"id": 1, "result": [{"type": "rectanglelabels", "value": {}}]}])]},
    "yolo": {"labels/im0.txt": "0 0.5 0.5 0.1 0.1\n", "classes.txt": "cat\n"},
}


@pytest.mark.parametrize("kind", BOXES)
def test_boxes_are_no_masks(desk, kind):
    for name, content in BOXES[kind].items():
        desk.write(name, content)
    with pytest.raises(DataError, match=r"no annotated image \(1 with boxes only\)"):
        desk.take()


def test_a_box_beside_regions_is_refused(desk):
    desk.write("a.json", coco([("im0.png", 60, 40)], [(1, 2, [BOX]), (1, 1, [])]))
    with pytest.raises(DataError, match="annotation 2 of 'im0' is a box"):
        desk.take()


def test_the_newest_annotation_counts(desk):
    new = {"id": 9, "created_at": "2026-02-02T00:00:00Z", "result": [polygon("cat")]}
    old = {"id": 5, "created_at": "2026-01-01T00:00:00+00:00", "result": [polygon("dog")]}
    for order in ([new, old], [old, new]):
        desk.write("a.json", [task(order)])
        assert desk.take() == {"im0": {0: 1920, 2: 480}}
    changed = {**old, "updated_at": "2026-03-01T00:00:00Z"}
    desk.write("a.json", [task([new, changed, {"id": 20, "was_cancelled": True, "result": []}])])
    assert desk.take() == {"im0": {0: 1920, 1: 480}}
    assert _newest([{"id": 3}, {"id": 7}, {"id": 5}]) == {"id": 7}
    assert _newest([{"x": 1}, {"x": 2}]) == {"x": 2}


def test_a_skipped_task_has_no_annotation_whatever_was_predicted(desk):
    skipped = [{"id": 9, "was_cancelled": True, "result": []}]
    desk.write("a.json", [task(skipped, predictions=[{"result": [polygon("cat")]}])])
    with pytest.raises(DataError, match=r"no annotated image \(1 skipped\)"):
        desk.take()


def test_an_annotation_that_was_submitted_empty_is_empty(desk):
    desk.write("a.json", [task([{"id": 9, "result": [{"type": "choices", "value": {}}]}])])
    assert desk.take() == {"im0": {0: 2400}}


SIZES = {
    "coco": {"a.json": coco([("im0.png", 120, 80)], [(1, 2, [BOX])])},
    "labelme": {"im0.json": labelme([("cat", BOX)], (80, 120))},
    "label-studio": {"a.json": [task([{"id": 1, "result": [polygon("cat", (80, 120))]}])]},
    "voc": {"im0.png": np.zeros((80, 120), np.uint8)},
}


@pytest.mark.parametrize("kind", SIZES)
def test_declared_sizes_are_compared(desk, kind):
    for name, content in SIZES[kind].items():
        desk.write(name, content)
    with pytest.raises(DataError, match="is 120 x 80, but its image 60 x 40"):
        desk.take()


def test_a_brush_of_the_turned_picture_is_refused(tmp_path):
    desk = Desk(tmp_path).pictures("im0.png", size=(60, 40))
    value = {"format": "rle", "rle": encode_brush(MASK == 2), "brushlabels": ["cat"]}
    brush = {"type": "brushlabels", "original_width": 60, "original_height": 40, "value": value}
    desk.write("a.json", [task([{"id": 1, "result": [brush]}])])
    with pytest.raises(DataError, match="is 60 x 40, but its image 40 x 60"):
        desk.take()


@pytest.mark.parametrize("kind", formats.names())
def test_exports_refuse_other_sizes_and_unknown_labels(desk, kind):
    desk.mask("im0", MASK[:20, :30])
    with pytest.raises(DataError, match=r"im0\.png is 30 x 20, but its image 60 x 40"):
        desk.export(kind)
    desk.mask("im0", np.where(MASK == 2, 5, MASK).astype(np.uint8))
    with pytest.raises(DataError, match=r"im0\.png holds the label 5; allowed are 0 to 2 and 255"):
        desk.export(kind)


DAMAGED = [
    {"a.json": {"images": [{}], "annotations": [], "categories": []}},
    {"a.json": {"images": [1], "annotations": [], "categories": []}},
    {"a.json": coco([("im0.png", 60, 40)], [(1, 9, [BOX])])},
    {"a.json": coco([("im0.png", 60, 40)], [(5, 1, [BOX])])},
    {"a.json": [1]},
    {"a.json": [{"annotations": []}]},
    {"a.json": [task([{"id": 1, "result": [{"type": "polygonlabels", "value": {"points": []}}]}])]},
    {"a.json": [{"data": {"a": "x", "b": "y"}, "annotations": [{"result": []}]}]},
    {"im0.json": labelme([("cat", [1, 2])])},
    {"labels/im0.txt": "x\n"},
    {"data.yaml": "names: &a [*a]\n", "labels/im0.txt": LINE},
]


@pytest.mark.parametrize("files", DAMAGED, ids=range(len(DAMAGED)))
def test_damage_is_one_sentence(desk, files):
    for name, content in files.items():
        desk.write(name, content)
    with pytest.raises(DataError) as caught:
        desk.take()
    assert "Error(" not in str(caught.value)
