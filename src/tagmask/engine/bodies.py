"""What is left of a request's body that nobody wants."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

__all__ = ["drop_body"]


async def drop_body(
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]], most: int, seconds: float
) -> None:
    """Read the rest of a body and keep nothing: many clients read an answer only when they have sent all.

    Args:
        receive: Of the ASGI application.
        most: Bytes after which it is given up.
        seconds: After which it is given up.
    """
    dropped = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while dropped < most:
                message = await receive()
                dropped += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
