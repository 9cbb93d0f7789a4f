from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.data.transforms.affinity_crop import confident_labels
from tagmask.data.transforms.base import make_view
from tagmask.data.transforms.imagenet import _OPERATIONS, Change, ImageNetDraw
from tagmask.data.transforms.long_side_crop import Place, draw_place
from tagmask.errors import ConfigError
from tagmask.types import MEAN_COLOUR

IMAGE = np.random.default_rng(0).integers(1, 256, (50, 70, 3), np.uint8)
LABEL = (np.arange(50 * 70).reshape(50, 70) % 21).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "outside", "settings"),
    [
        ("long_side_crop", 255, {"long_side": [30, 90]}),
        ("affinity_crop", 255, {}),
        ("batch_scale_crop", 0, {}),
        ("batch_scale_crop", 255, {"padding_label": 255}),
    ],
)
def test_padding_has_its_colour_and_its_label(name, outside, settings):
    view = make_view(name, 56, **settings)
    for seed in range(20):
        first, again = (
            view(image, np.random.default_rng(seed), LABEL) for image in (IMAGE, Image.fromarray(IMAGE))
        )
        assert torch.equal(first.image, again.image)
        assert torch.equal(first.label, again.label)
        top, bottom, left, right = first.box.tolist()
        inside = torch.zeros(56, 56, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert (first.label[~inside] == outside).all()
        padding = first.image[:, ~inside].float()
        colour = 0.0 if name == "affinity_crop" else torch.tensor(MEAN_COLOUR)[:, None]
        assert (padding == colour).all()
        assert first.image[:, inside].float().mean(1).gt(0).all()


def test_image_and_label_of_an_affinity_crop_stay_together():
    view = make_view("affinity_crop", 48, jitter=0.0)
    coded = np.stack([LABEL] * 3, 2) * 3
    for seed in range(10):
        made = view(coded, np.random.default_rng(seed), LABEL)
        top, bottom, left, right = made.box.tolist()
        assert torch.equal(
            (made.image[0, top:bottom, left:right] * 255).round().long(),
            3 * made.label[top:bottom, left:right],
        )


def test_one_scale_serves_a_whole_batch():
    view = make_view("batch_scale_crop", 32)
    bound = view.for_batch(np.random.default_rng(5))
    scales = {bound.draw((50, 70), np.random.default_rng(seed)).scale for seed in range(10)}
    assert len(scales) == 1
    assert 0.7 <= scales.pop() <= 1.3
    assert len({view.draw((50, 70), np.random.default_rng(seed)).scale for seed in range(10)}) == 10


def test_places_cover_every_offset_evenly():
    rng = np.random.default_rng(0)
    larger = Counter(draw_place(13, 10, rng) for _ in range(4000))
    smaller = Counter(draw_place(8, 10, rng) for _ in range(3000))
    assert set(larger) == {Place(0, k) for k in range(4)}
    assert set(smaller) == {Place(k, 0) for k in range(3)}
    assert min(larger.values()) > 850
    assert draw_place(10, 10, rng) == Place(0, 0)


def test_confident_labels_trust_each_volume_where_it_is_careful():
    strong = np.zeros((3, 8, 32), np.float32)
    weak = np.zeros((3, 8, 32), np.float32)
    for cell, (low, high) in enumerate(
        [((0.2, 0.9, 0), (0, 1, 0)), ((0.9, 0.1, 0), (0.9, 0.5, 0)), ((0.9, 0, 0.5), (0.1, 0, 0.7))]
    ):
        strong[:, :, 8 * cell : 8 * cell + 8] = np.reshape(low, (3, 1, 1))
        weak[:, :, 8 * cell : 8 * cell + 8] = np.reshape(high, (3, 1, 1))
    # foreground in both; background in both; background only where it is strong; nothing at all
    np.testing.assert_array_equal(confident_labels(strong, weak), [[1, 0, 255, 255]])


def test_imagenet_views_differ_and_repeat():
    view = make_view("imagenet", 32)
    made = [view(IMAGE, np.random.default_rng(seed)) for seed in range(12)]
    again = [view(IMAGE, np.random.default_rng(seed)) for seed in range(12)]
    assert all(torch.equal(a.image, b.image) for a, b in zip(made, again, strict=True))
    # Noise lies between grey levels, pixels of the picture do not.
    erased = [bool(((view.image * 255) % 1 - 0.5).abs().lt(0.4).any()) for view in made]
    assert any(erased)
    assert not all(erased)
    with pytest.raises(ConfigError, match="classification"):
        view(IMAGE, np.random.default_rng(0), LABEL)


@pytest.mark.parametrize("name", sorted(_OPERATIONS))
def test_every_operation_keeps_the_size_and_does_something(name):
    levels = np.random.default_rng(0).integers(20, 200, (32, 32, 3), np.uint8)
    changed = _OPERATIONS[name](Image.fromarray(levels), Change(name, 9.0, -1))
    assert changed.size == (32, 32)
    assert np.any(np.asarray(changed) != levels)


def test_stronger_is_farther():
    view = make_view("imagenet", 32, erase=0.0)
    crop = view.draw((50, 70), np.random.default_rng(0))

    def distance(strength):
        plain, changed = (
            view.apply_all(IMAGE, ImageNetDraw(crop, changes)).image.float()
            for changes in ((), (Change("brightness", strength),))
        )
        return (plain - changed).abs().mean()

    assert distance(0) == 0
    assert distance(3) < distance(9)


@pytest.mark.parametrize(
    ("name", "settings", "match"),
    [
        ("affinity_crop", {"size": 50}, "multiple"),
        ("long_side_crop", {"long_side": (9, 3)}, "smallest"),
        ("batch_scale_crop", {"padding_label": 7}, "0 .background. or 255"),
        ("imagenet", {"strength": 11}, "strength 0 to 10"),
        ("scale_crop", {"resample": "cubic"}, "bilinear or bicubic"),
    ],
)
def test_bad_settings_are_refused(name, settings, match):
    values = {"size": 48, **settings}
    with pytest.raises(ConfigError, match=match):
        make_view(name, values.pop("size"), **values)
