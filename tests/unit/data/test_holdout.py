"""Images held out for scoring tags: which, how many, and what the parts of a data set are then."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tagmask.data.base import Item
from tagmask.data.holdout import FEWEST, hold_out
from tagmask.data.parts import DataConfig, Parts
from tagmask.errors import ConfigError, DataError


def items(count, classes=3):
    return [Item(f"p{i}", None, (i % classes,) if i % 7 else ()) for i in range(count)]


def test_a_tenth_of_every_class_the_same_every_time():
    every = items(300)
    chosen = hold_out(every)
    assert len(chosen) == 30
    assert chosen == hold_out(list(reversed(every)))
    assert chosen != hold_out(every, seed=1)
    shares = Counter(item.tags for item in every if item.name in chosen)
    for tags, count in Counter(item.tags for item in every).items():
        assert abs(shares[tags] - count / 10) <= 1


def test_added_images_move_few_others():
    before, after = hold_out(items(300)), hold_out(items(330))
    assert len(before & after) >= 24


def test_nothing_is_kept_of_few_images_nor_of_untagged_ones():
    assert hold_out(items(FEWEST - 1)) == frozenset()
    assert len(hold_out(items(FEWEST))) == 5
    assert hold_out(items(100), share=0) == frozenset()
    untagged = [Item(f"u{i}", None, None) for i in range(100)]
    assert hold_out(untagged) == frozenset()
    assert not {item.name for item in untagged} & hold_out([*untagged, *items(100)])


def test_no_class_loses_its_last_image():
    rare = [Item(f"r{k}", None, (k,)) for k in range(3, 60)]
    chosen = hold_out([*items(60), *rare], share=0.5)
    assert chosen
    assert not chosen & {item.name for item in rare}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    rows = ["image,tags"]
    for i in range(60):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp_path / "images" / f"p{i}.png")
        Image.fromarray(np.full((8, 8), i % 2 + 1, np.uint8)).save(tmp_path / "masks" / f"p{i}.png")
        rows.append(f"p{i}.png,{('cat', 'dog')[i % 2]}")
    (tmp_path / "tags.csv").write_text("\n".join(rows))
    return tmp_path


def test_parts_without_any_split(root):
    parts = Parts(DataConfig(root=root))
    train, held, every = parts.open("train"), parts.held_out(), parts.open("auto", masks=True)
    assert (len(train), len(held), len(every)) == (54, 6, 60)
    assert not set(train.names) & set(held.names)
    assert every.names == tuple(f"p{i}" for i in range(60)), "in the order of the list"
    assert every.mask(1).max() == 2
    assert not held.masks
    assert parts.open("val").names == held.names
    assert parts.open("both").names == every.names
    assert (train.split, held.split, every.split) == ("train", "held-out", "all")
    assert parts.has_masks("auto")
    with pytest.raises(ConfigError):
        parts.open("both", masks=True)


def test_switched_off_all_are_taught(root):
    parts = Parts(DataConfig(root=root, holdout=0))
    assert parts.held_out() is None
    assert len(parts.open("train")) == len(parts.open("auto")) == 60
    assert len(Parts(DataConfig(root=root, split="train")).open("train")) == 60
    with pytest.raises(DataError, match="no split column"):
        parts.open("val")


@pytest.mark.parametrize("how", ["column", "files", "train only"])
def test_a_split_that_is_named_is_kept_as_it_is(root, how):
    lines = (root / "tags.csv").read_text().split("\n")[1:]
    (root / "tags.csv").unlink()
    if how == "column":
        rows = [f"{line},{'val' if i < 20 else 'train'}" for i, line in enumerate(lines)]
        (root / "tags.csv").write_text("\n".join(["image,tags,split", *rows]))
    else:
        (root / "tags_train.csv").write_text("\n".join(["image,tags", *lines[20:]]))
    if how == "files":
        (root / "tags_val.csv").write_text("\n".join(["image,tags", *lines[:20]]))
    parts = Parts(DataConfig(root=root))
    assert parts.held_out() is None
    assert len(parts.open("train")) == 40
    assert len(parts.open("auto")) == (40 if how == "train only" else 20)


def test_class_folders_count_as_unsplit_unless_parts_lie_above(tmp_path):
    for place in ("", "train/"):
        root = tmp_path / (place.strip("/") or "plain")
        for i in range(60):
            file = root / f"{place}{('cat', 'dog')[i % 2]}" / f"p{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file)
        assert len(Parts(DataConfig(root=root)).open("train")) == (60 if place else 54)
