"""The page in a real Chromium: from opening a run to a downloaded mask."""

from __future__ import annotations

import csv
import json
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tagmask.store.labels import read_mask
from tests.app.browser import LOOK, Browser, find_browser, served
from tests.app.conftest import picture
from tests.app.load import load
from tests.cli import tagmask, train_args
from tests.toy import toy_root

pytest.importorskip("gradio", reason="the extra app is not installed")
pytest.importorskip("selenium", reason="selenium drives the browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="needs chromium and chromedriver"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with masks and a review queue."""
    folder = tmp_path_factory.mktemp("browser")
    out = folder / "run"
    for command in (
        train_args(toy_root(folder), out, 2, "--set=train.eval_every=0"), ("segment", out), ("review", out),
    ):  # fmt: skip
        done = tagmask(*command)
        assert done.exit_code == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def page(finished, tmp_path_factory):
    with served(finished, "--upload-limit", "1") as url:
        browser = Browser(tmp_path_factory.mktemp("chromium") / "profile")
        try:
            yield browser, url
        finally:
            browser.driver.quit()


def queue(run: Path) -> list[str]:
    with (run / "review" / "queue.csv").open() as file:
        return [row["name"] for row in csv.DictReader(file)]


def test_the_main_path(page, finished):
    browser, url = page
    names, reviewed = queue(finished), finished / "reviewed"
    browser.open(url)
    browser.place(names[0])
    assert "1 of 4, 0 decided" in browser.text("#tm-place")

    # Another tag, by mouse: maps and mask are made anew.
    before = browser.panel(1)
    boxes = "#tm-tags input[type=checkbox]"
    ticked = browser.run(f"return [...document.querySelectorAll('{boxes}')].map(b => b.checked)")
    other = ticked.index(False)
    browser.run(f"document.querySelectorAll('{boxes}')[{other}].click()")
    browser.until(lambda: browser.panel(1) != before, "maps of other tags")
    assert "mask (now)" in browser.text("#tm-pictures")

    # The threshold, by keyboard: the pseudo label follows.
    label = browser.text("#tm-legend")
    browser.run("document.querySelector('#tm-background input[type=range]').focus()")
    for _ in range(4):
        browser.press("\ue011")  # Home and End jump, arrows step
        browser.press("\ue014")
    browser.until(lambda: browser.text("#tm-legend") != label, "another pseudo label")

    # Opacity and zoom happen in the browser alone.
    browser.run("document.querySelector('#tm-zoom input[type=range]').focus()")
    browser.press("\ue010")
    zoomed = "return getComputedStyle(document.documentElement).getPropertyValue('--tm-zoom').trim()"
    browser.until(lambda: browser.run(zoomed) == "8", "zoom")

    # The queue, by keyboard alone.
    browser.run("document.activeElement.blur()")
    browser.press("j")
    browser.place(names[1])
    browser.press("k")
    browser.place(names[0])
    browser.press("n")
    browser.press("looks fine, a r j")
    browser.press("\ue00c")
    browser.says("note written")
    browser.press("a")
    browser.place(names[1])
    browser.press("r")
    browser.place(names[2])
    assert "2 decided" in browser.text("#tm-place")
    kept = read_mask(reviewed / "masks" / f"{names[0]}.png")
    assert np.array_equal(kept, read_mask(finished / "masks" / f"{names[0]}.png"))
    records = [json.loads((reviewed / "decisions" / f"{name}.json").read_text()) for name in names[:2]]
    assert [record["verdict"] for record in records] == ["accepted", "rejected"]
    assert records[0]["note"] == "looks fine, a r j"
    assert not (reviewed / "masks" / f"{names[1]}.png").exists()

    # A mask to take away.
    browser.press("d")
    browser.says("downloaded")
    file = f"{names[2]}-mask.png"
    taken = browser.until(lambda: [p for p in browser.downloads.glob("*.png") if p.name == file], file)[0]
    assert np.array_equal(read_mask(taken), read_mask(finished / "masks" / f"{names[2]}.png"))
    assert taken.read_bytes() == (reviewed / "downloads" / file).read_bytes()
    assert browser.outside(url) == set()


def test_uploads_good_malformed_and_too_large(page, tmp_path, finished):
    browser, url = page
    browser.open(url)
    field = browser.driver.find_element("css selector", "#tm-files input[type=file]")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    field.send_keys(str(bad))
    browser.says("bad.png")
    assert "cannot be decoded" in browser.text("#tm-status") or "not a picture" in browser.text("#tm-status")
    field = browser.driver.find_element("css selector", "#tm-files input[type=file]")
    field.send_keys(str(picture(tmp_path / "mine.png", (50, 70))))
    browser.place("mine-")
    browser.press("a")
    browser.until(lambda: "accepted" in browser.text("#tm-place"), "the verdict")
    assert len(list((finished / "reviewed" / "uploads" / "masks").glob("mine-*.png"))) == 1
    large = tmp_path / "large.png"
    large.write_bytes(bad.read_bytes() + bytes(3 << 20))
    browser.driver.find_element("css selector", "#tm-files input[type=file]").send_keys(str(large))
    browser.until(lambda: "maximum" in browser.text("body").lower(), "a refusal")
    assert browser.text("#tm-place").startswith("mine-")


@pytest.mark.parametrize("width", [360, 1024, 1920])
def test_every_width_is_readable_and_named(page, width):
    browser, url = page
    browser.open(url, width)
    assert browser.run(LOOK) == []


def test_every_control_is_reached_by_tab(page):
    browser, url = page
    browser.open(url)
    wanted = {
        "tm-picker", "tm-files", "tm-tags", "tm-kind", "tm-background", "tm-band", "tm-method", "tm-use",
        "tm-iterations", "tm-opacity", "tm-zoom", "tm-palette", "tm-keys", "tm-note", "tm-accept",
        "tm-reject", "tm-back", "tm-next", "tm-download", "tm-pictures",
    }  # fmt: skip
    script = "return document.activeElement.closest('[id^=tm-]:not(#tm-work, #tm-review)')?.id"
    reached = set()
    for _ in range(80):
        browser.press("\ue004")
        reached.add(browser.run(script))
        if wanted <= reached:
            break
    assert wanted <= reached


def test_pictures_are_there_in_the_dark_as_well(page):
    browser, url = page
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        browser.open(url)
        assert browser.run(LOOK) == []
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_report_and_review_page_are_readable_too(page, finished, tmp_path):
    browser, _ = page
    run = shutil.copytree(finished, tmp_path / "run")
    done = tagmask("report", run)
    assert done.exit_code == 0, done.stderr
    for file in (run / "report.html", run / "review" / "index.html"):
        for width in (360, 1024, 1920):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.driver.get(file.as_uri())
            assert browser.run(LOOK) == [], (file.name, width)


def test_twenty_visitors_see_their_own_pictures_only(page, finished):
    _, url = page
    times, faults = load(url, 20, 1, queue(finished))
    assert faults == []
    assert len(times) == 60


def test_the_page_names_no_folder(page, finished):
    _, url = page
    with urllib.request.urlopen(url) as answer:
        text = answer.read().decode()
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert str(finished) not in text
