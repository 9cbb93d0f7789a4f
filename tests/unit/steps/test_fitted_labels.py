"""Labels cut at a fitted threshold decide every pixel."""

from __future__ import annotations

import pytest
import torch

from tagmask.steps.cuts import Cut
from tagmask.steps.refine import (
    _COMPARED,
    RefineConfig,
    _at_its_size,
    _fitted,
    _sized_alike,
    image_labels,
    labels_of_fit,
)


@pytest.mark.parametrize("method", ["par", "none"])
@pytest.mark.parametrize("threshold", [0.4, 0.0])
def test_no_pixel_stays_undecided(method, threshold):
    cut = Cut("cam", threshold, 0.2, 5, {"cam": (threshold, 0.2)})
    config = _fitted(RefineConfig(fit=True, method=method), cut)
    ramp = (
        torch.linspace(0.05, 1, 20).expand(1, 2, 20, 20).clone()
    )  # one map grows to the right, one downwards
    ramp[:, 1] = ramp[0, 0].T
    labels = image_labels(torch.rand(1, 3, 20, 20), ramp, torch.tensor([[0, 2]]), config)
    assert set(labels.unique().tolist()) == ({0, 1, 3} if threshold else {1, 3})
    assert config.maps == "cam"
    if config.method == "none" and threshold:
        assert torch.equal(labels > 0, ramp.amax(1) > threshold)


def test_refined_masks_get_the_size_that_was_asked_for():
    """Coverage falls as the background rises: the plane whose masks are nearest in size is taken."""
    asked = []

    def look(way):
        asked.append(way.background)
        return 1 - way.background, 10 * way.background

    config, evidence = _sized_alike(RefineConfig(background=0.8), (0.0, 0.8), 0.7, look)
    assert config.background == pytest.approx(0.3, abs=0.8 / 2**5)
    assert evidence == pytest.approx(10 * config.background)
    assert max(asked) < 0.8


@pytest.mark.parametrize(("evidence", "shrink"), [(1.0, 2), (0.98, 2), (0.9, 4), (1.2, 2)])
def test_refinement_at_the_smaller_size_needs_more_evidence(evidence, shrink):
    def look(way):
        return 1 - way.background, evidence if way.shrink == 2 else 1.0

    config, _ = _at_its_size(RefineConfig(background=0.8, shrink=4), 0.7, look)
    assert config.shrink == shrink
    assert config.background == pytest.approx(0.3, abs=0.1)


def test_refinement_at_full_size_stays_there():
    config, _ = _at_its_size(RefineConfig(background=0.8, shrink=1), 0.7, lambda way: (0.5, 1.0))
    assert config.shrink == 1


@pytest.mark.parametrize("shrink", [1, 2, 4])
def test_a_plan_counts_the_labels_that_a_fit_tries(shrink):
    tried = []

    def look(way):
        tried.append(way.shrink)
        return 0.5, 1.0

    config = RefineConfig(background=0.8, shrink=shrink, fit=True)
    _at_its_size(config, 0.7, look)
    planned = labels_of_fit(config)
    assert [way.shrink for count, way in planned for _ in range(count // _COMPARED)] == tried
    assert labels_of_fit(config.model_copy(update={"method": "none"})) == []
