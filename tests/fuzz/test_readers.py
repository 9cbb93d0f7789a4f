"""Readers under arbitrary input: a value or a UserError comes back, nothing else.

A longer search, off by default: ``TAGMASK_FUZZ=5000 pytest tests/fuzz`` tries so many inputs per reader,
other ones each time. What it finds is kept in `test_findings.py`.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from tagmask.annotations import formats
from tagmask.annotations.formats.base import Images, Labelled
from tagmask.config import apply_overrides, read_yaml
from tagmask.data.classes import ClassTable, read_class_file
from tagmask.data.datasets.tagfile import read_tag_file, split_tags
from tagmask.data.readers.archive import ZipTree
from tagmask.data.readers.images import read_image, read_indices, read_size
from tagmask.data.readers.masks import mask_values
from tagmask.data.readers.onehot import read_onehot
from tagmask.data.readers.rle import (
    count_runs,
    decode_counts,
    draw_polygon,
    format_counts,
    parse_counts,
    region_mask,
)
from tagmask.errors import UserError
from tagmask.inference.remote import list_items
from tagmask.models.checkpoint import load_model, read_header
from tagmask.models.trained import load_trained
from tagmask.pipeline.config import RunConfig, read_config
from tagmask.store.files import file_for
from tagmask.store.labels import read_mask
from tagmask.store.manifest import Manifest
from tagmask.store.maps import load_maps, save_maps

LONG = int(os.environ.get("TAGMASK_FUZZ", "0"))
fuzz = settings(
    max_examples=LONG or 25,
    derandomize=not LONG,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
SIZE = st.tuples(st.integers(1, 12), st.integers(1, 12))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def keys_of(schema, prefix=""):
    for name, info in schema.model_fields.items():
        yield f"{prefix}{name}"
        if hasattr(info.annotation, "model_fields"):
            yield from keys_of(info.annotation, f"{prefix}{name}.")


KEYS = st.sampled_from(sorted(keys_of(RunConfig)))


@st.composite
def spoiled(draw, content: bytes) -> bytes:
    """Bytes of a good file with some replaced, cut out or put in."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(st.sampled_from(("flip", "cut", "put", "end")))
        if how == "flip" and data:
            data[at] = draw(st.integers(0, 255))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif how == "put":
            data[at:at] = draw(st.binary(max_size=12))
        else:
            del data[at:]
    return bytes(data)


def picture(kind: str, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    pixels = np.arange(24 * 20 * 3, dtype=np.uint8).reshape(24, 20, 3)
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


GOOD_PICTURES = (
    picture("PNG"), picture("PNG", "P"), picture("JPEG"), picture("GIF", "P"), picture("BMP"),
    picture("TIFF"), picture("WEBP"), picture("PPM"), picture("TIFF", "L", compression="tiff_lzw"),
)  # fmt: skip


def answers(read, *arguments) -> None:
    with suppress(UserError):
        read(*arguments)


@fuzz
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode), lines=st.booleans())
def test_tag_files_of_any_bytes(tmp_path, content, lines):
    path = tmp_path / ("t.jsonl" if lines else "t.csv")
    path.write_bytes(content)
    answers(read_tag_file, path)


@fuzz
@given(
    rows=st.lists(st.lists(st.text("ab\"',;|\n\t /.", max_size=6), max_size=4), max_size=6),
    mark=st.sampled_from(",;\t"),
)
def test_tag_files_with_a_good_first_line(tmp_path, rows, mark):
    path = tmp_path / "t.csv"
    path.write_text("\n".join([f"image{mark}tags", *(mark.join(row) for row in rows)]))
    with suppress(UserError):
        for row in read_tag_file(path):
            names = split_tags(row.tags, ("a", "b"))
            assert all(name == name.strip() and name for name in names)
            assert len(set(names)) == len(names)


@fuzz
@given(objects=st.lists(VALUES, max_size=4))
def test_tag_files_of_any_json(tmp_path, objects):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps(value) for value in objects))
    answers(read_tag_file, path)


