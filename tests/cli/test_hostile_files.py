"""Every kind of file that is none, for every command that reads a folder: an answer in seconds, no wait."""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

from tests.cli import tagmask, train_args

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such files")
LIMIT, MEMORY = 10.0, 1 << 30
FAST = ("--device", "cpu", "--scales", "1", "--tile", "64", "--set", "overlap=16")


def pipe(folder: Path, good: Path) -> None:
    os.mkfifo(folder / "bad.png")


def plug(folder: Path, good: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # addresses of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("bad.png")
    finally:
        os.chdir(here)


def device(folder: Path, good: Path) -> None:
    (folder / "bad.png").symlink_to("/dev/zero")


def loop(folder: Path, good: Path) -> None:
    (folder / "bad.png").symlink_to("other.png")
    (folder / "other.png").symlink_to("bad.png")


def folder_loop(folder: Path, good: Path) -> None:
    (folder / "bad").symlink_to(folder)


def link_out(folder: Path, good: Path) -> None:
    outside = folder.parents[1] / "outside"
    outside.mkdir()
    shutil.copy(good, outside / "secret.png")
    (folder / "bad.png").symlink_to(outside / "secret.png")


def folder_out(folder: Path, good: Path) -> None:
    outside = folder.parents[1] / "outside"
    outside.mkdir()
    shutil.copy(good, outside / "secret.png")
    (folder / "bad").symlink_to(outside)


def no_text(folder: Path, good: Path) -> None:
    shutil.copy(good, folder / "bad\udcff.png")


def line_break(folder: Path, good: Path) -> None:
    shutil.copy(good, folder / "fine\nname.png")


def longest(folder: Path, good: Path) -> None:
    shutil.copy(good, folder / f"{'x' * 251}.png")


def clash(folder: Path, good: Path) -> None:
    (folder / "bad.png").mkdir()
    shutil.copy(good, folder / "bad.jpg")
    shutil.copy(good, folder / "bad.png" / "b.png")


BROKEN = {
    pipe: "named pipe", plug: "socket", device: "leads out", loop: "symbolic links", folder_loop: "link",
    link_out: "TAGMASK_ALLOW", folder_out: "TAGMASK_ALLOW", no_text: "not valid text",
}  # fmt: skip
"""What is named, and by which words."""
FINE = (line_break, longest)
"""Odd, and worked on like any other."""


@contextmanager
def in_bounds() -> Iterator[None]:
    """Within 10 seconds, longer where others keep the machine busy, and a gigabyte more than before."""
    before, started = memory(reset=True), time.monotonic()
    yield
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    assert time.monotonic() - started < LIMIT * max(1, busy)
    assert memory() - before < MEMORY


def memory(reset: bool = False) -> int:
    """Most bytes this process held since the last reset, where Linux says it."""
    own = Path("/proc/self")
    try:
        if reset:
            (own / "clear_refs").write_text("5")
        return int(re.search(r"VmHWM:\s+(\d+)", (own / "status").read_text())[1]) * 1024
    except OSError:
        return 0


def ask(*arguments: str | Path) -> Result:
    with in_bounds():
        done = tagmask(*arguments)
    assert "Traceback" not in done.output
    assert "internal error" not in done.output
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, toy: Path) -> tuple[Path, Path]:
    """Images in folders per class, and a run on them; tests work on copies of the images."""
    root = tmp_path_factory.mktemp("hostile")
    for index, file in enumerate(sorted((toy / "images").iterdir())[:8]):
        place = root / "data" / ("cat", "dog")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place / file.name)
    done = tagmask(*train_args(root / "data", root / "run", 1, "--set=train.eval_every=0"))
    assert done.exit_code == 0, done.stderr
    done = tagmask("segment", root / "run", "--out", root / "run")
    assert done.exit_code == 0, done.stderr
    return root / "data", root / "run"


@pytest.fixture
def place(trained: tuple[Path, Path], tmp_path: Path) -> Path:
    return shutil.copytree(trained[0], tmp_path / "data") / "cat"


def good(place: Path) -> Path:
    return next(place.glob("0*.png"))


@pytest.mark.parametrize("kind", [*BROKEN, *FINE, clash], ids=lambda kind: kind.__name__)
def test_predict_names_it_and_does_the_rest(kind: Callable, place: Path, trained, tmp_path):
    kind(place, good(place))
    done = ask("predict", trained[1], place, *FAST, "--out", tmp_path / "out")
    with (tmp_path / "out" / "failed.csv").open(encoding="utf-8", newline="") as file:
        failed = list(csv.DictReader(file))
    masks = list((tmp_path / "out" / "masks").rglob("*.png"))
    others = len(list(place.glob("0*.png")))
    if kind in FINE:
        assert (done.exit_code, failed, len(masks)) == (0, [], others + 1)
    elif kind is clash:
        assert len(failed) == 1
        assert len([m for m in masks if m.is_file()]) == others + 1
    else:
        assert done.exit_code != 0
        assert all(BROKEN[kind] in row["reason"] for row in failed)
        assert len(failed) >= 1
        assert len(masks) == others
    # The lines for people hold no line breaks and no bytes that are no text.
    assert len([line for line in done.stderr.splitlines() if line.startswith("failed: ")]) == len(failed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*BROKEN, *FINE, clash], ids=lambda kind: kind.__name__)
