"""A small generated data set on disk: five textures, 64 px, tags for all images, masks for `val` only."""

from __future__ import annotations

from pathlib import Path

from tagmask.data import TagDataset, open_dataset
from tagmask.data.datasets.scenes import write_dataset

SIZE = 64


def toy_root(folder: Path, num_train: int = 12, num_val: int = 4, size: int = SIZE) -> Path:
    """Write the data set below `folder` and return its root; the same numbers give the same files."""
    return write_dataset(folder / "toy", num_train, num_val, size=size)


def toy_train(folder: Path, num_train: int = 12) -> TagDataset:
    """The training split of a fresh toy set."""
    return open_dataset(toy_root(folder, num_train), "folder", "train")


def toy_val(folder: Path, num_val: int = 4) -> TagDataset:
    """The validation split of a fresh toy set, with masks."""
    return open_dataset(toy_root(folder, num_val=num_val), "folder", "val", masks=True)
