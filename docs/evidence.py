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
# The order of columns, whatever the order of the rows in the file; other kinds follow.
DOMAIN_KINDS = (
    *("background", "first tag", "centre box", "plain CAM at 0.5"),
    *("labels", "segmentation", "segmentation, tags given"),
)
CUTS = ("maps at the fitted threshold", "maps at the best threshold")
SETS = {
    "neuseg": "steel plates",
    "busi": "ultrasound",
    "wbc": "blood cells",
    "dubai": "land cover",
    "cwfid": "crop and weed",
    "voc_animals": "photographs of animals",
}


def read(name: str) -> Any:
    """A result file, or None if it is not there."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def spread(values: Sequence[float]) -> str:
    """A mean, and below it the lowest and the highest value if they differ."""
    mean, low, high = (f"{value:.1f}" for value in (sum(values) / len(values), min(values), max(values)))
    return mean if low == high else f"{mean}<br><small>{low} to {high}</small>"


def method_rows(record: Mapping[str, Any], shared: bool) -> list[Mapping[str, Any]]:
    """Methods on the shared backbone, or those with a network of their own; the best first."""
    rows = [row for row in record["rows"] if ("random weights" not in row["network"]) == shared]
    return sorted(rows, key=lambda row: -row["mean"])


def unit(text: str) -> str:
    """What the cells of a table hold."""
    return "mIoU in percent" + ("; in small print the range over the seeds. " if "<small>" in text else ". ")


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
        machine = record["machine"].replace("1 thread(s)", "1 thread").replace("thread(s)", "threads")
        yield f"`{record.get('recipe', 'small-weaktr')}`", machine, ", ".join(steps)


def domain_rows(record: Any) -> list[Mapping[str, Any]]:
    """The rows of the domains benchmark, whether the file is a list or holds one."""
    return list(record if isinstance(record, list) else record["rows"])


def domains_table(record: Any, kinds: Sequence[str] = ()) -> str:
    """A line per set of images, a column per kind of result: mean over the seeds, with the range."""
    rows = domain_rows(record)
    found = dict.fromkeys(row["what"] for row in rows)
    kinds = kinds or [kind for kind in dict.fromkeys((*DOMAIN_KINDS, *found)) if kind in {*found} - {*CUTS}]
    lines = []
    for name in (name for name in SETS if any(row["set"] == name for row in rows)):
        own = [row for row in rows if row["set"] == name]
        cells = [
            [float(r["miou"]) for r in own if r["what"] == kind and r["miou"] is not None] for kind in kinds
        ]
        scale = 1 if any(value > 1 for cell in cells for value in cell) else 100
        seeds = len({row["seed"] for row in own})
        scores = [spread([scale * value for value in cell]) if cell else "" for cell in cells]
        taken = sorted(float(r["seconds"]) for r in own if r.get("seconds"))
        minutes = f"{taken[len(taken) // 2] / 60:.1f}" if taken else ""
        lines.append((f"{SETS[name]}, `{name}`", *scores, minutes, str(seeds)))
    heads = (WHAT.get(kind, kind) for kind in kinds)
    extra = ("minutes", "seeds") if any(line[-2] for line in lines) else ("seeds",)
    return table(("images", *heads, *extra), [(*line[:-2], *line[-len(extra) :]) for line in lines])


def domains() -> str:
    """What the page "Will it work for my images?" says about other kinds of images."""
    record = read("domains")
    if record is None:
        return "Nothing has been measured on medical, industrial or aerial images yet.\n"
    command = record.get("command") if isinstance(record, dict) else DOMAINS
    machine = {row["machine"] for row in domain_rows(record) if row.get("machine")}
    text = domains_table(record)
    told = unit(text) + (f"Machine: {', '.join(sorted(machine))}. " if machine else "")
    told += f"Reproduce: `{command}`. " if command else ""
    told += "Minutes are those of the steps of a run. "
    return f"{text}\n{told}File: `benchmarks/results/domains.json`.\n"


def cuts() -> str:
    """What a threshold found without masks loses against the best one."""
    record = read("domains")
    rows = [row for row in domain_rows(record or []) if row["what"] in CUTS]
    if not rows:
        return ""
    text = domains_table(rows, CUTS)
    return f"{text}\n{unit(text)}File: `benchmarks/results/domains.json`. Reproduce: `{DOMAINS}`.\n"


def label_choices() -> str:
    """Labels made from the same maps in several ways."""
    return _by_set("label_choices")


def auto_views() -> str:
    """What the mirrored view of maps and masks brings and takes."""
    record = read("auto_views") or []
    lines = []
    for row in record:
        seconds = ", ".join(f"{step} {taken} s" for step, taken in row["seconds"].items())
        name = f"{SETS[row['set']]}, seed {row['seed']}"
        lines.append(
            (name, row["what"], f"{100 * row['labels']:.1f}", f"{100 * row['segmentation']:.1f}", seconds)
        )
    if not lines:
        return ""
    text = table(("images", "views", "labels", "masks", "time of the steps"), lines)
    told = f"Mean IoU in percent. Machine: {record[0]['machine']}. Reproduce: `{record[0]['command']}`. "
    return f"{text}\n{told}File: `benchmarks/results/auto_views.json`.\n"


def one_class() -> str:
    """Masks of the same networks with and without the knowledge that an image shows one class."""
    return _by_set("one_class")


def early_stopping() -> str:
    """Masks of a decoder at several moments of its training, the moment chosen in several ways."""
    return _by_set("early_stopping")


def _by_set(name: str) -> str:
    """A file of rows with machine and command: a line per set of images, a column per way."""
    record = read(name)
    if record is None:
        return ""
    text, machines = domains_table(record), dict.fromkeys(row["machine"] for row in record)
    told = f"{unit(text)}Machine: {'; '.join(machines)}. Reproduce: `{record[0]['command']}`. "
    return f"{text}\n{told}File: `benchmarks/results/{name}.json`.\n"


def auto_times() -> str:
    """Whole runs of recipe auto with nothing else running: what the plan said, and what every step took."""
    record = read("auto_times") or []
    names = list(dict.fromkeys(step for row in record for step in row["steps"]))
    lines = [
        (
            f"{SETS[row['set']]}, seed {row['seed']}",
            row["what"],
            f"{row['planned'] / 60:.0f} min" if row["planned"] else "",
            f"{row['seconds'] / 60:.1f} min",
            *(f"{row['steps'].get(name, '')} s" for name in names),
        )
        for row in record
    ]
    if not lines:
        return ""
    text = table(("images", "run", "plan", "from command to verdict", *names), lines)
    told = f"Machine: {record[-1]['machine']}; the first row: {record[0]['machine']}. "
    told += f"Reproduce: `{record[0]['command']}`. "
    return f"{text}\n{told}File: `benchmarks/results/auto_times.json`.\n"


def about(record: Mapping[str, Any]) -> str:
    """How a table came about, and how to make it again."""
    text = f"{record['data']}; {record['task']}. {record['machine']}, {record['precision']}."
    return f"{text}\n\nReproduce: `{record['command']}`. File: `benchmarks/results/methods_scenes.json`.\n"


def methods() -> str:
    """The methods that take a plain ViT, on the same scenes with the same weights."""
    record = read("methods_scenes")
    rows = [
        (f"`{row['method']}`", spread(row["miou"]), _seeds(row), f"{row['train_seconds']:.0f} s")
        for row in method_rows(record, shared=True)
    ]
    return f"{table(('method', 'mIoU of the class maps', 'seeds', 'training'), rows)}\n{about(record)}"


def own_networks() -> str:
    """The methods with networks of their own, from random weights; AFA for longer as well."""
    record, longer = read("methods_scenes"), read("afa_mit_b0_scenes")
    updates = re.search(r"(\d+) updates", record["task"])
    assert updates is not None
    rows = [
        (
            f"`{row['method']}`",
            re.split("[:,]", row["network"])[0],
            updates[1],
            spread(row["miou"]),
            _seeds(row),
        )
        for row in method_rows(record, shared=False)
    ]
    network, train = longer["settings"]["model"]["backbone"], longer["settings"]["train"]
    long_run = f"{train['iterations']:,}", percent(longer["scores"]["cam"]["miou"]), str(longer["seed"])
    rows.append(("`afa`, 20,000 scenes", network, *long_run))
    rows.append(("an empty mask", "", "", percent(longer["baselines"]["nothing"]), ""))
    told = "Reproduce: `python benchmarks/methods.py --only afa transcam psa`. "
    told += "Files: `benchmarks/results/methods_scenes.json`, `afa_mit_b0_scenes.json`.\n"
    head = ("method", "network", "updates", "mIoU of the class maps", "seeds")
    return f"{table(head, rows)}\n{told}"


def _seeds(row: Mapping[str, Any]) -> str:
    return ", ".join(map(str, row["seeds"]))


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
    "own_networks": own_networks,
    "animals": animals,
    "times": times,
    "domains": domains,
    "cuts": cuts,
    "label_choices": label_choices,
    "auto_views": auto_views,
    "auto_times": auto_times,
    "one_class": one_class,
    "early_stopping": early_stopping,
    "memory": memory,
    "micro_batches": micro_batches,
}


def filled(text: str) -> str:
    """A page with every ``<!-- table: NAME -->`` replaced by that table."""
    return re.sub(r"<!-- table: (\w+) -->", lambda mark: TABLES[mark[1]](), text)
