"""Pictures of the report, the review page and the local page for the documentation.

    tagmask demo --out RUN; tagmask review RUN
    python tools/screenshots.py RUN

Needs Chromium, chromedriver and Selenium (the environment of ``make app-test``). Use generated images:
photographs of others must not be published. The pictures are written to docs/images.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).parent.parent
WIDTH, HEIGHT = 1024, 860


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium without a window, with pages of a fixed size."""
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--force-device-scale-factor=1"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options)
    size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def local_page(run: Path) -> Iterator[str]:
    """The address at which ``tagmask app`` serves a run, for as long as it lasts.

    Raises:
        RuntimeError: The program ended without an address.
    """
    command = [sys.executable, "-m", "tagmask", "app", str(run), "--port", "0", "--device", "cpu"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert program.stdout is not None
    try:
        for line in program.stdout:
            if found := re.search(r"http://\S+", line):
                yield found[0]
                return
        raise RuntimeError("tagmask app ended before it printed an address")
    finally:
        program.terminate()
        program.wait(30)


def shoot(driver: webdriver.Chrome, address: str, file: Path, ready: str = "true") -> None:
    """The first screen of a page as PNG, once a condition of the page holds and its pictures are there."""
    driver.get(address)
    loaded = "[...document.images].every(one => one.loading === 'lazy' || one.complete)"
    WebDriverWait(driver, 120).until(lambda page: page.execute_script(f"return {ready} && {loaded}"))
    time.sleep(2)
    picture = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB").save(file, optimize=True)
    print(file)


def main() -> None:
    """Take the three pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder with report.html and review/")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument(
        "--image", help="The image that the local page shows; the most doubtful one if not given."
    )
    args = parser.parse_args()
    with browser() as driver:
        for name, page in (("report", "report.html"), ("review", "review/index.html")):
            shoot(driver, (args.run / page).resolve().as_uri(), args.out / f"screen-{name}.png")
        with local_page(args.run) as address:
            shown = f"{address}/?image={args.image}" if args.image else address
            shoot(driver, shown, args.out / "screen-app.png", "Boolean(window.tagmask?.item)")


if __name__ == "__main__":
    main()
