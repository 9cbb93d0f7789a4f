"""Files that are sound and can be read in another way than they are meant: told by what they say beside."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tagmask.data.classes import voc_palette
from tagmask.data.datasets.coco import semantic_mask
from tagmask.data.readers.rle import count_runs
from tagmask.errors import DataError
from tests.unit.annotations.scenario import MASK, Desk, coco, labelme

REGION = np.zeros((40, 60), bool)
REGION[5:15, 10:50] = True
BBOX = [10, 5, 40, 10]
CORNERS = [10, 5, 50, 5, 50, 15, 10, 15]
BOTH = {"im0": {0: 1710, 1: 450, 2: 240}}


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path).pictures("im0.png")


def entry(segmentation, bbox):
    return {"id": 1, "image_id": 1, "category_id": 1, "segmentation": segmentation, "bbox": bbox}


def runs(mask):
    return {"size": [40, 60], "counts": [int(run) for run in count_runs(mask)]}


OTHERS = {
    "along the rows": runs(REGION.reshape(60, 40).T),
    "begin with set pixels": runs(~REGION),
    "corners are y and x": [np.reshape(CORNERS, (-1, 2))[:, ::-1].reshape(-1).tolist()],
}


@pytest.mark.parametrize("said", OTHERS)
def test_a_region_that_its_box_contradicts_is_refused(desk, said):
    content = coco([("im0.png", 60, 40)], [])
    content["annotations"] = [entry(OTHERS[said], BBOX)]
    desk.write("a.json", content)
    with pytest.raises(DataError, match=said):
        desk.take()
    with pytest.raises(DataError, match=said):
        semantic_mask(content["annotations"], (40, 60), {1: 0}, "a.json")


@pytest.mark.parametrize("bbox", [BBOX, [0, 0, 0, 0], [], None, [1, 2, 3, 4], [10, 5, 50, 15]])
@pytest.mark.parametrize("segmentation", [runs(REGION), [CORNERS]])
def test_other_boxes_say_nothing(desk, segmentation, bbox):
    content = coco([("im0.png", 60, 40)], [])
    content["annotations"] = [entry(segmentation, bbox)]
    desk.write("a.json", content)
    assert desk.take() == {"im0": {0: 2000, 1: 400}}


def test_what_models_found_and_xml_are_said(desk, capsys):
    content = coco([("im0.png", 60, 40)], [])
    content["annotations"] = [{**entry([CORNERS], BBOX), "score": 0.4}]
    desk.write("a.json", content)
    desk.take()
    assert "1 annotations of a.json carry a score" in capsys.readouterr().err
    path = desk.root / "cvat"
    path.mkdir()
    (path / "annotations.xml").write_text("<annotations/>")
    with pytest.raises(DataError, match="XML is not read"):
        desk.take(path)


def test_the_panoptic_form_is_named(desk):
    content = coco([("im0.png", 60, 40)], [])
    content["annotations"] = [{"image_id": 1, "file_name": "im0.png", "segments_info": [{"category_id": 1}]}]
    desk.write("a.json", content)
    with pytest.raises(DataError, match="panoptic"):
        desk.take()


@pytest.mark.parametrize(
    "line", ["0 0 0 1.5 0 1.5 1 0 1\n", "0 .3 .3 .2 .2 .2 .2 2 .3 .2 2 .4 .4 2 .2 .4 2\n"]
)
def test_shares_beyond_the_image_are_no_outline(desk, line):
    desk.write("labels/im0.txt", line)
    with pytest.raises(DataError, match="line 1: corners are outside the image"):
        desk.take()
    desk.write("labels/im0.txt", "0 -0.003 0 1.003 0 1 1 0 1\n")  # rounded
    assert desk.take() == {"im0": {1: 2400}}


def saved(desk, picture, name="SegmentationClass/im0.png", **options):
    path = desk.root / "given" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)


def test_numbers_of_16_bits_and_beside_full_opacity_are_numbers(desk):
    for picture in (
        Image.fromarray(MASK.astype(np.uint16)),
        Image.fromarray(np.stack([MASK, np.full_like(MASK, 255)], -1), "LA"),
    ):
        saved(desk, picture)
        assert desk.take() == BOTH
    saved(desk, Image.fromarray(MASK.astype(np.uint16) * 256))
    with pytest.raises(DataError, match="holds the number 512"):
        desk.take()


def test_what_was_rubbed_out_is_not_there(desk):
    seen = np.where(MASK == 1, 255, 0).astype(np.uint8)
    saved(desk, Image.fromarray(np.dstack([voc_palette()[MASK], seen])))
    desk.write("labelmap.txt", "background:0,0,0::\ndog:128,0,0::\ncat:0,128,0::\n")
    assert desk.take() == {"im0": {0: 1950, 1: 450}}


def test_numbers_in_the_colours_of_other_numbers_are_refused(desk):
    picture = Image.fromarray(np.array([0, 2, 1], np.uint8)[MASK])
    picture.putpalette(voc_palette()[[0, 2, 1]].tobytes())
    saved(desk, picture)
    with pytest.raises(DataError, match="the number 1 in the colour of 2: it may be 'dog' or 'cat'"):
        desk.take()
    desk.write("labelmap.txt", "background:0,0,0::\ndog:128,0,0::\ncat:0,128,0::\n")
    assert desk.take() == BOTH


def test_numbers_of_things_are_no_classes(desk):
    saved(desk, Image.fromarray(MASK), "SegmentationObject/im0.png")
    with pytest.raises(DataError, match="count things"):
        desk.take()


def test_a_mask_that_says_it_is_turned_is_refused(desk):
    turned = Image.Exif()
    turned[0x0112] = 3
    saved(desk, Image.fromarray(MASK), exif=turned)
    with pytest.raises(DataError, match="has to be turned"):
        desk.take()


def test_outlines_that_are_all_rectangles_are_said(tmp_path, capsys):
    desk = Desk(tmp_path).pictures("im0.png")
    boxes = [("cat", [2 + 9 * k, 5, 8 + 9 * k, 5, 8 + 9 * k, 15, 2 + 9 * k, 15]) for k in range(3)]
    desk.write("im0.json", labelme(boxes))
    desk.take()
    assert "all 3 outlines are rectangles" in capsys.readouterr().err
    desk.write("im0.json", labelme([*boxes, ("dog", [30, 5, 50, 9, 40, 30])]))
    desk.take()
    assert "rectangles" not in capsys.readouterr().err
