"""In front of a small server: one kind of answer, bounded bodies, the right host, a token."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

from tagmask.engine.bodies import drop_body

__all__ = ["Door", "read_object"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


_DROPPED, _PATIENCE = 256 << 20, 30
"""Bytes and seconds of a body that is taken in and dropped."""
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


class _TooLarge(Exception):
    """A body exceeded the limit."""


class Door:
    """An ASGI application that answers what must not go further, in JSON: ``{"error": "..."}``.

    Args:
        app: What is behind.
        limit: Most bytes of one request's body.
        hosts: Names the server may be reached under (against DNS rebinding); any if empty.
        token: Word that every request must carry, as bearer or as the password of basic authentication; none
            if None.
    """

    def __init__(self, app: App, limit: int, hosts: Sequence[str] = (), token: str | None = None) -> None:
        self.app, self.limit, self.hosts, self.token = app, limit, frozenset(hosts), token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal({k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]})
        if refusal is not None:
            await _turned_away(receive, send, *refusal)
            return
        taken, begun = 0, False

        async def counted() -> MutableMapping[str, Any]:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.limit:
                raise _TooLarge
            return message

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if taken > self.limit and not begun:
                return  # whatever the application says of a body that was cut off
            begun = True
            await send(message)

        with suppress(_TooLarge):
            await self.app(scope, counted, noted)
        if taken > self.limit and not begun:
            await _turned_away(receive, send, 413, self._too_large())

    def _refusal(self, headers: dict[str, str]) -> tuple[int, str] | None:
        host = re.sub(r":\d+$", "", headers.get("host", ""))
        if self.hosts and host not in self.hosts:
            return 400, f"this server is not called '{host[:80]}'"
        if "origin" in headers:
            # Programs do not send it; any page that is open in a browser could ask for things in its name.
            return 403, "requests from a page in a browser are not answered"
        if self.token is not None and not _carries(headers.get("authorization", ""), self.token):
            return 401, "the token that tagmask printed is missing; give it as password or as bearer"
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > self.limit:
            return 413, self._too_large()
        return None

    def _too_large(self) -> str:
        return f"at most {self.limit >> 20} MB are taken at once"


def read_object(body: bytes) -> dict[str, Any]:
    """A request's body as a JSON object.

    Raises:
        ValueError: It is none.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None
    if not isinstance(found, dict):
        raise ValueError("the body is not a JSON object")
    if _HALF.search(body):
        # JSON may hold half of a pair of code units; such text can neither be written nor sent.
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("the body has text that is not Unicode") from None
    return found


def _carries(header: str, token: str) -> bool:
    kind, _, value = header.partition(" ")
    if kind.lower() == "basic":
        try:
            value = base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    elif kind.lower() not in ("bearer", "token"):
        return False
    return hmac.compare_digest(value.strip().encode(), token.encode())


async def _turned_away(receive: Receive, send: Send, status: int, reason: str) -> None:
    """Answer at once, and let a client that still sends come to an end: many read the answer only then."""
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="tagmask"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await drop_body(receive, _DROPPED, _PATIENCE)
    await send({"type": "http.response.body", "body": b""})
