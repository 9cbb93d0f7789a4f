"""The saved states of one training: the last few, the newest good one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tagmask.errors import CheckpointError
from tagmask.models.checkpoint import load_tensors, save_tensors

__all__ = ["Checkpoints"]


@dataclass(frozen=True)
class Checkpoints:
    """Files ``step-00000400.safetensors`` of a folder.

    Attributes:
        folder: Where they are.
        keep: How many are kept.
    """

    folder: Path
    keep: int

    def write(self, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Write the state after `step` updates, then delete what is too old.

        Raises:
            CheckpointError: It cannot be written; the states that were there are unchanged.
        """
        save_tensors(self.folder / f"step-{step:08d}.safetensors", tensors, values)
        for path in self._files()[: -self.keep]:
            path.unlink(missing_ok=True)

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest state that can be read; None if there are no states at all.

        Raises:
            CheckpointError: There are states, but all are damaged.
        """
        problem: CheckpointError | None = None
        for path in reversed(self._files()):
            try:
                tensors, header = load_tensors(path)
            except CheckpointError as error:
                problem = problem or error
                continue
            return tensors, header
        if problem is not None:
            raise problem
        return None

    def step(self) -> int | None:
        """Step of the newest state, by its file name; None if there is none."""
        files = self._files()
        return int(files[-1].stem.removeprefix("step-")) if files else None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"))
