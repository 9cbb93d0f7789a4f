"""Who asks: a cookie for every browser, what it uploaded, the sessions it opened; the page's token."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

__all__ = ["Visitors", "cookie_header", "files_in", "token_in", "visitor_of"]

_VISITOR = "tagmask"
_KNOWN = 20_000
_SHAPE = re.compile(r"[A-Za-z0-9_-]{43}")


class Visitors:
    """What was brought by whom. Safe to use from several threads; the oldest entries are forgotten.

    A visitor is known by a random cookie. A client without cookies is known by the session that it names:
    the first one to open an upload without an owner becomes its owner.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[str, set[str]] = OrderedDict()
        self._sessions: OrderedDict[str, str] = OrderedDict()

    def brought(self, visitor: str, files: list[str]) -> None:
        """Note that a visitor ("" without a cookie) uploaded files; equal ones may be of several visitors."""
        with self._lock:
            for file in files:
                owners = self._files.setdefault(file, set())
                if visitor:
                    owners.add(visitor)
                self._files.move_to_end(file)
                _bounded(self._files)

    def may(self, visitor: str, session: str, files: list[str]) -> bool:
        """Whether a visitor may use a session and files: both must be its own."""
        who = visitor or f"session {session}"
        with self._lock:
            for file in files:
                owners = self._files.get(file)
                if owners is None or (owners and who not in owners):
                    return False
            if self._sessions.setdefault(session, visitor) != visitor:
                return False
            self._sessions.move_to_end(session)
            _bounded(self._sessions)
            for file in files:
                self._files[file].add(who)
            return True


def _bounded(entries: OrderedDict[str, Any]) -> None:
    while len(entries) > _KNOWN:
        entries.popitem(last=False)


def files_in(values: Any) -> Iterator[str]:
    """Paths of all files that the values of a request name, however deep; not a text stands for no path.

    Gradio takes any mapping with a "path" for a file.
    """
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "path" in value:
                yield value["path"] if isinstance(value["path"], str) else ""
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and '"path"' in value:
            # Some components take JSON as text.
            try:
                waiting.append(json.loads(value))
            except (ValueError, RecursionError):
                continue


def visitor_of(cookies: str) -> str:
    """The visitor that a request's cookies name; "" if none does."""
    found = _cookie(cookies, _VISITOR)
    return found if _SHAPE.fullmatch(found) else ""


def _cookie(cookies: str, name: str) -> str:
    try:
        found = SimpleCookie(cookies).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value


def cookie_header(token: str | None = None) -> str:
    """A cookie that names a new visitor, or one that carries the page's token."""
    name, value = (_VISITOR, secrets.token_urlsafe(32)) if token is None else (_token_cookie(token), token)
    return f"{name}={value}; Path=/; HttpOnly; SameSite=Strict"


def _token_cookie(token: str) -> str:
    # Browsers keep one jar for all ports of a machine; two pages must not take each other's place.
    return f"{_VISITOR}-{hashlib.sha256(token.encode()).hexdigest()[:8]}"


def token_in(token: str, cookies: str, query: str, authorization: str) -> tuple[bool, bool]:
    """Whether a request carries the page's token, and whether in its address."""
    in_query = parse_qs(query, max_num_fields=100).get("token", [""])[0]
    bearer = authorization.removeprefix("Bearer ").strip()
    given = [_cookie(cookies, _token_cookie(token)), bearer]
    right = any(hmac.compare_digest(value.encode(), token.encode()) for value in given)
    there = hmac.compare_digest(in_query.encode("utf-8", "replace"), token.encode())
    return right or there, there
