"""Old paths of documented modules work for two minor versions, and say so."""

from __future__ import annotations

import importlib

import pytest

MOVED = {
    "tagmask.data.scenes": ("tagmask.data.datasets.scenes", "write_dataset"),
    "tagmask.data.masks": ("tagmask.data.readers.masks", "mask_values"),
    "tagmask.data.opencv": ("tagmask.data.transforms.opencv", "resize_linear"),
}


@pytest.mark.parametrize("old", sorted(MOVED))
def test_names_of_a_moved_module_are_those_of_its_new_place(old):
    new, name = MOVED[old]
    module = importlib.import_module(old)
    with pytest.warns(FutureWarning, match=rf"{name} is now {new}\.{name}; .* until tagmask 0\.4"):
        found = getattr(module, name)
    assert found is getattr(importlib.import_module(new), name)
    assert not hasattr(module, "nothing_of_that_name")
