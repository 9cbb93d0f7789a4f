"""Image tags into pixel masks: weakly supervised semantic segmentation with image-level labels.

Every public name is loaded when it is first used: ``import tagmask`` alone loads neither PyTorch nor timm.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tagmask.api import evaluate, localize, refine, run, segment, train, write_report
    from tagmask.data import TagDataset, open_dataset
    from tagmask.data.check import check as check_data
    from tagmask.errors import CheckpointError, ConfigError, DataError, UserError
    from tagmask.model import Model, Result, load
    from tagmask.pipeline.config import RunConfig, read_config
    from tagmask.pipeline.run import Run

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Model",
    "Result",
    "Run",
    "RunConfig",
    "TagDataset",
    "UserError",
    "__version__",
    "check_data",
    "evaluate",
    "load",
    "localize",
    "open_dataset",
    "read_config",
    "refine",
    "run",
    "segment",
    "train",
    "write_report",
]

_HOMES = {
    "tagmask.api": ("evaluate", "localize", "refine", "run", "segment", "train", "write_report"),
    "tagmask.data": ("TagDataset", "open_dataset"),
    "tagmask.errors": ("CheckpointError", "ConfigError", "DataError", "UserError"),
    "tagmask.model": ("Model", "Result", "load"),
    "tagmask.pipeline.run": ("Run",),
    "tagmask.pipeline.config": ("RunConfig", "read_config"),
}


def __getattr__(name: str) -> Any:
    if name == "check_data":
        return importlib.import_module("tagmask.data.check").check
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'tagmask' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
