"""A real headless Chromium and a real server, for the tests that click."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 120.0


@contextmanager
def served(folder: Path, *options: str) -> Iterator[str]:
    """``tagmask app`` in a process of its own; gives its address, and ends it with Ctrl-C."""
    command = [
        sys.executable,
        "-m",
        "tagmask",
        "app",
        str(folder),
        "--port",
        "0",
        "--device",
        "cpu",
        *options,
    ]
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if found := re.search(r"open (http://\S+)", line):
                yield found.group(1)
                break
        else:
            raise AssertionError(f"the app ended with {server.wait()}")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def find_browser() -> tuple[str, str] | None:
    """Chromium and its driver, if both are installed."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Browser:
    """What the tests do with a page."""

    def __init__(self, profile: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        found = find_browser()
        assert found is not None
        options = webdriver.ChromeOptions()
        options.binary_location = found[0]
        for flag in (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", f"--user-data-dir={profile}",
        ):  # fmt: skip
            options.add_argument(flag)
        downloads = profile.parent / "downloads"
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.downloads = downloads
        self.driver = webdriver.Chrome(options=options, service=Service(found[1]))
        self.requested: set[str] = set()

    def open(self, url: str, width: int = 1280, height: int = 900) -> None:
        """Load a page in a window of that size and wait for its picture."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(url)
        self.until(lambda: self.run("return Boolean(window.tagmask?.item)"), "the picture")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, check: Callable[[], Any], what: str) -> Any:
        """Wait until a check gives something true."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := check():
                return found
            time.sleep(0.05)
        raise AssertionError(f"waited in vain for {what}; the page says: {self.text('#message')}")

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def says(self, words: str) -> None:
        self.until(lambda: words in self.text("#message"), f"'{words}'")

    def place(self, name: str) -> None:
        """Wait until an image is open."""
        opened = "return window.tagmask?.item?.name ?? ''"
        self.until(lambda: str(self.run(opened)).startswith(name), f"image {name}")

    def press(self, key: str) -> None:
        """Press a key wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(key).perform()

    def saved(self) -> None:
        """Wait until every change is written."""
        self.run("window.tagmask.flush()")
        self.until(
            lambda: self.run("return window.tagmask.outbox.waiting === 0"), "the changes to be written"
        )

    def draw(self, *corners: tuple[float, float]) -> None:
        """Drag the mouse over the picture, corners in parts of its width and height."""
        script = """const view = window.tagmask.view, box = view.canvas.getBoundingClientRect();
        const at = ([x, y]) => ({
          clientX: box.left + (view.left + x * view.item.width * view.scale) / view.ratio,
          clientY: box.top + (view.top + y * view.item.height * view.scale) / view.ratio });
        return arguments[0].map(at);"""
        places = [(one["clientX"], one["clientY"]) for one in self.run(script, [list(c) for c in corners])]
        mouse = {"button": "left", "clickCount": 1}
        for number, (x, y) in enumerate([places[0], *places, places[-1]]):
            kind = "mousePressed" if number == 0 else "mouseMoved"
            kind = "mouseReleased" if number == len(places) + 1 else kind
            buttons = 0 if kind == "mouseReleased" else 1
            event = {"type": kind, "x": x, "y": y, "buttons": buttons, **mouse}
            self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def outside(self, url: str) -> set[str]:
        """Addresses asked for so far that are not the page's own."""
        for line in self.driver.get_log("performance"):
            message = json.loads(line["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requested.add(message["params"]["request"]["url"])
        return {
            one for one in self.requested if not one.startswith((url, "data:", "blob:", "chrome", "file:"))
        }

    def shot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(taken["data"]))


def queue(run: Path) -> list[str]:
    """The images of a run, the most doubtful first."""
    with (run / "review" / "queue.csv").open() as file:
        return [row["name"] for row in csv.DictReader(file)]


LOOK = (Path(__file__).parent / "look.js").read_text()
"""Texts with a contrast below 4.5, controls without a name, a page that scrolls sideways."""
