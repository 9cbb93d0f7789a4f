"""Callbacks, early stopping and loggers of a training; the device that the environment names."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

import tagmask
from tagmask.engine.compute import choose_device
from tests.toy import toy_root

TINY = {
    "model.backbone": "vit:patch=8,dim=32,depth=2,heads=2,size=64", "model.weights": "none",
    "model.aux_block": -2, "model.scales": [1.0], "train.size": 64, "train.batch_size": 2,
    "train.eval_every": 1, "train.save_every": 2, "train.log_every": 1, "train.tensorboard": False,
    "train.eval_images": 1, "runtime.threads": 1, "train.eval_maps.kinds": ["cam"],
}  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_root(tmp_path_factory.mktemp("toy"), num_val=1)


def train(toy, out, **more):
    more = {"method": "more", "iterations": 4, "device": "cpu", "settings": TINY, "progress": False, **more}
    return tagmask.train(toy, out=out, **more)


class Diary(tagmask.Callback):
    """Everything that was called, in order."""

    def __init__(self, enough: int | None = None) -> None:
        self.pages: list[tuple[str, int]] = []
        self.enough = enough

    def on_start(self, training):
        assert training.classes[0] == "stripes"
        assert training.iterations == 4
        self.pages.append(("start", training.step))

    def on_step(self, training):
        self.pages.append(("step", training.step))

    def on_evaluate(self, training):
        assert set(training.scores) == {"cam", "segmentation"}
        assert training.figures["loss"] > 0
        self.pages.append(("evaluate", training.step))
        return training.step == self.enough

    def on_save(self, training):
        assert (training.folder / "checkpoints").is_dir()
        self.pages.append(("save", training.step))

    def on_end(self, training):
        self.pages.append(("end", training.step))


class Keeper:
    """A logger of one's own."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.names: set[str] = set()
        self.closed = False

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self.steps.append(step)
        self.names |= set(figures)

    def close(self) -> None:
        self.closed = True


def test_callbacks_and_loggers_see_a_training_from_start_to_end(toy, tmp_path):
    diary, keeper = Diary(), Keeper()
    train(toy, tmp_path / "run", callbacks=[diary], loggers=["csv", keeper])
    assert diary.pages == [
        ("start", 0), ("step", 1), ("evaluate", 1), ("step", 2), ("evaluate", 2), ("save", 2), ("step", 3),
        ("evaluate", 3), ("step", 4), ("evaluate", 4), ("save", 4), ("end", 4),
    ]  # fmt: skip
    assert keeper.closed
    assert sorted(set(keeper.steps)) == [1, 2, 3, 4]
    assert {"loss", "lr", "cam", "segmentation"} <= keeper.names
    assert (tmp_path / "run" / "train" / "log.csv").is_file()


def test_true_ends_a_training_as_if_it_had_been_that_long(toy, tmp_path):
    diary = Diary(enough=3)
    train(toy, tmp_path / "run", callbacks=[diary])
    assert diary.pages[-3:] == [("evaluate", 3), ("save", 3), ("end", 3)]
    again = Diary()
    train(toy, tmp_path / "run", callbacks=[again])
    assert again.pages == []  # it is done


def test_early_stop_waits_for_a_better_score(toy, tmp_path):
    diary = Diary()
    stop = tagmask.EarlyStop(patience=1, key="cam", min_delta=2.0)  # no score ever rises by so much
    train(toy, tmp_path / "run", callbacks=[stop, diary])
    assert diary.pages[-1] == ("end", 2)


def test_early_stop_by_itself():
    from types import SimpleNamespace

    stop = tagmask.EarlyStop(patience=2)
    said = [stop.on_evaluate(SimpleNamespace(scores={"cam": s})) for s in (0.1, 0.2, 0.2, 0.3, 0.3, 0.1)]
    assert said == [False, False, False, False, False, True]
    with pytest.raises(tagmask.ConfigError, match="'cam'"):
        tagmask.EarlyStop(key="cma").on_evaluate(SimpleNamespace(scores={"cam": 0.5}))
    with pytest.raises(tagmask.ConfigError, match="at least 1"):
        tagmask.EarlyStop(patience=0)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"callbacks": [object()]}, "a callback has one of on_start"),
        ({"loggers": ["wnadb"]}, "Did you mean 'wandb'"),
        ({"loggers": [object()]}, r"write\(step, figures\)"),
    ],
)
def test_what_is_neither_callback_nor_logger_is_refused(toy, tmp_path, more, says):
    with pytest.raises(tagmask.ConfigError, match=says):
        train(toy, tmp_path / "run", **more)


def test_the_device_that_the_environment_names(monkeypatch):
    monkeypatch.setenv("TAGMASK_DEVICE", "cpu")
    assert choose_device("auto").type == "cpu"
    monkeypatch.setenv("TAGMASK_DEVICE", "toaster")
    with pytest.raises(tagmask.ConfigError, match="'toaster'"):
        choose_device("auto")
    assert choose_device("cpu").type == "cpu"
