"""Computing blocks again instead of keeping them changes memory, not numbers."""

from __future__ import annotations

import pytest
import torch

from tagmask import methods
from tagmask.types import Batch

VIT = "vit:patch=8,dim=32,depth=3,heads=2,size=64"
CASES = {
    "more": {"backbone": VIT, "aux_block": -2, "scales": [1.0, 0.5], "seg_from": 0},
    "afa": {"backbone": "mit_b0", "tags_until": 0, "walk_after": 1, "head_width": 32},
    "mctformer": {"backbone": VIT},
    "weaktr": {"backbone": VIT, "drop_path": 0.2},
}


def gradients(name: str, checkpointing: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    kind = methods.get(name)
    method = kind(kind.config_class(weights="none", **CASES[name]), 3).train()
    able = [m for m in method.modules() if hasattr(m, "gradient_checkpointing")]
    assert able
    for module in able:
        module.gradient_checkpointing = checkpointing
    batch = Batch(torch.rand(2, 3, 64, 64), torch.tensor([[1.0, 0, 1], [0, 1, 0]]), ("a", "b"))
    torch.manual_seed(1)
    method(batch, 5).loss.backward()
    return {key: p.grad for key, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", sorted(CASES))
def test_gradients_are_equal_bit_by_bit(name):
    plain, saving = gradients(name, False), gradients(name, True)
    assert plain.keys() == saving.keys()
    assert all(plain[key].equal(saving[key]) for key in plain)


def test_a_block_keeps_less_for_the_backward_pass():
    from tagmask.backbones.vit import ViT

    def kept(checkpointing: bool) -> int:
        torch.manual_seed(0)
        vit = ViT(VIT).train()
        vit.gradient_checkpointing = checkpointing
        sizes: list[int] = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            vit(torch.rand(2, 3, 64, 64))
        return sum(sizes)

    assert kept(True) < kept(False) / 2
