from __future__ import annotations

import torch

from tagmask.heads.segformer import SegFormerHead


def _maps():
    return [torch.rand(2, d, s, s) for d, s in ((4, 8), (6, 4), (8, 2), (10, 2))]


def test_logits_have_the_finest_grid():
    head = SegFormerHead((4, 6, 8, 10), num_channels=3, width=16)
    assert head(_maps()).shape == (2, 3, 8, 8)


def test_fuse_updates_statistics_only_while_training():
    head = SegFormerHead((4, 6, 8, 10), num_channels=3, width=16)
    with torch.no_grad():
        head.fuse(_maps())
        assert head.linear_fuse.bn.num_batches_tracked == 1
        head.eval().fuse(_maps())
    assert head.linear_fuse.bn.num_batches_tracked == 1


def test_names_and_order_follow_published_checkpoints():
    names = list(SegFormerHead((4, 6, 8, 10), 3).state_dict())
    assert names[0] == "linear_c4.proj.weight"
    assert names[6:9] == ["linear_c1.proj.weight", "linear_c1.proj.bias", "linear_fuse.conv.weight"]
    assert names[-2:] == ["linear_pred.weight", "linear_pred.bias"]


def test_every_stage_matters():
    head, maps = SegFormerHead((4, 6, 8, 10), 3, width=16).eval(), _maps()
    base = head(maps)
    for i in range(4):
        changed = [m + 1 if j == i else m for j, m in enumerate(maps)]
        assert not torch.allclose(head(changed), base)
