"""Visitors at once on a running page: each goes its own way, and must only ever see its own pictures.

python -m tests.app.load RUN --visitors 20 --rounds 3 --out benchmarks/results/app_load.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import threading
import time
import urllib.request
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.app.browser import served


class Visitor:
    """One page without a browser: the same requests."""

    def __init__(self, url: str) -> None:
        self.url, self.session = url, uuid.uuid4().hex[:11]
        with urllib.request.urlopen(f"{url}/config", timeout=60) as answer:
            config = json.load(answer)
        self.classes = next(
            [name for name, _ in c["props"]["choices"]]
            for c in config["components"]
            if c["props"].get("elem_id") == "tm-tags"
        )
        self.names = {c["id"]: c["props"].get("elem_id") for c in config["components"]}
        self.calls: dict[str, Any] = {}
        for call in config["dependencies"]:
            self.calls.setdefault(call["api_name"], call)
        self.values = {c["id"]: c["props"].get("value") for c in config["components"]}

    def put(self, name: str, value: Any) -> None:
        """Set a control."""
        self.values[next(key for key, found in self.names.items() if found == name)] = value

    def get(self, name: str) -> Any:
        """What a control shows now."""
        return self.values[next(key for key, found in self.names.items() if found == name)]

    def ask(self, what: str) -> float:
        """Send an event, take over what comes back, give the seconds it took."""
        call = self.calls[what]
        data = {
            "data": [self.values.get(key) for key in call["inputs"]],
            "fn_index": call["id"],
            "session_hash": self.session,
            "event_data": None,
            "trigger_id": None,
        }
        started = time.perf_counter()
        request = urllib.request.Request(
            f"{self.url}/gradio_api/run/predict",
            json.dumps(data).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            found = json.load(answer)["data"]
        seconds = time.perf_counter() - started
        for key, value in zip(call["outputs"], found, strict=True):
            update = isinstance(value, dict) and value.get("__type__") == "update"
            if not update or "value" in value:
                self.values[key] = value["value"] if update else value
        return seconds


def visit(
    url: str, number: int, names: list[str], rounds: int, times: list[float], faults: list[str]
) -> None:
    """One visitor's way: open an image, choose tags, move the threshold, check that all of it is its own."""
    try:
        visitor = Visitor(url)
        classes = visitor.classes
        for turn in range(rounds):
            name = names[(number + turn) % len(names)]
            tag = classes[(number + 2 * turn) % len(classes)]
            visitor.put("tm-picker", name)
            times.append(visitor.ask("open"))
            visitor.put("tm-tags", [tag])
            times.append(visitor.ask("retag"))
            visitor.put("tm-background", 0.2 + 0.03 * (number % 20))
            times.append(visitor.ask("relabel"))
            pictures = visitor.get("tm-pictures")
            for word in (f"image: {name}", f'CAM: {tag}"'):
                if word not in pictures:
                    faults.append(f"visitor {number} does not see {word}")
    except Exception as error:
        faults.append(f"visitor {number}: {type(error).__name__}: {error}")


def load(url: str, visitors: int, rounds: int, names: list[str]) -> tuple[list[float], list[str]]:
    """Seconds of every click, and everything that went wrong."""
    times: list[float] = []
    faults: list[str] = []
    hands = [
        threading.Thread(target=visit, args=(url, number, names, rounds, times, faults))
        for number in range(visitors)
    ]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    return times, faults


def main() -> None:
    """Measure, and write what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--note", default="", help="What else is worth knowing about run and machine.")
    given = parser.parse_args()
    names = sorted(path.stem for path in (given.run / "masks").glob("*.png"))
    with served(given.run) as url:
        times, faults = load(url, given.visitors, given.rounds, names)
    if len(times) < 2:
        sys.exit("\n".join(faults))
    cuts = statistics.quantiles(times, n=20)
    record = {
        "what": "seconds from a click to its answer, all visitors at once without pauses, on loopback",
        "visitors": given.visitors,
        "clicks": len(times),
        "faults": faults,
        "median": round(statistics.median(times), 3),
        "p95": round(cuts[18], 3),
        "max": round(max(times), 3),
        "note": given.note,
        "machine": f"2-core CPU, {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "gradio", "pillow")},
        "command": f"python -m tests.app.load RUN --visitors {given.visitors} --rounds {given.rounds}",
    }
    sys.stdout.write(json.dumps(record, indent=2) + "\n")
    if given.out:
        given.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
