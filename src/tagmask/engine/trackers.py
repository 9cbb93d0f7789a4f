"""Where the figures of a training go besides its CSV files: TensorBoard, trackers of Accelerate, objects."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from tagmask.engine.log import TensorBoardLog
from tagmask.errors import ConfigError, nearest, one_line

__all__ = ["Figures", "open_logger", "open_loggers"]

_PLACES = {"wandb": ("dir",), "swanlab": ("logdir",)}
"""What trackers call the folder of their files, where they would take the present one."""


class Figures(Protocol):
    """Something that keeps figures."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Keep figures of one step."""


class _Tracker:
    """One of Accelerate's trackers."""

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self._tracker.log(dict(figures), step=step)

    def close(self) -> None:
        self._tracker.finish()


def open_logger(
    logger: str | Figures, folder: Path, name: str, start: int, settings: Mapping[str, Any]
) -> Figures:
    """A logger by name, or the object itself.

    Args:
        logger: "tensorboard", a tracker of Accelerate ("wandb", "mlflow", "comet_ml", "aim", ...), or an
            object with ``write(step, figures)`` and, if it likes, ``close()``.
        folder: Where files go.
        name: What a tracker calls the project.
        start: Steps done before.
        settings: What a tracker notes about the run.

    Raises:
        ConfigError: The name is unknown, its package is missing or refuses, or the object cannot write.
    """
    if not isinstance(logger, str):
        if not callable(getattr(logger, "write", None)):
            raise ConfigError(f"a logger is a name or an object with write(step, figures), got {logger!r}")
        return logger
    if logger == "tensorboard":
        return TensorBoardLog(folder, start)
    # Slow to import, and seldom wanted.
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    known = {str(getattr(key, "value", key)): kind for key, kind in LOGGER_TYPE_TO_CLASS.items()}
    if logger not in known:
        raise ConfigError(f"unknown logger '{logger}'. {nearest(logger, known)}")
    kind = known[logger]
    try:
        places = {key: str(folder) for key in _PLACES.get(logger, ())}
        tracker = kind(name, str(folder)) if kind.requires_logging_directory else kind(name, **places)
        if hasattr(tracker, "start"):
            tracker.start()
        plain = {k: v for k, v in settings.items() if isinstance(v, (str, bool, numbers.Number))}
        tracker.store_init_configuration(plain)
    except ImportError as error:
        raise ConfigError(
            f"logger '{logger}' needs its package: pip install {error.name or logger}"
        ) from None
    except Exception as error:
        raise ConfigError(f"logger '{logger}' does not start: {one_line(error)}") from None
    return _Tracker(tracker)


def open_loggers(
    loggers: Sequence[str | Figures], folder: Path, start: int, settings: Mapping[str, Any], stack: ExitStack
) -> list[Figures]:
    """All loggers of a training, each once; closed with the stack. The CSV files are always written.

    Args:
        loggers: Names or objects, see `open_logger`; "csv" asks for nothing more.
        folder: Where files go.
        start: Steps done before.
        settings: What a tracker notes about the run.
        stack: Closes them.

    Raises:
        ConfigError: See `open_logger`.
    """
    wanted = [logger for logger in dict.fromkeys(loggers) if logger != "csv"]
    opened = [open_logger(logger, folder, "tagmask", start, settings) for logger in wanted]
    for log in opened:
        close = getattr(log, "close", None)
        if callable(close):
            stack.callback(close)
    return opened
