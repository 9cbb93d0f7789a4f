"""A person's walk in a real Chromium: from the worst image over repairs to the next model and the files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tagmask.app.pack import pack
from tagmask.data.datasets.scenes import CLASSES, render
from tagmask.pipeline.config import read_config
from tagmask.store.labels import read_mask
from tests.app.browser import Browser, find_browser, queue
from tests.app.conftest import picture
from tests.app.visit import Visitor
from tests.cli import tagmask, train_args
from tests.toy import SIZE

pytest.importorskip("starlette", reason="the extra app is not installed")
pytest.importorskip("selenium", reason="selenium drives the browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="needs chromium and chromedriver"),
]


def truth(name: str) -> NDArray[np.uint8]:
    """The true mask of a generated scene."""
    return render(int(name), 0, SIZE).mask


def filter_the_worst(browser: Browser, run: Path) -> list[str]:
    browser.run(
        "const d = document.getElementById('by-doubt'); d.value = 0.01; d.dispatchEvent(new Event('input'))"
    )
    worst: list[str] = browser.run("return tagmask.list.found.map(e => e.name)")
    assert worst == [name for name in queue(run) if name in worst]
    return worst


def brush(browser: Browser, names: list[str], masks: Path) -> None:
    browser.run("tagmask.open(arguments[0])", names[0])
    for name in names:
        browser.place(name)
        browser.press("b2")
        browser.draw((0.25, 0.5), (0.75, 0.5))
        browser.saved()
        mask = read_mask(masks / f"{name}.png")
        assert (mask.shape, mask[32, 20:44].tolist()) == ((64, 64), [2] * 24)
        browser.press("j")


def scribble(browser: Browser, names: list[str], masks: Path) -> None:
    """Strokes alone, the rest unknown; one more that is taken back; those of the last image spread."""
    for name in names:
        browser.place(name)
        if not browser.run("return document.getElementById('scribbles').checked"):
            browser.press("s")
        browser.press("[[[[[b1")
        browser.draw((0.4, 0.5), (0.6, 0.5))
        browser.press("0")
        browser.draw((0.05, 0.05), (0.95, 0.05))
        browser.saved()
        mask = read_mask(masks / f"{name}.png")
        assert set(np.unique(mask)) == {0, 1, 255}
        assert (mask == 255).mean() > 0.5
        browser.press("j")
    last = masks / f"{names[-1]}.png"
    browser.run("tagmask.open(arguments[0])", names[-1])
    browser.place(names[-1])
    before = read_mask(last)
    browser.press("3")
    browser.draw((0.1, 0.8), (0.9, 0.8))
    browser.saved()
    assert not np.array_equal(before, read_mask(last))
    browser.press("u")
    browser.saved()
    assert np.array_equal(before, read_mask(last))
    browser.press("t")
    browser.until(lambda: browser.run("return tagmask.shown().id") == "corrected", "the spread strokes")
    browser.saved()
    assert set(np.unique(read_mask(last))) == {0, 1}


def repair(browser: Browser, run: Path) -> str:
    """The tag of the first card, repaired by one click; gives the image."""
    browser.run("document.getElementById('open-tags').click()")
    browser.until(lambda: browser.run("return document.querySelectorAll('#cards .card').length"), "a card")
    table = Path(read_config(run).data.root or "") / "tags.csv"
    before = table.read_text().splitlines()
    browser.run("document.querySelector('#cards .card button:last-child').click()")
    browser.says(" in tags.csv")
    assert browser.text("#cards .card button:last-child").startswith("Take back")
    changed = set(table.read_text().splitlines()) - set(before)
    browser.run("document.getElementById('tags').close()")
    assert len(changed) == 1
    return changed.pop()


def teach(browser: Browser) -> None:
    """To the end of the lesson, its progress in sight all the time."""
    browser.run("document.getElementById('open-teach').click()")
    browser.run("document.getElementById('teach-now').click()")
    shares, words = [0.0], set()

    def over() -> bool:
        shares.append(float(browser.run("return document.getElementById('teach-bar').value")))
        words.add(browser.text("#teach-text"))
        return " after (" in browser.text("#teach-text")  # "held back: 30 s" is still on the way

    browser.until(over, "the end of the lesson")
    assert shares == sorted(shares)
    assert {share for share in shares if 0 < share < 1}
    assert any(word.startswith("Learning: ") and word.endswith(" s") for word in words), words


def test_a_walk_from_the_worst_image_to_the_next_model(page, finished, tmp_path):
    browser, url = page
    root, masks = Path(read_config(finished).data.root or ""), finished / "reviewed" / "masks"
    # A doubted tag, whatever a model of two updates doubts.
    (doubted,) = queue(finished)[-1:]
    tag = next(one for one in render(int(doubted), 0, SIZE).tags)
    head = "name,tag,perhaps,doubt,grade,probability,share of the mask"
    (finished / "review" / "tag_doubts.csv").write_text(f"{head}\n{doubted},{tag},wrong,0.9,strong,0.1,0\n")
    browser.open(url)
    worst = filter_the_worst(browser, finished)
    drawn = worst[:5]
    brush(browser, drawn[:3], masks)
    scribble(browser, drawn[3:], masks)
    line = repair(browser, finished)
    assert line.startswith(f"{doubted}.png,")
    assert tag not in line.split(",")[1].split()
    # Somebody else has corrected the others.
    colleague = Visitor(url)
    for name in queue(finished):
        if name not in drawn:
            said = {"name": name, "verdict": "accepted", "kept": "mended"}
            assert colleague.ask("POST", "/api/decide", pack(said, {"mask": truth(name)}))[0] == 200

    teach(browser)
    # Offered if it is better and only then, which is the lesson's to say.
    better = "the new model is better" in browser.text("#teach-text")
    assert browser.run("return document.getElementById('teach-take').disabled") is not better
    if better:
        browser.run("document.getElementById('teach-take').click()")
        browser.says("looks from now on")
        assert (finished / "reviewed" / "taught" / "weights.safetensors").is_file()
        browser.until(lambda: browser.run("return tagmask.shown().id") == "now", "a new mask")
    else:
        browser.run("document.getElementById('teach').close()")

    browser.run("document.getElementById('open-export').click()")
    browser.run("document.getElementById('export-now').click()")
    browser.says("is downloaded")
    file = browser.until(lambda: list(browser.downloads.glob("reviewed-coco*.zip")), "the archive")[0]
    with zipfile.ZipFile(file) as archive:
        (annotations,) = [json.loads(archive.read(n)) for n in archive.namelist() if n.endswith(".json")]
    names = {Path(one["file_name"]).stem for one in annotations["images"]}
    assert names == set(queue(finished))
    assert [one["name"] for one in annotations["categories"]] == list(CLASSES)
    record = json.loads((finished / "reviewed" / "decisions" / f"{drawn[3]}.json").read_text())
    assert (record["verdict"], record["kept"]) == ("accepted", "scribbles")
    # The next training reads them like any other corrections.
    more = ["--set=train.eval_every=0", "--corrections", str(masks)]
    done = tagmask(*train_args(root, tmp_path / "second", 2, *more))
    assert "corrected images" in done.stderr + done.stdout, done.stderr


def test_a_broken_and_a_good_upload_the_good_one_rejected_and_taken_back(page, tmp_path, finished):
    browser, url = page
    browser.open(url)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    field = browser.driver.find_element("css selector", "#files")
    field.send_keys(str(bad))
    browser.says("bad.png")
    field.send_keys(str(picture(tmp_path / "mine.png", (50, 70))))
    browser.place("mine-")
    browser.says("looked at from all views")
    browser.press("r")
    browser.says("rejected")
    browser.saved()
    kept = finished / "reviewed" / "uploads" / "decisions"
    (decision,) = kept.glob("mine-*.json")
    assert json.loads(decision.read_text())["verdict"] == "rejected"
    browser.press("u")
    browser.says("taken back")
    assert not list(kept.glob("mine-*.json"))
    assert not list(kept.glob("bad*"))
    assert browser.outside(url) == set()
