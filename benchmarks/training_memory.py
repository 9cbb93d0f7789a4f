"""What a training update of a recipe must hold in memory, counted: ``python benchmarks/training_memory.py``.

No GPU is needed. The forward pass of one update runs on the CPU with random weights, and every tensor that
PyTorch keeps for the gradient is counted once. Weights, gradients and the optimiser's two averages are added.
Workspaces, fragmentation, the CUDA context and the maps made without gradients are not counted, so a GPU
needs more: the sum says which cards are too small.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tagmask.models.trained import build_method
from tagmask.pipeline.config import read_config
from tagmask.types import Batch

RECIPES = {"voc/more": 20, "voc/afa": 20}
GIB = 2**30


def update_bytes(recipe: str, classes: int, images: int, checkpointing: bool) -> dict[str, Any]:
    """Parameters, and bytes of every kind, of the last update's forward pass.

    Args:
        recipe: Name of a recipe.
        classes: K.
        images: Images in one micro-batch.
        checkpointing: Whether blocks keep their inputs only.
    """
    config = read_config(recipe)
    torch.manual_seed(0)
    method = build_method(config.method, dict(config.model) | {"weights": "none"}, classes).train()
    for module in method.modules():
        if checkpointing and hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = True
    side = config.train.size
    tags = torch.zeros(images, classes)
    tags[:, :2] = 1
    batch = Batch(torch.rand(images, 3, side, side), tags, tuple(map(str, range(images))))
    kept: dict[tuple[int, int], int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault((storage.data_ptr(), storage.nbytes()), storage.nbytes())
        return tensor

    own = {p.untyped_storage().data_ptr() for p in method.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        result = method(batch, config.train.iterations - 1)
    saved = sum(size for (place, _), size in kept.items() if place not in own)
    del result
    parameters = sum(p.numel() for p in method.parameters())
    learning = sum(p.numel() for p in method.parameters() if p.requires_grad)
    fixed = 4 * parameters + 12 * learning
    return {
        "recipe": recipe,
        "images": images,
        "size": side,
        "gradient_checkpointing": checkpointing,
        "parameters_millions": round(parameters / 1e6, 1),
        "weights_gradients_optimiser_gib": round(fixed / GIB, 2),
        "kept_for_the_gradient_gib": round(saved / GIB, 2),
        "sum_gib": round((fixed + saved) / GIB, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "training_memory.json"
    )
    args = parser.parse_args()
    rows = []
    for recipe, classes in RECIPES.items():
        whole = read_config(recipe).train.batch_size
        for images, checkpointing in ((whole, False), (whole // 2, False), (whole // 2, True)):
            rows.append(update_bytes(recipe, classes, images, checkpointing))
            print(*rows[-1].values(), flush=True)
    record = {
        "task": "memory of one training update, counted on a CPU with random weights; no GPU has run it",
        "command": "python benchmarks/training_memory.py",
        "machine": f"CPU, {platform.machine()}; the counts do not depend on it",
        "precision": "fp32",
        "seed": 0,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "rows": rows,
    }
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
