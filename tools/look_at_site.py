"""Screenshots of every page of the built site, and a list of what is wider than the window.

    make docs; python tools/look_at_site.py site OUT [--widths 360 1024 1920] [--only start]

Needs Chromium, chromedriver and Selenium (the environment of ``make app-test``). Writes whole pages to
OUT/WIDTH-SCHEME/PAGE.png (long ones in parts, PAGE-2.png and so on) and prints pages that scroll sideways,
cells of tables that are far higher than wide, pictures that do not load or have no text, and what comes
from another host.
"""

from __future__ import annotations

import argparse
import base64
from pathlib import Path
from typing import Any

from selenium import webdriver

SCHEMES = {"light": "default", "dark": "slate"}
PART = 8000  # pixels; the browser gives no picture that is much higher
STILL = "<style>* {transition: none !important}</style>"
# Wide tables and code scroll by themselves; the page must not.
CHECK = """
const wide = document.documentElement.scrollWidth - window.innerWidth;
const images = [...document.querySelectorAll('article img')];
return {
  wide,
  broken: images.filter(i => i.complete && !i.naturalWidth).map(i => i.src),
  thin: [...document.querySelectorAll('article td')].filter(
    c => c.offsetHeight > 300 && c.offsetHeight > 3 * c.offsetWidth && c.innerText.length > 40
  ).map(c => c.innerText.slice(0, 30)),
  mute: images.filter(i => !i.alt).map(i => i.src),
  other: performance.getEntriesByType('resource').map(r => r.name).filter(n => /^https?:/.test(n)),
};
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--widths", type=int, nargs="+", default=[360, 1024, 1920])
    parser.add_argument("--schemes", nargs="+", choices=list(SCHEMES), default=list(SCHEMES))
    parser.add_argument("--only", default="", help="pages whose path holds this")
    parser.add_argument("--parts", type=int, default=100, help="most pictures of one page")
    given = parser.parse_args()
    pages = [page for page in sorted(given.site.rglob("*.html")) if given.only in page.as_posix()]
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--force-device-scale-factor=1"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options)
    try:
        for width in given.widths:
            for scheme in given.schemes:
                for page in pages:
                    out = given.out / f"{width}-{scheme}"
                    look(driver, page, given.site, out, width, scheme, given.parts)
    finally:
        driver.quit()


def look(
    driver: webdriver.Chrome, page: Path, site: Path, out: Path, width: int, scheme: str, parts: int
) -> dict[str, Any]:
    """One page in one window; gives what was found."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    driver.get(page.resolve().as_uri())
    driver.execute_script("document.head.insertAdjacentHTML('beforeend', arguments[0])", STILL)
    driver.execute_script(f"document.body.setAttribute('data-md-color-scheme', '{SCHEMES[scheme]}')")
    found: dict[str, Any] = driver.execute_script(CHECK)
    name = page.relative_to(site).with_suffix("").as_posix().replace("/", "-")
    told = {key: value for key, value in found.items() if value and (key != "wide" or value > 0)}
    if told:
        print(width, scheme, name, told, flush=True)
    height = driver.execute_script("return document.documentElement.scrollHeight")
    out.mkdir(parents=True, exist_ok=True)
    for top in range(0, min(height, parts * PART), PART):
        clip = {"x": 0, "y": top, "width": width, "height": min(PART, height - top), "scale": 1}
        wish = {"format": "png", "captureBeyondViewport": True, "clip": clip}
        shot = driver.execute_cdp_cmd("Page.captureScreenshot", wish)
        part = f"-{top // PART + 1}" if top else ""
        (out / f"{name}{part}.png").write_bytes(base64.b64decode(shot["data"]))
    return found


if __name__ == "__main__":
    main()
