"""Trainings on what was corrected: one at a time, beside the answers, and nothing of it lost."""

from __future__ import annotations

import threading

import pytest

from tagmask.engine.compute import Compute
from tagmask.integrations.label_studio import teaching
from tagmask.integrations.label_studio.backend import Backend
from tagmask.integrations.label_studio.images import Images
from tagmask.integrations.label_studio.shelf import Shelf
from tagmask.training.lessons import Taught
from tests.tools.backend import NAMES, annotation, asked, call, running, set_up
from tests.tools.label_studio import until

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
from tagmask.integrations.label_studio import server


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
        until(lambda: not call(f"{url}/health")[1]["training"]["running"], 30, 0.02)
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
