"""Every training view, through the loader: a photograph's mean, deviation and range arrive as they were."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.data import open_dataset
from tagmask.data.loader import train_batches
from tagmask.data.transforms.base import _VIEWS, make_view
from tests.seams.pictures import LIGHTS, figures, grey_levels, photograph, stripes, tied, write_folder

SQUARE, WIDE = (64, 64), (48, 64)
# Nothing random but the place on the canvas and the mirror: the view shows the whole photograph.
STILL = {
    "resized_crop": {"scale": (1, 1), "ratio": (1, 1), "jitter": 0},
    "scale_pad_crop": {"scale": (1, 1), "jitter": 0},
    "scale_crop": {"scale": (1, 1)},
    "long_side_crop": {"long_side": (64, 64), "jitter": 0},
    "affinity_crop": {"jitter": 0},
    "batch_scale_crop": {"scale": (1, 1)},
    "short_side_crop": {"scale": (1, 1), "short_side": 48, "jitter": 0},
    "imagenet": {"scale": (1, 1), "ratio": (1, 1), "operations": 0, "erase": 0},
}
# Everything that moves pixels as published, nothing that changes colours.
MOVING = {
    "resized_crop": {"jitter": 0},
    "scale_pad_crop": {"jitter": 0},
    "scale_crop": {"scale": (0.5, 2.0)},
    "long_side_crop": {"long_side": (40, 90), "jitter": 0},
    "affinity_crop": {"jitter": 0, "size": 32},
    "batch_scale_crop": {"scale": (0.7, 1.3)},
    "short_side_crop": {"scale": (0.5, 2.0), "jitter": 0},
    "imagenet": {"operations": 0, "erase": 0},
}
PADDING = {"scale_pad_crop": 0, "scale_crop": 0, "affinity_crop": 0}  # the others: the mean colour
MEAN_COLOUR = (123.675, 116.28, 103.53)
CROPS = ("resized_crop", "imagenet")


def through_loader(root, name, settings, count, batch_size=2, labels=None, seed=0):
    """{light: [(image (S, S, 3) in grey levels, box, label)]} of the first `count` batches."""
    settings = dict(settings)
    view = make_view(name, settings.pop("size", 64), **settings)
    batches = train_batches(open_dataset(root, "folder"), view, batch_size, seed, labels=labels)
    found = {light: [] for light in LIGHTS}
    for batch in islice(batches, count):
        boxes = batch.boxes
        if boxes is None:
            boxes = torch.tensor([[0, batch.images.shape[2], 0, batch.images.shape[3]]] * len(batch.names))
        for i, light in enumerate(batch.names):
            label = None if batch.labels is None else batch.labels[i].numpy()
            found[light].append((grey_levels(batch.images[i]), boxes[i].tolist(), label))
    return found


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    made = {size: tmp_path_factory.mktemp("photographs") for size in (SQUARE, WIDE)}
    for size, root in made.items():
        write_folder(root, size)
    return made


def test_every_view_is_in_this_suite():
    assert set(STILL) == set(MOVING) == set(_VIEWS)


@pytest.mark.parametrize("name", sorted(STILL))
def test_the_whole_photograph_keeps_mean_deviation_and_range(roots, name):
    # On a larger canvas the photograph has padding on every side.
    size, settings = (SQUARE, STILL[name]) if name in CROPS else (WIDE, STILL[name] | {"size": 96})
    for light, views in through_loader(roots[size], name, settings, 4).items():
        reference = figures(photograph(light, size).reshape(-1, 3).astype(np.float64))
        for image, (top, bottom, left, right), _ in views:
            assert (bottom - top, right - left) == size
            inside = image[top:bottom, left:right]
            assert np.abs(figures(inside.reshape(-1, 3)) - reference).max() <= 2
            assert tied(inside, light).all()
            outside = np.ones(image.shape[:2], bool)
            outside[top:bottom, left:right] = False
            if outside.any():
                assert np.abs(image[outside] - PADDING.get(name, MEAN_COLOUR)).max() <= 0.01


@pytest.mark.parametrize("name", sorted(MOVING))
def test_cut_resized_and_mirrored_photographs_keep_their_colours(roots, name):
    mirrored = set()
    for light, views in through_loader(roots[WIDE], name, MOVING[name], 12).items():
        for image, (top, bottom, left, right), _ in views:
            inside = image[top:bottom, left:right]
            assert tied(inside, light).all()
            mirrored.add(bool(inside[:, 0, 0].mean() > inside[:, -1, 0].mean()))
            # Green says how far down a pixel lies: never upside down, and rows are not columns.
            down = np.sign(LIGHTS[light][3]) * (inside[-1, :, 1].mean() - inside[0, :, 1].mean())
            assert down > 0
            assert inside[..., 1].std(1).max() < 2
    assert mirrored == {True, False}


@pytest.mark.parametrize("name", sorted(set(STILL) - {"imagenet"}))
def test_labels_move_with_their_photograph_and_keep_their_numbers(roots, name, tmp_path):
    size = (48, 64)
    for light in LIGHTS:
        Image.fromarray(stripes(light, size)).save(tmp_path / f"{light}.png")
    seen = set()
    for light, views in through_loader(roots[WIDE], name, MOVING[name], 8, labels=tmp_path).items():
        red, to_right = LIGHTS[light][:2]
        for image, (top, bottom, left, right), label in views:
            inside, own = image[top:bottom, left:right], label[top:bottom, left:right]
            place = (inside[..., 0] - red) / to_right * 4
            sure = np.abs(place - place.round()) > 0.25
            expected = np.array([0, 1, 3, 255])[np.clip(place.astype(int), 0, 3)]
            assert sure.mean() > 0.3
            assert (own == expected)[sure].all()
            seen |= set(np.unique(own).tolist())
            outside = np.ones(label.shape, bool)
            outside[top:bottom, left:right] = False
            assert set(np.unique(label[outside]).tolist()) <= {0 if name == "batch_scale_crop" else 255}
    assert seen == {0, 1, 3, 255}


@pytest.mark.parametrize("name", sorted(STILL))
def test_published_augmentation_keeps_photographs_apart_and_in_range(roots, name):
    """Colour changes move single views, not their average: bright stays bright, dark stays dark."""
    small = {"long_side_crop": {"long_side": (40, 90)}, "affinity_crop": {"size": 32}}
    for light, views in through_loader(roots[WIDE], name, small.get(name, {}), 60).items():
        means = [image[top:bottom, left:right].mean() for image, (top, bottom, left, right), _ in views]
        own = photograph(light, WIDE).mean()
        # Inverting, equalising and erasing pull the views of imagenet towards the middle.
        assert abs(np.median(means) - own) <= (40 if name == "imagenet" else 20)
        if name != "imagenet":  # its noise leaves the range on purpose
            assert min(image.min() for image, *_ in views) >= 0
            assert max(image.max() for image, *_ in views) <= 255.001


def test_one_scale_for_a_batch_and_another_for_the_next(roots):
    view = make_view("batch_scale_crop", 96)
    batches = list(islice(train_batches(open_dataset(roots[WIDE], "folder"), view, 4, seed=3), 8))
    sides = [{tuple(box) for box in batch.boxes[:, [1, 3]].tolist()} for batch in batches]
    assert all(len(found) == 1 for found in sides)
    heights = [bottom for ((bottom, _),) in sides]
    assert len(set(heights)) >= 5
    assert min(heights) >= int(0.7 * 48)
    assert max(heights) <= 1.3 * 48
    assert max(heights) - min(heights) >= 10


def test_shrunk_pictures_and_their_labels_stay_together(tmp_path):
    write_folder(tmp_path, (96, 128))
    view = make_view("affinity_crop", 64, jitter=0)
    batches = train_batches(
        open_dataset(tmp_path, "folder"), view, 2, 0, labels=tmp_path / "masks", max_side=64
    )
    for batch in islice(batches, 3):
        for i, light in enumerate(batch.names):
            top, bottom, left, right = batch.boxes[i].tolist()
            assert (bottom - top, right - left) == (48, 64)
            inside = grey_levels(batch.images[i])[top:bottom, left:right]
            assert tied(inside, light).all()
            place = (inside[..., 0] - LIGHTS[light][0]) / LIGHTS[light][1] * 4
            sure = np.abs(place - place.round()) > 0.25
            expected = np.array([0, 1, 3, 255])[np.clip(place.astype(int), 0, 3)]
            assert (batch.labels[i].numpy()[top:bottom, left:right] == expected)[sure].all()
