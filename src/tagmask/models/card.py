"""The page of a published model: what it was trained on and how, how well it does, under which license."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tagmask.data.readers.regular import read_text
from tagmask.errors import DataError

__all__ = ["Facts", "model_card", "run_facts"]

Facts = Mapping[str, Any]


def run_facts(folder: Path) -> dict[str, Any]:
    """What a run folder says about a model's training; empty for what is not there.

    Args:
        folder: A run folder, its model folder, or any other.

    Returns:
        "train" (iterations, batch size, seed, versions ... of the training step) and "scores" (the scores
        that were measured, one mapping for each of maps, labels and masks). Never a path of the machine.
    """
    for place in (folder, folder.parent):
        record = _json(place / "run.json")
        if record is not None:
            step = record.get("steps", {}).get("train", {})
            settings = {k: v for k, v in step.get("settings", {}).items() if k in _TRAIN}
            files = sorted((place / "scores").glob("*.json"))
            scores = [found for file in files if (found := _json(file)) is not None]
            return {"train": settings, "versions": step.get("versions", {}), "scores": scores}
    return {"train": {}, "versions": {}, "scores": []}


_TRAIN = ("iterations", "batch_size", "accumulate", "size", "view", "precision", "seed")


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(read_text(path))
    except (OSError, ValueError, DataError):
        return None
    return found if isinstance(found, dict) else None


def model_card(meta: Mapping[str, Any], facts: Facts, name: str, data: str, license: str) -> str:
    """Markdown with the header the hub reads.

    Args:
        meta: Header of the model: "method", "settings", "classes", "metrics".
        facts: See `run_facts`.
        name: What the model is called.
        data: What it was trained on, in words; may be empty.
        license: Identifier of the hub, such as "apache-2.0" or "other".
    """
    header: dict[str, Any] = {
        "library_name": "tagmask",
        "pipeline_tag": "image-segmentation",
        "license": license,
        "tags": ["weakly-supervised-segmentation", str(meta["method"])],
    }
    if results := _results(facts["scores"], name):
        header["model-index"] = results
    names = list(meta["classes"]["names"])
    parts = [
        "---",
        yaml.safe_dump(header, sort_keys=False, allow_unicode=True).strip(),
        "---",
        f"\n# {name}\n",
        f"A `{meta['method']}` model of [tagmask](https://pypi.org/project/tagmask), trained on image tags: "
        f"it finds {len(names)} classes in pictures and draws their masks.\n",
        "```python\nimport tagmask\n\n"
        f'model = tagmask.Model.from_pretrained("{name}")\n'
        'model.predict("picture.jpg").save("mask.png")\n```\n',
        "## Data\n",
        f"{data or 'Not stated by the publisher.'}\n",
        f"Labels: 0 background, {', '.join(f'{i} {label}' for i, label in enumerate(names, 1))}; "
        f"{meta['classes']['ignore']} is ignored.\n",
        "## Scores\n",
        _scores(facts["scores"], meta.get("metrics", {}), meta.get("extra", {}).get("doubts", ())),
        "## Training\n",
        _table(("setting", "value"), list(facts["train"].items()))
        or "The settings of the run are not here.\n",
        _versions(facts["versions"]),
        "## Settings of the method\n",
        _table(("setting", "value"), list(meta["settings"].items())),
        "## Licence\n",
        f"{_LICENSES.get(license, license)}\n",
        "## Limits\n",
        "Masks learned from tags cover what tells a class apart, which may be less or more than the object: "
        "look at masks before you rely on them. Pictures unlike the training data were not measured.",
    ]
    return "\n".join(part for part in parts if part) + "\n"


_LICENSES = {"other": "Not stated by the publisher. Pretrained parts keep their authors' licenses."}


def _results(scores: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    metrics = [
        {
            "type": "mean_iou",
            "name": "; ".join([f"mIoU of {s['what']}", *s.get("doubts", ())]),
            "value": round(100 * s["miou"], 2),
        }
        for s in scores
        if isinstance(s.get("miou"), float)
    ]
    if not metrics:
        return []
    dataset = {"name": "see below", "type": "image-folder", "split": str(scores[0].get("split"))}
    return [
        {
            "name": name,
            "results": [{"task": {"type": "image-segmentation"}, "dataset": dataset, "metrics": metrics}],
        }
    ]


def _scores(
    scores: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any], doubts: Sequence[str] = ()
) -> str:
    rows = [
        (
            s.get("what"),
            "; ".join([f"{100 * s['miou']:.2f}", *s.get("doubts", ())]),
            s.get("split"),
            s.get("images"),
            s.get("tags"),
        )
        for s in scores
        if isinstance(s.get("miou"), float)
    ]
    if rows:
        return _table(("of", "mIoU in percent", "split", "images", "tags from"), rows)
    kept = {key: value for key, value in metrics.items() if isinstance(value, float)}
    plain = [(key, "; ".join([f"{value:.4g}", *doubts])) for key, value in kept.items()]
    return _table(("score", "value"), plain) or "None were measured.\n"


def _versions(versions: Mapping[str, Any]) -> str:
    return f"Made with {', '.join(f'{k} {v}' for k, v in versions.items())}.\n" if versions else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)
