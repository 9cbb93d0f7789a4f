"""A call that is refused, fails or is stopped leaves a run folder as it was."""

from __future__ import annotations

import hashlib
import shutil
import signal
from pathlib import Path

import pytest

from tagmask.store.staging import UNFINISHED
from tests.cli import tagmask, train_args
from tests.cli.strike import struck


def checksums(folder: Path) -> dict[str, str]:
    """Every file of a run folder; what is unfinished lies apart and is not part of any result."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and UNFINISHED not in path.parts
    }


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


CHOICE = {
    "localize": [["--maps", "bogus"], ["--maps", "cam,lma"], ["--set", "localize.tags=guess"]],
    "refine": [["--method", "bogus"], ["--crf", "denser"], ["--maps", "bogus"],
               ["--set", "refine.split=all"]],
    "segment": [["--crf", "denser"], ["--set", "segment.flip=max"]],
    "evaluate": [["--what", "camp"], ["--what", "walk"], ["--background", "worst"]],
    "report": [["--set", "report.examples=99"]],
    "review": [["--set", "review.kinds=[bogus]"], ["--set", "review.split=most"]],
    "train": [["--method", "moer"], ["--set", "train.view=resized"], ["--set", "train.best_by=camp"],
              ["--set", "train.eval_maps.kinds=[bogus]"], ["--set", "model.pooling=bogus"]],
    "run": [["--set", "localize.kinds=[bogus]"], ["--set", "segment.crf=denser"], ["--set", "refine.crf=x"],
            ["--set", "evaluate.what=[camp]"], ["--set", "train.view=resized"], ["--until", "segmnt"]],
}  # fmt: skip
KEY = {step: [["--set", "locallize.size=3"], ["--set", "refine.highh=0"]] for step in CHOICE}
PATH = {
    **{step: [["--data", "/nope"], ["--set", "data.tags=/nope.csv"]] for step in CHOICE},
    "evaluate": [["--masks", "/nope"], ["--data", "/nope"], ["--split", "train"], ["--split", "test"]],
    "train": [["--data", "/nope"], ["--labels", "/nope"], ["--corrections", "/nope"], ["--start", "/nope"],
              ["--weights", "/nope.pth"]],
    "report": [["--data", "/nope"]],
    "run": [["--data", "/nope"], ["--masks", "/nope"], ["--set", "train.corrections=/nope"]],
}  # fmt: skip
TYPE = {
    step: [["--set", f"{section}={value}"]]
    for step, section, value in (
        ("localize", "localize.size", "large"), ("refine", "refine.high", "2"),
        ("segment", "segment.scales", "[]"),
        ("evaluate", "evaluate.limit", "0"), ("report", "report.tokens", "many"),
        ("review", "review.max_side", "-1"), ("train", "train.iterations", "some"),
        ("run", "train.batch_size", "0"),
    )
}  # fmt: skip
WRONG = [
    pytest.param(step, flags, id=f"{kind}-{step}-{' '.join(flags)}")
    for kind, table in (("choice", CHOICE), ("key", KEY), ("path", PATH), ("type", TYPE))
    for step, rows in table.items()
    for flags in rows
]


def arguments(step: str, run: Path, toy: Path) -> list[str | Path]:
    if step == "train":
        return train_args(toy, run, 3, "--set=train.eval_every=2", "--set=train.save_every=2", "--overwrite")
    return [step, run, *(["--out", run] if step == "run" else [])]


@pytest.mark.parametrize(("step", "flags"), WRONG)
def test_a_wrong_flag_changes_nothing(finished, toy, step, flags):
    before = checksums(finished)
    refused = tagmask(*arguments(step, finished, toy), *flags)
    assert refused.exit_code == 2, refused.output
    assert refused.stderr.strip().splitlines()[-1].startswith(("error: ", "│", "╰")), refused.stderr
    assert checksums(finished) == before


def test_flags_of_a_single_step_count_once(run):
    settings = (run / "settings.yaml").read_bytes()
    once = tagmask("localize", run, "--maps", "cam")
    assert once.exit_code == 0, once.stderr
    assert [p.name for p in (run / "maps").iterdir()] == ["cam"]
    assert (run / "settings.yaml").read_bytes() == settings
    assert tagmask("localize", run).exit_code == 0
    assert sorted(p.name for p in (run / "maps").iterdir()) == ["aux_cam", "cam", "lam"]


def test_set_changes_settings_for_good_and_refuses_what_is_wrong(run):
    before = checksums(run)
    for wrong in ("localize.kinds=[bogus]", "segment.crf=denser", "train.sizes=3", "data.root=/nope", "a"):
        assert tagmask("set", run, wrong).exit_code == 2, wrong
    assert tagmask("set", run / "model", "refine.high=0.6").exit_code == 2
    assert checksums(run) == before
    changed = tagmask("set", run, "refine.high=0.6", "report.examples=2")
    assert changed.exit_code == 0, changed.stderr
    assert changed.stdout.splitlines() == ["refine.high: 0.7 -> 0.6", "report.examples: 8 -> 2"]
    again = tagmask("run", run, "--out", run)
    assert again.exit_code == 0, again.stderr
    done = [line for line in again.stderr.splitlines() if "unchanged" in line and line[0] != " "]
    assert [line.split(":")[0] for line in done] == ["train", "localize", "segment"]


def test_a_missing_or_damaged_model_changes_nothing(run):
    weights = run / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    before = checksums(run)
    for step in ("localize", "segment", "review"):
        assert tagmask(step, run).exit_code == 2
        assert checksums(run) == before
    weights.unlink()
    before = checksums(run)
    for step in ("localize", "segment", "review"):
        assert tagmask(step, run).exit_code == 2
        assert checksums(run) == before


@pytest.mark.parametrize(
    ("step", "flags"),
    [
        ("localize", ["--size", "48"]),
        ("segment", ["--size", "48"]),
        ("refine", ["--background", "0.4"]),
        ("review", ["--set", "review.max_side=40"]),
    ],
)
def test_an_image_that_cannot_be_read_changes_nothing(run, toy, tmp_path, step, flags):
    data = shutil.copytree(toy, tmp_path / "data")
    broken = data / "images" / "00014.png"
    broken.write_bytes(broken.read_bytes()[:200])
    before = checksums(run)
    failed = tagmask(step, run, "--data", data, *flags)
    assert failed.exit_code == 2
    assert "00014" in failed.stderr
    assert checksums(run) == before


@pytest.mark.parametrize(
    ("step", "flags", "place", "name"),
    [
        ("localize", ["--size", "48"], "localize", "save_maps"),
        ("segment", ["--size", "48"], "segment", "write_mask"),
        ("refine", ["--background", "0.4"], "refine", "write_mask"),
        ("evaluate", ["--background", "0.4"], "evaluate", "write_json"),
        ("report", [], "report", "atomic_write"),
        ("review", ["--set", "review.max_side=40"], "opinions", "write_json"),
    ],
)
def test_work_that_fails_in_the_middle_changes_nothing(run, monkeypatch, step, flags, place, name):
    import importlib

    module = importlib.import_module(f"tagmask.steps.{place}")
    real, calls = getattr(module, name), []
    error = {"localize": OSError(28, "No space left"), "segment": MemoryError()}.get(step, ValueError("bug"))

    def fails_later(*args, **values):
        calls.append(name)
        if len(calls) > (0 if step == "report" else 2):
            raise error
        return real(*args, **values)

    before = checksums(run)
    monkeypatch.setattr(module, name, fails_later)
    assert tagmask(step, run, *flags).exit_code in (1, 2)
    assert calls
    assert checksums(run) == before
    monkeypatch.undo()
    gone_on = tagmask(step, run, *flags)
    assert gone_on.exit_code == 0, gone_on.stderr
    assert not (run / UNFINISHED).exists()


def test_a_training_that_replaces_another_is_kept_apart_until_it_is_complete(run, toy, monkeypatch):
    from tagmask.steps import train

    other = [*train_args(toy, run, 5, "--set=train.save_every=2"), "--set=train.eval_every=0"]
    settings, before = (run / "settings.yaml").read_bytes(), checksums(run)
    assert tagmask(*other).exit_code == 2
    assert checksums(run) == before
    real = train.save_method
    monkeypatch.setattr(train, "save_method", lambda *_: 1 / 0)
    assert tagmask(*other, "--overwrite").exit_code == 1
    after = checksums(run)
    assert {name for name in after if after[name] != before.get(name)} == {"settings.yaml"}
    assert settings != (run / "settings.yaml").read_bytes()
    monkeypatch.setattr(train, "save_method", real)
    calls = []
    monkeypatch.setattr(train.Checkpoints, "newest", lambda self: calls.append(self.folder))
    assert tagmask(*other, "--overwrite").exit_code == 0
    assert UNFINISHED in calls[0].parts, "it went on from its own saved states"
    assert not (run / UNFINISHED).exists()
    assert "step-00000005" in str(sorted((run / "train" / "checkpoints").iterdir())[-1])
    assert tagmask("localize", run).exit_code == 0


def test_a_second_rename_that_fails_puts_the_old_result_back(run, monkeypatch):
    from tagmask.store import staging

    before = checksums(run)

    def refuses(*_):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(staging.os, "replace", refuses)
    with pytest.raises(OSError, match="Permission"):
        staging.os.replace("a", "b")
    monkeypatch.undo()
    real = staging.os.replace

    def only_files(source, target):
        if Path(source).is_dir():
            raise OSError(13, "Permission denied")
        return real(source, target)

    monkeypatch.setattr(staging.os, "replace", only_files)
    refused = tagmask("localize", run, "--maps", "cam")
    assert refused.exit_code == 2
    assert "Permission denied" in refused.stderr
    assert checksums(run) == before
    monkeypatch.undo()
    # The new maps were complete: the next call puts them in their place first.
    assert tagmask("evaluate", run, "--what", "cam").exit_code == 0
    assert [p.name for p in (run / "maps").iterdir()] == ["cam"]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["localize", "segment", "refine", "review"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_step_that_is_stopped_leaves_the_old_result_and_goes_on(run, tmp_path, step, signum):
    flags = {"refine": ["--background", "0.4"], "review": ["--set", "review.max_side=40"]}.get(
        step, ["--size", "48"]
    )
    folder = {"localize": "maps", "segment": "masks", "refine": "labels", "review": "review"}[step]
    whole = shutil.copytree(run, tmp_path / "whole")
    command = [step, run, *flags]
    before = checksums(run)
    exit_code, stderr = struck(signum, f"noted {step} 2", command)
    assert exit_code in (143, -9), stderr
    assert checksums(run) == before
    made = (run / UNFINISHED / step / "files-0.jsonl").read_text().splitlines()
    assert tagmask(*command).exit_code == 0
    assert tagmask(step, whole, *flags).exit_code == 0
    assert 0 < len(made) < len(list((whole / folder).rglob("*.*")))
    first, second = (
        {name: value for name, value in checksums(place).items() if name.startswith(f"{folder}/")}
        for place in (run, whole)
    )
    # The page of review names its folder.
    assert first | {"review/index.html": ""} == second | {"review/index.html": ""}
