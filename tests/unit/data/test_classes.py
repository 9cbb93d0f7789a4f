from __future__ import annotations

import numpy as np
import pytest

from tagmask.data.classes import (
    CLASS_COLOURS,
    VOC_CLASSES,
    ClassTable,
    class_palette,
    read_class_file,
    voc_palette,
)
from tagmask.errors import DataError


def test_labels_are_the_background_and_then_the_names():
    table = ClassTable(("cat", "dog"))
    assert table.labels == ("background", "cat", "dog")
    assert (table.num_classes, table.index("dog"), table.palette.shape) == (2, 1, (256, 3))


def test_an_unknown_class_suggests_the_nearest():
    with pytest.raises(DataError, match="Did you mean 'horse'"):
        ClassTable(("cat", "horse")).index("hrose")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ((), "0 classes"),
        (("cat", "cat"), "twice"),
        (("Background", "cat"), "label 0"),
        (("cat", " dog"), "blanks"),
        (tuple(str(i) for i in range(255)), "255 classes"),
    ],
)
def test_bad_class_names_are_refused(names, says):
    with pytest.raises(DataError, match=says):
        ClassTable(names)


def test_class_file_skips_comments_and_blank_lines(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("\ufeff# animals\ncat\n\ntraffic light\n", encoding="utf-8")
    assert read_class_file(path).names == ("cat", "traffic light")
    with pytest.raises(DataError, match="nowhere"):
        read_class_file(tmp_path / "nowhere.txt")


def test_voc_palette_has_the_published_colours():
    palette = voc_palette(22)
    assert palette[[1, 15, 20]].tolist() == [[128, 0, 0], [192, 128, 128], [0, 64, 128]]
    assert len(np.unique(voc_palette(), axis=0)) == 256
    assert len(VOC_CLASSES) == 20


def test_colours_of_classes_stay_apart_for_every_eye():
    palette = class_palette()
    assert len(set(CLASS_COLOURS)) == len(CLASS_COLOURS) == 36
    assert palette[0].tolist() == [0, 0, 0]
    assert palette[1].tolist() == palette[37].tolist() == [0xE6, 0x9F, 0]
    assert palette[255].tolist() == [224, 224, 192]
    levels = palette[1:37] / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    # Full colour vision, then protanopia, deuteranopia and tritanopia (Machado et al., 2009).
    for seen in (
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ):
        lab = cielab(np.clip(linear @ np.asarray(seen).T, 0, 1))
        apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 100 * np.eye(36)
        assert apart.min() >= 11


def cielab(linear):
    """CIELAB of linear sRGB, white point D65."""
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    xyz = linear @ np.asarray(to_xyz).T / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], -1)
