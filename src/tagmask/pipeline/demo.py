"""The demo's data: generated once, then reused."""

from __future__ import annotations

import json
from pathlib import Path

from tagmask.data.datasets.scenes import write_dataset
from tagmask.store.files import write_json

__all__ = ["make_scenes"]


def make_scenes(root: Path, num_train: int = 1000, num_val: int = 200, size: int = 96, seed: int = 0) -> Path:
    """Write the scenes unless the same ones are there.

    Args:
        root: Folder to write into.
        num_train: Scenes to learn from.
        num_val: Scenes to score on; only these get masks.
        size: Side in pixels.
        seed: Number of the set.

    Returns:
        The folder.

    Raises:
        DataError: The disk refuses.
    """
    wanted = {"num_train": num_train, "num_val": num_val, "size": size, "seed": seed}
    note = root / "scenes.json"
    if not note.is_file() or json.loads(note.read_text(encoding="utf-8")) != wanted:
        write_dataset(root, num_train, num_val, size, seed)
        # Written last: its presence says that the set is whole.
        write_json(note, wanted)
    return root
