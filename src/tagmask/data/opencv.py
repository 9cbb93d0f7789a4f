"""Moved to `tagmask.data.transforms.opencv`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if not TYPE_CHECKING:
    from tagmask.names import moved

    __getattr__ = moved(__name__, "tagmask.data.transforms.opencv", "0.2")
