"""Figures of a training in the real trackers, offline."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tagmask.engine.runtime import Runtime
from tagmask.engine.trackers import open_loggers
from tagmask.errors import ConfigError


def log(names: list[str], folder: Path) -> None:
    Runtime.create("cpu", "fp32", None)  # as every training does first
    settings = {"method": "more", "train.rate": 0.2, "scales": [1, 2]}
    with ExitStack() as stack:
        for each in open_loggers(names, folder, 0, settings, stack):
            for step in range(3):
                each.write(step, {"loss": 1.0 / (step + 1), "cls": 0.5})


def test_mlflow_holds_the_figures_and_the_settings(tmp_path: Path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    place = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
    log(["mlflow"], tmp_path / "run")
    client = mlflow.MlflowClient(place)
    (experiment,) = (e for e in client.search_experiments() if e.name == "tagmask")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.data.params["method"]) == ("FINISHED", "more")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [round(point.value, 3) for point in history] == [1.0, 0.5, 0.333]


def test_wandb_writes_below_the_run_folder_without_a_network(tmp_path: Path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "run").mkdir()
    log(["wandb"], tmp_path / "run")
    (kept,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert kept.stat().st_size > 0
    assert not (tmp_path / "wandb").exists()


def test_tensorboard_holds_the_figures(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log(["tensorboard"], tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [round(point.value, 3) for point in events.Scalars("loss")] == [1.0, 0.5, 0.333]


def test_a_tracker_that_is_not_installed_says_what_to_install(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ConfigError, match="wandb"):
        log(["wandb"], tmp_path)
