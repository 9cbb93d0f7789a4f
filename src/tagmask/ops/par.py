"""Moved to `tagmask.ops.pixel_refinement`; ``from tagmask.ops import par`` gives the function."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if not TYPE_CHECKING:
    from tagmask.names import moved

    __getattr__ = moved(__name__, "tagmask.ops.pixel_refinement", "0.2")


class _AlsoTheFunction(ModuleType):
    """Importing this module puts it where the function is found otherwise; it must still be callable."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function `par`."""
        from tagmask.ops.pixel_refinement import par

        return par(*args, **kwargs)


sys.modules[__name__].__class__ = _AlsoTheFunction
