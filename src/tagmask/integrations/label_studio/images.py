"""Pictures of tasks, fetched from the addresses that the user named and from nowhere else."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from tagmask.errors import ConfigError, DataError, one_line, printable

__all__ = ["Images"]

_MOST = 64 << 20
_SECONDS = 30
_LONGEST = 120
"""Seconds for one picture, of which every part comes within `_SECONDS`."""
_PART = 1 << 16
_HOPS = 5
_FRESH = 120
"""Seconds for which an access token that a refresh token gave is used."""
_NO_ENTRY = "; give a personal access token (Label Studio: Account & Settings) with --token"
_ASIS = "".join(map(chr, range(0x21, 0x7F)))
_PORTS = {"http": 80, "https": 443}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names of this machine, which count as one."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Every address is looked at before it is asked, also one that an answer leads to."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Images:
    """Fetches what is at Label Studio's address, or at one that was allowed besides.

    Args:
        url: Address of Label Studio.
        token: Its access token, legacy or personal; None waits for the one that it sends itself, see `hand`.
        allow: Further addresses.

    Raises:
        ConfigError: One is no http or https address.
    """

    def __init__(self, url: str, token: str | None = None, allow: Sequence[str] = ()) -> None:
        self.url = url.rstrip("/") + "/"
        self._home = _origin(_split(url))
        self._allowed = {self._home, *(_origin(_split(one)) for one in allow)}
        self._told = token
        self._handed: str | None = None
        self._access: tuple[str, float] = ("", 0.0)
        self._lock = threading.Lock()
        self._openers = {local: _opener(local) for local in (True, False)}

    def hand(self, hostname: Any, token: Any) -> None:
        """Take the token that a set-up request carries, if it is for the address that the user named."""
        if not isinstance(token, str) or not isinstance(hostname, str) or not token.isascii():
            return
        try:
            same = _origin(_split(hostname)) == self._home
        except ConfigError:
            return
        if same and token.isprintable():
            self._handed = token

    def check(self, address: Any) -> str:
        """The whole address of a picture, if it may be fetched.

        Raises:
            DataError: It is no address, names a file of this machine, or is on another host.
        """
        if not isinstance(address, str) or not address:
            raise DataError("the task does not say where its picture is")
        shown = printable(address[:200])
        if not address.isprintable() or "\\" in address:
            raise DataError(f"'{shown}' is no address of a picture")
        try:
            # Spaces and letters of other alphabets are encoded, as a browser does that shows the picture.
            whole = urljoin(self.url, quote(address, safe=_ASIS))
            parts = urlsplit(whole)
            origin = _origin(parts)
        except (ValueError, ConfigError):
            raise DataError(
                f"'{shown}' is not fetched: pictures come by http or https from {self.url} only"
            ) from None
        if origin not in self._allowed or parts.username is not None:
            raise DataError(
                f"'{shown}' is not fetched: it is not at {self.url}; allow it with "
                "--images-from if you trust it"
            )
        return whole

    def read(self, address: Any) -> bytes:
        """Content of a picture.

        Raises:
            DataError: It may not be fetched, cannot be, or is too large.
        """
        place = self.check(address)
        for _ in range(_HOPS):
            content, further = self._get(place)
            if further is None:
                return content
            place = self.check(urljoin(place, further))
        raise DataError(f"{printable(place[:200])} leads from one address to the next")

    def tasks(self, project: int) -> list[Any]:
        """Tasks of a project with their annotations, as Label Studio exports them.

        Raises:
            DataError: It cannot be asked, or its answer is no list.
        """
        try:
            found = json.loads(self.read(f"api/projects/{project}/export?exportType=JSON"))
        except (ValueError, RecursionError):
            raise DataError(f"{self.url} does not export project {project} as JSON") from None
        if not isinstance(found, list):
            raise DataError(f"{self.url} does not export project {project} as a list of tasks")
        return found

    def _get(self, place: str) -> tuple[bytes, str | None]:
        """Content at an address, and where it leads instead."""
        request = urllib.request.Request(place, headers={"User-Agent": "tagmask"})
        if _origin(urlsplit(place)) == self._home and (word := self._word()):
            request.add_header("Authorization", word)
        try:
            with self._open(request) as answer:
                content = _content(answer, printable(place[:200]))
        except urllib.error.HTTPError as error:
            with error:
                if error.code in (301, 302, 303, 307, 308) and (further := error.headers.get("Location")):
                    return b"", str(further)
                hint = _NO_ENTRY if error.code in (401, 403) else ""
                raise DataError(f"{printable(place[:200])} answers {error.code}{hint}") from None
        except (OSError, ValueError, HTTPException) as error:
            reason = one_line(getattr(error, "reason", error))
            raise DataError(f"{printable(place[:200])} cannot be fetched ({reason})") from None
        return content, None

    def _open(self, request: urllib.request.Request) -> Any:
        local = urlsplit(request.full_url).hostname in _LOOPBACK
        return self._openers[local].open(request, timeout=_SECONDS)

    def _word(self) -> str | None:
        """What the header Authorization says."""
        token = self._told or self._handed
        if token is None:
            return None
        if token.count(".") != 2:
            return f"Token {token}"
        with self._lock:
            known, until = self._access
            if time.monotonic() >= until:
                # Personal tokens are exchanged for one that lasts some minutes.
                known = self._exchange(token)
                self._access = known, time.monotonic() + _FRESH
        return f"Bearer {known}"

    def _exchange(self, token: str) -> str:
        body = json.dumps({"refresh": token}).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "tagmask"}
        request = urllib.request.Request(urljoin(self.url, "api/token/refresh/"), body, headers)
        try:
            with self._open(request) as answer:
                return str(json.loads(answer.read(_MOST))["access"])
        except (OSError, ValueError, HTTPException, LookupError, TypeError) as error:
            raise DataError(f"{self.url} does not take the access token ({one_line(error)})") from None


def _content(answer: Any, shown: str) -> bytes:
    """What a server sends, unless it is too much or takes too long."""
    began, parts, taken = time.monotonic(), [], 0
    while part := answer.read1(_PART):
        parts.append(part)
        taken += len(part)
        if taken > _MOST:
            raise DataError(f"{shown} has more than {_MOST >> 20} MB")
        if time.monotonic() - began > _LONGEST:
            raise DataError(f"{shown} is not there after {_LONGEST} s")
    return b"".join(parts)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _origin(parts)
    except ValueError:
        raise ConfigError(f"'{printable(url[:200])}' is no address; give http://HOST:PORT") from None
    return parts


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port.

    Raises:
        ConfigError: It is neither http nor https, or has no host.
    """
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ConfigError(f"'{printable(parts.geturl()[:200])}' is no address; give http://HOST:PORT")
    host = "localhost" if parts.hostname in _LOOPBACK else parts.hostname
    return parts.scheme, host, parts.port or _PORTS[parts.scheme]


def _opener(local: bool) -> urllib.request.OpenerDirector:
    """Speaks http and https, nothing else, and goes to loopback without a proxy."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if local else None),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Stay(),
    ):
        opener.add_handler(handler)
    return opener
