"""Cases take their numbers from meta and arrays: copies of files made with other numbers are judged."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.parity.check import closest, known_cases, main, run_case
from tests.parity.golden import Check

DATA = Path(__file__).parent / "data"


def copy(name, folder, **arrays):
    """A copy of a stored file with some entries changed; `meta` gets what a dict of that name says."""
    with np.load(DATA / f"{name}.npz") as archive:
        kept = {key: archive[key] for key in archive.files}
    meta = json.loads(str(kept["meta"]))
    changed = arrays.pop("meta", {})
    for place in (meta, meta.get("config", {})):
        place.update({key: value for key, value in changed.items() if key in place})
    path = folder / f"{name}.npz"
    np.savez(path, **{**kept, "meta": json.dumps(meta), **arrays})
    return path


def wrong(path):
    return [check.name for check in run_case(path, known_cases()) if not check.passes()]


def deit_rates(lr, batch, epochs, warmup, start, floor):
    """DeiT's cosine with a warm-up by epoch, one epoch late as its descendants step it."""
    base = lr * batch / 512
    late = [max(epoch - 1, 0) for epoch in range(epochs)]
    return np.array(
        [
            start + e * (base - start) / warmup
            if e < warmup
            else floor + 0.5 * (base - floor) * (1 + math.cos(math.pi * e / epochs))
            for e in late
        ]
    )


def test_a_schedule_of_other_length_batch_and_warm_up(tmp_path):
    meta = {"lr": 3e-4, "batch_size": 48, "epochs": 31, "warmup_epochs": 7, "warmup_lr": 2e-6, "min_lr": 3e-5}
    path = copy("mctformer_v2_schedule", tmp_path, meta=meta)
    assert wrong(path), "the stored rates are those of other numbers"
    rates = deit_rates(3e-4, 48, 31, 7, 2e-6, 3e-5)
    assert not wrong(copy("mctformer_v2_schedule", tmp_path, meta=meta, **{"output/lr": rates}))


@pytest.mark.parametrize(
    ("key", "value"), [("power", 3), ("log_iters", 1), ("eps_with_bkg", 0.3), ("bkg_low", 0.2)]
)
def test_a_walk_with_other_settings(tmp_path, key, value):
    path = copy("afa_aff_propagate", tmp_path, meta={key: value})
    assert wrong(path)
    with np.load(path) as archive:
        maps, affinity, mask, tags = (
            archive[f"input/{part}"].astype(np.float64) for part in ("cams", "aff", "mask", "cls_labels")
        )
        config = json.loads(str(archive["meta"]))["config"]
    made = {}
    for name, level, allowed in (
        ("cam_low", "bkg_low", mask),
        ("cam_high", "bkg_high", mask),
        ("cam_low_nomask", "bkg_low", 1.0),
    ):
        steps = (affinity * allowed) ** config["power"]
        steps /= steps.sum(1, keepdims=True) + config["eps_with_bkg"]
        for _ in range(config["log_iters"]):
            steps = steps @ steps
        shares = np.zeros((len(maps), maps.shape[1] + 1, maps.shape[2] * maps.shape[3]))
        for image, own in enumerate(tags > 0):
            kept = [0, *(np.flatnonzero(own) + 1)]
            present = maps[image, own].reshape(own.sum(), -1)
            stack = np.concatenate([np.full_like(present[:1], config[level]), present])
            shares[image, kept] = np.exp(stack) / np.exp(stack).sum(0)
        made[f"output/{name}"] = (shares @ steps).reshape(len(maps), -1, *maps.shape[2:]).astype(np.float32)
    remade = wrong(copy("afa_aff_propagate", tmp_path, meta={key: value}, **made))
    # The walk without a background has an epsilon of its own and no levels.
    assert set(remade) <= ({"cam_no_bkg"} if key in ("power", "log_iters") else set())


def test_other_class_and_row_counts(tmp_path):
    with np.load(DATA / "metrics_multilabel.npz") as archive:
        kept = {f"input/{key}": archive[f"input/{key}"][:17] for key in ("truth", "logits", "prediction")}
        score = archive["output/score"][:17]
    changed = {**kept, "output/score": score, "output/mean": score.mean()}
    assert not wrong(copy("metrics_multilabel", tmp_path, **changed))


def test_a_longer_name_is_judged_by_the_case_it_begins_with(tmp_path, capsys):
    path = copy("metrics_multilabel", tmp_path)
    other = path.rename(tmp_path / "metrics_multilabel_second.npz")
    assert main([str(other), "--record", str(tmp_path / "parity.json")]) == 0
    record = json.loads((tmp_path / "parity.json").read_text())
    assert [row["file"] for row in record["files"]] == ["metrics_multilabel_second"]
    assert set(record) == {"command", "machine", "files"}
    measured = {"checks", "worst", "difference", "tolerance"}
    assert set(record["files"][0]) == {"method", "file", "originals", "input", *measured}
    assert "1 files: 1 ok" in capsys.readouterr().out


def test_the_closest_comparison_is_the_one_relative_to_its_tolerance():
    near, far = Check("near", 0.5, 0.0, "abs", 1.0), Check("far", 5.0, 0.0, "abs", 1000.0)
    exact, off = Check("exact", 1, 1, "exact"), Check("off", 2, 1, "exact")
    assert closest([far, near, exact]).name == "near"
    assert closest([near, off]).name == "off"


def test_a_signed_sum_that_is_negative_everywhere(tmp_path):
    """The largest value at -0.99: nothing that is divided on the way may come near 0."""
    with np.load(DATA / "transcam_postprocess.npz") as archive:
        kept = {key: archive[key] for key in archive.files}
    keys, (height, width) = kept["output/keys"], kept["input/image"].shape[:2]
    total = torch.zeros(len(keys), height, width)
    shift = (kept["output/sum_cam"].max((1, 2)) + 0.99) / 6
    for view in range(6):
        maps = kept[f"input/cam{view}"]
        maps[:, 1 + keys] -= shift[None, :, None, None].astype(np.float32)
        large = F.interpolate(torch.from_numpy(maps[:, 1 + keys]), (height, width), mode="bilinear")[0]
        total += large.flip(2) if view % 2 else large
    changed = {f"input/cam{view}": kept[f"input/cam{view}"] for view in range(6)}
    path = copy("transcam_postprocess", tmp_path, **changed, **{"output/sum_cam": total.numpy()})
    found = next(check for check in run_case(path, known_cases()) if check.name == "sum_cam")
    assert float(total.max()) == pytest.approx(-0.99, abs=1e-4)
    assert found.difference() <= 1e-6
