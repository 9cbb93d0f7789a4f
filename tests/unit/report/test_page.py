from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from tagmask.report.figures import curves, points, principal_plane, side_by_side
from tagmask.report.page import Cell, Chip, Example, Figure, Page, Table, render
from tagmask.report.panels import class_colours, label_picture, map_picture, picture_uri

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)


def test_maps_tint_their_pixels_with_their_class_only():
    maps = np.zeros((2, 20, 30), np.float32)
    maps[1, :10] = 1.0
    picture = map_picture(IMAGE, maps, [0, 4]).astype(int)
    blue = np.array([0x00, 0x72, 0xB2])
    assert np.abs(picture[:10] - blue).mean() < 40
    assert np.ptp(picture[10:], axis=2).max() <= 1, "without a map the picture is grey"
    assert np.ptp(map_picture(IMAGE, np.zeros((0, 20, 30)), []), axis=2).max() <= 1


def test_labels_colour_classes_stripe_undecided_and_leave_background_grey():
    labels = np.zeros((20, 30), np.uint8)
    labels[:5], labels[5:10] = 1, 255
    picture = label_picture(IMAGE, labels)
    assert (picture[:5].astype(int)[..., 0] > picture[:5].astype(int)[..., 2]).all(), "orange"
    stripes = (picture[5:10] == 255).all(2)
    assert 0.2 < stripes.mean() < 0.6
    assert np.ptp(picture[10:].astype(int), axis=2).max() <= 1


def test_neighbouring_classes_differ_in_lightness_or_hue():
    colours = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in class_colours(8)]
    gaps = [np.abs(np.subtract(a, b)).max() for k, a in enumerate(colours) for b in colours[:k]]
    assert min(gaps) > 25


def test_picture_addresses_hold_a_small_picture():
    uri = picture_uri(np.zeros((600, 900, 3), np.uint8), side=280)
    kind, _, data = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (280, 187)


def test_figures_are_svg_and_the_same_every_time():
    one, two = (curves({"loss": ([1, 2, 3], [3.0, 2.0, 1.0])}, "iteration", "") for _ in range(2))
    svg = base64.b64decode(one.partition(",")[2])
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert len(one) == len(two)
    cloud = points(RNG.normal(size=(30, 2)), [i % 3 for i in range(30)], ["a", "b", "c"])
    assert cloud.startswith("data:image/svg+xml;base64,")
    figure = side_by_side([("image", IMAGE), ("mask", IMAGE)], ["a", "b"], [1])
    assert len(figure.axes) == 2


def test_principal_plane_finds_the_plane():
    plane = RNG.normal(size=(50, 2)) * [5.0, 2.0]
    basis = np.linalg.qr(RNG.normal(size=(10, 2)))[0]
    found, share = principal_plane(plane @ basis.T + 3.0)
    assert share == pytest.approx(1.0)
    distances = [np.linalg.norm(p[:, None] - p[None], axis=-1) for p in (found, plane)]
    assert np.allclose(*distances)
    assert principal_plane(np.ones((4, 3)))[0].shape == (4, 2)
    with pytest.raises(ValueError, match="at least 2"):
        principal_plane(np.ones((1, 3)))


def test_page_escapes_names_and_leaves_out_what_is_not_there():
    chip = Chip("<i>", "#E69F00", "not in the mask")
    example = Example("<b>x</b>", "", [chip], [], [Figure("data:,", "image", 'a "quote"')], group="Worst")
    table = Table("IoU", ["class", "CAM"], [("<cat>", [Cell("50.0", 0.5), Cell("-")])], ["a < b"])
    page = render(Page("t <x>", "lead", [("mIoU", "1")], [("a", "b")], examples=[example], tables=[table]))
    assert "<b>x" not in page
    assert "&lt;i&gt; (not in the mask)" in page
    assert "background only" in page
    assert '<h3 class="group">Worst</h3>' in page
    assert "&lt;cat&gt;" in page
    assert "--share: 50.0%" in page
    assert 'id="curves"' not in page
    assert 'id="tokens"' not in page
    assert len(re.findall("<main", page)) == 1


def test_the_first_row_of_a_table_stays_and_columns_sort_as_numbers():
    table = Table("IoU", ["class", "CAM"], [("mean", [Cell("1")]), ("a", [Cell("2")])])
    page = render(Page("t", "l", [], [], tables=[table]))
    assert page.count('class="fixed"') == 1
    assert '<button type="button" data-kind="number">CAM</button>' in page
    assert "addEventListener" in page
