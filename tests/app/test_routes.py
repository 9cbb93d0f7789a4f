"""The addresses of the page, asked without a network: what comes back, and what a stranger gets."""

from __future__ import annotations

import asyncio
import gzip
import json
from urllib.parse import urlencode

import numpy as np
import pytest

from tagmask.app.pack import pack, unpack
from tagmask.app.visitors import cookie_header
from tagmask.store.labels import read_mask
from tests.app.conftest import picture

pytest.importorskip("starlette", reason="the extra app is not installed")
pytest.importorskip("uvicorn", reason="the extra app is not installed")


class Caller:
    """A browser without a window: one cookie, requests one by one."""

    def __init__(self, app, cookie=True):
        self.app = app
        self.cookie = cookie_header().split(";")[0] if cookie else ""

    def __call__(self, path, body=None, query=None, **more):
        sent = []

        async def receive():
            return {"type": "http.request", "body": body or b"", "more_body": False}

        async def send(message):
            sent.append(message)

        headers = {"host": "127.0.0.1:1", "cookie": self.cookie, **more}
        scope = {
            "type": "http", "method": "GET" if body is None else "POST", "path": path,
            "raw_path": path.encode(),
            "headers": [(k.encode(), v.encode()) for k, v in headers.items()], "http_version": "1.1",
            "query_string": urlencode(query or {}).encode(), "scheme": "http", "root_path": "",
        }  # fmt: skip
        asyncio.run(self.app(scope, receive, send))
        answer = {key.decode().lower(): value.decode() for key, value in sent[0]["headers"]}
        content = b"".join(message.get("body", b"") for message in sent[1:])
        self.headers = answer
        zipped = answer.get("content-encoding") == "gzip"
        return sent[0]["status"], gzip.decompress(content) if zipped else content


@pytest.fixture
def app(desk):
    from tagmask.app.server import AppOptions, application

    return application(desk, "first", 0.45, AppOptions(upload_limit=1))


