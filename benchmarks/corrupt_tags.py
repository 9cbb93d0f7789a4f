"""Corrupt a share of a tag list deliberately and keep a record of it, to measure how many are found.

A third of the chosen images loses one of its tags, a third gets a wrong one besides, in a third one tag
becomes another.

    python benchmarks/corrupt_tags.py TAGS.csv CLASSES.txt OUT.csv --share 0.1 --seed 0
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np


def corrupted(
    rows: list[tuple[str, list[str]]], classes: list[str], share: float, seed: int
) -> tuple[list[tuple[str, list[str]]], list[dict[str, str]]]:
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(rows), round(share * len(rows)), replace=False)
    result = [(image, list(tags)) for image, tags in rows]
    record: list[dict[str, str]] = []
    for turn, index in enumerate(chosen):
        image, tags = result[index]
        absent = [name for name in classes if name not in tags]
        kind = ("removed", "added", "swapped")[turn % 3]
        if (kind != "added" and not tags) or (kind != "removed" and not absent):
            continue
        if kind != "added":
            gone = str(rng.choice(tags))
            tags.remove(gone)
            record.append({"image": image, "doubt": "missing", "class": gone})
        if kind != "removed":
            new = str(rng.choice(absent))
            tags.append(new)
            record.append({"image": image, "doubt": "wrong", "class": new})
    return result, record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tags", type=Path)
    parser.add_argument("classes", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with args.tags.open(newline="", encoding="utf-8") as file:
        rows = [(row["image"], row["tags"].split()) for row in csv.DictReader(file)]
    classes = args.classes.read_text(encoding="utf-8").split()
    result, record = corrupted(rows, classes, args.share, args.seed)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "tags"))
        writer.writerows((image, " ".join(tags)) for image, tags in result)
    args.out.with_suffix(".record.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    print(f"{len({r['image'] for r in record})} images changed, {len(record)} tags wrong or missing")


if __name__ == "__main__":
    main()
