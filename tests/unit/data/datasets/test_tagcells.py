"""Tags in one cell: whatever the classes are called, what was written is read back."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.data.datasets.tagcells import join_tags, split_cells
from tagmask.data.datasets.tagfile import read_tag_file, split_rows, write_tag_file
from tagmask.data.tables import cell, csv_text, plain_cell
from tagmask.errors import DataError

LETTERS = st.sampled_from("ab1# ,'\"|;[]=+-@\\é\u00a0\U0001f600:/%")
NAMES = st.text(LETTERS, min_size=1, max_size=8).map(lambda text: " ".join(text.split())).filter(bool)
PLAIN = st.text(st.sampled_from("abc12# ,'\"\\é:/%."), min_size=1, max_size=8)
PLAIN = PLAIN.map(lambda text: " ".join(text.split()).strip(" ,")).filter(bool)


@st.composite
def tagged(draw, names):
    """Classes, and the tags of some images; every class has an image."""
    classes = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    rows = draw(st.lists(st.lists(st.sampled_from(classes), unique=True), min_size=1, max_size=6))
    return classes, [*rows, *([name] for name in classes)]


def written(path, rows):
    write_tag_file(path, [(f"{k}.png", row, None) for k, row in enumerate(rows)])


def read(path, known=()):
    rows = read_tag_file(path)
    return [row.image for row in rows], [list(names) for names in split_rows(rows, path, known)]


@given(tagged(NAMES))
@settings(max_examples=300, deadline=None)
def test_what_our_writer_writes_comes_back(tmp_path_factory, case):
    classes, rows = case
    path = tmp_path_factory.mktemp("tags") / "tags.csv"
    written(path, rows)
    for known in ((), classes):
        assert read(path, known)[1] == rows


@given(tagged(PLAIN), st.sampled_from(["csv", "spreadsheet", "tabs", "list"]))
@settings(max_examples=300, deadline=None)
def test_what_other_programs_write_comes_back(tmp_path_factory, case, how):
    classes, rows = case
    rows = [classes, *rows] if len(classes) > 1 else rows
    text = io.StringIO(newline="")
    mark = {"spreadsheet": ";", "tabs": "\t"}.get(how, ",")
    writer = csv.writer(text, delimiter=mark, lineterminator="\r\n" if how != "csv" else "\n")
    writer.writerow(["image", "tags"])
    for k, row in enumerate(rows):
        writer.writerow([f"{k}.png", str(row) if how == "list" else ";".join(row)])
    path = tmp_path_factory.mktemp("tags") / "tags.csv"
    path.write_bytes(text.getvalue().encode("utf-8-sig" if how == "spreadsheet" else "utf-8"))
    # One class alone, or classes that no image shares, leave open what a blank or comma is.
    known = classes if len(classes) == 1 else ()
    assert read(path, known)[1] == rows
    if how != "list":
        assert read(path, classes)[1] == rows


@given(st.text(max_size=12))
def test_cells_are_harmless_and_come_back(text):
    kept = cell(text)
    assert not kept.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert plain_cell(kept) == text
    assert plain_cell(text) in (text, text[1:])


def test_numbers_are_left_alone():
    assert csv_text([[-1, 2.5, "-x", "'=y", ""]]) == "-1,2.5,'-x,''=y,\r\n"


def names(*cells, known=()):
    return split_cells(list(enumerate(cells, start=2)), known)


def test_one_mark_serves_the_whole_file():
    assert names("traffic light;car", "traffic light", "car") == [
        ("traffic light", "car"), ("traffic light",), ("car",),
    ]  # fmt: skip
    assert names("cat,dog", "cat, dog", "dog") == [("cat", "dog"), ("cat", "dog"), ("dog",)]
    assert names("cat dog", "dog", "") == [("cat", "dog"), ("dog",), ()]
    assert names("a|b c", "b c") == [("a", "b c"), ("b c",)]
    assert names("['cat', 'big dog']", "[]", '["cat"]') == [("cat", "big dog"), (), ("cat",)]


def test_known_classes_tell_what_a_blank_is():
    known = ("traffic light", "car", "red, green")
    assert names("car traffic light", "traffic light", known=known) == [
        ("car", "traffic light"), ("traffic light",),
    ]  # fmt: skip
    assert names("red, green", "car", known=known) == [("red, green",), ("car",)]
    assert names("a;b", "b|c", known="abc") == [("a", "b"), ("b", "c")]


def test_two_readings_are_refused():
    with pytest.raises(DataError, match=r"line 2 holds ';' and line 3 '\|'"):
        names("a;b", "c|d")
    with pytest.raises(DataError, match=r"'ice cream' or as 'ice' \+ 'cream'"):
        names("ice cream", known=("ice", "cream", "ice cream"))
    with pytest.raises(DataError, match=r"line 2: 'a,b' can be read as 'a' \+ 'b' .* or as 'a,b'"):
        names("a,b", known=("a", "b", "a,b"))
    assert names("ice cream;", known=("ice", "cream", "ice cream")) == [("ice cream",)]


def test_cells_of_one_file_are_joined_alike():
    assert join_tags(["cat", "dog"], ["cat", "dog"]) == "cat dog"
    assert join_tags(["cat"], ["cat", "big dog"]) == "cat;"
    assert join_tags(["a;b"], ["a;b", "c"]) == '["a;b"]'
    assert join_tags([], ["a;b"]) == ""


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\nimage;tags\r\na.png;cat,dog\r\nb.png;cat\r\n",
        '"image";"tags"\r\n"a.png";"cat,dog"\r\n"b.png";"cat"\r\n',
        "tags;image;note, with comma\ncat,dog;a.png;\ncat;b.png;x\n",
        "\ufeffimage\ttags\na.png\tcat,dog\nb.png\tcat\n",
    ],
)
def test_habits_of_spreadsheets(tmp_path, text):
    path = tmp_path / "tags.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert read(path) == (["a.png", "b.png"], [["cat", "dog"], ["cat"]])
