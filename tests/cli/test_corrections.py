"""Corrected masks come back and teach."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tagmask.data.datasets.scenes import render
from tagmask.methods.base import Method, MethodConfig
from tagmask.store.labels import write_mask
from tagmask.training.corrections import WithCorrections
from tagmask.types import Batch, OptimPlan, StepResult
from tests.cli import tagmask, train_args


def log(out: Path) -> list[dict[str, str]]:
    with (out / "train" / "log.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def corrections(tmp_path: Path) -> Path:
    for index in range(3):
        write_mask(tmp_path / "fixed" / f"{index:05d}.png", render(index, 0, size=64).mask)
    return tmp_path / "fixed"


def test_corrected_masks_teach_beside_the_tags(toy: Path, corrections: Path, finished: Path, tmp_path: Path):
    out = tmp_path / "second"
    more = ("--corrections", str(corrections), "--start", str(finished), "--set=train.log_every=1")
    done = tagmask(*train_args(toy, out, 4, *more))
    assert done.exit_code == 0, done.stderr
    assert "3 corrected images" in done.stderr
    assert all(np.isfinite(float(row["corrected"])) for row in log(out))
    meta = json.loads((out / "model" / "meta.json").read_text())
    assert (meta["extra"]["before"], meta["extra"]["step"]) == (3, 4)
    # The same command again does nothing; other corrections would train anew.
    assert "done before, unchanged" in tagmask(*train_args(toy, out, 4, *more)).stderr
    write_mask(corrections / "00004.png", render(4, 0, size=64).mask)
    done = tagmask(*train_args(toy, out, 4, *more))
    assert (done.exit_code, "--overwrite" in done.stderr) == (2, True)


def test_the_way_of_the_readme_from_corrections_to_masks(
    toy: Path, corrections: Path, finished: Path, tmp_path: Path
):
    second, given = tmp_path / "second", ("--corrections", corrections)
    done = tagmask(
        "train", "--recipe", finished, "--start", finished, *given, "--iterations", "1", "--out", second
    )
    assert done.exit_code == 0, done.stderr
    done = tagmask("predict", second, toy / "images", "--out", tmp_path / "masks", "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    assert len(list((tmp_path / "masks" / "masks").glob("*.png"))) == 16


def test_an_archive_of_an_annotation_tool_is_taken_as_it_comes(toy: Path, finished: Path, tmp_path: Path):
    archive = tmp_path / "cvat.zip"
    done = tagmask("annotate", "export", finished, "--format", "cvat", "--what", "labels", "--out", archive)
    assert done.exit_code == 0, done.stderr
    # The labels of the finished run are of the part to score on, which training does not have.
    done = tagmask(*train_args(toy, tmp_path / "x", 1, "--corrections", str(archive)))
    assert (done.exit_code, "of images that scores are computed on" in done.stderr) == (2, True)


def test_training_with_corrections_goes_on_after_a_stop(toy: Path, corrections: Path, tmp_path: Path):
    flags = ("--corrections", str(corrections), "--set=train.save_every=2", "--set=train.log_every=1")
    whole = tmp_path / "whole"
    assert tagmask(*train_args(toy, whole, 4, *flags)).exit_code == 0
    part = tmp_path / "part"
    assert tagmask(*train_args(toy, part, 4, *flags)).exit_code == 0
    for path in (part / "train" / "checkpoints").iterdir():
        if "4" in path.name:
            path.unlink()
    record = json.loads((part / "run.json").read_text())
    record["steps"]["train"]["status"] = "stopped"
    (part / "run.json").write_text(json.dumps(record))
    done = tagmask(*train_args(toy, part, 4, *flags, "--resume"))
    assert done.exit_code == 0, done.stderr
    weights = [(run / "model" / "weights.safetensors").read_bytes() for run in (whole, part)]
    assert weights[0] == weights[1]


def test_what_cannot_be_corrections_is_refused(toy: Path, corrections: Path, tmp_path: Path):
    def fails(*more: str) -> str:
        done = tagmask(*train_args(toy, tmp_path / "x", 1, *more))
        assert done.exit_code == 2
        assert not (tmp_path / "x" / "model").exists()
        return done.stderr

    assert "does not exist" in fails("--corrections", str(tmp_path / "nothing"))
    assert "folder of true masks" in fails("--corrections", str(toy / "masks"))
    assert "does not segment" in fails("--corrections", str(corrections), "--method", "psa", "--set=model={}")
    write_mask(corrections / "00000.png", np.zeros((5, 5), np.uint8))
    assert "5 x 5, but its image 64 x 64" in fails("--corrections", str(corrections))
    assert "no saved weights" in fails("--start", str(tmp_path)) or "no model" in fails(
        "--start", str(tmp_path)
    )


class Tiny(Method):
    """One weight, so that the arithmetic can be followed."""

    config_class = MethodConfig
    segments = True

    def __init__(self):
        super().__init__(MethodConfig(backbone="none"), 1)
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seen: list[int] = []

    def forward(self, batch, step):
        assert batch.corrected is None
        self.seen.append(step)
        return StepResult(3 * self.weight, {"loss": 3 * self.weight.detach()})

    def segment(self, images):
        plane = self.weight * images[:, :1, ::2, ::2]
        return torch.cat([torch.zeros_like(plane), plane], 1)

    def optim_plan(self, iterations):
        return OptimPlan("sgd", [], lambda step: 1.0)

    def initialise(self, weights):
        pass


def test_the_loss_is_the_methods_own_and_the_cross_entropy_of_corrected_pixels():
    method = Tiny()
    labels = torch.full((2, 4, 4), 255)
    labels[0, :2] = 1
    corrected = Batch(torch.ones(2, 3, 4, 4), torch.ones(2, 1), ("c", "d"), labels=labels)
    batch = Batch(torch.zeros(1, 3, 4, 4), torch.ones(1, 1), ("a",), corrected=corrected)
    result = WithCorrections(method, 100, 0.5)(batch.to("cpu"), 7)
    entropy = torch.log1p(torch.exp(torch.tensor(-1.0)))
    torch.testing.assert_close(result.loss, 3 + 0.5 * entropy)
    torch.testing.assert_close(result.logs["corrected"], entropy)
    assert method.seen == [107]
    result.loss.backward()
    torch.testing.assert_close(method.weight.grad, 3 - 0.5 * torch.sigmoid(torch.tensor(-1.0)))


@pytest.mark.slow
def test_teach_gives_a_model_that_is_better_on_corrections_held_back(
    toy: Path, finished: Path, tmp_path: Path
):
    fixed = tmp_path / "fixed"
    for index in range(12):
        write_mask(fixed / f"{index:05d}.png", render(index, 0, size=64).mask)
    done = tagmask("teach", finished, "--corrections", fixed, "--out", tmp_path / "new", "--time", "8s")
    assert done.exit_code == 0, done.stderr
    assert "corrections held back" in done.stdout
    assert "the new model is better" in done.stdout
    meta = json.loads((tmp_path / "new" / "v1" / "meta.json").read_text())
    assert meta["extra"]["taught"]["after"] > meta["extra"]["taught"]["before"]
    done = tagmask("predict", tmp_path / "new" / "v1", toy / "images", "--out", tmp_path / "masks")
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "there are no corrections in"),
        (("--corrections", "nowhere"), "there are no corrections in nowhere"),
        (("--time", "soon"), "--time soon"),
        (("--time", "0s"), "--time 0s"),
    ],
)
def test_teach_says_what_is_missing(finished: Path, flags: tuple[str, ...], words: str):
    done = tagmask("teach", finished, *flags)
    assert (done.exit_code, words in done.stderr) == (2, True), done.stderr
