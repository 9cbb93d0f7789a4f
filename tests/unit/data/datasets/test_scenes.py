from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from tagmask.data.datasets.scenes import CLASSES, render, write_dataset


def test_scene_is_a_function_of_seed_and_index():
    first, again = render(3, seed=1, size=64), render(3, seed=1, size=64)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    for other in (render(4, seed=1, size=64), render(3, seed=2, size=64)):
        assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("size", [32, 64, 96])
def test_shapes_and_types(size):
    scene = render(0, seed=0, size=size)
    assert scene.image.shape == (size, size, 3)
    assert scene.mask.shape == (size, size)
    assert scene.image.dtype == scene.mask.dtype == np.uint8


@pytest.mark.parametrize("num_classes", [1, 3, 5])
def test_tags_are_the_classes_in_the_mask(num_classes):
    seen = set()
    for index in range(60):
        scene = render(index, seed=0, size=64, num_classes=num_classes)
        present = [CLASSES[k - 1] for k in np.unique(scene.mask) if k > 0]
        assert scene.tags == tuple(present)
        seen |= set(present)
    assert seen == set(CLASSES[:num_classes])


def test_share_of_background_objects_and_untagged_scenes():
    scenes = [render(index, seed=5, size=64) for index in range(300)]
    background = np.mean([(scene.mask == 0).mean() for scene in scenes])
    untagged = np.mean([not scene.tags for scene in scenes])
    counts = [sum(name in scene.tags for scene in scenes) for name in CLASSES]
    assert 0.65 < background < 0.9
    assert 0.01 < untagged < 0.12
    assert min(counts) > 60


def test_mean_colour_does_not_tell_the_class():
    means = {name: [] for name in CLASSES}
    for index in range(300):
        scene = render(index, seed=7, size=64)
        for name in scene.tags:
            means[name].append(scene.image[scene.mask == CLASSES.index(name) + 1].mean(axis=0))
    for name, values in means.items():
        others = np.concatenate([means[other] for other in CLASSES if other != name])
        # The spread between pictures is several times any difference between classes.
        assert np.abs(np.mean(values, axis=0) - others.mean(axis=0)).max() < 0.5 * others.std(axis=0).min()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 16}, "at least 32"),
        ({"num_classes": 6}, "1 to 5"),
        ({"index": -1}, "0 or more"),
        ({"seed": -1}, "0 or more"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        render(**{"index": 0, "seed": 0, **arguments})


def test_write_dataset(tmp_path):
    root = write_dataset(tmp_path / "scenes", num_train=4, num_val=3, size=48, seed=2)
    with (root / "tags.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == ["train"] * 4 + ["val"] * 3
    assert (root / "classes.txt").read_text(encoding="utf-8").split() == list(CLASSES)
    assert sorted(p.name for p in (root / "masks").iterdir()) == [row["image"] for row in rows[4:]]
    for index, row in enumerate(rows):
        scene = render(index, seed=2, size=48)
        assert tuple(row["tags"].split()) == scene.tags
        assert np.array_equal(np.asarray(Image.open(root / "images" / row["image"])), scene.image)
        if row["split"] == "val":
            mask = Image.open(root / "masks" / row["image"])
            assert mask.mode == "P"
            assert np.array_equal(np.asarray(mask), scene.mask)
