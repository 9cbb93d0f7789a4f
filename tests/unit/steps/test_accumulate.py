"""A training whose memory ran out goes on with more micro-batches, as its message advises."""

import csv

import numpy as np
import pytest

import tagmask
from tagmask.models.checkpoint import load_model
from tagmask.store.labels import write_mask
from tests.toy import toy_root

SETTINGS = {
    "train.view_settings": {"scale": [0.5, 1.0]},
    "train.log_every": 1,
    "train.eval_every": 0,
    "train.save_every": 1,
    "train.tensorboard": False,
    "runtime.device": "cpu",
    "model": {
        "backbone": "mask:vit:dim=16,depth=2,heads=2",
        "drop_path": 0,
        "dropout": 0,
        "clip_start": None,
    },
}


class Stop:
    """Ends a training as an interrupt would."""

    def on_step(self, training):
        if training.step == 2:
            raise KeyboardInterrupt


def train(root, out, accumulate, **how):
    settings = {**SETTINGS, "train.accumulate": accumulate}
    words = {
        "labels": root.parents[1] / "labels",
        "method": "segmenter",
        "weights": "none",
        "size": 48,
        "iterations": 4,
    }
    return tagmask.train(root, out=out, settings=settings, batch_size=4, progress=False, **words, **how)


def rows(out):
    with (out / "train" / "log.csv").open() as file:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file)}


def test_accumulate_may_change_when_a_training_goes_on(tmp_path):
    root = toy_root(tmp_path / "data", num_train=12, size=48)
    label = np.zeros((48, 48), np.uint8)
    label[10:30, 10:30] = 1
    for name in tagmask.open_dataset(root, split="train").names:
        write_mask(tmp_path / "labels" / f"{name}.png", label)
    whole, split = tmp_path / "whole", tmp_path / "split"
    train(root, whole, 1)
    with pytest.raises(KeyboardInterrupt):
        train(root, split, 1, callbacks=[Stop()])
    assert max(rows(split)) <= 2
    train(root, split, 2, resume=True)
    first, second = rows(whole), rows(split)
    assert sorted(second) == [1, 2, 3, 4]
    assert all(first[step] == second[step] for step in (1, 2))
    # The same images are seen; only the sums are ordered in another way.
    assert [second[step] for step in (3, 4)] == pytest.approx([first[step] for step in (3, 4)], rel=0.05)
    ours, theirs = (load_model(out / "model")[0] for out in (split, whole))
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 1e-3
