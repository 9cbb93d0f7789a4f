"""Image tags into pixel masks: weakly supervised semantic segmentation with image-level labels.

Every public name is loaded when it is first used: ``import tagmask`` alone loads neither PyTorch nor timm.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tagmask.names import lazy

if TYPE_CHECKING:
    from tagmask import backbones, data, heads, losses, methods, metrics, ops
    from tagmask.api import (
        affinity,
        entropy,
        evaluate,
        localize,
        refine,
        run,
        segment,
        student,
        teach,
        train,
        walk,
        write_report,
        write_review,
    )
    from tagmask.data import TagDataset, check_data, open_dataset
    from tagmask.errors import CheckpointError, ConfigError, DataError, UserError
    from tagmask.model import Model, Result, load
    from tagmask.pipeline.config import RunConfig, read_config
    from tagmask.pipeline.run import Run
    from tagmask.training.callbacks import Callback, EarlyStop

__version__ = "0.1.0"

__all__ = [
    "Callback",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "EarlyStop",
    "Model",
    "Result",
    "Run",
    "RunConfig",
    "TagDataset",
    "UserError",
    "__version__",
    "affinity",
    "backbones",
    "check_data",
    "data",
    "entropy",
    "evaluate",
    "heads",
    "load",
    "localize",
    "losses",
    "methods",
    "metrics",
    "open_dataset",
    "ops",
    "read_config",
    "refine",
    "run",
    "segment",
    "student",
    "teach",
    "train",
    "walk",
    "write_report",
    "write_review",
]

_HOMES = {
    **dict.fromkeys(
        (
            "affinity",
            "entropy",
            "evaluate",
            "localize",
            "refine",
            "write_review",
            "run",
            "segment",
            "student",
            "teach",
            "train",
            "walk",
            "write_report",
        ),
        ".api",
    ),
    **dict.fromkeys(("TagDataset", "check_data", "open_dataset"), ".data"),
    **dict.fromkeys(("CheckpointError", "ConfigError", "DataError", "UserError"), ".errors"),
    **dict.fromkeys(("Model", "Result", "load"), ".model"),
    **dict.fromkeys(("RunConfig", "read_config"), ".pipeline.config"),
    **dict.fromkeys(("Callback", "EarlyStop"), ".training.callbacks"),
    "Run": ".pipeline.run",
}
_PARTS = ("backbones", "data", "heads", "losses", "methods", "metrics", "ops")


# Hidden from type checkers, which then find a wrong name.
if not TYPE_CHECKING:
    _load = lazy(__name__, _HOMES)

    def __getattr__(name: str) -> Any:
        return importlib.import_module(f"{__name__}.{name}") if name in _PARTS else _load(name)


def __dir__() -> list[str]:
    return sorted(__all__)
