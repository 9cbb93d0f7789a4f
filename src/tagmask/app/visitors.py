"""Who asks: a cookie for every browser, what it uploaded and looked at; the page's token."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from collections import OrderedDict
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import parse_qs

from tagmask.errors import DataError

__all__ = ["Visitors", "cookie_header", "token_in", "visitor_of"]

_VISITOR = "tagmask"
_KNOWN = 1000
_UPLOADS = 200
_SEEN = 64
_SHAPE = re.compile(r"[A-Za-z0-9_-]{43}")
_V = TypeVar("_V")


class Visitors(Generic[_V]):
    """What belongs to one visitor alone. Safe to use from several threads; the oldest are forgotten.

    A visitor is known by a random cookie; who sends none cannot upload.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uploads: OrderedDict[str, dict[str, Path]] = OrderedDict()
        self._seen: OrderedDict[tuple[str, str], _V] = OrderedDict()

    def brought(self, visitor: str, name: str, file: Path) -> None:
        """Note an upload.

        Raises:
            DataError: The visitor has no cookie, or too many uploads.
        """
        if not visitor:
            raise DataError("open the page first: without its cookie nothing can be uploaded")
        with self._lock:
            uploads = self._uploads.setdefault(visitor, {})
            if name not in uploads and len(uploads) >= _UPLOADS:
                raise DataError(f"at most {_UPLOADS} pictures can be uploaded; start the app again for more")
            uploads[name] = file
            self._uploads.move_to_end(visitor)
            while len(self._uploads) > _KNOWN:
                self._uploads.popitem(last=False)

    def uploads(self, visitor: str) -> dict[str, Path]:
        """What a visitor uploaded, by name."""
        with self._lock:
            return dict(self._uploads.get(visitor, {}))

    def remember(self, visitor: str, name: str, view: _V) -> None:
        """Keep what a visitor was shown of an image."""
        with self._lock:
            self._seen[visitor, name] = view
            self._seen.move_to_end((visitor, name))
            while len(self._seen) > _SEEN:
                self._seen.popitem(last=False)

    def seen(self, visitor: str, name: str) -> _V | None:
        """What a visitor was shown of an image last, if it is still known."""
        with self._lock:
            return self._seen.get((visitor, name))


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
