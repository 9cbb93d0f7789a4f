"""One tag is mended; the rest of the file means what it meant."""

from __future__ import annotations

import os

import pytest

from tagmask.data.datasets.tag_repair import repair_tag
from tagmask.data.datasets.tagfile import read_tag_file, split_rows
from tagmask.errors import DataError

KNOWN = ("cat", "dog", "traffic light")


def tags(path, known=KNOWN):
    rows = read_tag_file(path)
    return {
        row.image: (set(found), row.split)
        for row, found in zip(rows, split_rows(rows, path, known), strict=True)
    }


def test_a_tag_is_added_and_taken_away_in_a_csv(tmp_path):
    path = tmp_path / "tags.csv"
    path.write_text(
        "image;tags;who;split\na/1.jpg;cat;Eve;train\n2.jpg;cat|dog;;val\n3.jpg;;;train\n", "utf-8"
    )
    assert set(repair_tag(path, "a/1.jpg", "traffic light", True, KNOWN)) == {"cat", "traffic light"}
    assert repair_tag(path, "2", "cat", False, KNOWN) == ("dog",)
    assert tags(path) == {
        "a/1.jpg": ({"cat", "traffic light"}, "train"),
        "2.jpg": ({"dog"}, "val"),
        "3.jpg": (set(), "train"),
    }
    assert "Eve" in path.read_text("utf-8")
    assert [entry.name for entry in tmp_path.iterdir()] == ["tags.csv"]


def test_what_is_so_already_leaves_the_file_alone(tmp_path):
    path = tmp_path / "tags.csv"
    path.write_text("sep=;\nimage;tags\n1.jpg;cat\n", "utf-8")
    assert repair_tag(path, "1.jpg", "cat", True, KNOWN) == ("cat",)
    assert path.read_text("utf-8").startswith("sep=;")
    repair_tag(path, "1.jpg", "dog", True, KNOWN)
    assert tags(path) == {"1.jpg": ({"cat", "dog"}, None)}


def test_json_lines_keep_what_else_they_say(tmp_path):
    path = tmp_path / "tags.jsonl"
    path.write_text(
        '{"image": "1.jpg", "tags": ["cat"], "note": "x"}\n\n{"image": "2.jpg", "tags": "dog"}', "utf-8"
    )
    repair_tag(path, "2.jpg", "dog", False, KNOWN)
    repair_tag(path, "1.jpg", "traffic light", True, KNOWN)
    assert tags(path) == {"1.jpg": ({"cat", "traffic light"}, None), "2.jpg": (set(), None)}
    assert '"note": "x"' in path.read_text("utf-8")


def test_a_link_stays_a_link(tmp_path):
    path, link = tmp_path / "tags.csv", tmp_path / "link.csv"
    path.write_text("image,tags\n1.jpg,cat\n", "utf-8")
    link.symlink_to(path)
    repair_tag(link, "1.jpg", "dog", True, KNOWN)
    assert link.is_symlink()
    assert tags(path) == {"1.jpg": ({"cat", "dog"}, None)}


@pytest.mark.parametrize(
    ("image", "tag", "words"),
    [
        ("1.jpg", "cow", "'cow' is no class"),
        ("9.jpg", "cat", "does not name"),
        ("2.jpg", "cat", "names 2 times"),
    ],
)
def test_what_cannot_be_mended_is_said_and_nothing_changes(tmp_path, image, tag, words):
    path = tmp_path / "tags.csv"
    path.write_text("image,tags\n1.jpg,dog\n2.jpg,dog\n2.jpg,cat\n", "utf-8")
    before = path.read_bytes(), os.stat(path).st_mtime_ns
    with pytest.raises(DataError, match=words):
        repair_tag(path, image, tag, True, KNOWN)
    assert (path.read_bytes(), os.stat(path).st_mtime_ns) == before
