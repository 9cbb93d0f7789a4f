"""More ways in which tools' files can mean something else than they seem to: names, keys, places, amounts."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from tagmask.data.readers import rle
from tagmask.errors import DataError
from tests.unit.annotations.scenario import BOX, MASK, Desk, coco, labelme, polygon, task

LINE = "0 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6\n"
COLOURS = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0)], np.uint8)
CAT, DOG = {"im0": {0: 1920, 2: 480}}, {"im0": {0: 1920, 1: 480}}


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path).pictures("im0.png")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("dataset.yaml", "path: .\nnames: {0: cat, 1: dog}\n"),
        ("y/coco.yml", "names:\n- cat\n- dog\n"),
        ("voc.names", "cat\ndog\n"),
        ("predefined_classes.txt", "cat\ndog\n"),
        ("labels/classes.txt", "cat\ndog\n"),
        ("data.yaml", "\ufeffnc: 2\r\nnames: [cat, dog]\r\n"),
    ],
)
def test_lists_of_names_are_known_under_all_their_names(desk, file, text):
    desk.write("labels/im0.txt", "\ufeff" + LINE.replace("0 ", "0.0 ", 1))
    desk.write(file, text)
    desk.write("args.yaml", "epochs: 3\n")
    assert desk.take() == CAT


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("names: [cat, dog]\nnames: [dog, cat]\n", "'names' is in line 1 too"),
        ("names:\n  0: cat\n  0: dog\n", "'0' is in line 2 too"),
        ("names:\n  0: cat\n  00: dog\n", "2 classes and names 1"),
        ("nc: 3\nnames: [cat, dog]\n", "declares 3 classes and names 2"),
        ("names: cat, dog\n", "no readable list"),
        ("kpt_shape: [2, 3]\nnames: [cat, dog]\n", "key points"),
    ],
)
def test_lists_that_say_two_things_are_refused(desk, text, says):
    desk.write("labels/im0.txt", LINE)
    desk.write("data.yaml", text)
    with pytest.raises(DataError, match=says):
        desk.take()


def test_an_outline_with_a_number_too_many_is_no_outline(desk):
    desk.write("labels/im0.txt", LINE.strip() + " 0.93\n")
    with pytest.raises(DataError, match="line 1: a number of a class and 9 numbers"):
        desk.take()


NOWHERE = {
    "coco": {"a.json": coco([("im0.png", None, None)], [(1, 1, [[100, 100, 300, 100, 300, 300]])])},
    "coco in shares": {"a.json": coco([("im0.png", 60, 40)], [(1, 1, [[0.1, 0.1, 0.5, 0.1, 0.5, 0.6]])])},
    "labelme": {"im0.json": labelme([("cat", [100, 100, 300, 100, 300, 300])])},
    "yolo": {"labels/im0.txt": "0 1.5 1.5 1.9 1.5 1.9 1.9\n", "classes.txt": "cat\n"},
    "label-studio": {
        "a.json": [
            task([{"id": 1, "result": [{**polygon("cat"), "value": {
                "points": [[0.1, 0.1], [0.5, 0.1], [0.5, 0.6]], "polygonlabels": ["cat"]}}]}])
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", NOWHERE)
def test_shapes_that_cover_no_pixel_teach_no_background(desk, kind):
    for name, content in NOWHERE[kind].items():
        desk.write(name, content)
    with pytest.raises(DataError, match="1 with shapes that cover no pixel"):
        desk.take()
    assert desk.take(empty=["im0"]) == {"im0": {0: 2400}}


def test_a_number_of_two_categories_is_refused(desk):
    desk.write("a.json", coco([("im0.png", 60, 40)], [(1, 1, [BOX])], ((1, "dog"), (1, "cat"))))
    with pytest.raises(DataError, match="the number 1 to 'dog' and to 'cat'"):
        desk.take()


def test_a_key_that_stands_twice_is_refused(desk):
    text = json.dumps(labelme([("cat", BOX)]))
    desk.write("im0.json", text[:-1] + ', "shapes": []}')
    with pytest.raises(DataError, match="'shapes' appears twice"):
        desk.take(kind="labelme")


def test_sizes_written_as_texts_are_sizes(desk):
    desk.write("a.json", coco([("im0.png", "60", "40")], [(1, 2, [BOX])]))
    assert desk.take() == {"im0": {0: 2000, 2: 400}}
    desk.write("a.json", coco([("im0.png", "wide", "high")], [(1, 2, [BOX])]))
    with pytest.raises(DataError, match="declares the size 'wide' x 'high'"):
        desk.take()


def test_a_labelme_mask_has_the_size_of_its_corners(desk):
    buffer = io.BytesIO()
    Image.new("L", (10, 10), 255).save(buffer, "PNG")
    content = labelme([("cat", [5, 5, 14, 14])])
    content["shapes"][0] |= {"shape_type": "mask", "mask": base64.b64encode(buffer.getvalue()).decode()}
    desk.write("im0.json", content)
    assert desk.take() == {"im0": {0: 2300, 2: 100}}
    content["shapes"][0]["points"] = [[5, 5], [30, 30]]
    desk.write("im0.json", content)
    with pytest.raises(DataError, match="its mask is 10 x 10, but its corners are those of 26 x 26"):
        desk.take()


def test_two_jobs_keep_their_own_colours(tmp_path):
    desk = Desk(tmp_path).pictures("im0.png", "im1.png")
    for job, names in enumerate((("dog", "cat"), ("cat", "dog"))):
        desk.write(f"{job}/labelmap.txt", f"background:0,0,0::\n{names[0]}:128,0,0::\n{names[1]}:0,128,0::\n")
        desk.write(f"{job}/SegmentationClass/im{job}.png", COLOURS[MASK])
    assert desk.take() == {"im0": {0: 1710, 1: 450, 2: 240}, "im1": {0: 1710, 1: 240, 2: 450}}
    desk.write("SegmentationClass/im0.png", COLOURS[MASK])
    with pytest.raises(DataError, match="could follow any of"):
        desk.take()


def test_lists_beside_pictures_number_them(desk):
    desk.write("SegmentationClass/im0.png", MASK)
    swapped = {"im0": {0: 1710, 1: 240, 2: 450}}
    for text in ("__ignore__\n_background_\ncat\ndog\n", "background\ncat\ndog\n"):
        desk.write("labels.txt", text)
        assert desk.take(kind="voc") == swapped
    for text in ("dog\ncat\n", "lion\ntiger\n"):
        desk.write("labels.txt", text)
        assert desk.take(kind="voc") == {"im0": {0: 1710, 1: 450, 2: 240}}
    desk.write("labels.txt", "cat\ndog\n")
    with pytest.raises(DataError, match="0 may be 'cat' or the background"):
        desk.take(kind="voc")


def test_black_for_a_class_has_two_readings_without_a_background(desk):
    desk.write("labelmap.txt", "dog:0,0,0::\ncat:0,128,0::\n")
    desk.write("SegmentationClass/im0.png", COLOURS[np.where(MASK == 2, 2, 0)])
    with pytest.raises(DataError, match="may be 'dog' or what nobody marked"):
        desk.take()
    desk.write("labelmap.txt", "dog:0,0,0::\ncat:0,128,0::\nbackground:1,1,1::\n")
    assert desk.take() == {"im0": {1: 2160, 2: 240}}


@pytest.mark.parametrize("form", ["one bit", "palette"])
def test_black_and_white_of_several_classes_is_refused(desk, form):
    picture = Image.fromarray(MASK > 0)
    if form == "palette":
        picture = Image.fromarray((MASK > 0).astype(np.uint8))
        picture.putpalette([0, 0, 0, 255, 255, 255])
    (desk.root / "given").mkdir()
    picture.save(desk.root / "given" / "im0.png")
    with pytest.raises(DataError, match=r"one of the classes \(dog, cat\)"):
        desk.take()
    alone = Desk(desk.root, ("dog",))
    assert alone.take() == {"im0": {0: 1710, 1: 690}}


def test_annotations_are_found_under_their_older_name_and_counted(desk, capsys):
    old, new = ({"id": k, "result": [polygon(name)]} for k, name in enumerate(("dog", "cat")))
    desk.write("a.json", [task(completions=[old], predictions=[new])])
    assert desk.take() == DOG
    desk.write("a.json", [task([old, new])])
    assert desk.take() == CAT
    assert "1 of 1 tasks have several annotations; the newest of each counts" in capsys.readouterr().err


def test_a_task_of_two_pictures_says_which_one_was_drawn_on(tmp_path):
    desk = Desk(tmp_path).pictures("im0.png", "im1.png")
    both = {"image": "im0.png", "other": "im1.png"}
    shapes = [{**polygon("dog"), "to_name": "other"}]
    desk.write("a.json", [{"data": both, "annotations": [{"id": 1, "result": shapes}]}])
    assert desk.take() == {"im1": {0: 1920, 1: 480}}
    shapes.append({**polygon("dog"), "to_name": "image"})
    desk.write("a.json", [{"data": both, "annotations": [{"id": 1, "result": shapes}]}])
    with pytest.raises(DataError, match="several pictures"):
        desk.take()


def test_an_outline_that_no_picture_can_have_is_refused_at_once():
    with pytest.raises(ValueError, match="500,000 corners is too long"):
        rle.draw_polygon([float(k % 60) for k in range(1_000_000)], (40, 60))


def test_an_outline_is_the_same_in_pieces(monkeypatch):
    corners = np.random.default_rng(0).uniform(-5, 70, 40).tolist()
    whole = rle.draw_polygon(corners, (50, 60))
    monkeypatch.setattr(rle, "_FEW_STEPS", 300)
    assert len(list(rle._parts(rle._corners(corners, (50, 60)), (50, 60)))) > 5
    assert (rle.draw_polygon(corners, (50, 60)) == whole).all()
