"""Results as the real package `supervision` has them."""

from __future__ import annotations

import numpy as np
import pytest

from tagmask.data import ClassTable
from tagmask.models.result import Result

supervision = pytest.importorskip("supervision")


def result(mask: np.ndarray) -> Result:
    image = np.zeros((*mask.shape, 3), np.uint8)
    sure = np.full(mask.shape, 0.5, np.float32)
    sure[mask == 2] = 0.75
    return Result(image, mask, {}, (), ClassTable(("cat", "dog")), sure)


def test_masks_boxes_scores_and_names_arrive():
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 2:5], mask[4:6, 6:8] = 2, 1
    found = result(mask).to_supervision()
    assert isinstance(found, supervision.Detections)
    assert found.class_id.tolist() == [0, 1]
    assert found.data["class_name"].tolist() == ["cat", "dog"]
    assert found.xyxy.tolist() == [[6, 4, 8, 6], [2, 1, 5, 3]]
    assert np.allclose(found.confidence, [0.5, 0.75])
    assert (found.mask[1] == (mask == 2)).all()
    assert found.area.tolist() == [4, 6]
    # What the package itself does with them works.
    assert len(found[found.confidence > 0.6]) == 1
    drawn = supervision.MaskAnnotator().annotate(np.zeros((6, 8, 3), np.uint8), found)
    assert drawn[1:3, 2:5].any()


def test_a_picture_of_background_gives_no_detection():
    assert len(result(np.zeros((4, 4), np.uint8)).to_supervision()) == 0
