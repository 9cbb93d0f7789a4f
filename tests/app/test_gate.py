from __future__ import annotations

import asyncio

import pytest

from tagmask.app.gate import Gate


def ask(method="GET", path="/", headers=(), chunks=(b"",), limit=1000, hosts=("127.0.0.1",)):
    """(status, headers, text) of one request; what lies behind reads the whole body and answers 200."""
    sent, left = [], list(chunks)

    async def behind(scope, receive, send):
        more = True
        while more:
            more = (await receive()).get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Referrer-Policy", b"x")]})
        await send({"type": "http.response.body", "body": b"reached"})

    async def receive():
        body = left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    async def send(message):
        sent.append(message)

    given = [(b"host", b"127.0.0.1:7860"), *headers]
    names = dict(given)
    scope = {"type": "http", "method": method, "path": path, "headers": list(names.items())}
    asyncio.run(Gate(behind, limit, hosts)(scope, receive, send))
    found = [(key.decode().lower(), value.decode()) for key, value in sent[0]["headers"]]
    return sent[0]["status"], found, sent[1]["body"].decode()


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("HEAD", "/"), ("GET", "/api/run"), ("GET", "/static/main.js"),
     ("GET", "/static/page.css"), ("POST", "/api/decide"), ("POST", "/api/upload")],
)  # fmt: skip
def test_what_the_page_needs_passes(method, path):
    status, headers, text = ask(method, path)
    assert (status, text) == (200, "reached")
    policy = dict(headers)["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert [value for key, value in headers if key == "referrer-policy"] == ["no-referrer"]


@pytest.mark.parametrize(
    "path",
    ["/api/file=/etc/passwd", "/api/../etc/passwd", "/file=/etc/passwd", "/../etc/passwd", "/static/../x.js",
     "/static/main.py", "/static/", "/static/a/b.js", "/api/", "/api/run/x", "/docs", "/config", "/API/run",
     "/api/run\n"],
)  # fmt: skip
def test_other_paths_do_not_exist(path):
    assert ask("GET", path)[0] == 404
    assert ask("POST", path)[0] == 404


def test_large_bodies_are_refused_before_and_while_they_come():
    status, _, text = ask("POST", "/api/upload", [(b"content-length", b"2147483648")], limit=2**20)
    assert (status, text) == (413, "at most 1 MB at once are taken; make the picture smaller")
    assert ask("POST", "/api/upload", chunks=[b"x" * 600] * 2)[0] == 413
    assert ask("POST", "/api/upload", chunks=[b"x" * 500] * 2)[0] == 200
    assert ask("POST", "/api/upload", [(b"content-length", b"-1")])[0] == 413


@pytest.mark.parametrize("headers", [[(b"content-length", b"5000")], []])
def test_a_refused_body_is_read_to_its_end_so_that_the_answer_is_heard(headers):
    left = [b"x" * 1000] * 5

    async def behind(scope, receive, send):
        while (await receive())["more_body"]:
            pass

    async def receive():
        body = left.pop()
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    sent = []

    async def send(message):
        sent.append((message, len(left)))

    scope = {"type": "http", "method": "POST", "path": "/api/upload"}
    asyncio.run(Gate(behind, 1500)({**scope, "headers": headers}, receive, send))
    assert [(message.get("status"), unread) for message, unread in sent] == [(413, 0), (None, 0)]


def test_a_refused_body_that_never_ends_is_answered_too(monkeypatch):
    monkeypatch.setattr("tagmask.app.gate._FORGOTTEN", 10_000)

    async def receive():
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/upload"}
    asyncio.run(Gate(None, 1500)({**scope, "headers": [(b"content-length", b"9999")]}, receive, send))
    assert sent[0]["status"] == 413


def test_other_hosts_pages_and_methods_are_refused():
    assert ask(headers=[(b"host", b"evil.example")])[0] == 400
    assert ask(headers=[(b"host", b"evil.example")], hosts=())[0] == 200
    join = "/api/decide"
    assert ask("POST", join, [(b"origin", b"https://evil.example")])[0] == 403
    assert ask("POST", join, [(b"origin", b"http://127.0.0.1:7860")])[0] == 200
    assert ask("DELETE", "/")[0] == 405
