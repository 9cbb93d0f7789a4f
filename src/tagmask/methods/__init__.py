"""Methods by file name: adding ``methods/<paper>.py`` is all it takes to be listed and trainable."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from tagmask.errors import ConfigError, nearest

if TYPE_CHECKING:
    from tagmask.methods.base import Method

__all__ = ["get", "names"]

_GROUP = "tagmask.methods"


def names() -> list[str]:
    """Names of all methods, without importing any of them; other packages join by entry point."""
    own = [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_") and m.name != "base"]
    return sorted({*own, *(point.name for point in entry_points(group=_GROUP))})


def get(name: str) -> type[Method]:
    """The method class behind a name.

    Raises:
        ConfigError: The name is unknown; the message lists the known ones and the nearest match.
    """
    if name not in names():
        raise ConfigError(f"unknown method '{name}'. {nearest(name, names())}")
    for point in entry_points(group=_GROUP):
        if point.name == name:
            loaded: type[Method] = point.load()
            return loaded
    # Not at the top: listing the names must not load PyTorch.
    from tagmask.methods.base import Method

    module = importlib.import_module(f"{__name__}.{name}")
    found = [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Method) and cls.__module__ == module.__name__ and hasattr(cls, "config_class")
    ]
    return found[-1]
