"""Between the network and Gradio: few paths, small bodies, the right host, no foreign addresses."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

__all__ = ["Gate"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_PATHS = {
    "GET": re.compile(
        r"/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|(static|assets|svelte)/.+|"
        r"gradio_api/(startup-events|heartbeat/\w+|upload_progress|info|theme\.css))?/?"
    ),
    "POST": re.compile(r"/gradio_api/(run/\w+|upload|cancel|reset)/?"),
}
"""The paths that the page itself uses. Gradio has many more, among them one that serves files."""

_HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}


class TooLarge(Exception):
    """A body went on beyond the limit."""


class Gate:
    """An ASGI application that lets through what the page needs and answers everything else itself.

    Args:
        app: What lies behind.
        limit: Most bytes of one request's body.
        hosts: Names the page may be reached under (against DNS rebinding); any if empty.
    """

    def __init__(self, app: App, limit: int, hosts: Sequence[str] = ()) -> None:
        self.app, self.limit, self.hosts = app, limit, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        seen, begun = 0, False

        async def counted() -> MutableMapping[str, Any]:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.limit:
                raise TooLarge
            return message

        async def dressed(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": _with_headers(message.get("headers", ()))}
            await send(message)

        try:
            await self.app(scope, counted, dressed)
        except TooLarge:
            if not begun:
                await _answer(send, 413, self._too_large())

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        host = headers.get("host", "")
        if self.hosts and re.sub(r":\d+$", "", host) not in self.hosts:
            return 400, f"this page is not called '{host[:80]}'"
        allowed = _PATHS.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if allowed is None:
            return 405, "only GET and POST are answered here"
        if not allowed.fullmatch(scope["path"]) or ".." in scope["path"].split("/"):
            return 404, "there is nothing here"
        origin = headers.get("origin")
        if scope["method"] == "POST" and origin and re.sub(r"^https?://", "", origin) != host:
            return 403, "this request comes from another page"
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > self.limit:
            return 413, self._too_large()
        return None

    def _too_large(self) -> str:
        return f"at most {self.limit / 2**20:.0f} MB at once are taken; make the picture smaller"


def _with_headers(given: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    ours = [(key.encode(), value.encode()) for key, value in _HEADERS.items()]
    return [*((key, value) for key, value in given if key.decode("latin-1").lower() not in _HEADERS), *ours]


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": _with_headers(headers)})
    await send({"type": "http.response.body", "body": text.encode()})
