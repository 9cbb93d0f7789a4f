from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from tagmask.errors import CheckpointError
from tagmask.models import checkpoint
from tagmask.models.checkpoint import load_model, load_tensors, save_model, save_tensors

META = {"method": "tiny", "settings": {"a": 1}, "classes": {"names": ["cat"]}, "metrics": {}, "extra": {}}


def state() -> dict[str, torch.Tensor]:
    shared = torch.arange(6.0).reshape(2, 3)
    return {
        "w": shared,
        "tied": shared,
        "slice": shared[:, 1],
        "count": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "flag": torch.tensor([True, False]),
    }


def test_tensors_and_header_come_back(tmp_path):
    save_tensors(tmp_path / "a.safetensors", state(), {"x": [1, "y"]})
    tensors, header = load_tensors(tmp_path / "a.safetensors")
    assert header["x"] == [1, "y"]
    assert tensors.keys() == state().keys()
    for name, value in state().items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value)


def test_model_folder_is_readable_without_us(tmp_path):
    from safetensors.torch import load_file

    save_model(tmp_path / "model", state(), META)
    assert torch.equal(load_file(tmp_path / "model" / "weights.safetensors")["w"], state()["w"])
    meta = json.loads((tmp_path / "model" / "meta.json").read_text())
    assert meta["method"] == "tiny"
    assert meta["format"] == checkpoint.FORMAT
    loaded, header = load_model(tmp_path / "model")
    assert header["settings"] == {"a": 1}
    assert set(loaded) == set(state())


def test_flipped_bit_is_found(tmp_path):
    path = save_model(tmp_path, state(), META)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum"):
        load_model(tmp_path)


def test_truncated_foreign_missing_and_newer_files_are_named(tmp_path):
    path = save_model(tmp_path, state(), META)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match="no saved weights"):
        load_model(tmp_path / "nowhere")
    from safetensors.torch import save_file

    save_file({"w": torch.ones(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match="not written by tagmask"):
        load_model(tmp_path / "plain.safetensors")
    save_tensors(tmp_path / "t.safetensors", state(), {})
    with pytest.raises(CheckpointError, match="not a model"):
        load_model(tmp_path / "t.safetensors")


def test_newer_formats_are_refused_and_older_ones_upgraded(tmp_path, monkeypatch):
    save_model(tmp_path, state(), META)
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    with pytest.raises(CheckpointError, match="no tagmask reads"):
        load_model(tmp_path)
    monkeypatch.setitem(checkpoint._UPGRADES, 1, lambda meta: {**meta, "added": True})
    assert load_model(tmp_path)[1]["added"] is True
    save_model(tmp_path, state(), META)
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    with pytest.raises(CheckpointError, match="Update tagmask"):
        load_model(tmp_path)


def test_full_disk_keeps_the_old_model(tmp_path, monkeypatch):
    save_model(tmp_path, state(), META)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_model(tmp_path, {"w": torch.zeros(1)}, META)
    monkeypatch.undo()
    assert torch.equal(load_model(tmp_path)[0]["w"], state()["w"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["meta.json", "weights.safetensors"]


def test_kill_in_the_middle_of_a_save_leaves_a_model_that_loads(tmp_path):
    save_model(tmp_path, state(), META)
    code = f"""
import os, torch
from pathlib import Path
import tagmask.models.checkpoint as c
real = c.save_file
def slow(*a):
    real(*a)
    os.kill(os.getpid(), 9)
c.save_file = slow
c.save_model(Path({str(tmp_path)!r}), {{"w": torch.zeros(1)}}, {META!r})
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    assert torch.equal(load_model(tmp_path)[0]["w"], state()["w"])


def test_no_model_with_a_value_that_is_not_finite_is_saved_or_used(tmp_path):
    meta = {"method": "psa", "settings": {}, "classes": {"names": ["a"]}}
    good, bad = {"w": torch.ones(3)}, {"w": torch.tensor([1.0, float("nan"), 2.0]), "n": torch.ones(1).int()}
    save_model(tmp_path / "m", good, meta)
    with pytest.raises(CheckpointError, match=r"not finite \(in w\)"):
        save_model(tmp_path / "m", bad, meta)
    assert torch.equal(load_model(tmp_path / "m")[0]["w"], good["w"])
    save_tensors(tmp_path / "m" / "weights.safetensors", bad, meta)
    with pytest.raises(CheckpointError, match=r"not finite \(in w\)"):
        load_model(tmp_path / "m")
