"""A stranger on the network, without a browser: what a request names is refused unless it is its own."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import threading
import urllib.parse
import uuid
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest

from tests.app.browser import served
from tests.app.conftest import picture
from tests.app.load import Visitor
from tests.cli import tagmask, train_args
from tests.toy import toy_root

pytest.importorskip("gradio", reason="the extra app is not installed")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outsider")
    out = folder / "run"
    done = tagmask(*train_args(toy_root(folder), out, 1, "--set=train.eval_every=0"))
    assert done.exit_code == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def url(finished: Path):
    with served(finished) as address:
        yield address


class Stranger:
    """Requests with a jar of cookies, or without one."""

    def __init__(self, url: str, jar: bool = True) -> None:
        self.parts, self.jar, self.session = urllib.parse.urlsplit(url), jar, uuid.uuid4().hex[:11]
        self.cookies: dict[str, str] = {}
        self.ask("GET", "/")
        config = json.loads(self.ask("GET", "/config")[1])
        self.calls: dict[str, Any] = {}
        for call in config["dependencies"]:
            self.calls.setdefault(call["api_name"], call)
        self.values = {c["id"]: c["props"].get("value") for c in config["components"]}

    def ask(
        self, method: str, path: str, body: bytes = b"", kind: str = "", **more: str
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.parts.hostname, self.parts.port, timeout=60)
        headers = {"Content-Type": kind} if kind else {}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{key}={value}" for key, value in self.cookies.items())
        connection.request(method, path, body, {**headers, **more})
        answer = connection.getresponse()
        for line in answer.headers.get_all("set-cookie") or () if self.jar else ():
            self.cookies |= {key: found.value for key, found in SimpleCookie(line).items()}
        content = answer.read()
        connection.close()
        return answer.status, content

    def upload(self, file: Path) -> str:
        """Give a file to the page; the path that the server keeps it under."""
        mark = uuid.uuid4().hex
        head = (
            f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{file.name}"\r\n'
            "Content-Type: image/png\r\n\r\n"
        )
        body = head.encode() + file.read_bytes() + f"\r\n--{mark}--\r\n".encode()
        status, answer = self.ask("POST", "/gradio_api/upload", body, f"multipart/form-data; boundary={mark}")
        assert status == 200, answer
        return str(json.loads(answer)[0])

    def open(self, *files: Any, session: str | None = None, route: str = "upload") -> tuple[int, str]:
        """Ask the page to open files that lie on the server."""
        call = self.calls["upload"]
        data: list[Any] = [self.values.get(key) for key in call["inputs"]]
        data[1] = [f if isinstance(f, dict) else described(str(f)) for f in files]
        body = {"data": data, "fn_index": call["id"], "session_hash": session or self.session}
        status, answer = self.ask(
            "POST", f"/gradio_api/run/{route}", json.dumps(body).encode(), "application/json"
        )
        return status, answer.decode()


def described(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def test_own_uploads_are_opened_with_cookies_and_without(url, tmp_path):
    for jar in (True, False):
        stranger = Stranger(url, jar)
        mine = stranger.upload(picture(tmp_path / f"mine-{jar}.png", (40 + jar, 50)))
        status, answer = stranger.open(mine)
        assert (status, "data:image/png;base64" in answer) == (200, True), answer[:300]


def test_pictures_anywhere_else_on_the_machine_are_refused(url, tmp_path, finished):
    secret = picture(tmp_path / "secret.png", (41, 43))
    hidden = picture(tmp_path / ".hidden.png", (41, 43))
    here = picture(Path.cwd() / "not-for-visitors.png", (41, 43))
    (tmp_path / "link.png").symlink_to(secret)
    stranger = Stranger(url)
    mine = stranger.upload(picture(tmp_path / "mine.png", (40, 51)))
    try:
        for path in (
            str(secret), str(hidden), str(here), "not-for-visitors.png", str(tmp_path / "link.png"),
            f"{mine}/../../{secret.name}", str(Path(mine).parent), "/etc/passwd", "/dev/zero", "",
            f"file://{secret}", "http://127.0.0.1:9/x.png", str(finished / "settings.yaml"),
            str(finished.parent / "toy" / "images" / "00001.png"),
        ):  # fmt: skip
            for file in (
                path,
                {**described(path), "url": f"/gradio_api/file={path}"},
                {"path": path},
                {**described(mine), "inner": described(path)},
            ):
                status, answer = stranger.open(file)
                assert status == 403, (path, status, answer[:200])
                assert "base64" not in answer
            assert stranger.open(mine, path)[0] == 403
            assert stranger.open(json.dumps([described(path)]))[0] == 403
    finally:
        here.unlink()
    # Whatever the route is called, and whatever the body is.
    assert stranger.open(str(secret), route="predict")[0] == 403
    for body in (b"[]", b"{", b"[" * 100_000, b'{"data": 3}'):
        status, answer = stranger.ask("POST", "/gradio_api/run/upload", body, "application/json")
        assert status >= 400
        assert b"Traceback" not in answer


def test_an_upload_and_a_session_belong_to_one_visitor(url, tmp_path):
    owner, thief = Stranger(url), Stranger(url)
    plain, other = Stranger(url, jar=False), Stranger(url, jar=False)
    mine = owner.upload(picture(tmp_path / "private.png", (44, 45)))
    for someone in (thief, plain, other):
        assert someone.open(mine)[0] == 403
        assert someone.open(mine, session=owner.session)[0] == 403
    assert owner.open(mine)[0] == 200
    for someone in (thief, plain, other):
        assert someone.open(mine)[0] == 403
        # The state of a session holds what its visitor opened.
        assert someone.open(session=owner.session)[0] == 403
    # Without cookies, the session that uses an upload first owns it.
    theirs = plain.upload(picture(tmp_path / "plain.png", (46, 45)))
    assert plain.open(theirs)[0] == 200
    for someone in (thief, other):
        assert someone.open(theirs)[0] == 403
    # The same picture brought by two is each one's own.
    assert thief.upload(tmp_path / "private.png") == mine
    assert thief.open(mine)[0] == 200
    assert owner.open(mine)[0] == 200


def test_other_machines_need_the_token(finished, tmp_path):
    command = [sys.executable, "-m", "tagmask", "app", str(finished), "--port", "0", "--device", "cpu"]
    server = subprocess.Popen(
        [*command, "--host", "0.0.0.0", "--out", str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        line = next(text for text in server.stdout if "open http" in text)
        found = re.search(r"open (http://0\.0\.0\.0:\d+)/\?token=(\S+)", line)
        assert found, line
        address, token = found[1].replace("0.0.0.0", "127.0.0.1"), found[2]
        assert len(token) >= 32
        bare = object.__new__(Stranger)
        bare.parts, bare.jar, bare.cookies = urllib.parse.urlsplit(address), True, {}
        for path in ("/", "/config", "/?token=", f"/?token={token[:-1]}", "/theme.css"):
            status, answer = bare.ask("GET", path)
            assert (status, b"with its token" in answer) == (401, True)
        assert bare.ask("POST", "/gradio_api/upload", b"x", "multipart/form-data")[0] == 401
        assert bare.ask("GET", "/config", Authorization=f"Bearer {token}")[0] == 200
        assert bare.ask("GET", f"/?token={token}")[0] == 303
        assert bare.ask("GET", "/")[0] == 200
        assert bare.ask("GET", "/config")[0] == 200
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.slow
def test_fifty_visitors_at_once_see_their_own_pictures_only(url, tmp_path):
    """Half look at the run's images, half at what they bring; who is told to wait tries again."""
    problems: list[str] = []

    def look(number: int) -> None:
        visitor, name = Visitor(url), f"{12 + number % 4:05d}"
        visitor.put("tm-picker", name)
        for _ in range(200):
            visitor.ask("open")
            if "others are waiting" not in visitor.get("tm-status"):
                break
        if f"image: {name}" not in visitor.get("tm-pictures"):
            problems.append(f"{number}: {visitor.get('tm-status')}")

    def bring(number: int) -> None:
        stranger = Stranger(url)
        mine = stranger.upload(picture(tmp_path / f"own{number}.png", (33 + number, 40)))
        for _ in range(200):
            status, answer = stranger.open(mine)
            if "others are waiting" not in answer:
                break
        if status != 200 or f"image: own{number}-" not in answer:
            problems.append(f"{number}: {status} {answer[:200]}")

    def run(number: int) -> None:
        try:
            (look if number % 2 else bring)(number)
        except Exception as error:
            problems.append(f"{number}: {type(error).__name__}: {error}")

    hands = [threading.Thread(target=run, args=(number,)) for number in range(50)]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    assert problems == []
