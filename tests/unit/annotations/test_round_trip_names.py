"""Formats times image names and class names: what we write comes back to the same picture, or is refused."""

from __future__ import annotations

import os
import unicodedata

import numpy as np
import pytest

from tagmask.annotations import formats
from tagmask.data.classes import ClassTable
from tagmask.errors import DataError
from tests.unit.annotations.scenario import MASK, Desk

PAIRS = {
    "hash": ("a", "a#1"),
    "percent": ("b c", "b%20c"),
    "question": ("x", "x?1"),
    "code": ("q?", "q%3F"),
    "colon": ("t 10", "t 10:30"),
    "dots": ("photo", "photo.1"),
    "dotted": ("v1", "v1.2.3"),
    "blanks": ("two words", "two  words "),
    "emoji": ("face", "face \U0001f600"),
    "nfd": ("cafe", unicodedata.normalize("NFD", "café")),
    "folders": ("im", "sub/im"),
    "deeper": ("a/im", "b/a/im"),
    "plus": ("a b", "a+b"),
    "ampersand": ("a", "a&d=x"),
    "quotes": ("q", "q'\"<>"),
    "upload": ("im", "0a1b2c3d-im"),
    "roboflow": ("im", "im_png.rf.0123abc"),
    "long": ("y", "y" * 251),
    "case": ("cat", "Cat"),
}


REFUSED = {("code", kind, True): r"could be any of q%3F, q\?" for kind in ("cvat", "voc", "yolo")}
REFUSED["long", "labelme", False] = "File name too long"
"""Formats that cannot hold a name as a file, or in which it could be two pictures."""


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("kind", formats.names())
def test_a_mask_comes_back_to_its_own_picture(tmp_path, kind, name, packed):
    first, second = PAIRS[name]
    desk = Desk(tmp_path).pictures(f"{first}.png", f"{second}.png")
    desk.mask(second, MASK)
    out = f"x_{kind}.zip" if packed else None
    if (refusal := REFUSED.get((name, kind, packed))) is not None:
        with pytest.raises(DataError, match=refusal):
            desk.take(desk.export(kind, out), kind)
        return
    desk.take(desk.export(kind, out), kind)
    assert desk.masks.keys() == {second}
    if kind in ("yolo", "labelme"):
        assert (desk.masks[second] == MASK).mean() > 0.98
    else:
        np.testing.assert_array_equal(desk.masks[second], MASK)


@pytest.mark.parametrize("kind", formats.names())
def test_pictures_of_one_stem_are_both_exported(tmp_path, kind):
    desk = Desk(tmp_path).pictures("im.png", "im.jpg", "other.png")
    desk.mask("im.png", MASK)
    desk.mask("im.jpg", np.where(MASK == 1, 2, 0).astype(np.uint8))
    found = desk.take(desk.export(kind), kind)
    assert {name: set(values) for name, values in found.items()} == {"im.png": {0, 1, 2}, "im.jpg": {0, 2}}


@pytest.mark.parametrize("kind", formats.names())
def test_both_forms_of_one_name_are_told_apart(tmp_path, kind):
    composed, taken_apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    desk = Desk(tmp_path).pictures(f"{composed}.png", f"{taken_apart}.png")
    if len(os.listdir(tmp_path / "images")) < 2:
        pytest.skip("this file system takes both for one")
    desk.mask(taken_apart, MASK)
    assert set(desk.take(desk.export(kind), kind)) == {taken_apart}


def test_the_other_form_of_a_name_is_found(tmp_path):
    desk = Desk(tmp_path).pictures(unicodedata.normalize("NFC", "café") + ".png")
    desk.write(unicodedata.normalize("NFD", "café") + ".png", MASK)
    assert desk.take() == {unicodedata.normalize("NFC", "café"): {0: 1710, 1: 450, 2: 240}}


AWKWARD = [
    "a/b", "c,d", 'say "hi"', "it's", "Zürich 湖", "two words", "../up", "<b>&amp;", "semi;colon", "pipe|d",
    "#hash", "# hash", "con:", "a:b", "emoji\U0001f600", "%s{0}", "nul\\back", "yes", "null", "1.5", "- x",
    "tab\tn", "line\u2028x", "nel\x85x", "\\# x", "~", "@x", "=1+1",
]  # fmt: skip


@pytest.mark.parametrize("kind", formats.names())
@pytest.mark.parametrize("name", AWKWARD)
def test_class_names_come_back(tmp_path, kind, name):
    desk = Desk(tmp_path, (name, "zebra")).pictures("im0.png")
    desk.mask("im0", MASK)
    found = desk.take(desk.export(kind), kind)
    assert set(found["im0"]) == {0, 1, 2}
    assert (desk.masks["im0"] == MASK).mean() > 0.98


@pytest.mark.parametrize("name", ["line\nbreak", "a\rb", "_background_", "__ignore__", "Background", "a\0"])
def test_names_that_no_list_can_hold_are_refused(name):
    with pytest.raises(DataError):
        ClassTable((name, "cat"))
