"""The demo's data: generated once, then reused; and a first look at its masks while it trains."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tagmask.data.datasets.scenes import write_dataset
from tagmask.model import load
from tagmask.store.files import atomic_write, write_json
from tagmask.training.callbacks import Callback, Training

__all__ = ["FirstLook", "make_scenes"]


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


class FirstLook(Callback):
    """After a training's first evaluation: one picture of some images above their masks so far.

    Args:
        images: Of one size.
        file: The picture, a PNG; nothing is done if it is there.
        say: Gets a line that names it.
    """

    def __init__(self, images: Sequence[Path], file: Path, say: Callable[[str], None]) -> None:
        self.images, self.file, self._say = images, file, say

    def on_evaluate(self, training: Training) -> None:
        """Predict with the model that was just scored."""
        if self.file.exists() or not self.images:
            return
        model = load(training.folder / "best", device="cpu")
        seen = [model.predict(path, maps=False) for path in self.images]
        columns = [np.concatenate([one.image, one.overlay()]) for one in seen]
        picture = Image.fromarray(np.concatenate(columns, 1))
        with atomic_write(self.file) as target:
            picture.resize((2 * picture.width, 2 * picture.height)).save(target, format="PNG")
        self._say(f"first masks, after {training.step} of {training.iterations} updates: {self.file}")
