from __future__ import annotations

import numpy as np
import pytest

from tagmask.data.classes import VOC_CLASSES, ClassTable, read_class_file, voc_palette
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