def test_check_train_review_and_annotate_answer(kind: Callable, place: Path, trained, tmp_path):
    data, run = place.parent, shutil.copytree(trained[1], tmp_path / "run")
    settings = (run / "settings.yaml").read_text().replace(str(trained[0]), str(data))
    (run / "settings.yaml").write_text(settings)
    kind(place, good(place))
    checked = ask("data", "check", data)
    learned = ask(*train_args(data, tmp_path / "new", 1, "--set=train.eval_every=0"))
    reviewed = ask("review", run)
    exported = ask("annotate", "export", run, "--format", "labelme", "--out", tmp_path / "l.zip")
    imported = ask(
        "annotate", "import", place, run, "--format", "voc", "--out", tmp_path / "i", "--images", data
    )
    assert imported.exit_code != 0  # a folder of photographs holds no annotations
    if kind in BROKEN:
        assert BROKEN[kind] in checked.output
        for done in (learned, reviewed, exported):
            assert done.exit_code == 2, done.output
            assert BROKEN[kind] in done.stderr
            assert done.stderr.strip().count("\n") == 0
    else:
        assert checked.exit_code == 0, checked.output
        assert exported.exit_code == 0, exported.output


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*BROKEN, *FINE, clash], ids=lambda kind: kind.__name__)
def test_the_page_shows_the_rest(kind: Callable, place: Path, trained, tmp_path, monkeypatch):
    pytest.importorskip("starlette", reason="the extra app is not installed")
    server = importlib.import_module("tagmask.app.server")
    from tests.app.test_routes import Caller

    data, run = place.parent, shutil.copytree(trained[1], tmp_path / "run")
    (run / "settings.yaml").write_text(
        (run / "settings.yaml").read_text().replace(str(trained[0]), str(data))
    )
    kind(place, good(place))
    seen: dict[str, set[int]] = {}

    def visit(app: Any) -> None:
        call = Caller(app)
        for name in (*json.loads(call("/api/run")[1])["names"], "cat/bad", "bad"):
            paths = ("/api/image", "/api/picture")
            seen[name] = {call(path, query={"name": name})[0] for path in paths}

    monkeypatch.setattr(
        server.uvicorn, "Server", lambda config: SimpleNamespace(run=lambda sockets: visit(config.app))
    )
    shown = ask("app", run, "--port", "0", "--device", "cpu", "--out", tmp_path / "o")
    assert shown.exit_code == 0, shown.output
    bad = {name: seen.pop(name) for name in ("cat/bad", "bad") if name in seen}
    if kind in BROKEN:
        # A folder that is not to be trusted as a whole is not shown; uploads still work.
        assert BROKEN[kind] in shown.output
        assert not seen
        assert 200 not in set.union(*bad.values())
    else:
        assert len(seen) >= len(list(place.glob("0*.png")))
        assert set.union(*seen.values()) == {200}


def test_a_folder_that_grows_is_listed_once(place: Path, trained, tmp_path):
    template, stop = good(place), threading.Event()
    before = len(list(place.iterdir()))

    def grow() -> None:
        for number in range(100_000):
            if stop.is_set():
                return
            shutil.copy(template, place / f"new{number:06d}.png")
            time.sleep(0.01)

    hand = threading.Thread(target=grow)
    hand.start()
    try:
        done = ask("predict", trained[1], place, *FAST, "--out", place / "out")
        checked = ask("data", "check", place.parent)
    finally:
        stop.set()
        hand.join()
    assert done.exit_code == 0, done.output
    assert checked.exit_code == 0, checked.output
    assert len(list((place / "out" / "masks").glob("*.png"))) >= before


def test_an_output_folder_in_the_input_is_left_out_of_it(place: Path, trained, tmp_path):
    count = len(list(place.iterdir()))
    # A run and masks in a data folder do not become classes or images of it.
    shutil.copytree(trained[1], place.parent / "run")
    for out in (place / "out", place / "out", place / "other", place):
        if out != place:
            assert "2 classes" in ask("data", "check", place.parent).stdout
        for inputs in ((place,), (f"{place}/**/*.png",)):
            done = ask("predict", trained[1], *inputs, *FAST, "--out", out, "--overwrite")
            assert done.exit_code == 0, done.output
            assert len(list((out / "masks").rglob("*.png"))) == count


def test_a_link_out_is_followed_where_that_was_allowed(place: Path, trained, tmp_path, monkeypatch):
    count = len(list(place.iterdir()))
    folder_out(place, good(place))
    monkeypatch.setenv("TAGMASK_ALLOW", str(place.parents[1] / "outside"))
    done = ask("predict", trained[1], place, *FAST, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "out" / "masks").rglob("*.png"))) == count + 1
    assert ask("data", "check", place.parent).exit_code == 0
