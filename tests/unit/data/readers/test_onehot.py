"""The pickled label files are read; a pickle that wants more than arrays is refused and runs nothing."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from tagmask.data.readers.onehot import read_onehot
from tagmask.errors import DataError


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
def test_a_published_dictionary_is_read(tmp_path, dtype):
    table = {"2007_000032": np.eye(4, dtype=dtype)[1], "2007_000039": np.ones(4, dtype)}
    np.save(tmp_path / "labels.npy", table, allow_pickle=True)
    loaded = read_onehot(tmp_path / "labels.npy", 4)
    assert loaded["2007_000032"].tolist() == [0, 1, 0, 0]
    assert loaded["2007_000039"].dtype == np.float32


class _Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def _hostile(path, value):
    """An .npy file whose pickle holds anything."""
    np.save(path, {}, allow_pickle=True)
    header = path.read_bytes().partition(b"\n")[0] + b"\n"
    path.write_bytes(header + pickle.dumps(value))
    return path


def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path):
    marker = tmp_path / "was_here"
    for name, value in (("plain", _Runs(marker)), ("inside", {"a": np.array([_Runs(marker)], dtype=object)})):
        path = _hostile(tmp_path / f"{name}.npy", value)
        with pytest.raises(DataError, match=f"{name}.npy is not used: it asks for .*mkdir"):
            read_onehot(path, 4)
    assert not marker.exists()


def test_other_builtins_are_refused_too(tmp_path):
    for value in (eval, getattr, np.load, np.ma.MaskedArray):
        with pytest.raises(DataError, match="it asks for"):
            read_onehot(_hostile(tmp_path / "x.npy", value), 4)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"a": np.ones(3)}, "vectors of 4"),
        ({"a": "cat"}, "vectors of 4"),
        ([1, 2], "dictionary"),
    ],
)
def test_other_contents_are_refused(tmp_path, value, says):
    with pytest.raises(DataError, match=says):
        read_onehot(_hostile(tmp_path / "x.npy", value), 4)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "x.npy"
    with pytest.raises(DataError, match="not used"):
        read_onehot(path, 4)
    np.save(path, np.ones(4))
    with pytest.raises(DataError, match="array of numbers"):
        read_onehot(path, 4)
    np.save(path, {"a": np.ones(4)}, allow_pickle=True)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError):
            read_onehot(path, 4)


def test_a_pickle_cannot_ask_for_a_huge_array(tmp_path):
    class _Huge:
        def __reduce__(self):
            return np._core.multiarray._reconstruct, (np.ndarray, (10**12,), b"b")

    with pytest.raises(DataError, match="dictionary"):
        read_onehot(_hostile(tmp_path / "x.npy", _Huge()), 4)
