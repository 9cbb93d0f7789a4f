"""Between the network and the page: few paths, small bodies, the right host, no foreign addresses."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from tagmask.app.visitors import cookie_header, token_in, visitor_of
from tagmask.engine.bodies import drop_body

__all__ = ["Gate"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_PATHS = {
    "GET": re.compile(r"/(favicon\.ico|static/[a-z]+\.(js|css)|api/[a-z]+)?"),
    "POST": re.compile(r"/api/[a-z]+"),
}
"""The paths that the page itself uses."""

_LARGE = re.compile(r"/api/(upload|decide|spread)")
"""Requests that carry pictures or masks."""
_ASKED = 1 << 20
"""Most bytes of any other request."""

_FORGOTTEN, _PATIENCE = 64 << 20, 10.0
"""Bytes and seconds of a refused body that are read: a browser that is still sending hears no answer."""

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}


class TooLarge(Exception):
    """A body exceeded the limit."""


class Gate:
    """An ASGI application that lets through what the page needs and answers everything else itself.

    Args:
        app: What is behind.
        limit: Most bytes of one request's body.
        hosts: Names the page may be reached under (against DNS rebinding); any if empty.
        token: Word that every request must carry, in its address once, then as a cookie; none if None.
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
        headers = _headers(scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            if refusal[0] == 413:
                await drop_body(receive, _FORGOTTEN, _PATIENCE)
            await _answer(send, *refusal)
            return
        cookies = headers.get("cookie", "")
        query = scope.get("query_string", b"").decode("latin-1")
        if self.token is not None:
            carried, in_address = token_in(self.token, cookies, query, headers.get("authorization", ""))
            if not carried:
                await _answer(send, 401, "open the address that tagmask printed, with its token")
                return
            if in_address and scope["method"] == "GET" and scope["path"] == "/":
                # The token leaves the address, where histories and screens would keep it.
                await _answer(send, 303, "", (("location", "/"), ("set-cookie", cookie_header(self.token))))
                return
        await self._passed(scope, receive, send, visitor_of(cookies))

    async def _passed(self, scope: Scope, receive: Receive, send: Send, visitor: str) -> None:
        """Hand a request on, its body counted."""
        begun, over, more = False, False, True
        path = scope["path"]
        most = self.limit if _LARGE.fullmatch(path) else _ASKED
        seen = 0

        async def counted() -> MutableMapping[str, Any]:
            nonlocal seen, over, more
            message = await receive()
            more = message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > most:
                over = True
                raise TooLarge
            return message

        async def dressed(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if over and not begun:
                return  # what is behind calls it a fault of its own
            if message["type"] == "http.response.start":
                begun = True
                cookie = [(b"set-cookie", cookie_header().encode())] if not visitor and path == "/" else []
                message = {**message, "headers": [*_with_headers(message.get("headers", ())), *cookie]}
            await send(message)

        try:
            await self.app({**scope, "tagmask.visitor": visitor}, counted, dressed)
        except TooLarge:
            if not begun:
                if more:
                    await drop_body(receive, _FORGOTTEN, _PATIENCE)
                await _answer(send, 413, self._too_large())

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self.hosts and re.sub(r":\d+$", "", host) not in self.hosts:
            return 400, f"this page is not called '{host[:80]}'"
        allowed = _PATHS.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if allowed is None:
            return 405, "only GET and POST are answered here"
        if not allowed.fullmatch(scope["path"]):
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


def _headers(scope: Scope) -> dict[str, str]:
    return {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}


def _with_headers(given: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    ours = [(key.encode(), value.encode()) for key, value in _HEADERS.items()]
    return [*((key, value) for key, value in given if key.decode("latin-1").lower() not in _HEADERS), *ours]


async def _answer(send: Send, status: int, text: str, more: Sequence[tuple[str, str]] = ()) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    headers += [(key.encode(), value.encode()) for key, value in more]
    await send({"type": "http.response.start", "status": status, "headers": _with_headers(headers)})
    await send({"type": "http.response.body", "body": text.encode()})
