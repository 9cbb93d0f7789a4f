"""Batches: the same for the same seed and step, however they are resumed, split or read ahead."""

from __future__ import annotations

import os
import shutil
import time
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.data import open_dataset
from tagmask.data.loader import eval_images, train_batches
from tagmask.data.transforms.base import make_view
from tagmask.errors import DataError
from tests.toy import toy_root, toy_train, toy_val

VIEW = make_view("resized_crop", 32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_train(tmp_path_factory.mktemp("loader"))


def _take(count, *args, **options):
    return list(islice(train_batches(*args, **options), count))


def _same(first, second):
    assert first.names == second.names
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.tags, second.tags)
    assert (first.boxes is None) == (second.boxes is None)
    assert first.boxes is None or torch.equal(first.boxes, second.boxes)


def test_batches_hold_views_in_unit_range_with_their_tags(data):
    batch = _take(1, data, VIEW, 4, seed=0)[0]
    assert batch.images.shape == (4, 3, 32, 32)
    assert 0 <= batch.images.min() < batch.images.max() <= 1
    assert batch.labels is None
    for name, tags in zip(batch.names, batch.tags, strict=True):
        assert torch.equal(tags, data.tags(data.position(name)))


def test_an_epoch_has_every_image_once_and_the_next_another_order(data):
    batches = _take(6, data, VIEW, 4, seed=1)
    first, second = ([n for b in part for n in b.names] for part in (batches[:3], batches[3:]))
    assert sorted(first) == sorted(second) == sorted(data.names)
    assert first != second


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_gives_what_not_stopping_gives(data, workers):
    whole = _take(7, data, VIEW, 5, seed=3)
    resumed = _take(3, data, VIEW, 5, seed=3, start_step=4, num_workers=workers)
    for ours, theirs in zip(resumed, whole[4:], strict=True):
        _same(ours, theirs)
    other = _take(1, data, VIEW, 5, seed=4)[0]
    assert not torch.equal(other.images, whole[0].images)


def test_processes_share_a_global_batch(data):
    whole = _take(3, data, VIEW, 4, seed=2)
    parts = [_take(3, data, VIEW, 2, seed=2, rank=rank, world=2) for rank in (0, 1)]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert batch.names == first.names + second.names
        assert torch.equal(batch.images, torch.cat([first.images, second.images]))


def test_labels_come_from_a_folder_or_a_function(data, tmp_path):
    for name in data.names:
        Image.fromarray(np.full((64, 64), 2, np.uint8)).save(tmp_path / f"{name}.png")
    from_folder = _take(1, data, make_view("scale_crop", 80, scale=(1, 1)), 3, seed=0, labels=tmp_path)[0]
    assert set(from_folder.labels.unique().tolist()) == {2, 255}
    nobody = _take(1, data, VIEW, 3, seed=0, labels=lambda name: None)[0]
    assert (nobody.labels == 255).all()


def test_labels_that_do_not_fit_stop_the_training(data):
    wrong = [(np.zeros((9, 9), np.uint8), "9 x 9"), (np.full((64, 64), 77, np.uint8), "values to 77")]
    for label, says in wrong:
        with pytest.raises(DataError, match=says):
            _take(1, data, VIEW, 3, seed=0, labels=lambda name, label=label: label, broken_limit=0)


def test_shrunk_images_take_their_labels_along(data):
    labels = lambda name: np.ones((64, 64), np.uint8)  # noqa: E731
    batch = _take(1, data, VIEW, 3, seed=0, labels=labels, max_side=40)[0]
    assert (batch.labels == 1).all()


def test_masks_cannot_reach_training(tmp_path):
    with pytest.raises(DataError, match="must not see true masks"):
        train_batches(toy_val(tmp_path), VIEW, 2, seed=0)


def test_masks_cannot_reach_training_beside_labels(tmp_path):
    with pytest.raises(DataError, match="must not see true masks"):
        next(train_batches(toy_val(tmp_path), make_view("resized_crop", 32), 2, 0, labels=tmp_path))


