"""The result file of a finished run: ``python benchmarks/run_record.py RUN --recipe NAME --data TEXT``.

Everything comes from the run folder: what was scored (``scores/``), and from ``run.json`` the settings,
seconds and versions of every step. Of paths only the last part is written.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

ORDER = ["cam", "label", "walk", "segmentation"]


def record(run: Path, data: str, note: str, recipe: str) -> dict[str, Any]:
    steps = json.loads((run / "run.json").read_text())["steps"]
    scores = {s["what"]: s for s in (json.loads(p.read_text()) for p in (run / "scores").glob("*.json"))}
    scores = {what: scores[what] for what in [*ORDER, *sorted(scores.keys() - set(ORDER))] if what in scores}
    first = next(iter(scores.values()))
    return {
        "recipe": recipe,
        "data": data,
        "command": f"tagmask run {recipe} --data DIR --out RUN",
        "machine": f"CPU, {first['compute']['threads']} thread(s) of 2 cores, shared, {platform.machine()}",
        "precision": first["compute"]["precision"],
        "seed": next(s["settings"]["seed"] for s in steps.values() if "seed" in s["settings"]),
        "versions": next(iter(steps.values()))["versions"],
        "note": note,
        "seconds": {name: step["seconds"] for name, step in steps.items() if "seconds" in step},
        "images": first["images"],
        "split": first["split"],
        "scores": {
            what: {
                "miou": round(s["miou"], 4),
                "tags": s["tags"],
                "threshold": s["threshold"],
                "threshold_source": s["threshold_source"],
                "iou": {name: round(value, 4) for name, value in s["iou"].items()},
            }
            for what, s in scores.items()
        },
        "settings": {name: plain(step["settings"]) for name, step in steps.items() if name != "report"},
    }


def plain(value: Any) -> Any:
    """Settings without the places of this machine and the long list of thresholds."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items() if key != "thresholds"}
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", required=True, help="what the data is, in words")
    parser.add_argument("--recipe", required=True, help="name of the recipe")
    parser.add_argument("--note", default="")
    args = parser.parse_args()
    content = record(args.run, args.data, args.note, args.recipe)
    args.out.write_text(json.dumps(content, indent=1) + "\n")
    for what, score in content["scores"].items():
        print(f"{what:14s} {100 * score['miou']:.1f}")


if __name__ == "__main__":
    main()
