"""Give methods the backbone names that timm lists, and see that each ends in a trained step or one line.

    python tools/sweep_backbones.py --out benchmarks/results/backbones.json

Weights are random and pictures a few patches wide. Of every family of plain ViTs the two smallest networks
are taken, of every other module of timm the one with the shortest name, then names with a mistyped part and
custom shapes at the edges of their ranges. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import timm
import torch

from tagmask.errors import UserError
from tagmask.methods import create_method
from tagmask.methods.base import Method
from tagmask.training.optim import build_optimizer, set_rates
from tagmask.types import Batch

METHODS = ("mctformer", "more", "weaktr", "aream")
PLAIN = ("vision_transformer", "deit", "eva", "beit", "vision_transformer_hybrid")
MISTYPED = (
    "vit_tinny_patch16_224",
    "vit_tiny_patch16_244",
    "vit_tiny_patch16_224.nosuchtag",
    "vit_tiny_patch16_224.augreg_in21k_ft_in1K",
    "vit_small_patch16_dinov3.lvd1689",
    "beit_base_patch16_224.in22k",
    "beitv3_base_patch16_224",
    "eva02_tiny_patch14_225",
    "dinov2_small",
    "VIT_TINY_PATCH16_224",
    "vit_tiny_patch16_224 ",
    "hf_hub:timm/vit_tiny_patch16_224.augreg_in21k",
    "timm/vit_tiny_patch16_224",
    "",
    ".",
    "resnet50.a1_in1k",
    "mit_b9",
    "conformer_smal",
    "tagmask_demo.v2",
)
SHAPES = (
    "vit:patch=16,dim=24,depth=2,heads=2,size=32",
    "vit:patch=8,dim=24,depth=1,heads=1,size=8",
    "vit:patch=16,dim=16,depth=2,heads=2,size=32,stem=1",
    "vit:patch=16,dim=16,depth=2,heads=2,size=32,registers=4",
    *(f"vit:{key}=0" for key in ("patch", "dim", "depth", "heads", "size", "mlp")),
    "vit:patch=0,dim=0,depth=0,heads=0,size=0",
    "vit:",
    "vit:patch",
    "vit:patch=16,patch=8",
    "vit:dim=25,heads=2",
    "vit:patch=-16",
    "vit:patch=1e1",
    "vit:size=15",
    "vit:depth=99999999999999999999",
)


@dataclass(frozen=True)
class Ending:
    """What became of one name.

    Attributes:
        name: Of the backbone.
        family: Module of timm, or what kind of name it is.
        method: That was given it.
        end: "trained", "refused" or "crashed".
        said: The refusal, or what went wrong.
    """

    name: str
    family: str
    method: str
    end: str
    said: str = ""


def parameters(name: str) -> int:
    """Parameters of a network, without making it."""
    with torch.device("meta"):
        return sum(param.numel() for param in timm.create_model(name, num_classes=0).parameters())


def kind(name: str) -> str:
    """A ViT's name without its size in numbers and letters: those alike differ in nothing else."""
    sizes = "tiny|xsmall|small|base|large|huge|giant|gigantic|enormous|medium|mediumd|little|dlittle|betwixt"
    sizes = rf"_({sizes}|d?p?wee|so\w+|xp|s|m|l|e|d\d+ep)(?=_|$)"
    return re.sub(r"\d+", "", re.sub(sizes, "", name))


def plain_names(most: int) -> Iterator[tuple[str, str]]:
    """Names and modules: the two smallest of every kind of ViT in the modules that hold plain ones."""
    for module in PLAIN:
        kinds: dict[str, list[tuple[int, str]]] = {}
        for name in timm.list_models(module=module):
            try:
                kinds.setdefault(kind(name), []).append((parameters(name), name))
            except Exception:  # it cannot be made without its numbers, so it is tried as it is
                kinds.setdefault(name, []).append((0, name))
        for found in kinds.values():
            yield from ((name, module) for count, name in sorted(found)[:2] if count <= most)


