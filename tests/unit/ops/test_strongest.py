"""The winner of every place."""

from __future__ import annotations

import torch

from tagmask.ops.labels import strongest


def test_it_is_the_first_of_the_largest_channels():
    scores = torch.randint(0, 3, (2, 7, 9, 11), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(strongest(scores), scores.argmax(1))
    assert torch.equal(strongest(scores[0], 0), scores[0].argmax(0))
