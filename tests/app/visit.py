"""Visitors without a browser on a running page: the same requests that the page makes."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.parse
from http.cookies import SimpleCookie

from tagmask.app.pack import unpack


class Visitor:
    """One browser's cookie and connection."""

    def __init__(self, url: str) -> None:
        self.parts, self.cookie = urllib.parse.urlsplit(url), ""
        self.connection = http.client.HTTPConnection(self.parts.hostname or "", self.parts.port, timeout=120)
        self.ask("GET", "/")

    def ask(self, method: str, path: str, body: bytes = b"", **query: str) -> tuple[int, bytes]:
        """Status and content of one answer."""
        address = f"{path}?{urllib.parse.urlencode(query)}" if query else path
        headers = {"Cookie": self.cookie} if self.cookie else {}
        self.connection.request(method, address, body, headers)
        answer = self.connection.getresponse()
        for line in answer.headers.get_all("set-cookie") or ():
            self.cookie = "; ".join(f"{key}={value.value}" for key, value in SimpleCookie(line).items())
        content = answer.read()
        if answer.headers.get("content-encoding") == "gzip":
            import gzip

            content = gzip.decompress(content)
        return answer.status, content

    def next(self, name: str) -> tuple[float, str]:
        """What opening an image costs: seconds, and the name that came back."""
        started = time.perf_counter()
        status, content = self.ask("GET", "/api/image", name=name)
        shown, _ = self.ask("GET", "/api/picture", name=name)
        seconds = time.perf_counter() - started
        if (status, shown) != (200, 200):
            return seconds, content[:200].decode("utf-8", "replace")
        return seconds, str(unpack(content)[0]["name"])


def visit_at_once(url: str, visitors: int, rounds: int) -> tuple[list[float], list[str]]:
    """Everybody turns pages without pauses: seconds of every page, and everything that went wrong."""
    names = json.loads(Visitor(url).ask("GET", "/api/run")[1])["names"]
    times: list[float] = []
    faults: list[str] = []

    def go(number: int) -> None:
        try:
            visitor = Visitor(url)
            for turn in range(rounds):
                name = names[(7 * number + turn) % len(names)]
                seconds, found = visitor.next(name)
                times.append(seconds)
                if found != name:
                    faults.append(f"visitor {number} asked for {name} and got {found}")
        except Exception as error:
            faults.append(f"visitor {number}: {type(error).__name__}: {error}")

    hands = [threading.Thread(target=go, args=(number,)) for number in range(visitors)]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    return times, faults
