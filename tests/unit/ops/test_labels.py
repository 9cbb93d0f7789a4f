import pytest
import torch
import torch.nn.functional as F

from tagmask.ops.labels import (
    box_mask,
    labels_from_maps,
    labels_with_ignore,
    predicted_tags,
    refine_labels,
)
from tagmask.ops.maps import present_classes, take_classes
from tagmask.ops.pixel_refinement import par

TAGS = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0]])


def maps(size=(6, 8)):
    torch.manual_seed(0)
    return torch.rand(2, 4, *size)


def test_thresholds_belong_to_the_background():
    values = torch.tensor([[[[0.25, 0.26, 0.7, 0.71]]]])
    tags = torch.ones(1, 1)
    assert labels_from_maps(values, tags, 0.7).flatten().tolist() == [0, 0, 0, 1]
    assert labels_with_ignore(values, tags, 0.7, 0.25).flatten().tolist() == [0, 255, 255, 1]


def test_only_tagged_classes_win_and_an_untagged_image_is_background():
    labels = labels_from_maps(maps(), TAGS, 0.3)
    assert set(labels[0].unique().tolist()) <= {0, 1, 3}
    assert (labels[1] == 0).all()


def test_a_selection_of_channels_gives_the_same_labels():
    keys, valid = present_classes(TAGS)
    chosen = take_classes(maps(), keys)
    boxes = torch.tensor([[1, 5, 0, 7], [0, 6, 0, 8]])
    whole = labels_with_ignore(maps(), TAGS, 0.6, 0.3, boxes)
    assert torch.equal(whole, labels_with_ignore(chosen, valid, 0.6, 0.3, boxes, keys))
    torch.manual_seed(1)
    colours = torch.rand(2, 3, 6, 8)
    refined = refine_labels(colours, maps(), TAGS, 0.6, 0.3, par, boxes)
    assert torch.equal(refined, refine_labels(colours, chosen, valid, 0.6, 0.3, par, boxes, keys))
    assert (refined[0, 0] == 255).all()


def test_boxes_are_clipped_at_the_border():
    mask = box_mask(torch.tensor([[1, 3, 2, 99], [5, 5, 0, 4]]), (4, 4))
    assert mask[0].sum() == 2 * 2
    assert not mask[1].any()


def test_refinement_takes_foreground_from_the_high_plane_and_background_from_both():
    values = torch.zeros(1, 1, 4, 12)
    values[..., 4:8], values[..., 8:] = 0.5, 0.9
    labels = refine_labels(
        torch.rand(1, 3, 4, 12), values, torch.ones(1, 1), 0.7, 0.3, lambda images, planes: planes, shrink=1
    )
    assert labels[0, 0].tolist() == [0] * 4 + [255] * 4 + [1] * 4


def test_one_level_takes_one_plane_and_leaves_nothing_undecided():
    seen = []

    def spy(images, planes):
        seen.append(planes.shape[1])
        return par(images, planes)

    colours = torch.rand(2, 3, 24, 30, generator=torch.Generator().manual_seed(1))
    given = (colours, maps((24, 30)), torch.ones(2, 4))
    both, one = (refine_labels(*given, 0.6, low, spy) for low in (0.2, 0.6))
    assert seen == [10, 5]
    assert set(both.unique().tolist()) >= {1, 2, 3, 4, 255}
    # The high plane decides what is of a class, whatever the other one says.
    assert torch.equal(one, both.masked_fill(both == 255, 0))
    assert (one == 0).any()


def test_refinement_runs_at_reduced_size_on_normalised_shares():
    seen = []

    def spy(images, planes):
        seen.append((images.shape, planes))
        return planes

    refine_labels(torch.rand(2, 3, 9, 12), maps((9, 12)), TAGS, 0.7, 0.3, spy)
    shape, planes = seen[0]
    assert shape == (2, 3, 4, 6)
    torch.testing.assert_close(planes[:, :3].sum(1), torch.ones(2, 4, 6))
    assert (planes[1, 1:3] == 0).all()  # padding of the untagged image takes no share
    expected = torch.softmax(
        torch.stack(
            [torch.full((4, 6), 0.7), *F.interpolate(maps((9, 12)), (4, 6), mode="bilinear")[0, [0, 2]]]
        ),
        0,
    )
    torch.testing.assert_close(planes[0, :3], expected)


def test_tags_come_from_the_classifier_or_from_a_large_enough_part_of_the_mask():
    mask = torch.zeros(1, 4, 4, dtype=torch.int64)
    mask[0, 0, :4], mask[0, 1, :2] = 2, 3
    logits = torch.tensor([[1.0, -1, -1, -1]])
    assert predicted_tags(logits, mask, "classifier", 4).tolist() == [[1, 0, 0, 0]]
    assert predicted_tags(-logits.abs(), mask, "classifier", 4).tolist() == [[0, 1, 0, 0]]
    assert predicted_tags(logits, mask, "mask", 2).tolist() == [[0, 1, 1, 0]]
    assert predicted_tags(logits, mask * 0, "mask", 2).tolist() == [[1, 0, 0, 0]]
    with pytest.raises(ValueError, match="prefer"):
        predicted_tags(logits, mask, "both", 2)
