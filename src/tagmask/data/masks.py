"""Moved to `tagmask.data.readers.masks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if not TYPE_CHECKING:
    from tagmask.names import moved

    __getattr__ = moved(__name__, "tagmask.data.readers.masks", "0.2")
