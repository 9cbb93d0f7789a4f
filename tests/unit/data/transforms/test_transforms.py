from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.data.transforms.base import CropDraw, PadCropDraw, make_view
from tagmask.errors import ConfigError

IMAGE = np.random.default_rng(0).integers(1, 256, (50, 70, 3), np.uint8)
LABEL = (np.arange(50 * 70).reshape(50, 70) % 21).astype(np.uint8)


def _levels(image):
    return (image.permute(1, 2, 0) * 255).round().numpy()


def _rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", ["resized_crop", "scale_pad_crop", "scale_crop"])
def test_views_are_square_deterministic_and_aligned_with_their_box(name):
    view = make_view(name, 48)
    for seed in range(30):
        first, again = view(IMAGE, _rng(seed), LABEL), view(Image.fromarray(IMAGE), _rng(seed), LABEL)
        assert first.image.shape == (3, 48, 48)
        assert first.image.dtype == torch.float32
        assert 0 <= first.image.min() <= first.image.max() <= 1
        assert torch.equal(first.image, again.image)
        assert torch.equal(first.label, again.label)
        top, bottom, left, right = first.box.tolist()
        assert 0 <= top < bottom <= 48
        assert 0 <= left < right <= 48
        inside = torch.zeros(48, 48, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert not first.image[:, ~inside].any()
        assert (first.label[~inside] == 255).all()
        assert (first.label[inside] < 21).all()


def test_resized_crop_draws_stay_inside_and_in_range():
    view = make_view("resized_crop", 32, jitter=0.0)
    for seed in range(200):
        draw = view.draw((50, 70), _rng(seed))
        assert draw.top >= 0
        assert draw.left >= 0
        assert draw.top + draw.height <= 50
        assert draw.left + draw.width <= 70
        assert 0.3 <= draw.height * draw.width / 3500 <= 1
        assert 0.7 <= draw.width / draw.height <= 1.4


def test_a_picture_no_crop_fits_gets_its_centre():
    draw = make_view("resized_crop", 32).draw((10, 400), _rng())
    assert (draw.top, draw.left, draw.height, draw.width) == (0, 193, 10, 13)


def test_whole_crop_without_changes_is_the_picture():
    view = make_view("resized_crop", 50)
    square = IMAGE[:, :50]
    result = view.apply(square, CropDraw(0, 0, 50, 50), LABEL[:, :50])
    np.testing.assert_array_equal(_levels(result.image), square)
    np.testing.assert_array_equal(result.label.numpy(), LABEL[:, :50])
    mirrored = view.apply(square, CropDraw(0, 0, 50, 50, flip=True), LABEL[:, :50])
    np.testing.assert_array_equal(_levels(mirrored.image), square[:, ::-1])
    np.testing.assert_array_equal(mirrored.label.numpy(), LABEL[:, :50][:, ::-1])


def test_a_small_picture_lies_in_black():
    view = make_view("scale_crop", 80)
    result = view.apply(IMAGE, PadCropDraw(1.0, False, (20, 5), (0, 0)), LABEL)
    assert result.box.tolist() == [20, 70, 5, 75]
    np.testing.assert_array_equal(_levels(result.image[:, 20:70, 5:75]), IMAGE)
    np.testing.assert_array_equal(result.label[20:70, 5:75].numpy(), LABEL)
    assert result.label[0, 0] == 255


def test_one_pixel_pictures_and_probabilities_of_zero_and_one():
    for name in ("resized_crop", "scale_pad_crop", "scale_crop"):
        assert make_view(name, 8)(IMAGE[:1, :1], _rng(), LABEL[:1, :1]).image.shape == (3, 8, 8)
    always = make_view("resized_crop", 8, flip=1.0, jitter=1.0)
    never = make_view("resized_crop", 8, flip=0.0, jitter=0.0)
    for seed in range(20):
        assert always.draw((50, 70), _rng(seed)).flip
        assert always.draw((50, 70), _rng(seed)).jitter is not None
        assert not never.draw((50, 70), _rng(seed)).flip
        assert never.draw((50, 70), _rng(seed)).jitter is None


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("resize_crop", {}, "Did you mean 'resized_crop'"),
        ("scale_crop", {"sclae": [1, 2]}, "Did you mean 'scale'"),
        ("scale_crop", {"scale": [2, 1]}, "smallest scale"),
        ("scale_crop", {"scale": 1}, "view scale_crop"),
        ("scale_crop", {"flip": 2}, "flip must be 0 to 1"),
        ("resized_crop", {"size": 3}, "no setting 'size'"),
        ("resized_crop", {"hue": 0.9}, "hue must be 0 to 0.5"),
    ],
)
def test_bad_settings_are_named(name, settings, says):
    with pytest.raises(ConfigError, match=says):
        make_view(name, 32, **settings)
    with pytest.raises(ConfigError, match="size"):
        make_view("scale_crop", 0)