@fuzz
@given(content=st.binary(max_size=120))
def test_class_files_and_mask_tables(tmp_path, content):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    answers(read_class_file, path)
    answers(mask_values, path, ClassTable(("a", "b")))


@fuzz
@given(content=st.binary(max_size=120) | st.text("&*!{}[]:,- \nax|>?'\"#%@", max_size=80).map(str.encode))
def test_recipes_of_any_text(tmp_path, content):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    answers(read_yaml, path)
    answers(read_config, path)


@fuzz
@given(changes=st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=3))
def test_recipes_with_known_keys_and_any_values(tmp_path, changes):
    path = tmp_path / "r.yaml"
    values: dict = {}
    for key, value in changes:
        node = values
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node[parent] if isinstance(node.get(parent), dict) else node.setdefault(parent + "_", {})
        node[leaf] = value
    path.write_text(yaml.safe_dump(values, allow_unicode=True))
    answers(read_config, path)


@fuzz
@given(key=KEYS | st.text(max_size=8), text=st.text(max_size=20) | VALUES.map(repr))
def test_overrides(key, text):
    with suppress(UserError):
        values = apply_overrides({"train": {"size": 3}}, [f"{key}={text}"])
        assert isinstance(values, dict)
    answers(read_config, None, None, [f"{key}={text}"])


@fuzz
@given(content=st.binary(max_size=80) | VALUES.map(lambda value: json.dumps(value).encode()), steps=VALUES)
def test_manifests(tmp_path, content, steps):
    def use(folder):
        manifest = Manifest(folder)
        for name in ("train", "segment"):
            manifest.is_done(name, {}, {})
            manifest.same_work(name, {}, {})
        manifest.checksum(folder / "model")

    (tmp_path / "run.json").write_bytes(content)
    answers(use, tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"format": 1, "steps": steps}))
    answers(use, tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"format": 1, "steps": {"train": steps}}))
    answers(use, tmp_path)


@fuzz
@given(content=st.sampled_from(GOOD_PICTURES).flatmap(spoiled))
def test_pictures_and_masks(tmp_path, content):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    for read in (read_image, read_size, read_indices, read_mask):
        answers(partial(read, path))


@fuzz
@given(
    region=VALUES
    | st.fixed_dictionaries({"size": VALUES, "counts": VALUES})
    | st.lists(st.lists(st.floats(), max_size=9)),
    size=SIZE,
)
def test_regions(region, size):
    # Pure functions know no file; whoever calls them turns their ValueError into a message.
    with suppress(ValueError):
        mask = region_mask(region, size)
        assert mask.shape == size


@fuzz
@given(text=st.text(max_size=30), counts=st.lists(st.integers(-(2**70), 2**70), max_size=8), size=SIZE)
def test_run_lengths(text, counts, size):
    with suppress(ValueError):
        parse_counts(text)
    with suppress(ValueError):
        assert decode_counts(counts, size).shape == size


@fuzz
@given(points=st.lists(st.floats(width=32), max_size=12), size=SIZE)
def test_polygons(points, size):
    with suppress(ValueError):
        assert draw_polygon(points, size).shape == size


@fuzz
@given(bits=st.lists(st.booleans(), min_size=1, max_size=60), width=st.integers(1, 60))
def test_run_lengths_come_back(bits, width):
    height = len(bits) // width
    if height:
        mask = np.array(bits[: height * width]).reshape(height, width)
        counts = count_runs(mask)
        assert parse_counts(format_counts(counts)) == counts
        np.testing.assert_array_equal(decode_counts(counts, mask.shape), mask)


def map_file() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.npz"
        save_maps(path, np.random.default_rng(0).random((2, 6, 5)), np.array([0, 3]), (6, 5))
        return path.read_bytes()


@fuzz
@given(content=spoiled(map_file()))
def test_map_files(tmp_path, content):
    path = tmp_path / "m.npz"
    path.write_bytes(content)
    answers(load_maps, path)


def onehot_file() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, {"a": np.array([1.0, 0.0])}, allow_pickle=True)
    return buffer.getvalue()


@fuzz
@given(content=spoiled(onehot_file()))
def test_published_label_files(tmp_path, content):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    answers(read_onehot, path, 2)


