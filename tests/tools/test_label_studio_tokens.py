"""Access tokens of Label Studio: the one that it sends, and personal ones, which are exchanged first."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

from tagmask.errors import DataError
from tagmask.integrations.label_studio.images import Images

PERSONAL, ACCESS = "aaa.bbb.ccc", "ddd.eee.fff"


@pytest.fixture
def studio():
    """A server that takes what Label Studio takes by default: no token but one got for a personal one."""
    asked = []

    class Studio(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Authorization"))
            self.answer(200 if asked[-1] == f"Bearer {ACCESS}" else 401, b"picture")

        def do_POST(self):
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            right = (self.path, sent) == ("/api/token/refresh/", {"refresh": PERSONAL})
            asked.append("refresh")
            self.answer(200 if right else 401, json.dumps({"access": ACCESS}).encode())

        def answer(self, status, body):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Studio)
    threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{web.server_address[1]}", asked
    web.shutdown()
    web.server_close()


def test_a_personal_token_is_exchanged_once(studio):
    images = Images(studio[0], PERSONAL)
    assert [images.read(f"/{n}.png") for n in range(2)] == [b"picture"] * 2
    assert studio[1] == ["refresh", f"Bearer {ACCESS}", f"Bearer {ACCESS}"]


def test_a_token_that_is_refused_says_which_one_to_give(studio):
    images = Images(studio[0])
    images.hand(studio[0], "0123456789")
    with pytest.raises(DataError, match=r"answers 401; give a personal access token"):
        images.read("/0.png")
    assert studio[1] == ["Token 0123456789"]


def test_a_personal_token_that_is_refused_is_said(studio):
    with pytest.raises(DataError, match="does not take the access token"):
        Images(studio[0], "x.y.z").read("/0.png")
