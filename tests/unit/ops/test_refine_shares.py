from __future__ import annotations

import torch

from tagmask.ops.labels import refine_shares


def _identity(images, maps):
    return maps


def _shares(values):
    """(background, class) planes of one strength each, 8 x 8, for as many images as rows."""
    return torch.tensor(values)[:, :, None, None].expand(-1, -1, 8, 8)


def test_both_planes_decide():
    # Three images: foreground in both, background in both, and a disagreement.
    high = _shares([[0.3, 0.7], [0.7, 0.3], [0.6, 0.4]])
    low = _shares([[0.1, 0.9], [0.6, 0.4], [0.4, 0.6]])
    keys = torch.tensor([[4], [1], [0]])
    labels = refine_shares(torch.rand(3, 3, 8, 8), torch.stack([high, low]), keys, _identity)
    assert [row.unique().tolist() for row in labels] == [[5], [0], [255]]


def test_boxes_hide_what_is_outside_and_are_clipped():
    seen = []

    def refine(images, maps):
        seen.append(tuple(images.shape))
        return maps

    shares = _shares([[0.1, 0.9], [0.1, 0.9], [0.1, 0.9]]).repeat(2, 1, 1, 1, 1)
    boxes = torch.tensor([[2, 30, -4, 6], [0, 8, 0, 8], [2, 8, 0, 6]])
    keys = torch.zeros(3, 1, dtype=torch.int64)
    labels = refine_shares(torch.rand(3, 3, 8, 8), shares, keys, refine, boxes)
    # Images 0 and 2 share a box once it is clipped, and so share a call.
    assert sorted(seen) == [(1, 3, 4, 4), (2, 3, 3, 3)]
    assert (labels[0, 2:, :6] == 1).all()
    assert (labels[0] == 1).sum() == 36
    assert (labels[1] == 1).all()
    assert torch.equal(labels[0], labels[2])
