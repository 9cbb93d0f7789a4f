"""A training without updates: classifiers on a backbone that is frozen."""

from __future__ import annotations

import csv

import pytest
import torch

from tagmask.config import validate
from tagmask.errors import ConfigError
from tagmask.methods.more import MoRe, MoReConfig
from tagmask.models.trained import load_trained
from tagmask.pipeline.config import read_config
from tagmask.pipeline.run import run
from tests.toy import toy_root

VALUES = {
    "model.backbone": "vit:patch=8,dim=32,depth=3,heads=2,size=64", "model.weights": "none",
    "model.aux_block": -2, "runtime.device": "cpu", "runtime.precision": "fp32", "train.iterations": 3,
    "train.batch_size": 4, "train.size": 64,
}  # fmt: skip


def trained(tmp_path, name="run", **more):
    config = read_config("auto", {"data.root": str(tmp_path / "toy"), **VALUES, **more})
    return run(config, tmp_path / name, ("train",)).results["train"], tmp_path / name


@pytest.fixture
def toys(tmp_path):
    toy_root(tmp_path)
    return tmp_path


def test_the_backbone_stays_and_both_classifiers_are_fitted(toys):
    results, out = trained(toys)
    assert results["views"] == 12
    method = load_trained(out / "model").method
    before = load_trained(trained(toys, "other", **{"train.heads.steps": 1})[1] / "model").method
    same = {
        name: torch.equal(value, method.state_dict()[name]) for name, value in before.state_dict().items()
    }
    assert all(same[name] for name in same if name.startswith("encoder."))
    assert not same["classifier.weight"]
    assert not same["aux_classifier.weight"]
    rows = list(csv.DictReader((out / "train" / "log.csv").open()))
    assert {row["step"] for row in rows if row["aux_classifier"]} == {"20", "40", "60", "80", "100", "120"}


def test_two_of_three_batches_are_of_whole_images(toys, monkeypatch):
    from tagmask.data.transforms.base import ResizedCrop

    scales, original = [], ResizedCrop.__call__

    def noted(self, image, *rest):
        scales.append(self.scale)
        return original(self, image, *rest)

    monkeypatch.setattr(ResizedCrop, "__call__", noted)
    trained(toys, **{"train.iterations": 6})
    assert scales.count((1.0, 1.0)) == 2 * scales.count((0.32, 1.0)) >= 16


def test_the_same_seed_gives_the_same_model(toys):
    first, again = (load_trained(trained(toys, name)[1] / "model").method for name in ("a", "b"))
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_heads_read_what_the_classifiers_read():
    values = {"backbone": "vit:patch=8,dim=32,depth=3,heads=2,size=64", "aux_block": 1, "aux_norm": True}
    values |= {
        "train_blocks": 0,
        "pooling": "top",
        "aux_pooling": "tenth",
        "graph": False,
        "num_registers": 0,
    }
    method = MoRe(validate(MoReConfig, values, "model"), 3).eval()
    images = torch.rand(2, 3, 64, 64)
    tokens = method.head_tokens(images)
    weight, bias = torch.randn(3, 32), torch.tensor([0.5, -1.0, 2.0])
    for head in tokens:
        method.set_head(head, weight, bias)
    with torch.no_grad():
        out = method.run(images)
        for head, aux, features in (
            ("classifier", False, out.features.patches),
            ("aux_classifier", True, out.aux),
        ):
            maps = (tokens[head] @ weight.T).transpose(1, 2)
            if aux:
                maps = maps + bias[:, None]
            count = maps.shape[2] // (10 if aux else 5)
            expected = maps.topk(count, 2).values.mean(2)
            torch.testing.assert_close(method.logits(features, aux=aux), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.train_blocks": 1}, "that is frozen"),
        ({"model.aux_norm": False}, "that is frozen"),
        ({"model.pooling": "max"}, "that is frozen"),
        ({"method": "mctformer", "model": {}}, "that is frozen|mctformer"),
        ({"train.heads.rate": 1e30}, "became infinite"),
    ],
)
def test_what_has_no_such_heads_is_refused_and_leaves_no_model(toys, change, message):
    with pytest.raises(ConfigError, match=message):
        trained(toys, **change)
    assert not (toys / "run" / "model").exists()
