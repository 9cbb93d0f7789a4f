"""The backend's answers to right, wrong and hostile calls, over loopback."""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.annotations.formats.brush import decode_brush
from tagmask.annotations.formats.label_studio import brush_region
from tagmask.data import ClassTable
from tagmask.engine.compute import Compute
from tagmask.models.trained import build_method, load_trained, save_method
from tagmask.training.lessons import Taught
from tests.contract.test_methods import TINY
from tests.tools.label_studio import config, until

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
from tagmask.integrations.label_studio import images, server, teaching  # noqa: E402
from tagmask.integrations.label_studio.backend import Backend  # noqa: E402
from tagmask.integrations.label_studio.images import Images  # noqa: E402
from tagmask.integrations.label_studio.shelf import Shelf  # noqa: E402

NAMES = ("cat", "dog")
SIZE = (64, 80)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models of the same classes."""
    found = []
    for seed in range(2):
        place = tmp_path_factory.mktemp("model")
        torch.manual_seed(seed)
        method = build_method("more", TINY["more"], len(NAMES))
        save_method(place, method, "more", ClassTable(NAMES), {}, {})
        found.append(load_trained(place))
    return found


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


@contextmanager
def running(app):
    listener = server.listen("127.0.0.1", 0)
    settings = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
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


@pytest.fixture
def place(tmp_path):
    """Where the pictures lie: an address, and what was asked of it."""
    rng = np.random.default_rng(0)
    (tmp_path / "www").mkdir()
    for n in range(4):
        Image.fromarray(rng.integers(0, 255, (*SIZE, 3), np.uint8)).save(tmp_path / "www" / f"{n}.png")
    handler = type("Here", (Pictures,), {"asked": []})
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=tmp_path / "www"))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_address[1]}", handler.asked
    web.shutdown()
    web.server_close()


@pytest.fixture
def backend(models, place, tmp_path):
    compute = Compute.choose("cpu")
    made = Backend(models[0], compute, Shelf(tmp_path / "shelf"), Images(place[0], "secret"), after=0)
    yield made
    made.teacher.stop()


@pytest.fixture
def url(backend):
    with running(server.application(backend)) as address:
        yield address


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


def test_predictions_are_brushes_and_tags_with_scores_and_a_version(url, backend, models):
    assert call(f"{url}/health")[1]["status"] == "UP"
    assert set_up(url) == (200, {"model_version": backend.version})
    status, answer = call(f"{url}/predict", asked("/0.png", "/1.png", tags=["dog"]))
    assert (status, answer["model_version"], len(answer["results"])) == (200, backend.version, 2)
    for one in answer["results"]:
        assert one["model_version"] == backend.version
        assert 0 <= one["score"] <= 1
        for region in (r for r in one["result"] if r["type"] == "brushlabels"):
            assert region["value"]["brushlabels"] == ["dog"]
            assert decode_brush(region["value"]["rle"], SIZE).any()
            assert 0 <= region["score"] <= 1
        assert all(set(r["value"]["choices"]) <= set(NAMES) for r in one["result"] if r["type"] == "choices")


def test_tags_of_a_task_are_the_only_classes_of_its_mask(url):
    for tags in ([], "cat", ["cat", "dog"]):
        status, answer = call(f"{url}/predict", asked("/2.png", tags=tags))
        drawn = [r for r in answer["results"][0]["result"] if r["type"] == "brushlabels"]
        assert status == 200
        assert {r["value"]["brushlabels"][0] for r in drawn} <= set([tags] if isinstance(tags, str) else tags)


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


def test_names_with_spaces_and_letters_of_any_alphabet_are_fetched_as_a_browser_does(url, tmp_path):
    shutil.copy(tmp_path / "www" / "0.png", tmp_path / "www" / "eine Kuh, größer.png")
    for image in ("/eine Kuh, größer.png", "/eine%20Kuh,%20gr%C3%B6%C3%9Fer.png"):
        assert call(f"{url}/predict", asked(image))[0] == 200


def test_a_picture_that_drips_in_is_given_up(url, monkeypatch):
    monkeypatch.setattr(images, "_LONGEST", 1)
    status, answer = call(f"{url}/predict", asked("/drip.png"))
    assert (status, "not there after 1 s" in answer["error"]) == (400, True)


def test_what_a_call_quotes_cannot_command_the_terminal(url, caplog):
    status, answer = call(f"{url}/predict", asked("/0.png", tags=["x\x1b[31m"]))
    assert (status, "x\\x1b[31m" in answer["error"]) == (400, True)
    assert "\x1b" not in caplog.text


def test_the_token_goes_to_label_studio_alone(url, place):
    call(f"{url}/predict", asked("/0.png"))
    assert place[1][-1] == ("/0.png", "Token secret")


def test_one_broken_picture_does_not_cost_the_others(url):
    status, answer = call(f"{url}/predict", asked("/0.png", "/nothing.png"))
    assert (status, answer["results"][1], list(answer["errors"])) == (200, [], ["2"])


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


def test_skipped_and_tags_only_teach_nothing_and_deleted_is_forgotten(url):
    set_up(url)
    skipped = annotation(1)
    skipped["annotation"]["was_cancelled"] = True
    assert call(f"{url}/webhook", skipped)[1]["status"] == "nothing to learn"
    only = annotation(1)
    choice = {"type": "choices", "from_name": "tags", "to_name": "image", "value": {"choices": ["cat"]}}
    only["annotation"]["result"] = [choice]
    assert call(f"{url}/webhook", only)[1]["corrections"] == 0
    assert call(f"{url}/webhook", annotation(1))[1]["corrections"] == 1
    assert call(f"{url}/webhook", annotation(1, label=2, action="ANNOTATION_UPDATED"))[1]["corrections"] == 1
    gone = {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 101}], "project": {"id": 7}}
    assert call(f"{url}/webhook", gone)[1]["corrections"] == 1
    assert call(f"{url}/health")[1]["corrections"] == 0


def test_the_tags_of_a_task_come_with_its_correction_after_a_restart_too(url, backend, tmp_path):
    set_up(url)
    given = [annotation(number) for number in (1, 2, 3)]
    given[0]["task"]["data"]["tags"] = ["dog", "cat"]
    given[1]["task"]["data"]["tags"] = ["no class"]
    for one in given:
        assert call(f"{url}/webhook", one)[1]["status"] == "saved"
    wanted = [(NAMES.index("dog"), NAMES.index("cat")), None, None]
    for shelf in (backend._shelf, Shelf(tmp_path / "shelf")):
        assert [one.tags for one in shelf.corrections()] == wanted


@pytest.fixture
def lesson(models, monkeypatch):
    """A training that lasts as long as the test wants and gives the second model."""
    begun, end = threading.Event(), threading.Event()

    def teach(trained, corrections, *, stop=None, **options):
        begun.set()
        while not end.wait(0.02):
            if stop is not None and stop():
                return Taught(None, stopped=True)
        return Taught(models[1], 0.5, 0.7, len(corrections), 0, 1, 3, 1.0)

    monkeypatch.setattr(teaching, "teach", teach)
    yield begun, end
    end.set()


def test_two_trainings_at_once_and_the_better_model_is_served(url, backend, models, lesson, place):
    begun, end = lesson
    set_up(url)
    first = backend.version
    for n in (1, 2):
        call(f"{url}/webhook", annotation(n))
    start = {"action": "START_TRAINING", "project": {"id": 7}}
    status, answer = call(f"{url}/webhook", start)
    assert (status, answer["status"], answer["corrections"]) == (200, "training", 2)
    assert begun.wait(10)
    status, answer = call(f"{url}/fit", {"project": "7"})
    assert (status, "a training is running" in answer["error"]) == (409, True)
    # What is corrected meanwhile is kept, and predictions go on with the old version.
    assert call(f"{url}/webhook", annotation(3))[1]["corrections"] == 3
    assert call(f"{url}/predict", asked("/0.png"))[1]["model_version"] == first
    end.set()
    backend.teacher.wait(30)
    health = call(f"{url}/health")[1]
    assert health["model_version"] == backend.version != first
    assert (health["new_corrections"], health["training"]["running"]) == (1, False)
    assert call(f"{url}/predict", asked("/0.png"))[1]["model_version"] == backend.version


def test_what_is_corrected_during_a_training_is_learned_in_the_next(models, place, tmp_path, lesson):
    begun, end = lesson
    shelf = Shelf(tmp_path / "shelf")
    backend = Backend(models[0], Compute.choose("cpu"), shelf, Images(place[0]), after=2)
    with running(server.application(backend)) as url:
        set_up(url)
        for n in (1, 2):
            call(f"{url}/webhook", annotation(n))
        assert begun.wait(10)
        for n in (3, 4):
            assert call(f"{url}/webhook", annotation(n))[1]["training"]
        end.set()
        until(lambda: not call(f"{url}/health")[1]["training"]["running"], 30)
        assert call(f"{url}/health")[1]["new_corrections"] == 0
    assert [one["corrections"] for one in shelf.versions] == [2, 4]


def test_stopped_in_the_middle_of_a_training_nothing_is_lost(url, backend, models, lesson, place, tmp_path):
    begun, end = lesson
    set_up(url)
    for n in (1, 2):
        call(f"{url}/webhook", annotation(n))
    assert call(f"{url}/fit", {"project": "7"})[0] == 200
    assert begun.wait(10)
    backend.teacher.stop()
    assert call(f"{url}/fit", {"project": "7"})[0] == 409
    images, compute = Images(place[0]), Compute.choose("cpu")
    again = Backend(models[0], compute, Shelf(tmp_path / "shelf"), images, after=2)
    assert (again.health()["corrections"], again.health()["new_corrections"]) == (2, 2)
    end.set()
    again.teacher.consider()
    again.teacher.wait(30)
    assert again.health()["new_corrections"] == 0
    # A third start serves what the second learned; another base model does not inherit it.
    third = Backend(models[0], compute, Shelf(tmp_path / "shelf"), images)
    assert third.version == again.version != backend.version
    assert Backend(models[1], compute, Shelf(tmp_path / "shelf"), images).version.startswith("more-")


def test_a_correction_deleted_before_it_is_read_does_not_end_the_training(url, backend, models, monkeypatch):
    tried = []

    def teach(trained, corrections, **options):
        tried.append(len(corrections))
        if len(tried) == 1:
            backend._shelf.drop({101})
        for lesson in corrections:
            lesson.read(len(NAMES))
        return Taught(models[1], 0.5, 0.7, len(corrections), 0, 1, 3, 1.0)

    monkeypatch.setattr(teaching, "teach", teach)
    set_up(url)
    for n in (1, 2, 3):
        call(f"{url}/webhook", annotation(n))
    assert call(f"{url}/fit", {"project": "7"})[0] == 200
    backend.teacher.wait(30)
    assert tried == [3, 2]
    assert call(f"{url}/health")[1]["new_corrections"] == 0


def test_a_training_that_fails_leaves_the_backend_serving(url, backend, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(teaching, "teach", broken)
    set_up(url)
    for n in (1, 2):
        call(f"{url}/webhook", annotation(n))
    assert call(f"{url}/fit", {"project": "7"})[0] == 200
    backend.teacher.wait(30)
    assert "out of luck" in call(f"{url}/health")[1]["training"]["last"]
    assert call(f"{url}/predict", asked("/0.png"))[0] == 200


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
    for asked in (gone, annotation(2)):
        status, answer = call(f"{url}/webhook", asked, headers)
        assert (status, "browser" in answer["error"]) == (403, True)
    assert call(f"{url}/health")[1]["corrections"] == 1
