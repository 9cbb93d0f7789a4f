from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tagmask.data import open_dataset
from tagmask.data.parts import DataConfig, find_part, has_masks, open_part
from tagmask.errors import ConfigError, DataError
from tagmask.inference.crf import crf_preset, refine_by_crf, segment_by_crf
from tagmask.models.checkpoint import save_tensors
from tagmask.steps.cuts import tightest_peak
from tagmask.steps.refine import RefineConfig, image_labels
from tagmask.steps.scoring import MapScorer, PictureScorer, read_maps
from tagmask.steps.train import _paced
from tagmask.store.labels import write_mask
from tagmask.store.maps import save_maps
from tagmask.training.checkpoints import Checkpoints
from tagmask.types import OptimPlan, ParamGroup
from tests.toy import toy_root


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_root(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def truth(toy):
    return open_dataset(toy, "folder", "val", masks=True)


def write_truth_as_maps(folder, truth, kind, height=0.8):
    for i, name in enumerate(truth.names):
        mask = truth.mask(i)
        keys = np.array(sorted(set(np.unique(mask).tolist()) - {0, 255})) - 1
        maps = np.stack([(mask == k + 1) * height for k in keys]) if len(keys) else np.zeros((0, 64, 64))
        save_maps(folder / "maps" / kind / f"{name}.npz", maps, keys.astype(np.int64), (64, 64))


def test_perfect_maps_score_one_below_their_height_and_not_above(tmp_path, truth):
    write_truth_as_maps(tmp_path, truth, "cam")
    for background, expected in ((0.5, 1.0), (None, 1.0), (0.9, None)):
        scorer = MapScorer("cam", tmp_path, truth, background, [0.1, 0.5, 0.95])
        for index in range(len(truth)):
            scorer.add(index)
        record = scorer.record(scorer.counts(), "skip_truth")
        if expected is not None:
            assert record["miou"] == pytest.approx(expected)
        else:
            assert record["miou"] < 0.3
        assert record["curve"]["best_miou"] == pytest.approx(1.0)
        assert record["threshold_source"] == ("fixed" if background else "oracle sweep on this split")
        json.dumps(record, allow_nan=False)


def test_fused_maps_are_the_product_of_both(tmp_path, truth):
    write_truth_as_maps(tmp_path, truth, "cam")
    write_truth_as_maps(tmp_path, truth, "lam", 0.5)
    for name in truth.names:
        fused = read_maps(tmp_path / "maps", "fused", name)
        cam = read_maps(tmp_path / "maps", "cam", name)
        assert np.array_equal(fused.keys, cam.keys)
        assert np.array_equal(fused.maps > 0.5, cam.maps > 0.5)


def test_fused_maps_need_both_kinds(tmp_path):
    cam, lam = np.array([[[1.0, 1, 0, 0.5]]]), np.array([[[1.0, 0, 1, 0.5]]])
    for kind, maps in (("cam", cam), ("lam", lam)):
        save_maps(tmp_path / kind / "a.npz", maps, np.array([2]), (1, 4))
    fused = read_maps(tmp_path, "fused", "a")
    assert fused.keys.tolist() == [2]
    assert fused.maps[0, 0].round(3).tolist() == [1, 0, 0, 0.25]


def test_undecided_pixels_count_as_asked(tmp_path, truth):
    for i, name in enumerate(truth.names):
        label = truth.mask(i).copy()
        label[:32] = 255
        write_mask(tmp_path / "labels" / f"{name}.png", label)
    figures = {}
    for undecided in ("background", "leave_out"):
        scorer = PictureScorer("label", tmp_path, truth, undecided)
        for index in range(len(truth)):
            scorer.add(index)
        figures[undecided] = scorer.record(scorer.counts(), "skip_truth")["miou"]
    assert figures["leave_out"] == pytest.approx(1.0)
    assert figures["background"] < 0.95


def test_a_missing_or_foreign_prediction_is_an_error_not_a_hit(tmp_path, truth):
    scorer = PictureScorer("segmentation", tmp_path, truth, "background")
    with pytest.raises(DataError, match="no label image"):
        scorer.add(0)
    write_mask(tmp_path / "masks" / f"{truth.names[0]}.png", np.full((64, 64), 9, np.uint8))
    with pytest.raises(DataError, match="does not fit its mask"):
        scorer.add(0)
    write_mask(tmp_path / "masks" / f"{truth.names[0]}.png", np.zeros((32, 64), np.uint8))
    with pytest.raises(DataError, match="does not fit its mask"):
        scorer.add(0)


def half_image() -> tuple[torch.Tensor, torch.Tensor]:
    """A picture of two colours, and a map that covers its left side badly."""
    image = torch.zeros(1, 3, 32, 32)
    image[..., 16:] = 1.0
    maps = torch.full((1, 1, 32, 32), 0.05)
    maps[..., 2:13] = 0.9
    return image, maps


@pytest.mark.parametrize("method", ["par", "crf"])
def test_refinement_follows_the_edges_of_the_image(method):
    image, maps = half_image()
    keys = torch.tensor([[2]])
    config = RefineConfig(method=method, background=0.3, shrink=1, power=None)
    labels = image_labels(image, maps, keys, config)
    assert set(labels.unique().tolist()) <= {0, 3}
    assert (labels[..., :16] == 3).float().mean() > 0.95
    assert (labels[..., 16:] == 0).float().mean() > 0.95


@pytest.mark.parametrize("method", ["par", "crf", "none"])
def test_two_thresholds_leave_a_band_undecided(method):
    image = torch.tensor([0.0, 0.5, 1.0]).repeat_interleave(12).expand(1, 3, 36, 36)
    maps = torch.tensor([0.05, 0.5, 0.95]).repeat_interleave(12).expand(1, 1, 36, 36)
    config = RefineConfig(method=method, high=0.7, low=0.3, shrink=1)
    labels = image_labels(image, maps, torch.tensor([[0]]), config)
    assert labels[0, 18, [3, 18, 33]].tolist() == [0, 255, 1]


def test_crf_on_labels_and_on_scores():
    image, maps = half_image()
    scores = torch.cat([1 - maps, maps], dim=1).mul(6)
    for name in ("more", "weaktr_label_voc", "label_50_5"):
        labels = segment_by_crf(image, scores, crf_preset(name), already_probabilities=False)
        assert labels.shape == (1, 32, 32)
        assert labels[0, 16, 4] == 1
        assert labels[0, 16, 28] == 0
    hard = refine_by_crf(image, maps, torch.tensor([[4]]), (0.3,), None, crf_preset("label_50_5"))
    assert set(hard.unique().tolist()) <= {0, 5}
    powered = refine_by_crf(image, maps, torch.tensor([[4]]), (0.3,), (2.0,), crf_preset("psa_softmax"))
    assert powered[0, 16, 8] == 5
    with pytest.raises(ConfigError, match="'more'"):
        crf_preset("mroe")


def test_thresholds_must_be_in_order():
    with pytest.raises(ValidationError, match=r"above refine\.high"):
        RefineConfig(high=0.2, low=0.5)


def test_parts_of_the_data(toy, tmp_path):
    data = DataConfig(root=toy)
    assert find_part(data, "auto") == "val"
    assert len(open_part(data, "train")) == 12
    assert has_masks(data, "auto")
    assert not has_masks(data, "train")
    (tmp_path / "cat").mkdir()
    shutil.copy(toy / "images" / "00000.png", tmp_path / "cat" / "a.png")
    own = DataConfig(root=tmp_path)
    assert find_part(own, "auto") == "train"
    assert not has_masks(own, "auto")
    with pytest.raises(ConfigError, match="data=DIR"):
        open_part(DataConfig(), "train")


def test_checkpoints_keep_the_last_and_skip_damaged_ones(tmp_path):
    kept = Checkpoints(tmp_path, keep=2)
    assert kept.newest() is None
    for step in (2, 4, 6):
        kept.write(step, {"w": torch.full((1,), float(step))}, {"progress": {"step": step}})
    files = sorted(p.name for p in tmp_path.iterdir())
    assert files == ["step-00000004.safetensors", "step-00000006.safetensors"]
    (tmp_path / files[1]).write_bytes(b"damaged")
    tensors, header = kept.newest()
    assert tensors["w"].item() == 4
    assert header["progress"] == {"step": 4}
    (tmp_path / files[0]).write_bytes(b"")
    with pytest.raises(Exception, match="damaged"):
        kept.newest()
    save_tensors(tmp_path / "step-00000008.safetensors", {}, {})
    assert kept.newest()[0] == {}


@pytest.mark.parametrize("probabilities", [False, True])
def test_a_class_that_is_not_allowed_never_comes_out_of_the_crf(probabilities):
    generator = torch.Generator().manual_seed(0)
    image, scores = (
        torch.rand(1, 3, 12, 12, generator=generator),
        torch.rand(1, 4, 12, 12, generator=generator),
    )
    scores[:, 2] = -float("inf")
    labels = segment_by_crf(image, scores, crf_preset("seg38"), already_probabilities=probabilities)
    assert set(labels.unique().tolist()) <= {0, 1, 3}


def test_a_rate_multiplies_every_group_and_nothing_else():
    weight = torch.nn.Parameter(torch.zeros(1))
    groups = [ParamGroup("a", [weight], 1e-3, 0.1), ParamGroup("b", [weight], 2e-2, 0.0)]
    plan = OptimPlan("adamw", groups, lambda step: 1.0, betas=(0.8, 0.9))
    paced = _paced(plan, 0.2)
    assert [group.lr for group in paced.groups] == pytest.approx([2e-4, 4e-3])
    assert [group.weight_decay for group in paced.groups] == [0.1, 0.0]
    assert (paced.name, paced.betas, paced.factor) == (plan.name, plan.betas, plan.factor)
    assert [group.lr for group in plan.groups] == [1e-3, 2e-2]


def test_a_part_is_scanned_once_and_training_never_sees_a_mask(toy, monkeypatch):
    from tagmask.data import parts

    scans = []

    def counted(kind, source):
        scans.append((source.split, source.masks))
        return real(kind, source)

    real = parts.scan_dataset
    monkeypatch.setattr(parts, "scan_dataset", counted)
    data = parts.Parts(DataConfig(root=toy))
    for _ in range(2):
        assert len(data.open("train")) == 12
        assert data.has_masks("auto")
        assert len(data.open("both")) == 16
        blind, scored = data.open("auto"), data.open("val", masks=True)
        assert scored.mask(0).shape == (64, 64)
        assert all(item.mask is None for item in blind.items)
        with pytest.raises(DataError, match="opened without them"):
            blind.mask(0)
    assert scans == [("train", False), ("val", True)]


def test_a_missing_mask_only_matters_to_those_who_score(toy, tmp_path):
    from tagmask.data.parts import Parts

    root = shutil.copytree(toy, tmp_path / "data")
    next((root / "masks").glob("*.png")).unlink()
    data = Parts(DataConfig(root=root))
    assert data.has_masks("auto")
    assert len(data.open("auto")) == 4
    with pytest.raises(DataError, match="missing mask"):
        data.open("auto", masks=True)


@pytest.mark.parametrize(
    ("curve", "place"),
    [
        ([0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0], 5),
        ([0, 5, 3, 2, 1, 2, 3, 4.8, 3, 1, 0], 7),  # nearly as high, and tighter
        ([0, 5, 3, 2, 1, 2, 3, 4.2, 3, 1, 0], 1),  # clearly lower
        ([0, 3, 3.1, 3.2, 5, 4.9, 4.8, 4.7, 3, 1, 0], 4),  # one broad peak: its top, not its end
        ([-1, -2, -3, -3, -3, -3], 0),
        ([0, 0, 0, 0, 0], 4),
    ],
)
def test_of_peaks_nearly_as_high_the_tightest_counts(curve, place):
    assert tightest_peak(torch.tensor([float(value) for value in curve])) == place
