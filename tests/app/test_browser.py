"""The page in a real Chromium, one thing at a time."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tagmask.pipeline.config import read_config
from tagmask.store.labels import read_mask
from tests.app.browser import LOOK, find_browser, queue, served
from tests.app.conftest import picture
from tests.app.visit import visit_at_once
from tests.cli import tagmask

pytest.importorskip("starlette", reason="the extra app is not installed")
pytest.importorskip("selenium", reason="selenium drives the browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="needs chromium and chromedriver"),
]
SIZES = [(360, 740), (1024, 768), (1920, 1080)]


def test_looking_and_deciding_by_keyboard(page, finished):
    browser, url = page
    names, reviewed = queue(finished), finished / "reviewed"
    browser.open(url)
    browser.place(names[0])
    assert "1 of 16" in browser.text("#place")
    browser.press("j")
    browser.place(names[1])
    assert browser.run("return location.search") == f"?image={names[1]}"
    browser.press("k")
    browser.place(names[0])
    browser.press("n")
    browser.press("looks fine, a r j")
    browser.press("\ue00c")
    browser.says("note written")
    browser.press("ar")
    browser.place(names[2])
    browser.saved()
    assert "2 of 16 decided" in browser.text("#counts")
    kept = read_mask(reviewed / "masks" / f"{names[0]}.png")
    assert np.array_equal(kept, read_mask(finished / "masks" / f"{names[0]}.png"))
    records = [json.loads((reviewed / "decisions" / f"{name}.json").read_text()) for name in names[:2]]
    assert [record["verdict"] for record in records] == ["accepted", "rejected"]
    assert records[0]["note"] == "looks fine, a r j"
    browser.press("u")
    browser.place(names[1])
    browser.says("taken back")
    assert not (reviewed / "decisions" / f"{names[1]}.json").exists()

    # Layers, thresholds and opacity act in the browser alone.
    asked = "return performance.getEntriesByType('resource').filter(r => r.initiatorType === 'fetch').length"
    browser.until(lambda: "thresholds" in browser.text("#strip"), "the strip")
    before = browser.run(asked)
    browser.run(
        "const b = document.getElementById('background'); b.value = 0; b.dispatchEvent(new Event('input'))"
    )
    browser.until(lambda: "CAM" not in str(browser.run("return tagmask.shown().id")), "thresholds")
    assert browser.run("return tagmask.shown().id") == "pseudo"
    assert browser.run(asked) == before
    browser.press("z+")
    assert browser.run("return tagmask.view.atFit") is False

    # A tag toggled: the model looks again.
    browser.run("document.querySelectorAll('#classes input')[0].click()")
    browser.until(lambda: browser.run("return tagmask.shown().id") == "now", "a new mask")

    browser.press("d")
    browser.says("downloaded")
    file = browser.until(lambda: list(browser.downloads.glob("*.png")), "the file")[0]
    assert file.read_bytes() == (reviewed / "downloads" / file.name).read_bytes()
    assert browser.outside(url) == set()


def test_thirty_quick_keys_lose_none(page, finished):
    browser, url = page
    browser.open(url)
    start = browser.run("return tagmask.list.found.map(e => e.name)")[:15]
    for name in start:
        browser.run("tagmask.open(arguments[0])", name) if name == start[0] else None
    browser.press("a" * 15 + "k" * 15)
    browser.saved()
    browser.place(start[0])
    known = {path.stem for path in (finished / "reviewed" / "decisions").glob("*.json")}
    assert set(start) <= known


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_broken_upload_is_told_inside_the_window(page, tmp_path, finished, width, height):
    browser, url = page
    browser.open(url, width, height)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    browser.driver.find_element("css selector", "#files").send_keys(str(bad))
    browser.says("bad.png")
    box = browser.run("return document.getElementById('message').getBoundingClientRect().toJSON()")
    assert 0 <= box["left"] < box["right"] <= width
    assert 0 <= box["top"] < box["bottom"] <= height
    assert browser.run(
        "const b = document.getElementById('message').getBoundingClientRect();"
        "return document.elementFromPoint(b.left + b.width / 2, b.top + b.height / 2).id"
    ) == "message"  # fmt: skip
    assert browser.run(LOOK) == []


def test_an_upload_is_looked_at_twice_and_kept_apart(page, tmp_path, finished):
    browser, url = page
    browser.open(url)
    field = browser.driver.find_element("css selector", "#files")
    field.send_keys(str(picture(tmp_path / "mine.png", (50, 70))))
    browser.place("mine-")
    browser.says("looked at from all views")
    browser.press("a")
    browser.saved()
    (kept,) = (finished / "reviewed" / "uploads" / "masks").glob("mine-*.png")
    assert read_mask(kept).shape == (50, 70)
    large = tmp_path / "large.png"
    large.write_bytes(bytes(3 << 20))
    browser.driver.find_element("css selector", "#files").send_keys(str(large))
    browser.says("at most 1 MB")


def test_every_control_is_reached_by_tab_and_the_dark_is_readable(page):
    browser, url = page
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        browser.open(url)
        assert browser.run(LOOK) == []
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    wanted = set(browser.run(
        "return [...document.querySelectorAll('button, input, select')].filter(e => e.id && !e.disabled &&"
        " e.checkVisibility() && !e.closest('dialog')).map(e => e.id)"
    ))  # fmt: skip
    assert {"accept", "reject", "undo", "note", "background", "files", "spread"} <= wanted
    reached = set()
    for _ in range(120):
        browser.press("\ue004")
        reached.add(browser.run("return document.activeElement.id"))
        if wanted <= reached:
            break
    assert wanted - reached == set()


def test_a_long_dialog_opens_at_its_top(page):
    browser, url = page
    browser.open(url, 360, 740)
    browser.run("document.getElementById('open-help').click()")
    browser.until(lambda: browser.run("return document.getElementById('help').open"), "the keys")
    top = "return document.querySelector('#help h2').getBoundingClientRect().top"
    assert 0 <= browser.run(top) < 740
    assert browser.run("return document.getElementById('help').scrollTop") == 0
    browser.run("document.getElementById('help').close()")


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


def test_twenty_visitors_see_their_own_pictures_only(page):
    _, url = page
    times, faults = visit_at_once(url, 20, 2)
    assert faults == []
    assert len(times) == 40


def test_the_page_names_no_folder(page, finished):
    _, url = page
    with urllib.request.urlopen(url) as answer:
        text = answer.read().decode()
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert str(finished) not in text


def test_a_random_draw_to_check_and_doubted_tags_as_cards(page, finished, tmp_path):
    # Decisions of its own: other tests decide enough images of the shared ones for a number to trust.
    with served(finished, "--out", str(tmp_path / "out")) as url:
        _draw_and_mend_tags(page[0], url, Path(read_config(finished).data.root or ""))


def _draw_and_mend_tags(browser, url, data):
    before = {path: path.read_bytes() for path in data.glob("tags*.csv")}
    browser.open(url)
    shown = "return !document.getElementById('open-trust').hidden"
    browser.until(lambda: browser.run(shown), "the button")
    browser.run("document.getElementById('open-trust').click()")
    browser.until(lambda: "From 10 on" in browser.text("#trust-text"), "what it needs")
    browser.run("document.getElementById('trust-draw').click()")
    assert browser.run("return document.getElementById('order').value") == "draw"
    browser.run("document.getElementById('open-tags').click()")
    browser.until(lambda: browser.text("#tags-text"), "the doubts")
    press = (
        "const b = document.querySelector('#cards .card button:last-child'); b?.click(); return Boolean(b)"
    )
    for _ in range(2):
        if not browser.run(press):
            assert "doubts no tag" in browser.text("#tags-text")
            return
        browser.says(" in tags")
        browser.until(lambda: browser.run("return !document.querySelector('#cards button:disabled')"), "it")
    # A tag that was taken back stands last in its row, so rows are compared as sets of words.
    for path, content in before.items():
        rows, back = ([set(re.split("[, ]", row)) for row in text.splitlines()]
                      for text in (content.decode(), path.read_text()))  # fmt: skip
        assert rows == back


def test_from_other_machines_the_page_opens_by_its_token_only(page, finished, tmp_path):
    browser, _ = page
    with served(finished, "--host", "0.0.0.0", "--out", str(tmp_path / "out")) as url:
        bare, token = url.split("/?token=")
        bare = f"http://127.0.0.1:{bare.rsplit(':', 1)[1]}"
        # Without it, or with another: a line of text and nothing of the page.
        for path in ("/", f"/?token={token[:-1]}", "/api/run", "/static/main.js"):
            browser.driver.get(bare + path)
            assert browser.text("body") == "open the address that tagmask printed, with its token", path
            assert not browser.run("return Boolean(window.tagmask)"), path
        browser.open(f"{bare}/?token={token}")
        assert browser.run("return location.href").startswith(f"{bare}/")
        assert token not in browser.run("return location.href")
        assert "of 16" in browser.text("#place")
        browser.press("a")
        browser.saved()
        # From now on this browser has it; a script in the page cannot read it.
        browser.open(f"{bare}/")
        assert "1 of 16 decided" in browser.text("#counts")
        assert token not in browser.run("return document.cookie")
        browser.driver.delete_all_cookies()
        browser.driver.get(f"{bare}/")
        assert "with its token" in browser.text("body")
    assert list((tmp_path / "out" / "reviewed").rglob("*.png"))
