"""What the backend answers to Label Studio's calls, over loopback."""

from __future__ import annotations

import shutil

import pytest

from tagmask.annotations.formats.brush import decode_brush
from tagmask.integrations.label_studio.shelf import Shelf
from tests.tools.backend import NAMES, SIZE, annotation, asked, call, set_up

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")


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


def test_names_with_spaces_and_letters_of_any_alphabet_are_fetched_as_a_browser_does(url, tmp_path):
    shutil.copy(tmp_path / "www" / "0.png", tmp_path / "www" / "eine Kuh, größer.png")
    for image in ("/eine Kuh, größer.png", "/eine%20Kuh,%20gr%C3%B6%C3%9Fer.png"):
        assert call(f"{url}/predict", asked(image))[0] == 200


def test_the_token_goes_to_label_studio_alone(url, place):
    call(f"{url}/predict", asked("/0.png"))
    assert place[1][-1] == ("/0.png", "Token secret")


def test_one_broken_picture_does_not_cost_the_others(url):
    status, answer = call(f"{url}/predict", asked("/0.png", "/nothing.png"))
    assert (status, answer["results"][1], list(answer["errors"])) == (200, [], ["2"])


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
