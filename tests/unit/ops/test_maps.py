import pytest
import torch

from tagmask.ops.maps import (
    class_maps,
    fuse,
    keep_present,
    min_max,
    present_classes,
    take_classes,
    with_background,
)


def test_class_maps_are_the_classifier_at_every_place():
    torch.manual_seed(0)
    features, weight = torch.randn(2, 5, 3, 4), torch.randn(7, 5)
    maps = class_maps(features, weight)
    torch.testing.assert_close(maps, class_maps(features, weight[:, :, None, None]))
    torch.testing.assert_close(maps[1, :, 2, 3], weight @ features[1, :, 2, 3])
    with pytest.raises(ValueError, match=r"features must be \(B, 4"):
        class_maps(features, torch.randn(7, 4))


def test_min_max_scales_each_map_alone_and_leaves_constants_at_zero():
    maps = torch.stack([torch.linspace(-3, 1, 6).view(2, 3), torch.full((2, 3), 7.0)])[None]
    scaled = min_max(maps, 1e-5)
    assert scaled[0, 0, 0, 0] == 0
    assert scaled[0, 0, 1, 2] == pytest.approx(4 / (4 + 1e-5))
    assert (scaled[0, 1] == 0).all()


def test_present_classes_are_ascending_padded_and_tell_padding_apart():
    tags = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]).float()
    keys, valid = present_classes(tags)
    assert keys[0].tolist() == [1, 3]
    assert keys[2, 0] == 2
    assert valid.tolist() == [[True, True], [False, False], [True, False]]
    assert present_classes(torch.zeros(2, 3))[0].shape == (2, 1)


def test_taken_maps_are_those_of_the_keys():
    maps = torch.arange(2 * 3 * 2 * 2).float().view(2, 3, 2, 2)
    taken = take_classes(maps, torch.tensor([[2, 0], [1, 1]]))
    assert torch.equal(taken[0], maps[0, [2, 0]])
    assert torch.equal(taken[1], maps[1, [1, 1]])


def test_absent_classes_vanish_and_fusing_needs_both():
    maps = torch.ones(1, 2, 2, 2)
    assert keep_present(maps, torch.tensor([[1, 0]])).sum() == 4
    first, second = torch.tensor([[[[0.0, 1.0, 1.0]]]]), torch.tensor([[[[1.0, 0.0, 1.0]]]])
    assert fuse(first, second)[0, 0, 0].round(decimals=3).tolist() == [0, 0, 1]


def test_background_beside_maps_is_a_level_or_a_power_of_what_they_leave():
    maps = torch.tensor([[[0.25, 0.5, 1.0]], [[0.0, 0.75, 0.2]]])
    assert torch.equal(with_background(maps, 0.3)[0], torch.full((1, 3), 0.3))
    assert torch.equal(with_background(maps, 0.3)[1:], maps)
    powered = with_background(maps, 0.3, 2.0)
    torch.testing.assert_close(powered[0], torch.tensor([[0.75**2, 0.25**2, 0.0]]))
    assert with_background(maps[:0], 0.3, 4.0).tolist() == [[[1, 1, 1]]]
