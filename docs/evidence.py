"""Tables of the benchmark pages, drawn from the files in benchmarks/results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
WHAT = {
    "cam": "class maps",
    "label": "labels",
    "walk": "random walk",
    "segmentation": "masks",
    "background": "all background",
    "segmentation, tags given": "masks with tags",
}
DOMAINS = (
    "python benchmarks/domains.py --root SETS --work RUNS --machine TEXT --out "
    "benchmarks/results/domains.json"
)


CUTS = ("maps at the fitted threshold", "maps at the best threshold")


def read(name: str) -> Any:
    """A result file, or None if it is not there."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def spread(values: Sequence[float]) -> str:
    """A mean, with the lowest and the highest value if there are several."""
    mean = f"{sum(values) / len(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


def methods_table(record: Mapping[str, Any]) -> str:
    """All methods on the same generated scenes."""
    rows = [
        (f"`{row['method']}`", row["network"], spread(row["miou"]), f"{row['train_seconds']:.0f} s")
        for row in sorted(record["rows"], key=lambda row: -row["mean"])
    ]
    return table(("method", "network", "mIoU of the class maps", "training"), rows)


def percent(miou: float) -> str:
    """A share as percent with one decimal."""
    return f"{100 * miou:.1f}"


def animal_rows() -> Iterable[tuple[str, ...]]:
    """A line per recipe on photographs of six animal classes: what knows the tags, then what does not."""
    for name in (
        "more_small_animals",
        "more_small_animals_bf16",
        "weaktr_small_animals",
        "aream_small_animals",
    ):
        record = read(name)
        found = record.get("miou") or {k: v["miou"] for k, v in record["scores"].items()}
        scores = {key.removeprefix("recipe: "): percent(value) for key, value in found.items()}
        tagged = read(f"{name}_tagged")
        known = percent(tagged["scores"]["segmentation"]["miou"]) if tagged else ""
        yield (
            f"`{record.get('recipe', 'small-weaktr')}`, {record['precision']}",
            record["data"].split()[0],
            scores.get("attention_cam", scores["cam"]),
            scores["label"],
            scores.get("walk", ""),
            scores.get("segmentation among the image's tags", known),
            scores["segmentation"],
        )


def time_rows() -> Iterable[tuple[str, ...]]:
    """Minutes of every step of a recipe, for the images it had."""
    for name in ("more_small_animals_bf16", "weaktr_small_animals", "aream_small_animals"):
        record = read(name)
        seconds = record["seconds"].get("recipe", record["seconds"])
        steps = [f"{step} {value / 60:.1f}" for step, value in seconds.items() if step != "report"]
        yield f"`{record.get('recipe', 'small-weaktr')}`", record["machine"], ", ".join(steps)


def domain_rows(record: Any) -> list[Mapping[str, Any]]:
    """The rows of the domains benchmark, whether the file is a list or holds one."""
    return list(record if isinstance(record, list) else record["rows"])


def domains_table(record: Any, kinds: Sequence[str] = ()) -> str:
    """A line per set of images, a column per kind of result: mean over the seeds, with the range."""
    rows = domain_rows(record)
    kinds = kinds or [kind for kind in dict.fromkeys(row["what"] for row in rows) if kind not in CUTS]
    lines = []
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name]
        cells = [
            [float(r["miou"]) for r in own if r["what"] == kind and r["miou"] is not None] for kind in kinds
        ]
        scale = 1 if any(value > 1 for cell in cells for value in cell) else 100
        seeds = len({row["seed"] for row in own})
        scores = [spread([scale * value for value in cell]) if cell else "" for cell in cells]
        taken = sorted(float(r["seconds"]) for r in own if r.get("seconds"))
        minutes = f"{taken[len(taken) // 2] / 60:.1f}" if taken else ""
        lines.append((name, *scores, minutes, str(seeds)))
    heads = (f"{WHAT.get(kind, kind)}, mIoU" for kind in kinds)
    extra = ("minutes", "seeds") if any(line[-2] for line in lines) else ("seeds",)
    return table(("images", *heads, *extra), [(*line[:-2], *line[-len(extra) :]) for line in lines])