def test_bad_counts_are_refused(data):
    for options in ({"batch_size": 0}, {"batch_size": 1, "rank": 1}, {"batch_size": 1, "start_step": -1}):
        with pytest.raises(ValueError, match="batch_size"):
            train_batches(data, VIEW, seed=0, **options)


@pytest.fixture
def damaged(tmp_path):
    root = toy_root(tmp_path)
    for name in ("00003", "00007"):
        path = root / "images" / f"{name}.png"
        path.write_bytes(path.read_bytes()[:200])
    return open_dataset(root, "folder", "train")


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_images_are_stepped_over_and_named(damaged, workers):
    batches = train_batches(damaged, VIEW, 4, seed=0, num_workers=workers)
    first = list(islice(batches, 6))
    assert sorted(batches.broken) == ["00003", "00007"]
    assert "00003.png" in batches.broken["00003"]
    assert not {"00003", "00007"} & {name for batch in first for name in batch.names}
    again = _take(2, damaged, VIEW, 4, seed=0, start_step=4)
    for ours, theirs in zip(again, first[4:], strict=True):
        _same(ours, theirs)


def test_too_many_broken_images_stop_the_training(damaged):
    with pytest.raises(DataError, match=r"2 images could not be read \(at most 1 .*0000"):
        _take(6, damaged, VIEW, 4, seed=0, broken_limit=1)


def test_a_dying_worker_is_one_clear_error(data):
    def die(image, rng, label):
        os._exit(3)

    with pytest.raises(DataError, match="worker died or stalled"):
        _take(1, data, die, 2, seed=0, num_workers=1)


def test_a_stalled_worker_is_one_clear_error(data, monkeypatch):
    # PyTorch gives a worker that much time to end by itself before it ends it; 5 s otherwise.
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5, raising=False)

    def sleep(image, rng, label):
        time.sleep(60)

    with pytest.raises(DataError, match=r"worker died or stalled.*timed out after 1"):
        _take(1, data, sleep, 2, seed=0, num_workers=1, stall_seconds=1)


@pytest.mark.parametrize("prefetch", [0, 3])
def test_evaluation_sees_every_image_once_in_order(tmp_path, prefetch):
    data = toy_val(tmp_path, num_val=5)
    seen = [(index, batch.names[0]) for index, batch in eval_images(data, prefetch=prefetch)]
    assert seen == list(enumerate(data.names))
    shares = [[index for index, _ in eval_images(data, rank, 2, prefetch)] for rank in (0, 1)]
    assert shares == [[0, 2, 4], [1, 3]]
    _, batch = next(eval_images(data))
    np.testing.assert_allclose(batch.images[0].permute(1, 2, 0).numpy(), data.image(0) / np.float32(255))


def test_evaluation_does_not_step_over_broken_images(damaged):
    with pytest.raises(DataError, match=r"00003\.png"):
        list(eval_images(damaged, prefetch=2))


def test_too_little_shared_memory_is_told_before_a_worker_dies_of_it(tmp_path, monkeypatch):
    """64 kB hold no batch; the setting to change is named, and without workers nothing is asked."""
    dataset = toy_train(tmp_path)
    view = make_view("resized_crop", 64)
    monkeypatch.setattr("tagmask.data.shared_memory._SHARED", tmp_path)
    small = type(shutil.disk_usage(tmp_path))(1 << 16, 0, 1 << 16)
    monkeypatch.setattr("tagmask.data.shared_memory.shutil.disk_usage", lambda path: small)
    with pytest.raises(DataError, match=r"0\.1 MiB free. Set train\.workers=0"):
        train_batches(dataset, view, 4, seed=0, num_workers=2)
    assert next(train_batches(dataset, view, 4, seed=0)).images.shape[0] == 4
    enough = type(small)(1 << 30, 0, 1 << 30)
    monkeypatch.setattr("tagmask.data.shared_memory.shutil.disk_usage", lambda path: enough)
    assert next(train_batches(dataset, view, 4, seed=0, num_workers=1)).images.shape[0] == 4
