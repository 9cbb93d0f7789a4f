from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagmask.data.file_names import image_name, legal_part, named_file
from tagmask.errors import DataError, printable

PARTS = st.text(st.characters(blacklist_characters="/\\\0", blacklist_categories=("Cs",)), min_size=1)


@given(PARTS | st.text(string.hexdigits + '%:?*<>|" .', min_size=1))
def test_a_legal_name_tells_what_it_was_and_no_two_are_alike(part):
    legal = legal_part(part)
    assert image_name(legal) == part
    assert not set('<>:"|?*') & set(legal)
    assert all(ord(c) > 31 for c in legal)
    assert legal[-1] not in ". "


@pytest.mark.parametrize(
    ("part", "legal"),
    [
        ("cat.png", "cat.png"),
        ("50 %.png", "50 %.png"),
        ("10:30?.png", "10%3A30%3F.png"),
        ("a%3Ab.png", "a%253Ab.png"),
        ("CON.png", "%43ON.png"),
        ("con", "%63on"),
        ("com1.x.png", "%63om1.x.png"),
        ("COM10.png", "COM10.png"),
        ("conx.png", "conx.png"),
        ("lpt².png", "%6Cpt².png"),
        ("line\nbreak.png", "line%0Abreak.png"),
        ("folder.", "folder%2E"),
        ("folder ", "folder%20"),
    ],
)
def test_names_that_windows_forbids_are_coded_and_others_are_not(part, legal):
    assert legal_part(part) == legal


def test_the_file_of_a_name_is_found_under_either_of_its_names(tmp_path):
    assert named_file(tmp_path, "a:b/c?", ".png") == tmp_path / "a%3Ab" / "c%3F.png"
    (tmp_path / "a:b.png").write_text("by hand")
    assert named_file(tmp_path, "a:b", ".png") == tmp_path / "a:b.png"
    (tmp_path / "a%3Ab.png").write_text("by tagmask")
    assert named_file(tmp_path, "a:b", ".png") == tmp_path / "a%3Ab.png"


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", "a\\b", "a\0", "bad\udcff"])
def test_names_that_no_file_can_have_are_refused_and_can_be_printed(tmp_path, name):
    with pytest.raises(DataError, match=r"cannot be used as a file name; .*rename it") as caught:
        named_file(tmp_path, name, ".png")
    str(caught.value).encode("utf-8")


def test_messages_hold_no_control_characters():
    assert printable("a\nb\x1b[31m\udcff\tä") == "a\\nb\\x1b[31m\\udcff\\tä"