def domains() -> str:
    """What the page "Will it work for my images?" says about other kinds of images."""
    record = read("domains")
    if record is None:
        return "Nothing has been measured on medical, industrial or aerial images yet.\n"
    command = record.get("command") if isinstance(record, dict) else DOMAINS
    machine = {row["machine"] for row in domain_rows(record) if row.get("machine")}
    told = f"Machine: {', '.join(sorted(machine))}. " if machine else ""
    told += f"Reproduce: `{command}`. " if command else ""
    told += "Minutes are those of the steps of a run. "
    return f"{domains_table(record)}\n{told}File: `benchmarks/results/domains.json`.\n"


def cuts() -> str:
    """What a threshold found without masks loses against the best one."""
    record = read("domains")
    rows = [row for row in domain_rows(record or []) if row["what"] in CUTS]
    if not rows:
        return ""
    return f"{domains_table(rows, CUTS)}\nFile: `benchmarks/results/domains.json`. Reproduce: `{DOMAINS}`.\n"


def label_choices() -> str:
    """Labels made from the same maps in several ways."""
    record = read("label_choices")
    if record is None:
        return ""
    told = f"Machine: {record[0]['machine']}. Reproduce: `{record[0]['command']}`. "
    return f"{domains_table(record)}\n{told}File: `benchmarks/results/label_choices.json`.\n"


def about(record: Mapping[str, Any]) -> str:
    """How a table came about, and how to make it again."""
    seeds = ", ".join(map(str, record["seeds"]))
    text = f"{record['data']}; {record['task']}. Seeds {seeds}. {record['machine']}, {record['precision']}."
    return f"{text}\n\nReproduce: `{record['command']}`. File: `benchmarks/results/methods_scenes.json`.\n"


def methods() -> str:
    """All methods on the same scenes."""
    record = read("methods_scenes")
    if record is None:
        return ""
    return f"{methods_table(record)}\n{about(record)}"


def animals() -> str:
    """All recipes on photographs of six animal classes."""
    head = ("recipe", "images", "class maps", "labels", "walk", "masks, tags given", "masks, no tags")
    return table(head, animal_rows())


def times() -> str:
    """What the steps took."""
    return table(("recipe", "machine", "minutes of each step"), time_rows())


def memory() -> str:
    """What an update of a recipe must hold."""
    record = read("training_memory")
    if record is None:
        return ""
    head = ("recipe", "images at once", "weights, gradients, averages", "kept for the gradient", "sum")
    rows = []
    for row in record["rows"]:
        extra = ", checkpointing" if row["gradient_checkpointing"] else ""
        keys = "weights_gradients_optimiser_gib", "kept_for_the_gradient_gib", "sum_gib"
        sizes = [f"{row[key]:.1f} GiB" for key in keys]
        rows.append((f"`{row['recipe']}`, {row['size']} px", f"{row['images']}{extra}", *sizes))
    told = f"Reproduce: `{record['command']}`. File: `benchmarks/results/training_memory.json`.\n"
    return f"{table(head, rows)}\n{told}"


def micro_batches() -> str:
    """How far the losses of a split batch are from those of the whole one."""
    record = read("micro_batches")
    if record is None:
        return ""
    head = ("term", "whole batch", "two parts", "four parts")
    rows = []
    for name, row in record["terms"].items():
        gaps = [(100 * row[f"{n} parts, mean"], 100 * row[f"{n} parts, largest"]) for n in (2, 4)]
        parts = [f"{mean:.1f} % ({most:.1f} %)" if most >= 0.005 else "equal" for mean, most in gaps]
        title = "gradient" if name == "gradient" else f"`{name}`"
        rows.append((title, f"{row['whole']:.3f}", *parts))
    told = f"{record['method']}; {record['data']}; seed {record['seed']}. Reproduce: `{record['command']}`. "
    return f"{table(head, rows)}\n{told}File: `benchmarks/results/micro_batches.json`.\n"


TABLES = {
    "methods": methods,
    "animals": animals,
    "times": times,
    "domains": domains,
    "cuts": cuts,
    "label_choices": label_choices,
    "memory": memory,
    "micro_batches": micro_batches,
}


def filled(text: str) -> str:
    """A page with every ``<!-- table: NAME -->`` replaced by that table."""
    return re.sub(r"<!-- table: (\w+) -->", lambda mark: TABLES[mark[1]](), text)
