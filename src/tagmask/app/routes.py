"""The addresses of the page: which of them asks what of the desk. Starlette lives here and in `server`."""

from __future__ import annotations

import json
import zlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tagmask.app.chores import Chores
from tagmask.app.classroom import Classroom
from tagmask.app.decisions import Decision
from tagmask.app.desk import Desk
from tagmask.app.lab import Controls
from tagmask.app.pack import unpack
from tagmask.app.scales import Scales
from tagmask.errors import DataError, UserError, one_line

__all__ = ["Answer", "Routes"]

_STATIC = Path(__file__).parent / "static"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
_HOUR = "private, max-age=3600"
Answer = Callable[[str, Mapping[str, str], bytes], Any]
"""(visitor, query, body) to bytes, plain values, or a finished response."""


class Routes:
    """What each address answers.

    Args:
        desk: Images and decisions.
        title: Shown on top.
        background: First value of the threshold.
        classroom: Where the model learns from corrections; None if it cannot.
        tag_files: Files whose tags may be repaired.
        upload_limit: Most bytes of one upload, for the page to say before it sends more.
    """

    def __init__(
        self,
        desk: Desk,
        title: str,
        background: float,
        classroom: Classroom | None,
        tag_files: tuple[Path, ...] = (),
        upload_limit: int = 32 << 20,
    ) -> None:
        self.desk, self.chores, self.classroom = desk, Chores(desk), classroom
        self.scales = Scales(desk, tag_files)
        folder, teaches = desk.decisions.folder.name, classroom is not None
        self.about = {"title": title, "background": background, "folder": folder, "teaches": teaches}
        self.about["upload_limit"] = upload_limit

    def application(self) -> Starlette:
        """The ASGI application."""
        asked = {
            "run": self.run, "image": self.image, "picture": self.picture, "thumb": self.thumb,
            "regions": self.regions, "lesson": self.lesson, "trust": self.trust, "doubts": self.doubts,
        }  # fmt: skip
        told = {
            "look": self.look, "refine": self.refine, "decide": self.decide, "undo": self.undo,
            "note": self.note, "upload": self.upload, "spread": self.spread, "export": self.export,
            "download": self.download, "teach": self.teach, "take": self.take, "mend": self.mend,
        }  # fmt: skip
        routes = [Route("/", _file("index.html"))]
        routes += [
            Route(f"/static/{path.name}", _file(path.name))
            for path in sorted(_STATIC.iterdir())
            if path.suffix in (".js", ".css")
        ]
        routes += [
            Route(f"/api/{name}", _answered(answer), methods=["GET"]) for name, answer in asked.items()
        ]
        routes += [
            Route(f"/api/{name}", _answered(answer), methods=["POST"]) for name, answer in told.items()
        ]
        return Starlette(routes=routes)

    # What the page asks for.

    def run(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """Everything about the run, once at the start."""
        return {**self.about, **self.desk.overview(), "progress": self.chores.progress()}

    def image(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """What is stored of an image."""
        return self.desk.image(visitor, _name(query))

    def picture(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """The image itself."""
        return _jpeg(self.desk.picture(visitor, _name(query)))

    def thumb(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """A small picture with its mask."""
        return _jpeg(self.desk.thumb(visitor, _name(query)))

    def regions(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """Regions for the fill."""
        return self.chores.regions(visitor, _name(query))

    def lesson(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """How far the lesson is."""
        return self._room().progress()

    def trust(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """What the checked masks say of the others."""
        return self.scales.trust()

    def doubts(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """Doubted tags."""
        return self.scales.doubts()

    # What the page tells.

    def mend(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """Change one tag of one image in its tag file."""
        given = _json(body)
        if not isinstance(given.get("tag"), str) or not isinstance(given.get("present"), bool):
            raise DataError("the request names no tag, or does not say whether the image should have it")
        return self.scales.mend_tag(_name(given), given["tag"], given["present"])

    def teach(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """Begin a lesson."""
        return self._room().start()

    def take(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """Look with the new model."""
        return self._room().take()

    def _room(self) -> Classroom:
        if self.classroom is None:
            raise DataError("this model does not segment, so it cannot learn from corrected masks")
        return self.classroom

    def look(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """What the model says now."""
        given = _json(body)
        tags = given.get("tags")
        if tags is not None and not (isinstance(tags, list) and all(type(key) is int for key in tags)):
            raise DataError("tags must be a list of numbers of classes")
        return self.desk.look(visitor, _name(given), tags, bool(given.get("quick")))

    def refine(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """A pseudo label of other settings."""
        given = _json(body)
        controls = _controls(given.get("controls"))
        return self.desk.refine(visitor, _name(given), controls, bool(given.get("now")))

    def decide(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """Accept, reject or save a correction."""
        given, arrays = unpack(body)
        settings = given.get("settings") or {}
        words = given.get("tags") or []
        if not isinstance(settings, dict) or not isinstance(words, list):
            raise DataError("settings must be named values, and tags names")
        plain = tuple(
            (str(key), value) for key, value in settings.items() if isinstance(value, str | int | float)
        )
        decision = Decision(
            _name(given),
            str(given.get("verdict", "")),
            str(given.get("note", "")),
            str(given.get("kept", "")),
            tuple(word for word in self.desk.lab.classes if word in words),
            plain[:20],
        )
        return self.desk.decide(visitor, decision, arrays.get("mask"), bool(given.get("merge")))

    def undo(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """Take the last change of an image back."""
        given = _json(body)
        version = given.get("version")
        return self.desk.undo(visitor, _name(given), version if isinstance(version, int) else -1)

    def note(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """Write a note."""
        given = _json(body)
        return self.desk.note(visitor, _name(given), str(given.get("note", "")))

    def upload(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """Take in a picture; the body is the file."""
        return self.desk.upload(visitor, query.get("file", "upload"), body)

    def spread(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """Labels of all pixels from strokes."""
        given, arrays = unpack(body)
        if "strokes" not in arrays:
            raise DataError("the request holds no strokes")
        return self.chores.spread(visitor, _name(given), arrays["strokes"], arrays.get("prior"))

    def export(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """All kept masks as an archive."""
        name, content = self.chores.export(str(_json(body).get("format", "coco")))
        return _attached(name, content, "application/zip")

    def download(self, visitor: str, query: Mapping[str, str], body: bytes) -> Any:
        """The shown labels as a mask file."""
        given, arrays = unpack(body)
        if "mask" not in arrays:
            raise DataError("the request holds no mask")
        what = "".join(c for c in str(given.get("what", "mask")) if c.isalnum() or c in " -")[:40]
        return _attached(*self.desk.download(visitor, _name(given), what, arrays["mask"]), "image/png")


def _name(given: Mapping[str, Any]) -> str:
    name = given.get("name")
    if not isinstance(name, str):
        raise DataError("the request names no image")
    return name


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise DataError("this request cannot be read") from None
    if not isinstance(found, dict):
        raise DataError("this request cannot be read")
    return found


def _controls(values: Any) -> Controls:
    try:
        found = Controls(
            str(values["maps"]), float(values["background"]), float(values["band"]), values["method"],
            int(values["iterations"]),
        )  # fmt: skip
        within = 0 <= found.background <= 1 and 0 <= found.band <= 2 and 0 <= found.iterations <= 50
        if not within or found.method not in ("none", "par", "crf"):
            raise ValueError("out of range")
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise DataError(f"these settings cannot be used ({error})") from None
    return found


def _jpeg(content: bytes) -> Response:
    return Response(content, headers={"content-type": "image/jpeg", "cache-control": _HOUR})


def _attached(name: str, content: bytes, kind: str) -> Response:
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in name)
    headers = {"content-type": kind, "content-disposition": f'attachment; filename="{plain}"'}
    return Response(content, headers={**headers, "cache-control": "no-store"})


def _answered(answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that works in a thread; a user's mistake becomes its one sentence."""

    async def endpoint(request: Request) -> Response:
        body = await request.body()
        visitor = request.scope.get("tagmask.visitor", "")
        return await run_in_threadpool(_respond, answer, visitor, request.query_params, body)

    return endpoint


def _respond(answer: Answer, visitor: str, query: Mapping[str, str], body: bytes) -> Response:
    try:
        found = answer(visitor, query, body)
    except UserError as error:
        text = json.dumps({"error": one_line(error)})
        return Response(text, 422, {"content-type": "application/json", "cache-control": "no-store"})
    if isinstance(found, Response):
        return found
    packed = isinstance(found, bytes)
    content = found if packed else json.dumps(found, separators=(",", ":")).encode()
    headers = {
        "content-type": "application/octet-stream" if packed else "application/json",
        "cache-control": "no-store",
    }
    if len(content) > 1024:
        # Level 1: masks and maps shrink tenfold in a few milliseconds.
        squeeze = zlib.compressobj(1, zlib.DEFLATED, 31)
        content = squeeze.compress(content) + squeeze.flush()
        headers["content-encoding"] = "gzip"
    return Response(content, headers=headers)


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    path = _STATIC / name
    content = path.read_bytes()
    headers = {"content-type": f"{_TYPES[path.suffix]}; charset=utf-8", "cache-control": "no-cache"}

    async def endpoint(request: Request) -> Response:
        return Response(content, headers=headers)

    return endpoint