def test_the_page_comes_with_its_scripts_and_names_no_folder(app, run):
    ask = Caller(app, cookie=False)
    status, page = ask("/")
    assert (status, b"tagmask" in page, str(run).encode() in page) == (200, True, False)
    assert "tagmask=" in ask.headers["set-cookie"]
    assert b"http" not in page.replace(b"http-equiv", b"")
    status, script = ask("/static/main.js")
    assert (status, ask.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert b"://" not in script
    assert ask("/static/nothing.js")[0] == 404
    status, about = ask("/api/run")
    assert (status, json.loads(about)["title"], str(run) in about.decode()) == (200, "first", False)


def test_an_image_is_opened_decided_and_taken_back(app, run):
    ask = Caller(app)
    status, content = ask("/api/image", query={"name": "00012"})
    head, arrays = unpack(content)
    assert (status, head["verdict"], arrays["masks"].shape) == (200, "", (64, 64))
    assert ask("/api/picture", query={"name": "00012"})[1].startswith(b"\xff\xd8")
    assert ask("/api/thumb", query={"name": "00012"})[1].startswith(b"\xff\xd8")
    assert unpack(ask("/api/regions", query={"name": "00012"})[1])[1]["regions"].shape == (64, 64, 2)
    drawn = np.full((64, 64), 4, np.uint8)
    said = {
        "name": "00012",
        "verdict": "accepted",
        "kept": "mended",
        "tags": ["dots"],
        "settings": {"x": 0.5},
    }
    status, answer = ask("/api/decide", pack(said, {"mask": drawn}))
    assert (status, json.loads(answer)["version"]) == (200, 1)
    assert np.array_equal(read_mask(run / "reviewed" / "masks" / "00012.png"), drawn)
    status, answer = ask("/api/undo", json.dumps({"name": "00012", "version": 1}).encode())
    assert (status, json.loads(answer)["verdict"]) == (200, "")
    assert ask("/api/note", json.dumps({"name": "00012", "note": "x"}).encode())[0] == 200
    status, content = ask("/api/look", json.dumps({"name": "00013", "quick": True}).encode())
    assert (status, "now" in unpack(content)[1]) == (200, True)
    controls = {"maps": "cam", "background": 0.5, "band": 0, "method": "none", "iterations": 1}
    status, content = ask("/api/refine", json.dumps({"name": "00012", "controls": controls}).encode())
    assert (status, unpack(content)[1]["label"].shape) == (200, (48, 48))
    strokes = np.full((64, 64), 255, np.uint8)
    strokes[:4], strokes[-4:] = 0, 1
    status, content = ask("/api/spread", pack({"name": "00012"}, {"strokes": strokes}))
    assert (status, unpack(content)[1]["spread"].shape) == (200, (64, 64))
    status, content = ask("/api/download", pack({"name": "00012", "what": "mask"}, {"mask": drawn}))
    assert (status, content[:4], ask.headers["content-type"]) == (200, b"\x89PNG", "image/png")
    assert (run / "reviewed" / "downloads" / "00012-mask.png").read_bytes() == content


def test_uploads_belong_to_the_browser_that_brought_them(app, tmp_path):
    owner, thief, plain = Caller(app), Caller(app), Caller(app, cookie=False)
    content = picture(tmp_path / "private.png", (44, 45)).read_bytes()
    status, answer = owner("/api/upload", content, {"file": "private.png"})
    name = json.loads(answer)["name"]
    assert (status, owner("/api/image", query={"name": name})[0]) == (200, 200)
    for someone in (thief, plain):
        for path in ("/api/image", "/api/picture", "/api/thumb", "/api/regions"):
            assert someone(path, query={"name": name})[0] == 422
        assert someone("/api/look", json.dumps({"name": name}).encode())[0] == 422
    assert plain("/api/upload", content, {"file": "private.png"})[0] == 422
    # The same picture brought by two is each one's own.
    assert thief("/api/upload", content, {"file": "private.png"})[0] == 200
    assert thief("/api/image", query={"name": name})[0] == 200
    assert owner("/api/upload", bytes(2 << 20), {"file": "large.png"})[0] == 413


def test_what_a_stranger_makes_up_is_one_sentence(app, run, tmp_path):
    ask = Caller(app)
    secret = picture(tmp_path / "secret.png", (41, 43))
    for name in (str(secret), "../secret", "/etc/passwd", "", "\0", "00012/../00012", "x" * 5000):
        status, answer = ask("/api/picture", query={"name": name})
        assert (status, "no image" in json.loads(answer)["error"]) == (422, True), name
    bodies = (b"", b"[]", b"{", b"[" * 100_000, b'{"name": 3}', b"\xff" * 40, b'{"name": "00012"}')
    for path in ("look", "refine", "decide", "undo", "note", "spread", "export", "download"):
        for body in bodies:
            status, answer = ask(f"/api/{path}", body)
            if (path, body) in (("look", bodies[-1]), ("note", bodies[-1])):
                continue
            assert status == 422, (path, body[:20], answer[:200])
            assert b"Traceback" not in answer
            assert str(run).encode() not in answer
    huge = pack({"name": "00012", "verdict": "accepted", "kept": "mended"}, {})
    for shape in ([1 << 15, 1 << 15], [2, -1], [1e9], "ab", [[1]], []):
        body = huge.replace(
            b'"arrays":{}',
            json.dumps({"mask": {"shape": shape, "offset": 0}}).join(['"arrays":', ""]).encode(),
        )
        assert ask("/api/decide", len(body[4:]).to_bytes(4, "little") + body[4:])[0] == 422, shape
    said = {"name": "00012", "verdict": "deleted", "kept": "all"}
    assert ask("/api/decide", pack(said, {"mask": np.zeros((64, 64), np.uint8)}))[0] == 422
    assert not (run / "reviewed" / "masks").exists()


def test_the_model_learns_from_what_was_mended(desk, model, run, monkeypatch):
    from tagmask.app import classroom
    from tagmask.app.server import AppOptions, application
    from tagmask.training.lessons import Taught

    room = classroom.Classroom(desk, model._trained, model._compute, seconds=20)
    app = application(desk, "first", 0.5, AppOptions(), None, room)
    ask = Caller(app)
    assert json.loads(ask("/api/run")[1])["teaches"] is True
    assert ask("/api/teach", b"{}")[0] == 422  # nothing is mended yet
    for name in ("00012", "00013"):
        said = {"name": name, "verdict": "accepted", "kept": "mended"}
        assert ask("/api/decide", pack(said, {"mask": np.ones((64, 64), np.uint8)}))[0] == 200
    lessons = []

    def teach(trained, corrections, **options):
        lessons.extend(corrections)
        options["progress"]("learning", 0.5)
        return Taught(trained, 0.1, 0.2, corrections=len(corrections), held=1)

    monkeypatch.setattr(classroom, "teach", teach)
    assert ask("/api/teach", b"{}")[0] == 200
    while json.loads(ask("/api/lesson")[1])["what"] != "done":
        continue
    assert [lesson.name for lesson in lessons] == ["00012", "00013"]
    found = json.loads(ask("/api/lesson")[1])
    assert (found["better"], "20.0 after" in found["text"]) == (True, True)
    monkeypatch.setattr(desk.lab, "take", lambda taken: lessons.append(taken))
    assert json.loads(ask("/api/take", b"{}")[1]) == {"folder": "reviewed/taught"}
    assert (run / "reviewed" / "taught" / "weights.safetensors").is_file()
    assert lessons[-1].classes == model.classes
    assert ask("/api/take", b"{}")[0] == 422


def test_the_end_of_the_program_ends_a_lesson(desk, model, monkeypatch):
    from tagmask.app import classroom
    from tagmask.training.lessons import Taught

    def teach(trained, corrections, **options):
        while not options["stop"]():
            continue
        return Taught(None, stopped=True)

    monkeypatch.setattr(classroom, "teach", teach)
    room = classroom.Classroom(desk, model._trained, model._compute)
    monkeypatch.setattr(room, "_lessons", lambda: ([None, None], []))
    assert room.start()["what"] == "waiting"
    room.close()
    assert (room.progress()["what"], room.progress()["better"]) == ("done", False)


def test_the_token_is_asked_for_and_leaves_the_address(desk):
    from tagmask.app.server import AppOptions, application

    app = application(desk, "first", 0.5, AppOptions(host="0.0.0.0"), "s" * 32)
    ask = Caller(app, cookie=False)
    for path, query in (("/", {}), ("/api/run", {}), ("/", {"token": "s" * 31}), ("/static/main.js", {})):
        assert ask(path, query=query)[0] == 401
    assert ask("/api/upload", b"x")[0] == 401
    assert ask("/", query={"token": "s" * 32})[0] == 303
    assert ask.headers["location"] == "/"
    ask.cookie = ask.headers["set-cookie"].split(";")[0]
    assert ask("/api/run")[0] == 200
    assert Caller(app, cookie=False)("/api/run", authorization=f"Bearer {'s' * 32}")[0] == 200
