"""Class maps of images whose sides are no whole patches lie where those of images padded by hand do."""

from __future__ import annotations

import pytest
import torch

from tagmask import methods
from tagmask.config import validate
from tagmask.engine.compute import Compute
from tagmask.inference.views import MapConfig, image_maps
from tagmask.types import MEAN_COLOUR
from tests.contract.test_methods import TINY

VIT = "vit:patch=16,dim=32,depth=4,heads=2,size=96"
CASES = {
    "aream": {},
    "mctformer v1": {"version": "v1"},
    "mctformer v2": {"version": "v2"},
    "mctformer plus": {"version": "plus"},
    "more": {"aux_block": -2},
    "weaktr": {},
}
SIDES = (95, 87, 47)
PATCH = 16
CPU = Compute.choose("cpu")
PLAIN = MapConfig(scales=(1.0,), flip="none")


def make(case):
    name = case.partition(" ")[0]
    torch.manual_seed(0)
    kind = methods.get(name)
    settings = TINY[name] | CASES[case] | {"backbone": VIT}
    if name == "mctformer":
        settings["input_size"] = 96
    return kind(validate(kind.config_class, settings), 3).eval()


def picture(side):
    """Large blots, so that what is a few pixels off shows."""
    torch.manual_seed(side)
    coarse = torch.rand(1, 3, 5, 5)
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")


def by_hand(image):
    """In the corner of a canvas of the mean colour that holds whole patches."""
    whole = -(-image.shape[3] // PATCH) * PATCH
    canvas = torch.tensor(MEAN_COLOUR)[None, :, None, None].expand(1, 3, whole, whole).clone()
    canvas[..., : image.shape[2], : image.shape[3]] = image
    return canvas


def alike(ours, theirs):
    """Least correlation of two maps of one class; scale and offset of each say nothing."""
    pairs = zip(ours.flatten(0, 1).flatten(1), theirs.flatten(0, 1).flatten(1), strict=True)
    return min(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("case", CASES)
def test_maps_lie_where_those_padded_by_hand_do(case, side):
    method, image = make(case), picture(side)
    for kind in method.map_kinds:
        config = PLAIN.model_copy(update={"kinds": (kind,)})
        ours = image_maps(method, image, CPU, config)[kind]
        theirs = image_maps(method, by_hand(image), CPU, config)[kind][..., :side, :side]
        assert ours.shape == (1, 3, side, side)
        assert ours.std((2, 3)).min() > 0.01, "a map without shape proves nothing"
        assert alike(ours, theirs) > 0.9999
        cut = image_maps(method, image, CPU, config.model_copy(update={"border": "stretch"}))[kind]
        # AReAM's own views are padded, whatever the setting says; elsewhere stretched maps lie wrong.
        assert case == "aream" or alike(cut, theirs) < 0.9
