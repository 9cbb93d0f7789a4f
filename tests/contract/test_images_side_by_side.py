"""Images that are worked on side by side give what they give one after the other."""

from __future__ import annotations

import pytest
import torch

from tagmask import methods
from tagmask.engine.compute import Compute
from tagmask.engine.lanes import in_lanes
from tagmask.inference.given_views import GivenViews
from tagmask.inference.views import MapConfig, image_maps, image_scores
from tests.contract.test_methods import SIZE, make

LOOKING = [n for n in methods.names() if methods.get(n).map_kinds or methods.get(n).segments]


@pytest.mark.parametrize("name", LOOKING)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_maps_and_scores_of_images_side_by_side(name, precision):
    method, compute = make(name).eval(), Compute.choose("cpu", precision)
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 3, SIZE, SIZE + 16 * (n % 3), generator=generator) for n in range(8)]
    views = GivenViews().of(type(method)) if method.segments else None

    def look(image):
        found = image_maps(method, image, compute, MapConfig()) if method.map_kinds else {}
        return {**found, **({} if views is None else {"scores": image_scores(method, image, compute, views)})}

    def together(lanes):
        found = {}

        def work(job):
            found[job] = look(images[job])

        assert list(in_lanes(work, range(len(images)), lanes, lambda _: False)) == list(range(len(images)))
        return found

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone, beside = together(1), together(2)
    finally:
        torch.set_num_threads(before)
    assert any(alone.values())
    for job, maps in alone.items():
        for kind, expected in maps.items():
            assert torch.equal(beside[job][kind], expected), kind
