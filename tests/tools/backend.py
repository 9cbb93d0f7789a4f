"""What the tests of the Label Studio backend share: a server of pictures, requests and their bodies."""

from __future__ import annotations

import http.server
import json
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress

import numpy as np

from tagmask.annotations.formats.label_studio import brush_region
from tagmask.engine.listen import listen
from tests.tools.label_studio import config, until

NAMES = ("cat", "dog")
SIZE = (64, 80)


class Pictures(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and some addresses that lead elsewhere."""

    asked: list[tuple[str, str | None]]

    def do_GET(self):
        self.asked.append((self.path, self.headers.get("Authorization")))
        if self.path.startswith("/elsewhere"):
            self.send_response(302)
            self.send_header("Location", "http://192.0.2.1/x.png")
            self.end_headers()
        elif self.path.startswith("/garbage"):
            self.wfile.write(b"\x00\x01\r\n\r\n")
        elif self.path.startswith("/drip"):
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                for _ in range(200):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


class Stage:
    """Hands every request to the application of the test that runs."""

    app = None

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


@contextmanager
def running(app, **more):
    """A real server for an application, on a free port of loopback; gives its address."""
    import uvicorn  # here, as without it the fixtures of the other tools are still needed

    listener = listen("127.0.0.1", 0)
    settings = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, **more)
    inner = uvicorn.Server(settings)
    thread = threading.Thread(target=inner.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        until(lambda: inner.started, 30, 0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        inner.should_exit = True
        thread.join(10)
        listener.close()


def call(address, body=None, headers=None):
    """Status and answer."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json", **(headers or {})})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def set_up(url, project="7.1700000000"):
    return call(
        f"{url}/setup", {"project": project, "schema": config(NAMES), "hostname": "", "access_token": ""}
    )


def asked(*images, tags=None):
    data = [{"image": image, **({} if tags is None else {"tags": tags})} for image in images]
    tasks = [{"id": n, "data": row} for n, row in enumerate(data, start=1)]
    return {"tasks": tasks, "project": "7.17", "label_config": config(NAMES)}


def annotation(number=1, label=1, image="/0.png", project=7, action="ANNOTATION_CREATED"):
    pixels = np.zeros(SIZE, bool)
    pixels[10:30, 10 + number : 40] = True
    regions = [brush_region(pixels, NAMES[label - 1], "r1")]
    return {
        "action": action,
        "project": {"id": project},
        "task": {"id": number, "data": {"image": image}},
        "annotation": {"id": 100 + number, "result": regions, "was_cancelled": False},
    }
