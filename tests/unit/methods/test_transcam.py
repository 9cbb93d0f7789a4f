from __future__ import annotations

import pytest
import torch

from tagmask.methods import get
from tagmask.methods.transcam import TransCAM, TransCAMConfig, spread
from tagmask.types import Batch

SMALL = "conformer:dim=24,depth=3,heads=2,ratio=1,base=8"


def make(**settings):
    torch.manual_seed(0)
    return TransCAM(TransCAMConfig(**{"backbone": SMALL, "drop_path": 0.0, **settings}), 3)


def test_one_loss_on_the_sum_without_the_background_channel():
    assert get("transcam") is TransCAM
    method = make().train()
    images, tags = torch.rand(2, 3, 64, 64), torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    result = method(Batch(images, tags, ("a", "b")), 0)
    result.loss.backward()
    assert method.conv_cls_head.bias.grad[0] == 0
    assert method.conv_cls_head.bias.grad[1:].ne(0).all()
    idle = [name for name, p in method.named_parameters() if p.grad is None]
    assert idle == []
    plan = method.optim_plan(10)
    assert [plan.factor(step) for step in (0, 5, 9)] == [1.0] * 3
    assert len(plan.groups[0].params) == len(list(method.parameters()))


def test_attention_moves_maps_in_the_stated_direction():
    maps = torch.zeros(1, 1, 1, 3)
    maps[0, 0, 0, 2] = 1
    attention = torch.zeros(1, 4, 4)
    attention[0, 1, 3] = 0.5  # the first patch attends to the third
    attention[0, 0, 3] = 0.25  # so does the class token
    assert spread(maps, attention, "transcam")[0, 0, 0].tolist() == [0.5, 0, 0]
    assert spread(maps, attention, "attnagg")[0, 0, 0].tolist() == [0, 0, 0]
    assert spread(maps, attention, "clsattn")[0, 0, 0].tolist() == [0, 0, 0.25]
    with pytest.raises(ValueError, match="'transcam', 'attnagg' or 'clsattn'"):
        spread(maps, attention, "convcam")


@pytest.mark.parametrize("rule", ["transcam", "convcam", "clsattn", "attnagg"])
def test_views_are_squares_and_maps_have_the_images_size(rule):
    method = make(cam=rule, base=32, scales=(0.5, 1.0)).eval()
    seen = []
    original = method.backbone.forward
    method.backbone.forward = lambda images, **kw: seen.append(tuple(images.shape)) or original(images, **kw)
    maps = method.maps(torch.rand(1, 3, 40, 72))["cam"]
    assert maps.shape == (1, 3, 40, 72)
    assert seen == [(2, 3, 16, 16), (2, 3, 32, 32)]
    assert maps.max() <= 1


def test_without_a_base_images_keep_their_shape():
    method = make(base=None, scales=(1.0,)).eval()
    assert method.maps(torch.rand(1, 3, 40, 72))["cam"].shape == (1, 3, 40, 72)


def test_published_names():
    method = make()
    published = {key.removeprefix("backbone."): value for key, value in method.state_dict().items()}
    assert method.convert_weights(published).keys() == method.state_dict().keys()
