"""Does the review queue find the bad masks, and the list of tag doubts the bad tags? Measured on known truth.

    tagmask run RECIPE --data IMAGES --tags TAGS ... --out RUN
    tagmask review RUN
    python benchmarks/review.py ranking RUN --masks MASKS --out benchmarks/results/review_ranking.json

    python benchmarks/corrupt_tags.py TAGS CLASSES BAD.csv --share 0.1
    tagmask train ... --tags BAD.csv --out RUN; tagmask review RUN --split train
    python benchmarks/review.py tags RUN --record BAD.record.json --out benchmarks/results/review_tags.json

True masks and the record are read here only; neither training nor review ever sees them.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from tagmask.data.parts import open_part
from tagmask.data.readers.masks import mask_values
from tagmask.models.checkpoint import read_header
from tagmask.pipeline.config import read_config
from tagmask.review.queue import tag_doubts
from tagmask.review.signals import agreement
from tagmask.steps.review import read_row
from tagmask.store.labels import read_mask
from tagmask.store.manifest import Manifest

COMMANDS = {
    "ranking": "tagmask run small --data IMAGES --tags TAGS --out RUN; tagmask review RUN; "
    "python benchmarks/review.py ranking RUN --masks MASKS --out benchmarks/results/review_ranking.json",
    "tags": "python benchmarks/corrupt_tags.py TAGS CLASSES BAD.csv --share 0.1; "
    "tagmask train --recipe small --data IMAGES --tags BAD.csv --out RUN; tagmask review RUN --split train; "
    "python benchmarks/review.py tags RUN --record BAD.record.json --out benchmarks/results/review_tags.json",
}
SIGNALS = (
    "overlap",
    "borders",
    "missing",
    "untagged",
    "area",
    "label",
    "cam",
    "lam",
    "aux_cam",
    "attention_cam",
)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def about(run: Path) -> dict[str, Any]:
    steps = Manifest(run).steps
    header = read_header(read_config(run).checkpoint or run / "model")
    return {
        "method": header["method"],
        "backbone": header["settings"].get("backbone"),
        "iterations": header["extra"]["step"],
        "train": without_folders(steps.get("train", {}).get("settings")),
        "machine": f"CPU, {platform.machine()}, 2 cores shared with other work",
        "versions": steps.get("review", {}).get("versions"),
    }


def without_folders(value: Any) -> Any:
    """Settings as they are, but of paths only the last part."""
    if isinstance(value, dict):
        return {key: without_folders(inner) for key, inner in value.items()}
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def ranking(args: argparse.Namespace) -> dict[str, Any]:
    """Score of every image against the IoU of its mask."""
    rows = read_table(args.run / "review" / "queue.csv")
    dataset = open_part(read_config(args.run).data, args.split)
    values = mask_values(args.mask_values, dataset.classes)
    true, scores = [], []
    for row in rows:
        truth = values.read(args.masks / f"{row['name']}.png")
        mask = read_mask(args.run / "masks" / f"{row['name']}.png")
        true.append(agreement(truth, mask))
        scores.append(float(row["score"]))
    iou, score = np.asarray(true), np.asarray(scores)
    tenth = max(1, len(rows) // 10)
    signals = {}
    for name in (name for name in SIGNALS if name in rows[0]):
        given = np.asarray([float(row[name]) if row[name] else np.nan for row in rows])
        usable = ~np.isnan(given)
        if usable.sum() > 2 and np.ptp(given[usable]) > 0:
            signals[name] = round(float(spearmanr(given[usable], iou[usable]).statistic), 4)
    return {
        **about(args.run),
        "images": len(rows),
        "rank_correlation": round(float(spearmanr(score, iou).statistic), 4),
        "rank_correlation_by_signal": signals,
        "mean_iou": round(float(iou.mean()), 4),
        "mean_iou_worst_tenth": round(float(iou[:tenth].mean()), 4),
        "mean_iou_best_tenth": round(float(iou[-tenth:].mean()), 4),
        "truly_worst_tenth_found_in_first_third": round(
            float((np.argsort(iou)[:tenth] < len(rows) // 3).mean()), 4
        ),
        "points": [[round(float(s), 4), round(float(t), 4)] for s, t in zip(score, iou, strict=True)],
    }


def tags(args: argparse.Namespace) -> dict[str, Any]:
    """Doubted tags against those that were corrupted."""
    # From the signals, so that a review that was stopped half-way is measured on what it has seen.
    rows = [read_row(path) for path in sorted((args.run / "review" / "signals").rglob("*.json"))]
    names = open_part(read_config(args.run).data, "train").classes.names
    found_doubts = tag_doubts(rows)
    doubts = [{"name": d.name, "perhaps": d.kind, "tag": names[d.key]} for d in found_doubts]
    images, seen = len(rows), {row.name for row in rows}
    record = json.loads(args.record.read_text(encoding="utf-8"))
    planted = {(Path(r["image"]).stem, r["doubt"], r["class"]) for r in record}
    planted = {entry for entry in planted if entry[0] in seen}
    hits = np.asarray([(d["name"], d["perhaps"], d["tag"]) in planted for d in doubts], bool)
    found = hits.cumsum()
    curve = [
        {
            "listed": int(n),
            "precision": round(float(found[n - 1] / n), 4),
            "recall": round(float(found[n - 1] / len(planted)), 4),
        }
        for n in sorted({*(n for n in (25, 50, 100, 150, 200, 300, 500) if n <= len(hits)), len(hits)})
    ]
    by_kind = {}
    for kind in ("wrong", "missing"):
        mine = np.asarray([d["perhaps"] == kind for d in doubts], bool)
        there = sum(kind == k for _, k, _ in planted)
        by_kind[kind] = {
            "corrupted": there,
            "listed": int(mine.sum()),
            "precision": round(float(hits[mine].mean()), 4) if mine.any() else None,
            "recall": round(float(hits[mine].sum() / there), 4),
        }
    strong = np.asarray([d.strong for d in found_doubts], bool)
    by_kind["strong of both"] = {
        "corrupted": len(planted),
        "listed": int(strong.sum()),
        "precision": round(float(hits[strong].mean()), 4) if strong.any() else None,
        "recall": round(float(hits[strong].sum() / len(planted)), 4),
    }
    return {
        **about(args.run),
        "images": images,
        "corrupted_images": len({name for name, _, _ in planted}),
        "corrupted_tags": len(planted),
        "precision_of_chance": round(len(planted) / (images * len(names)), 4),
        "curve": curve,
        "by_kind": by_kind,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("ranking", "tags"))
    parser.add_argument("run", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--mask-values", default="voc")
    parser.add_argument("--split", default="auto")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--note", default="")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    about = {"note": args.note, "command": COMMANDS[args.what]}
    result = {**about, **(ranking if args.what == "ranking" else tags)(args)}
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    shown = {k: v for k, v in result.items() if k != "points"}
    print(json.dumps(shown, indent=1))


if __name__ == "__main__":
    main()
