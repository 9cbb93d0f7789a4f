"""Which images a report shows, and what stands beside them."""

from __future__ import annotations

import numpy as np
import pytest

from tagmask.data import open_dataset
from tagmask.steps import panels
from tagmask.store.labels import write_mask
from tests.toy import toy_root


@pytest.mark.parametrize(
    ("images", "count"), [(200, 8), (9, 8), (8, 8), (5, 8), (3, 8), (1, 8), (40, 2), (40, 0)]
)
def test_typical_worst_and_best_are_different_images(images, count):
    groups = panels._groups(images, count)
    places = [place for found in groups.values() for place in found]
    assert len(places) == len(set(places)) == min(images, count)
    assert all(0 <= place < images for place in places)
    if images == 200:
        assert groups["Worst"] == [0, 1, 2]
        assert groups["Best"] == [199, 198]
        assert all(40 < place < 160 for place in groups["Typical"])


def test_segmentation_comes_first_and_chips_tell_tags_from_the_mask(tmp_path):
    dataset = open_dataset(toy_root(tmp_path, 2, 4), "folder", "val", masks=True)
    for name in dataset.names:
        mask = np.zeros((64, 64), np.uint8)
        mask[:20] = 1
        write_mask(tmp_path / "run" / "masks" / f"{name}.png", mask)
        write_mask(tmp_path / "run" / "labels" / f"{name}.png", mask)
    found = panels.examples(tmp_path / "run", dataset, 4)
    assert len(found) == 4
    assert {one.group for one in found} == {"Typical", "Worst", "Best"}
    for one in found:
        assert [p.title for p in one.pictures] == ["image", "prediction", "truth", "pseudo label"]
        tags = dataset.items[dataset.position(one.name)].tags
        assert [chip.name for chip in one.tags] == [dataset.classes.names[k] for k in tags]
        assert {chip.note for chip in one.tags} <= {"", "not in the mask"}
        (shown,) = one.shown
        assert (shown.name, shown.note) == ("stripes", "" if 0 in tags else "not tagged")
