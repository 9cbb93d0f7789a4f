"""Small networks of every method, and their graphs."""

from __future__ import annotations

import functools
from typing import Any

import torch

from tagmask.backbones import register_backbone
from tagmask.backbones.mit import MixTransformer
from tagmask.backbones.resnet38 import ResNet38
from tagmask.data import ClassTable
from tagmask.export.module import TakeAway
from tagmask.export.write import _traced
from tagmask.models.trained import Trained, build_method
from tests.contract.test_methods import TINY, VIT, tiny_beit

CLASSES = ClassTable(("cat", "dog", "sofa"))
SHORT_BEIT = "tiny_beit_of_one_block"
register_backbone(SHORT_BEIT)(functools.partial(tiny_beit, depth=1))

# A graph grows with every block, and blocks are alike: two of them say what four do. One does where a case is
# about what comes after them.
VIT = VIT.replace("depth=4", "depth=2")
SHORT_VIT = VIT.replace("depth=2", "depth=1")
MORE = {**TINY["more"], "backbone": TINY["more"]["backbone"].replace("depth=3", "depth=2"), "aux_block": -2}
ONE = {**MORE, "backbone": MORE["backbone"].replace("depth=2", "depth=1"), "aux_block": -1}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    name: (
        name,
        {**values, **({"backbone": VIT} if str(values.get("backbone")).startswith("vit:patch=16") else {})},
    )
    for name, values in ({**TINY, "more": MORE}).items()
    if name != "affinity_net"
}
CASES |= {
    "aream on Conformer": ("aream", {"backbone": "conformer:dim=24,depth=3,heads=2,ratio=1,base=8"}),
    "mctformer plus": ("mctformer", {"backbone": SHORT_VIT, "input_size": 64, "version": "plus"}),
    "more on BEiT, top": ("more", {**ONE, "backbone": SHORT_BEIT, "pooling": "top", "aux_pooling": "lse"}),
    "segmenter on a ViT": ("segmenter", {"backbone": SHORT_VIT}),
    "segmenter with a mask transformer": (
        "segmenter",
        {"backbone": f"mask:{SHORT_VIT}", "position_size": 64},
    ),
}
SIZES = ((64, 64), (96, 64), (75, 130), (200, 71))


def trained(case):
    name, values = CASES[case]
    torch.manual_seed(0)
    method = build_method(name, values, 3).eval()
    shorten(method)
    # Fresh position tables and class tokens are zero and fresh maps almost flat: nothing would be compared.
    with torch.no_grad():
        for param in method.parameters():
            param.add_(torch.randn_like(param), alpha=0.1)
    if "conformer" in str(values.get("backbone")):
        sharpen(method)
    return Trained(method, name, CLASSES, "0" * 64, {})


def shorten(method):
    """Leave the first block of every stage: those after it are alike, too."""
    for part in list(method.modules()):
        if isinstance(part, MixTransformer):
            for stage in range(1, 5):
                del part.get_submodule(f"block{stage}")[1:]
        elif isinstance(part, ResNet38):
            for name in [name for name, _ in part.named_children() if "_" in name]:
                delattr(part, name)


@functools.cache
def traced(case):
    """The graph of a case: tracing takes long, and both formats and several tests are written from one."""
    return _traced(TakeAway(trained(case).method, None, 0.5).eval())


@torch.no_grad()
def sharpen(method):
    """Make a Conformer's attention look at some places more than at others.

    With random weights it is almost even, and averages class maps of values around 40 until their range is
    0.2. Scaling that range to [0, 1] multiplies the rounding errors of single precision by 200: eager
    PyTorch is 4e-5 away from double precision then, and two libraries up to 1e-4 from one another. With
    this it is 2e-6, as with every other network here.
    """
    for name, weight in method.named_parameters():
        if name.endswith("attn.qkv.weight"):
            queries_and_keys, _ = weight.tensor_split([weight.shape[0] // 3 * 2])
            queries_and_keys.mul_(4)
