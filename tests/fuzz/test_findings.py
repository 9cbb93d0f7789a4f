"""What the search found: each was a traceback once."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save

from tagmask.annotations.formats import labelme
from tagmask.annotations.formats.base import Images
from tagmask.config import read_yaml
from tagmask.data.datasets.tagfile import read_tag_file
from tagmask.data.readers.archive import ZipTree
from tagmask.data.readers.onehot import read_onehot
from tagmask.errors import CheckpointError, ConfigError, DataError
from tagmask.models.checkpoint import load_model
from tagmask.models.trained import load_trained
from tagmask.store.manifest import Manifest
from tagmask.store.maps import load_maps, save_maps
from tests.fuzz.test_readers import HEADER, MASK, TABLE, exported


@pytest.mark.parametrize(
    "steps", [{"train": []}, {"train": {"outputs": {"model": 3}}}, {"train": {"settings": 1}}, []]
)
def test_manifest_whose_steps_are_none(tmp_path, steps):
    (tmp_path / "run.json").write_text(json.dumps({"format": 1, "steps": steps}))
    with pytest.raises(DataError, match="damaged"):
        Manifest(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", "3", "[" * 9999, '{"format": "x"}', '{"format": null}']
)
def test_model_whose_header_is_none(tmp_path, text):
    (tmp_path / "weights.safetensors").write_bytes(save({"x": torch.zeros(1)}, {"tagmask": text}))
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": []},
        {"classes": {"names": 3}},
        {"method": None},
        {"settings": []},
        {"extra": {"use": {"segment": 1}}},
    ],
)
def test_model_whose_header_has_other_types(tmp_path, change):
    from tagmask.models.checkpoint import save_model

    save_model(tmp_path, {"x": torch.zeros(1)}, {**HEADER, **change})
    with pytest.raises(CheckpointError, match="does not describe a model"):
        load_trained(tmp_path)


def test_label_file_whose_header_is_not_closed(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, {"a": np.zeros(2)}, allow_pickle=True)
    (tmp_path / "x.npy").write_bytes(buffer.getvalue().replace(b"'shape': (), }", b"'shape': (),  "))
    with pytest.raises(DataError, match="damaged"):
        read_onehot(tmp_path / "x.npy", 2)


@pytest.mark.parametrize("text", ["a: " + "[" * 5000, "a: &a [*a]", "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)])  # fmt: skip
def test_yaml_without_end(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(tmp_path / "r.yaml")


def test_map_file_whose_packed_bytes_are_damaged(tmp_path):
    path = tmp_path / "m.npz"
    save_maps(path, np.random.default_rng(0).random((2, 6, 5)), np.array([0, 3]), (6, 5))
    content = bytearray(path.read_bytes())
    start = content.index(b"maps.npy") + len("maps.npy")
    content[start : start + 3] = b"\x00\xec\x17"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a readable map file"):
        load_maps(path)


def test_label_file_whose_dtype_has_a_state_that_makes_no_sense(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, {"a": np.array([1.0, 0.0])}, allow_pickle=True)
    content = buffer.getvalue()
    at = content.rindex(b"<\x94")  # byte order of the inner array
    path = tmp_path / "labels.npy"
    path.write_bytes(content[:at] + b"<\x8f" + content[at + 2 :])
    with pytest.raises(DataError, match="damaged"):
        read_onehot(path, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(shapes=None), "no list of 'shapes'"),
        (lambda content: content["shapes"][0].update(points=[[]]), "no place"),
        (lambda content: content["shapes"][0].update(points=[[1e999, 0], [1, 1]]), "shape 1"),
    ],
)
def test_labelme_files_with_values_of_no_use(change, message):
    files = exported("labelme")
    (name,) = (name for name in files.names if name.endswith(".json"))
    content = json.loads(files[name])
    change(content)
    files[name] = json.dumps(content).encode()
    with pytest.raises(DataError, match=message):
        list(labelme.read(files, Images(TABLE, {"x": lambda: MASK.shape})))


def test_label_file_that_asks_for_a_memo_of_gigabytes(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, {"a": np.zeros(2)}, allow_pickle=True)
    head = buffer.getvalue().partition(b"\x80\x04")[0]
    (tmp_path / "x.npy").write_bytes(head + b"\x80\x02]r\xff\xff\xff\x3f.")
    with pytest.raises(DataError, match="its memo is numbered up to 1073741823"):
        read_onehot(tmp_path / "x.npy", 2)


def test_tag_file_whose_first_line_is_blank(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\t\n\x00")
    with pytest.raises(DataError, match="first line must name the columns"):
        read_tag_file(tmp_path / "t.csv")


def test_archive_with_a_member_without_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("b.png", b"y")
        archive.writestr("a", b"x")
    content = (tmp_path / "x.zip").read_bytes()
    entry = content.rindex(b"PK\x01\x02")
    length = entry + 28  # of the last member's name, in the list at the end
    nameless = content[:length] + b"\0\0" + content[length + 2 : entry + 46] + content[entry + 47 :]
    end = nameless.rindex(b"PK\x05\x06") + 12
    size = int.from_bytes(nameless[end : end + 4], "little") - 1
    (tmp_path / "x.zip").write_bytes(nameless[:end] + size.to_bytes(4, "little") + nameless[end + 4 :])
    tree = ZipTree(tmp_path / "x.zip")
    assert tree.names == ["b.png"]
    assert tree.refused == [("", "has no name")]
