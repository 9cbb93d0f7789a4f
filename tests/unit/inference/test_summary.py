"""Figures of one picture."""

import numpy as np

import tagmask.inference.summary as summary
from tagmask.data.classes import ClassTable
from tagmask.inference.pictures import Named


def test_pictures_are_counted_a_few_rows_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 3, (37, 23)).astype(np.uint8)
    sure = rng.integers(0, 256, (37, 23)).astype(np.uint8)
    picture = Named("a", "a.png", "a.png", "")
    classes = ClassTable(["cat", "dog"])
    whole = summary.row_of(picture, mask, sure, classes, (0,), 1)
    monkeypatch.setattr(summary, "_PIXELS", 100)
    assert summary.row_of(picture, mask, sure, classes, (0,), 1) == whole
    assert whole["classes"]["dog"] == round(float((mask == 2).mean()), 6)
    assert whole["confidence"] == round(float(sure.mean() / 255), 4)
    assert whole["unsure"] == round(float((sure < 128).mean()), 4)
