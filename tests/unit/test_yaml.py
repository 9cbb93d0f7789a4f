"""YAML that does not mean what it looks like is refused where it is read."""

from __future__ import annotations

import pytest

from tagmask.config import apply_overrides, read_yaml
from tagmask.errors import ConfigError
from tagmask.pipeline.config import read_config


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "train: {iterations: 900}\nmethod: more\ntrain: {iterations: 2}\n",
            "line 3: 'train' is in line 1",
        ),
        ("train:\n  batch_size: 8\n  batch_size: 4\n", "line 3: 'batch_size' is in line 2"),
        ("train: {batch_size: 8, batch_size: 4}\n", "line 1: 'batch_size'"),
        ("a: [{b: 1, b: 1}]\n", "line 1: 'b'"),
        ("train:\n  batch_size: 010\n", "line 2: 010 is read as a number with base 8"),
        ("size: 1:30\n", "base 60"),
        ("size: 0x10\n", "base 2 or 16"),
        ("size: 0b11\n", "base 2 or 16"),
        ("weights: no\n", "no is read as true or false"),
        ("data: {classes: [cat, Yes]}\n", "Yes is read as true or false"),
        ("data: {split: 2026-01-01}\n", "is read as a date"),
        ("model: &a {x: on}\nb: *a\n", "on is read as true or false"),
    ],
)
def test_what_yaml_reads_otherwise_than_people_is_refused(tmp_path, text, says):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path))
    with pytest.raises(ConfigError, match=says):
        read_config(path)


def test_plain_values_and_quoted_ones_are_read(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("a: [true, 10, 0, 1.5, -3, 1e-4, '010', \"yes\", null, nope]\nb: {<<: {c: 1}, d: 2}\n")
    assert read_yaml(path) == {
        "a": [True, 10, 0, 1.5, -3, "1e-4", "010", "yes", None, "nope"],
        "b": {"c": 1, "d": 2},
    }


def test_rates_with_an_exponent_are_numbers_and_counts_with_one_are_refused(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("train: {rate: 1e-1}\n")
    assert read_config(path).train.rate == 0.1
    path.write_text("train: {iterations: 1e3}\n")
    with pytest.raises(ConfigError, match=r"train\.iterations.*1e3"):
        read_config(path)


def test_overrides_are_texts_where_yaml_would_surprise():
    assert apply_overrides({}, ["a=no", "b=010", "c=3"]) == {"a": "no", "b": "010", "c": 3}
