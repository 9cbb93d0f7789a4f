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
            # The attention of these small random networks is nearly flat, so scaling it to 0..1 makes one
            # rounding step about 1.2e-4: processors differ by up to three. Other maps agree to 1e-6.
            attended = kind == "attention_cam" or name == "mctformer"
            np.testing.assert_allclose(
                result.maps[kind], stored[f"map_{kind}"], atol=5e-4 if attended else 1e-5
            )
        # A pixel whose two best scores are equal but for rounding may fall either way.
        assert (result.mask == stored["mask"]).mean() > 0.999
