"""OpenCV's arithmetic without OpenCV."""

from __future__ import annotations

import numpy as np
import pytest

from tagmask.data.transforms.base import make_view
from tagmask.data.transforms.opencv import from_hsv, resize_linear, resize_nearest, to_hsv
from tagmask.errors import ConfigError
from tagmask.ops.sizes import fit_short_side


def picture(height=60, width=80):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_resizing_is_bilinear_to_a_level():
    grey = picture(40, 50)
    made = resize_linear(grey, (91, 63))
    rows = (np.arange(91) + 0.5) * 40 / 91 - 0.5
    columns = (np.arange(63) + 0.5) * 50 / 63 - 0.5
    top, left = (np.clip(x, 0, n - 1) for x, n in ((rows, 40), (columns, 50)))
    t, c = np.floor(top).astype(int), np.floor(left).astype(int)
    b, r = np.minimum(t + 1, 39), np.minimum(c + 1, 49)
    v, h = (top - t)[:, None, None], (left - c)[:, None]
    float_grey = grey.astype(float)
    exact = (1 - v) * ((1 - h) * float_grey[t][:, c] + h * float_grey[t][:, r])
    exact += v * ((1 - h) * float_grey[b][:, c] + h * float_grey[b][:, r])
    assert np.abs(made - exact).max() < 1
    assert resize_linear(grey, (40, 50)) is grey


def test_known_levels():
    # Recorded with OpenCV 5.0.
    row = np.array([[[0, 0, 0], [255, 100, 50]]], np.uint8)
    assert resize_linear(row, (1, 4))[0, :, 0].tolist() == [0, 64, 191, 255]
    assert to_hsv(np.array([[[200, 30, 90]]], np.uint8)).tolist() == [[[169, 217, 200]]]
    assert from_hsv(np.array([[[1, 90, 85]]], np.uint8)).tolist() == [[[85, 56, 55]]]


def test_grey_has_no_hue_and_colours_come_back():
    colours = picture()
    back = from_hsv(to_hsv(colours)).astype(int)
    assert np.abs(back - colours).max() <= 6
    grey = np.repeat(colours[..., :1], 3, -1)
    assert np.array_equal(from_hsv(to_hsv(grey)), grey)


def test_the_longer_side_has_a_limit():
    assert fit_short_side((375, 500), 520, 4160) == (520, 693)
    assert fit_short_side((50, 1000), 520, 4160) == (208, 4160)


def label():
    made = np.full((60, 80), 255, np.uint8)
    made[:, :30], made[:, 30:50] = 0, 3
    return made


def test_views_move_image_and_label_together_and_pad_with_the_mean():
    view = make_view("short_side_crop", 96, scale=[0.5, 0.8], jitter=0)
    image = np.repeat(label()[..., None], 3, -1)
    made = view(image, np.random.default_rng(3), label())
    top, bottom, left, right = made.box.tolist()
    assert (top, left) == (0, 0)
    assert bottom < 96
    assert made.image.shape == (3, 96, 96)
    assert made.label[bottom:].eq(255).all()
    assert made.label[:, right:].eq(255).all()
    inside = (made.image[0, :bottom, :right] * 255).round().long()
    assert (inside == made.label[:bottom, :right]).float().mean() > 0.9
    assert made.image[:, -1, -1].tolist() == pytest.approx([123.68 / 255, 116.28 / 255, 103.53 / 255])


def test_cuts_show_more_than_one_label_where_they_can():
    view = make_view("short_side_crop", 40, scale=[1.0, 1.0], short_side=90, jitter=0.5)
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(30):
        kept = view(picture(), rng, label()).label
        counts = np.bincount(kept[kept != 255].numpy().ravel(), minlength=1)
        shares.append(counts.max() / max(counts.sum(), 1))
    assert np.mean(np.array(shares) < 0.75) > 0.7


def test_nearest_keeps_labels():
    assert set(np.unique(resize_nearest(label(), (33, 47)))) == {0, 3, 255}


@pytest.mark.parametrize(
    "settings", [{"jitter": 0.3}, {"largest_share": 0.0}, {"padding": [0.5]}, {"padding": [0, 0, 2]}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=r"short_side_crop|padding"):
        make_view("short_side_crop", 96, **settings)
