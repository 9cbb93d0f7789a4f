"""Damage to what stands behind a run, too, is found: predict's, annotate's and every single file of a run."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tagmask.data.datasets.scenes import render
from tests.cli import tagmask
from tests.cli.test_whole_runs import DAMAGE, other_file


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        Image.fromarray(render(number, 5, size=48).image).save(folder / f"{number}.png")
    return folder


FLAGS = ("--device=cpu", "--scales=1", "--set=batch_size=1")


@pytest.fixture(scope="module")
def predicted(tmp_path_factory, finished, pictures) -> Path:
    out = tmp_path_factory.mktemp("predicted") / "out"
    assert tagmask("predict", finished, pictures, "--out", out, *FLAGS).exit_code == 0
    return out


def results(out: Path) -> dict[str, bytes]:
    """Pictures and tables; the lines of ``summary.jsonl`` also say when a file was made."""
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in files(out) if p.suffix != ".jsonl"}


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damaged_output_of_predict_is_made_again_and_no_other(
    finished, pictures, predicted, tmp_path, damage
):
    out = shutil.copytree(predicted, tmp_path / "out")
    for path in files(out):
        if path.name == "predict.json":
            continue
        before = {p: p.stat().st_mtime_ns for p in files(out)}
        DAMAGE[damage](path, other_file(path))
        done = tagmask("predict", finished, pictures, "--out", out, *FLAGS)
        assert done.exit_code == 0, done.stderr
        assert results(out) == results(predicted), path
        made = {p for p in before if p.suffix in (".png", ".jpg") and p.stat().st_mtime_ns != before[p]}
        # A picture is one piece of work; without the lines that say what was made, all of it is made again.
        assert {p.stem for p in made} == ({path.stem} if path.suffix in (".png", ".jpg") else set()) or (
            path.name == "summary.jsonl"
        ), path


@pytest.mark.parametrize("damage", DAMAGE)
def test_without_the_note_of_whose_masks_they_are_none_is_taken(
    finished, pictures, predicted, tmp_path, damage
):
    out = shutil.copytree(predicted, tmp_path / "out")
    DAMAGE[damage](out / "predict.json", out / "summary.csv")
    done = tagmask("predict", finished, pictures, "--out", out, *FLAGS)
    if damage == "deleted":
        assert "3 of them done before" not in done.stdout
    else:
        assert done.exit_code == 2
        assert "holds masks of another model" in done.stderr
    again = tagmask("predict", finished, pictures, "--out", out, *FLAGS, "--overwrite")
    assert again.exit_code == 0, again.stderr
    assert results(out) == results(predicted)


def test_every_single_file_of_a_run_is_watched(finished, tmp_path):
    from tagmask.pipeline.changes import check_run
    from tagmask.pipeline.config import read_config

    run = shutil.copytree(finished, tmp_path / "run")
    config = read_config(run)
    assert check_run(run, config) == []
    watched = [p for p in files(run) if p.name not in ("run.json", "settings.yaml")]
    assert len(watched) > 30
    for number, path in enumerate(watched):
        name = path.relative_to(run).as_posix()
        if name.startswith(("train/checkpoints/", ".checksums/")):
            # Saved states carry checksums of their own; without the list the sum over a whole output counts.
            continue
        damage = list(DAMAGE)[number % len(DAMAGE)]
        content, other = path.read_bytes(), other_file(path)
        if not content or other.read_bytes() == content:
            damage = "deleted"
        DAMAGE[damage](path, other)
        assert any(name in line for line in check_run(run, config)), (name, damage)
        path.write_bytes(content)
        assert not any(name in line for line in check_run(run, config)), name


@pytest.mark.parametrize("damage", [name for name in DAMAGE if name != "swapped"])
def test_a_damaged_archive_of_annotations_is_named_and_can_be_made_again(finished, tmp_path, damage):
    archive, export = tmp_path / "a.zip", ("annotate", "export", finished, "--format", "cvat", "--out")
    assert tagmask(*export, archive).exit_code == 0
    whole = archive.read_bytes()
    DAMAGE[damage](archive, archive)
    refused = tagmask("annotate", "import", archive, finished, "--out", tmp_path / "back")
    assert refused.exit_code == 2
    assert "a.zip" in refused.stderr
    assert not list((tmp_path / "back").glob("*.png"))
    assert tagmask(*export, archive).exit_code == 0
    assert archive.read_bytes() == whole


def test_a_damaged_member_of_an_archive_is_named(finished, tmp_path):
    archive = tmp_path / "a.zip"
    made = tagmask("annotate", "export", finished, "--format", "cvat", "--out", archive)
    assert made.exit_code == 0, made.stderr
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(tmp_path / "b.zip", "w") as new:
        picture = next(name for name in old.namelist() if name.endswith(".png"))
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content if name != picture else content[:40])
    refused = tagmask("annotate", "import", tmp_path / "b.zip", finished, "--out", tmp_path / "back")
    assert refused.exit_code == 2
    assert Path(picture).stem in refused.stderr