def other_names() -> Iterator[tuple[str, str]]:
    """One network of every other module of timm."""
    for module in sorted(timm.list_modules()):
        names = [] if module in PLAIN else timm.list_models(module=module)
        if names:
            yield min(names, key=lambda name: (len(name), name)), module


def names(most: int) -> list[tuple[str, str]]:
    """All names that are tried, with their families.

    Args:
        most: Parameters of the largest ViT.
    """
    made = [(name, "mistyped") for name in MISTYPED] + [(shape, "vit:") for shape in SHAPES]
    return [*plain_names(most), *other_names(), *made]


def train(method: Method) -> None:
    """One update of everything the method wants to learn, on noise.

    Raises:
        ArithmeticError: The loss or a weight is no number, or no weight changed.
    """
    inner = getattr(method, "backbone", None) or getattr(method, "encoder", None)
    side = 4 * int(getattr(inner, "patch_size", 16))
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    plan = method.optim_plan(10)
    optimizer = build_optimizer(plan)
    rates = set_rates(optimizer, plan, 5)
    loss = method.train()(Batch(torch.rand(2, 3, side, side), tags, ("a", "b")), 0).loss
    loss.backward()
    learning = [(param, param.detach().clone()) for param in method.parameters() if param.grad is not None]
    optimizer.step()
    if not loss.isfinite() or not all(p.isfinite().all() for p in method.parameters()):
        raise ArithmeticError(f"loss {float(loss)}, or weights that are no numbers")
    if max(rates) > 0 and all(torch.equal(before, param) for param, before in learning):
        raise ArithmeticError("the update changed nothing")


def ending(name: str, family: str, method: str) -> Ending:
    """What one method does with one name."""
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(create_method(method, 3, backbone=name, weights="none"))
    except UserError as error:
        text = str(error)
        # One line that says something: a refusal of several, or an empty one, counts as a crash.
        return Ending(name, family, method, "refused" if text and "\n" not in text else "crashed", text)
    except Exception as error:  # what is looked for
        return Ending(name, family, method, "crashed", f"{type(error).__name__}: {error}"[:300])
    finally:
        gc.collect()
    return Ending(name, family, method, "trained")


def table(endings: list[Ending]) -> dict[str, dict[str, int]]:
    """How many names of every family ended how; modules without plain ViTs in one row."""
    rows = [one.family if one.family in (*PLAIN, "mistyped", "vit:") else "other modules" for one in endings]
    counts = Counter(zip(rows, (one.end for one in endings), strict=True))
    ends = ("trained", "refused", "crashed")
    return {row: {end: counts[row, end] for end in ends} for row in dict.fromkeys(rows)}


def main() -> int:
    """Command line; 1 if a name crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="result as JSON")
    parser.add_argument("--most", type=float, default=100, help="millions of parameters of a ViT")
    parser.add_argument("--only", default="", help="names that hold this text")
    given = parser.parse_args()
    began, endings = time.monotonic(), []
    wanted = [pair for pair in names(int(given.most * 1e6)) if given.only in pair[0]]
    for (name, family), method in zip(wanted, itertools.cycle(METHODS), strict=False):
        endings.append(ending(name, family, method))
        print(f"{endings[-1].end:8} {method:10} {name!r} {endings[-1].said}", flush=True)
    rows = table(endings)
    print(f"\n{'':24} {'trained':>8} {'refused':>8} {'crashed':>8}")
    for row, counts in rows.items():
        print(f"{row:24} {counts['trained']:>8} {counts['refused']:>8} {counts['crashed']:>8}")
    if given.out:
        record = {
            "command": "python tools/sweep_backbones.py --out benchmarks/results/backbones.json",
            "machine": f"{os.cpu_count()}-core CPU, PyTorch {torch.__version__.partition('+')[0]}, "
            f"timm {timm.__version__}",
            "seed": 0,
            "names": len(endings),
            "seconds": round(time.monotonic() - began),
            "table": rows,
            "endings": [asdict(one) for one in endings],
        }
        given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return int(any(one.end == "crashed" for one in endings))


if __name__ == "__main__":
    raise SystemExit(main())
