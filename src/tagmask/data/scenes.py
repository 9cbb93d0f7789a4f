"""Moved to `tagmask.data.datasets.scenes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if not TYPE_CHECKING:
    from tagmask.names import moved

    __getattr__ = moved(__name__, "tagmask.data.datasets.scenes", "0.2")