HEADER = {
    "method": "more",
    "settings": {"backbone": "vit:patch=8,dim=32,depth=3,heads=2,size=64"},
    "classes": {"names": ["a"], "ignore": 255},
    "metrics": {},
    "extra": {},
    "format": 1,
    "tensors": "",
}


@fuzz
@given(key=st.sampled_from(sorted(HEADER)), value=VALUES, text=st.none() | st.text(max_size=30))
def test_headers_of_models(tmp_path, key, value, text):
    header = json.dumps({**HEADER, key: value}) if text is None else text
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save({"x": torch.zeros(2)}, {"tagmask": header}))
    answers(load_model, tmp_path)
    answers(read_header, tmp_path)
    answers(load_trained, tmp_path)
    answers(read_config, tmp_path)


@fuzz
@given(content=spoiled(save({"x": torch.zeros(3)}, {"tagmask": json.dumps(HEADER)})))
def test_model_files(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    answers(load_model, tmp_path)


def containers() -> tuple[bytes, bytes]:
    tar, zipped = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as shard, zipfile.ZipFile(zipped, "w") as archive:
        for name in ("a.png", "b/c.jpg"):
            entry = tarfile.TarInfo(name)
            entry.size = len(GOOD_PICTURES[0])
            shard.addfile(entry, io.BytesIO(GOOD_PICTURES[0]))
            archive.writestr(name, GOOD_PICTURES[0])
    return tar.getvalue()[:3000], zipped.getvalue()


@fuzz
@given(tar=spoiled(containers()[0]), zipped=spoiled(containers()[1]))
def test_archives(tmp_path, tar, zipped):
    (tmp_path / "x.tar").write_bytes(tar)
    (tmp_path / "x.zip").write_bytes(zipped)
    list(list_items([str(tmp_path / "x.tar")]))

    def members() -> None:
        tree = ZipTree(tmp_path / "x.zip")
        for name in tree.names:
            answers(tree.read, name)

    answers(members)


@fuzz
@given(name=st.text(min_size=1, max_size=20) | st.text("./\\a\0", min_size=1, max_size=9))
def test_names_never_leave_their_folder(name):
    with suppress(UserError):
        path = file_for(Path("/out/masks"), name, ".png")
        assert Path(os.path.normpath(path)).is_relative_to("/out/masks")


TABLE = ClassTable(("a", "b"))
MASK = np.zeros((12, 14), np.uint8)
MASK[2:7, 3:9], MASK[6:9, 8:12] = 1, 2


class Files(dict):
    @property
    def names(self):
        return sorted(self)

    def read(self, name):
        return self[name]


def exported(name: str) -> Files:
    files = Files()
    formats.get(name).write(
        [Labelled("x", "x.jpg", MASK)], TABLE, files.__setitem__, "polygons" if name == "yolo" else "exact"
    )
    return files


@pytest.mark.parametrize("name", formats.names())
@fuzz
@given(data=st.data())
def test_files_of_annotation_tools(name, data):
    files = exported(name)
    victim = data.draw(st.sampled_from(files.names))
    files[victim] = data.draw(spoiled(files[victim]))
    images = Images(TABLE, {"x": lambda: MASK.shape})
    with suppress(UserError):
        for found in formats.get(name).read(files, images):
            assert found is not None


@pytest.mark.parametrize("name", ["coco", "label-studio", "labelme"])
@fuzz
@given(data=st.data())
def test_json_of_annotation_tools_with_any_value_in_any_place(name, data):
    files = exported(name)
    victim = next(n for n in files.names if n.endswith(".json"))
    document = json.loads(files[victim])
    node, places = document, []
    while isinstance(node, (dict, list)) and node:
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else list(range(len(node)))))
        places.append((node, key))
        node = node[key]
    parent, key = data.draw(st.sampled_from(places))
    parent[key] = data.draw(VALUES)
    files[victim] = json.dumps(document).encode()
    with suppress(UserError):
        list(formats.get(name).read(files, Images(TABLE, {"x": lambda: MASK.shape})))
