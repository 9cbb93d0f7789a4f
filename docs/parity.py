"""The page of parity: what was compared with stored outputs of the originals, and how far apart they are."""

from __future__ import annotations

import re
from typing import Any

WHAT = {
    r"train_step|_step$": "whole training steps: losses, gradients, what they change",
    r"forward": "outputs of the network",
    r"loss": "losses and their gradients",
    r"energy": "dense energy loss and its gradient",
    r"optim|schedule": "learning rates and groups of weights",
    r"init|hf_names": "weights as a training begins with them",
    r"pos_embed": "position tables at other sizes",
    r"aug|transforms|seg_data": "training views",
    r"crf": "dense CRF",
    r"par_": "pixel-adaptive refinement",
    r"metric": "scores from labels and masks",
    r"refine|pseudo_labels|label": "labels from class maps",
    r"aff_propagate|random_walk": "random walk",
    r"radius_mask|pairs": "which pixels form pairs",
    r"entropy": "entropy of the maps, block by block",
    r"validate|_val$|eval": "scores of a validation run",
    r"infer|multiscale": "maps or masks over several scales",
    r"cam|lam|cls|postprocess": "class maps",
    r"gcr": "the graph over class tokens",
    r"gradclip": "which pixels the clipped loss leaves out",
    r"vis": "drawings of maps and labels",
}
INTRO = """# Parity

The outputs of the original code on fixed inputs and weights are stored; tagmask computes the same through its
public functions. Each row is one stored file: what it holds, its largest input, how many values or tensors
were compared, and the comparison that came closest to its tolerance. `abs` is the largest difference, `rel`
the same relative to the largest value, `mismatch` the share of unequal labels; `exact` allows none.

**What this does not show.** Inputs are small (AFA's training step sees 128 x 128 pixels and pairs up to 3
cells apart, the paper 512 and 8), weights are fixed numbers and not trained ones, and no full training was
repeated: there is no published mIoU here.
"""


def page(record: dict[str, Any]) -> str:
    """Markdown of the page, from what ``check.py --record`` wrote."""
    parts = [INTRO, f"Reproduce: `{record['command']}`. {record['machine']}.", ""]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in record["files"]:
        groups.setdefault(row["method"], []).append(row)
    for method, rows in sorted(groups.items()):
        originals = ", ".join(sorted({f"`{name}`" for row in rows for name in row["originals"]}))
        parts += [
            f"## {method}",
            "",
            f"Original code, with its commit: {originals}.",
            "",
            "| what | input | compared | difference | tolerance | closest to its limit | file |",
            "|---|---|---|---|---|---|---|",
            *(line(row) for row in sorted(rows, key=lambda each: str(each["file"]))),
            "",
        ]
    return "\n".join(parts)


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    cells = (
        what(row["file"]),
        row["input"],
        str(row["checks"]),
        f"{row['difference']:.2g}",
        f"{row['tolerance']:.2g}",
        row["worst"],
        f"`{row['file']}`",
    )
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def what(file: str) -> str:
    """What a stored file holds, in words.

    Raises:
        KeyError: No pattern fits its name.
    """
    rest = file.partition("_")[2] if file.startswith(("more", "weaktr_seg")) else file
    for pattern, words in WHAT.items():
        if re.search(pattern, rest):
            return words
    raise KeyError(file)
