"""Training views that a method cannot take are a matter of settings, and the message names the right ones."""

from __future__ import annotations

import pytest

from tagmask.errors import ConfigError
from tagmask.methods import create_method

VIT = "vit:patch=16,dim=24,depth=3,heads=2,size=64"
CONFORMER = "conformer:dim=24,depth=3,heads=2,ratio=1,base=8"
CASES = [
    ("aream", {"backbone": VIT}, 100, 96),
    ("aream", {"backbone": VIT}, 33, 32),
    ("aream", {"backbone": CONFORMER}, 240, 224),
    ("aream", {"backbone": CONFORMER}, 48, 32),
    ("transcam", {"backbone": CONFORMER}, 100, 96),
    ("segmenter", {"backbone": "mask:" + VIT}, 224, 240),
    ("more", {"backbone": VIT}, 17, 32),
    ("weaktr", {"backbone": VIT}, 8, 16),
    ("mctformer", {"backbone": VIT}, 8, 16),
]


@pytest.mark.parametrize(("name", "settings", "size", "right"), CASES)
def test_a_size_that_does_not_fit_names_the_nearest_that_does(name, settings, size, right):
    method = create_method(name, 3, weights="none", **settings)
    with pytest.raises(ConfigError, match=f"train.size {size}: .*nearest size that fits is {right}"):
        method.check_size(size)
    method.check_size(right)


@pytest.mark.parametrize("size", [33, 100, 448])
def test_sizes_that_need_no_whole_patches_pass(size):
    for name in ("more", "weaktr", "mctformer"):
        create_method(name, 3, weights="none", backbone=VIT).check_size(size)
    create_method("segmenter", 3, weights="none", backbone=VIT).check_size(size)
