"""The backend's answers to wrong and hostile calls, over loopback."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from contextlib import suppress

import numpy as np
import pytest

from tagmask.annotations.formats.label_studio import brush_region
from tagmask.integrations.label_studio import images
from tests.tools.backend import NAMES, SIZE, annotation, asked, call, running, set_up
from tests.tools.label_studio import config

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
from tagmask.integrations.label_studio import server


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("file:///etc/passwd", "is not fetched"),
        ("/../../etc/passwd", "answers 404"),
        ("http://192.0.2.1/a.png", "it is not at"),
        ("//192.0.2.1/a.png", "it is not at"),
        ("http://127.0.0.1:1/a.png", "it is not at"),
        ("http://user@127.0.0.1/a.png", "it is not at"),
        ("ftp://127.0.0.1/a.png", "is not fetched"),
        ("http:\\\\192.0.2.1\\a.png", "no address"),
        ("/elsewhere", "it is not at"),
        ("data:image/png;base64,AAAA", "is not fetched"),
        ("s3://bucket/a.png", "is not fetched"),
        ("/missing.png", "answers 404"),
        ("/garbage.png", "cannot be fetched"),
        (7, "does not say where"),
    ],
)
def test_pictures_come_from_the_address_that_was_told_alone(url, place, image, said):
    status, answer = call(f"{url}/predict", asked(image))
    assert (status, said in answer["error"]) == (400, True), answer
    # The same holds for what an annotation names, and nothing is kept of it.
    set_up(url)
    status, answer = call(f"{url}/webhook", annotation(image=image))
    assert (status, said in answer["error"]) == (400, True), answer
    assert call(f"{url}/health")[1]["corrections"] == 0


def test_a_picture_that_drips_in_is_given_up(url, monkeypatch):
    monkeypatch.setattr(images, "_LONGEST", 0.2)
    status, answer = call(f"{url}/predict", asked("/drip.png"))
    assert (status, "not there after 0.2 s" in answer["error"]) == (400, True)


def test_what_a_call_quotes_cannot_command_the_terminal(url, caplog):
    status, answer = call(f"{url}/predict", asked("/0.png", tags=["x\x1b[31m"]))
    assert (status, "x\\x1b[31m" in answer["error"]) == (400, True)
    assert "\x1b" not in caplog.text


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/predict", b"{", 400, "not JSON"),
        ("/predict", b"[]", 400, "not a JSON object"),
        ("/predict", b"[" * 100_000, 400, "not JSON"),
        ("/predict", {}, 400, "which project"),
        ("/setup", {"project": "7", "schema": config(("\ud800",))}, 400, "not Unicode"),
        ("/fit", b'{"project": 7.9e30}', 400, "which project"),
        ("/predict", {"project": "7", "label_config": "<View/>", "tasks": []}, 400, "needs <BrushLabels>"),
        ("/predict", {"project": "7", "label_config": "<View", "tasks": []}, 400, "no XML"),
        (
            "/predict",
            {"project": "7", "label_config": config(("bird",)), "tasks": [1]},
            400,
            "none of the labels",
        ),
        (
            "/predict",
            {"project": "7", "label_config": config(NAMES), "tasks": [1]},
            400,
            "a task is an object",
        ),
        ("/predict", {"project": "../7", "label_config": config(NAMES)}, 400, "which project"),
        (
            "/setup",
            {"project": "7", "schema": "<!DOCTYPE a [<!ENTITY b 'c'>]><View/>"},
            400,
            "document types",
        ),
        ("/webhook", annotation(project=9), 404, "project 9 was never set up"),
        ("/webhook", {"action": "START_TRAINING", "project": {"id": 9}}, 404, "never set up"),
        ("/webhook", {"action": "ANNOTATION_CREATED", "project": {"id": 7}}, 400, "send its payload"),
        ("/webhook", {"action": "TASKS_CREATED"}, 200, ""),
        ("/fit", {"project": "7"}, 400, "at least 2 corrected images"),
        ("/nothing", {}, 404, "no part of"),
        ("/health", {}, 405, "no part of"),
    ],
)
def test_wrong_calls_get_one_clear_answer(url, path, body, status, said):
    set_up(url)
    got, answer = call(f"{url}{path}", body)
    assert (got, said in answer.get("error", "")) == (status, True), answer


@pytest.mark.parametrize(
    "change",
    [
        {"result": "x"},
        {"result": [{"type": "brushlabels", "value": {"brushlabels": ["cat"], "rle": [1, 2, 3]}}]},
        {"result": [brush_region(np.ones((3, 3), bool), "cat", "r")]},
        {"result": [brush_region(np.ones(SIZE, bool), "bird", "r")]},
        {"result": [{"type": "choices", "from_name": "tags", "value": {}}]},
        {"id": "x"},
        {"id": 10**300},
    ],
)
def test_annotations_that_cannot_be_read_are_refused_and_nothing_is_kept(url, change):
    set_up(url)
    call(f"{url}/webhook", annotation(1))
    asked = annotation(2)
    asked["annotation"] |= change
    status, answer = call(f"{url}/webhook", asked)
    assert (status, bool(answer["error"])) == (400, True)
    assert call(f"{url}/health")[1]["corrections"] == 1


def test_a_hundred_megabytes_are_not_taken(url):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(100 << 20))
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, "at most 32 MB" in json.load(answer)["error"]) == (413, True)
    connection.close()
    assert call(f"{url}/health")[0] == 200


def test_a_hundred_megabytes_without_a_length_are_cut_off(url):
    host, port = url.removeprefix("http://").split(":")
    chunk, answer = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n", b""
    with socket.create_connection((host, int(port)), 60) as line:
        line.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        with suppress(OSError):  # the server hangs up
            for _ in range(100):
                line.sendall(chunk)
        with suppress(OSError):
            answer = line.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413"), answer
    assert call(f"{url}/health")[0] == 200


def test_who_sends_a_hundred_megabytes_to_the_end_reads_why_not(url):
    status, answer = call(f"{url}/predict", b"x" * (100 << 20))
    assert (status, "at most 32 MB" in answer["error"]) == (413, True)


def test_anywhere_else_a_token_is_needed(backend):
    with running(server.application(backend, "0.0.0.0", "word")) as address:
        assert call(f"{address}/health")[0] == 401
        for header in ("Bearer word", "Token word", "Basic " + base64.b64encode(b"tagmask:word").decode()):
            assert call(f"{address}/health", headers={"Authorization": header})[0] == 200
        assert call(f"{address}/health", headers={"Authorization": "Bearer wrong"})[0] == 401


def test_another_name_for_this_machine_is_refused(url):
    status, answer = call(f"{url}/health", headers={"Host": "evil.example"})
    assert (status, "not called" in answer["error"]) == (400, True)


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_a_page_in_a_browser_cannot_teach_or_forget(url, origin):
    set_up(url)
    call(f"{url}/webhook", annotation(1))
    headers = {"Origin": origin, "Content-Type": "text/plain"}
    gone = {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 101}], "project": {"id": 7}}
    for body in (gone, annotation(2)):
        status, answer = call(f"{url}/webhook", body, headers)
        assert (status, "browser" in answer["error"]) == (403, True)
    assert call(f"{url}/health")[1]["corrections"] == 1
