"""How long a person waits at the workbench: a run of 2,000 images in headless Chromium.

PYTHONPATH=. python benchmarks/workbench.py --work DIR --images PHOTOGRAPHS --out FILE

The run is set up in DIR at the first call: copies of the first photographs of a folder, cut to 500 x 375.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tests.app.browser import Browser, served
from tests.app.visit import visit_at_once
from tests.cli import tagmask, train_args
from tests.toy import toy_root

from tagmask.data.datasets.tagfile import write_tag_file
from tagmask.store.labels import write_mask
from tagmask.store.maps import save_maps

IMAGES, SOURCES, SIZE = 2000, 40, (375, 500)
TURNS, DECISIONS, QUICK = 60, 30, 30


def build(work: Path, photographs: Path) -> Path:
    """A run with stored maps, labels and masks of 2,000 pictures; the model is a toy, which nobody asks."""
    files = sorted(photographs.glob("*.jpg"))[:SOURCES]
    if not files:
        raise SystemExit(f"{photographs} holds no .jpg files; give a folder of photographs with --images")
    toy, run = toy_root(work, 12, 4), work / "run"
    done = tagmask(*train_args(toy, run, 2, "--set=train.eval_every=0", "--set=train.corrections=null"))
    if done.exit_code:
        raise SystemExit(done.stderr)
    images, names = toy / "images", [f"{index:05d}" for index in range(IMAGES)]
    for old in images.iterdir():
        old.unlink()
    sources = []
    for number, file in enumerate(files):
        mask = ellipses(number)
        folder = work / f"source{number}"
        folder.mkdir(exist_ok=True)
        picture = ImageOps.fit(Image.open(file).convert("RGB"), SIZE[::-1])
        picture.save(folder / "image.jpg", quality=90)
        write_mask(folder / "mask.png", mask)
        maps = np.stack([(mask == label).astype(np.float32) * 0.9 for label in (1, 2)])
        save_maps(folder / "cam.npz", maps, np.array([0, 1]), SIZE)
        sources.append(folder)
    lines = ["place,name,score,why,tags,classes"]
    for index, name in enumerate(names):
        source = sources[index % len(sources)]
        for kept, target in (
            ("image.jpg", images / f"{name}.jpg"),
            ("mask.png", run / "masks" / f"{name}.png"),
            ("mask.png", run / "labels" / f"{name}.png"),
            ("cam.npz", run / "maps" / "cam" / f"{name}.npz"),
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / kept, target)
        doubt, classes = 1 - index / IMAGES, "stripes dots"
        lines.append(f"{index + 1},{name},{doubt:.4f},undecided along the borders,{classes},{classes}")
    (run / "review").mkdir(exist_ok=True)
    (run / "review" / "queue.csv").write_text("\n".join(lines) + "\n")
    shutil.rmtree(toy / "masks")
    rows = [(f"{n}.jpg", ("stripes", "dots"), "train" if i % 2 else "val") for i, n in enumerate(names)]
    write_tag_file(toy / "tags.csv", rows)
    return run


def ellipses(number: int) -> np.ndarray:
    """A mask with an ellipse of each class."""
    random = np.random.default_rng(number)
    rows, columns = np.indices(SIZE)
    mask = np.zeros(SIZE, np.uint8)
    for label in (1, 2):
        y, x, a, b = random.uniform((100, 100, 50, 50), (280, 400, 110, 140))
        mask[((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 < 1] = label
    return mask


def p95(values: list[float]) -> float:
    return round(statistics.quantiles(values, n=20)[18], 4)


def measures(browser: Browser, name: str) -> list[float]:
    """Seconds of everything the page measured under a name since the last time, which are forgotten."""
    script = (
        "const found = performance.getEntriesByName(arguments[0]).map(one => one.duration / 1000);"
        "performance.clearMeasures(arguments[0]); return found"
    )
    return list(browser.run(script, name))


def measure(browser: Browser, url: str) -> dict[str, Any]:
    """Turn pages, decide one by one, then 30 keys at once."""
    paints = []
    for _ in range(3):
        browser.open(url)
        paints.append(browser.run(
            "return performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
        ))  # fmt: skip
    measures(browser, "next")
    turned: list[float] = []
    for _ in range(TURNS):
        before = browser.run("return tagmask.name")
        browser.press("j")
        browser.until(
            lambda: browser.run("return tagmask.pressed === null && tagmask.item !== null"), "a picture"
        )
        assert browser.run("return tagmask.name") != before
        turned += measures(browser, "next")
        time.sleep(0.3)
    saved: list[float] = []
    measures(browser, "decision")
    for number in range(DECISIONS):
        browser.press("ar"[number % 2])
        browser.saved()
        saved += measures(browser, "decision")
        time.sleep(0.3)
    first = browser.run("return tagmask.list.places.get(tagmask.name)")
    browser.press("a" * QUICK)
    browser.saved()
    known = browser.run(
        "return tagmask.list.found.slice(arguments[0], arguments[0] + arguments[1])"
        ".filter(e => e.verdict === 'accepted').length", first, QUICK,
    )  # fmt: skip
    quick = len(measures(browser, "decision"))
    return {
        "next_picture_p95_s": p95(turned),
        "next_picture_median_s": round(statistics.median(turned), 4),
        "decision_p95_s": p95(saved),
        "decision_median_s": round(statistics.median(saved), 4),
        "first_paint_s": round(statistics.median(paints), 3),
        "lost_keys": QUICK - min(known, quick),
        "turns": len(turned),
        "decisions": len(saved),
    }


def lesson(browser: Browser) -> dict[str, Any]:
    """The time a lesson takes on what was accepted."""
    started = time.perf_counter()
    browser.run("fetch('/api/teach', { method: 'POST', body: '{}' })")
    script = "const done = arguments[0]; fetch('/api/lesson').then(r => r.json()).then(done)"
    while True:
        time.sleep(1)
        found = browser.driver.execute_async_script(script)
        if found["what"] == "done":
            return {"teach_s": round(time.perf_counter() - started, 1), "lesson": found["text"]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help="Folder of photographs, .jpg.")
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--note", default="")
    given = parser.parse_args()
    run = given.work / "run"
    if not (run / "review" / "queue.csv").is_file():
        run = build(given.work, given.images)
    if given.build_only:
        return
    with served(run, "--out", str(given.work / "kept")) as url:
        browser = Browser(given.work / "profile")
        try:
            record = measure(browser, url)
            times, faults = visit_at_once(url, 20, 5)
            record |= {"visitors": 20, "visitors_next_p95_s": p95(times), "visitors_faults": faults}
            record |= lesson(browser)
            record["other_hosts"] = sorted(browser.outside(url))
        finally:
            browser.driver.quit()
    record |= {
        "images": IMAGES,
        "machine": f"2-core CPU, {platform.machine()}, Python {platform.python_version()}",
        "note": given.note,
        "command": "PYTHONPATH=. python benchmarks/workbench.py --work DIR --images PHOTOGRAPHS --out FILE",
    }
    sys.stdout.write(json.dumps(record, indent=2) + "\n")
    if given.out:
        given.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
