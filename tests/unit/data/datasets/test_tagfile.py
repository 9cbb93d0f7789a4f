from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagmask.data.datasets.tagfile import file_split, read_tag_file, split_tags
from tagmask.errors import DataError


def _write(folder, text, name="tags.csv"):
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_csv_with_any_column_order_delimiter_and_byte_mark(tmp_path):
    plain = read_tag_file(_write(tmp_path, "image,tags\na.jpg,cat dog\nb.jpg,\n"))
    assert [(r.line, r.image, r.tags, r.split) for r in plain] == [
        (2, "a.jpg", "cat dog", None),
        (3, "b.jpg", "", None),
    ]
    other = read_tag_file(_write(tmp_path, "\ufeffSplit;Tags;Image\r\nval;cat;a.jpg\r\n\r\n"))
    assert [(r.image, r.tags, r.split) for r in other] == [("a.jpg", "cat", "val")]
    tabs = read_tag_file(_write(tmp_path, 'image\ttags\na.jpg\t"cat|dog"\n', "tags.tsv"))
    assert tabs[0].tags == "cat|dog"


def test_json_lines(tmp_path):
    rows = [{"image": "a.jpg", "tags": ["cat", "traffic light"]}, {"image": "b.jpg", "split": "val"}]
    path = _write(tmp_path, "\n".join(map(json.dumps, rows)), "tags.jsonl")
    first, second = read_tag_file(path)
    assert first.tags == ("cat", "traffic light")
    assert (second.tags, second.split) == ((), "val")


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("", "tags.csv", "no rows"),
        ("image,tags\n", "tags.csv", "no rows"),
        ("file,label\na,b\n", "tags.csv", "first line must name"),
        ("image,tags\na.jpg,cat,dog\n", "tags.csv", "line 2 has 3 fields"),
        ("tags,image\ncat,a.jpg\ndog\n", "tags.csv", "line 3 names no image"),
        ("image,tags,Tags\na.jpg,cat,dog\n", "tags.csv", "the column tags twice"),
        ("image,tags,image\na.jpg,cat,b.jpg\n", "tags.csv", "the column image twice"),
        ('{"image": "a.jpg", "tags": [], "tags": ["x"]}\n', "tags.jsonl", "'tags' appears twice"),
        (b"image,tags\n\xff\xfe,cat\n", "tags.csv", "cannot read"),
        ('image,tags\n"a.jpg,cat\n', "tags.csv", "cannot read"),
        ('{"image": "a.jpg"\n', "tags.jsonl", "line 1 is not JSON"),
        ('{"picture": "a.jpg"}\n', "tags.jsonl", "line 1 must be like"),
        ('{"image": "a.jpg", "tags": [1]}\n', "tags.jsonl", "line 1 must be like"),
        ("[1, 2]\n", "tags.jsonl", "line 1 must be like"),
    ],
)
def test_each_broken_file_gets_one_message_with_its_name(tmp_path, text, name, says):
    path = _write(tmp_path, text, name)
    with pytest.raises(DataError, match=says) as caught:
        read_tag_file(path)
    assert str(path) in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv"):
        read_tag_file(tmp_path / "none.csv")


def test_ways_to_separate_tags():
    assert split_tags("cat dog  cat") == ("cat", "dog")
    assert split_tags("traffic light; dog ;") == ("traffic light", "dog")
    assert split_tags("traffic light", ["traffic light"]) == ("traffic light",)
    assert split_tags("  ") == ()
    assert split_tags(("traffic light", " dog ")) == ("traffic light", "dog")


def test_split_in_a_file_name():
    assert file_split("x/tags_val.csv") == "val"
    assert file_split("train.csv") == "train"
    assert file_split("tags.csv") is None


@given(st.binary(max_size=200), st.sampled_from(["tags.csv", "tags.jsonl"]))
def test_any_bytes_are_rows_or_one_data_error(tmp_path_factory, content, name):
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(content)
    with suppress(DataError):
        rows = read_tag_file(path)
        assert rows
        assert all(isinstance(row.image, str) for row in rows)
