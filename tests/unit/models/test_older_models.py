"""Models that version 0.1.0 saved load, and see what they saw (at a size of whole patches)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tagmask

OLDER = Path(__file__).parent / "older"


@pytest.mark.parametrize("name", ["mctformer", "more"])
def test_a_model_of_the_first_version_gives_its_mask_and_maps(name):
    model = tagmask.load(OLDER / name, device="cpu")
    assert model.classes == ("cat", "dog")
    with np.load(OLDER / f"{name}.npz") as stored:
        result = model.predict(stored["image"], tags=["cat"])
        kinds = [key.removeprefix("map_") for key in stored.files if key.startswith("map_")]
        assert sorted(result.maps) == sorted(kinds)
        for kind in kinds:
            # Stored on another processor: the commit that stored them differs by 7.2e-5 on a second one, with
            # one thread or two, with oneDNN or without. What a map means would change it by far more.
            np.testing.assert_allclose(result.maps[kind], stored[f"map_{kind}"], atol=1e-4)
        # A pixel whose two best scores are equal but for rounding may fall either way.
        assert (result.mask == stored["mask"]).mean() > 0.999
