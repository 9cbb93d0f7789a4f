"""A walk through a real Label Studio, where one is installed (``make tools-test`` installs it)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import tagmask
from tests.tools import label_studio
from tests.toy import toy_root

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(label_studio.program() is None, reason="Label Studio is not installed"),
]


def test_corrections_in_a_real_label_studio_make_the_next_predictions_better(tmp_path: Path):
    pytest.importorskip("uvicorn")
    scenes = toy_root(tmp_path, num_train=60, num_val=40, size=96)
    run, served = tmp_path / "run", tmp_path / "serve"
    given = (
        "--recipe",
        "demo",
        "--data",
        scenes,
        "--iterations",
        "40",
        "--batch-size",
        "8",
        "--device",
        "cpu",
    )
    done = tagmask("train", *given, "--out", run)
    assert done.exit_code == 0, done.stderr
    served.mkdir()
    folder = tmp_path / "label-studio"
    folder.mkdir()
    with (
        label_studio.label_studio(folder, scenes, 8897) as api,
        label_studio.backend(run, api.url, served, "--device", "cpu", "--fit-seconds", "900") as ours,
    ):
        found = label_studio.walk(api, ours, scenes)
        assert found["versions"][0] != found["versions"][1], found["said"]
        assert found["iou_after"] > found["iou_before"], found
        # What was learned is on disk: the next start serves it.
        health = ours("/health")
        assert (health["corrections"], health["new_corrections"]) == (10, 0)
    with label_studio.backend(run, api.url, served, "--device", "cpu") as again:
        assert again("/health")["model_version"] == found["versions"][1]
