"""The authors' files load strictly: their names and shapes, as the stored outputs list them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tagmask.backbones.conformer import Conformer
from tagmask.backbones.resnet38 import ResNet38
from tagmask.backbones.vit import ViT
from tagmask.data import ClassTable
from tagmask.errors import CheckpointError
from tagmask.models.trained import load_published
from tests.parity.golden import load_golden

pytestmark = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")

DATA = Path(__file__).parent / "data"
CLASSES = ClassTable(tuple(f"class{k}" for k in range(20)))
CONFORMER = {"backbone": "conformer_small"}
FILES = [
    ("afa_train_step_voc", "afa", {}, ""),
    ("more_voc_step", "more", {}, ""),
    ("mctformer_v1_train_step", "mctformer", {"version": "v1"}, "model"),
    ("mctformer_v2_forward", "mctformer", {"version": "v2"}, "model"),
    ("mctformer_plus_cam", "mctformer", {"version": "plus"}, "model"),
    ("mctformer_v2_forward", "aream", {}, "model"),
    ("aream_mctformer_cam", "aream", {}, "model"),
    ("aream_conformer_cam", "aream", CONFORMER, "model"),
    ("transcam_forward", "transcam", {}, ""),
    ("psa_cls", "psa", {}, ""),
    ("psa_train_step", "affinity_net", {}, "module."),
    ("seg_forward", "segmenter", {}, ""),
    ("weaktr_cam_forward_avgpool", "weaktr", {"reduction": 4}, "model"),
    ("weaktr_seg_schedule", "segmenter", {"backbone": "mask:deit_small_patch16_224.fb_in1k"}, "model"),
    ("weaktr_seg_forward_dinov2", "segmenter", {"backbone": "mask:vit_small_patch14_dinov2"}, "model"),
    (
        "weaktr_seg_forward_eva02",
        "segmenter",
        {"backbone": "mask:eva02_small_patch14_224.mim_in22k", "position_size": 160},
        "model",
    ),
]


def published(golden: str) -> dict[str, Tensor]:
    """Names and shapes; all values of a tensor share one cell, so a file of 100 million is small."""
    entries = load_golden(DATA / f"{golden}.npz").meta["state_dict"]
    return {name: torch.full((), 0.5).expand(shape) for name, shape in entries}


def write(path: Path, state: dict[str, Tensor], wrapped: str) -> Path:
    if wrapped.endswith("."):
        state = {wrapped + name: value for name, value in state.items()}
    torch.save({"epoch": 3, wrapped: state} if wrapped == "model" else state, path)
    return path


@pytest.mark.parametrize(("golden", "method", "settings", "wrapped"), FILES)
def test_a_checkpoint_loads_strictly(tmp_path, golden, method, settings, wrapped):
    state = published(golden)
    path = write(tmp_path / "checkpoint.pth", state, wrapped)
    with torch.device("meta"):  # shapes are compared, nothing is computed
        trained = load_published(path, method, settings, CLASSES)
        assert trained.name == method
        del state[next(name for name in state if name.endswith("bias") and "head" not in name)]
        with pytest.raises(CheckpointError, match=r"does not fit: missing: .*bias"):
            load_published(write(path, state, wrapped), method, settings, CLASSES)


def test_deit_small_is_a_start(tmp_path):
    state = published("mctformer_v2_forward")
    state |= {
        "cls_token": torch.full((), 2.0).expand(1, 1, 384),
        "pos_embed": torch.zeros(()).expand(1, 197, 384),
        "head.weight": torch.zeros(()).expand(1000, 384),
        "head.bias": torch.zeros(()).expand(1000),
    }
    path = write(tmp_path / "deit_small_patch16_224-cd65a155.pth", state, "model")
    vit = ViT("deit_small_patch16_224", num_class_tokens=20, num_extra_tokens=0)
    vit.initialise(str(path))
    assert vit.blocks[11].mlp.fc2.weight.eq(0.5).all()
    assert vit.cls_token.shape == (1, 20, 384)
    assert vit.cls_token.eq(2).all()


@pytest.mark.parametrize(("wrapped", "double"), [("", False), ("model", True)])
def test_conformer_small_is_a_start(tmp_path, wrapped, double):
    state = {name: value for name, value in published("transcam_forward").items() if "head" not in name}
    for head, width in (("trans_cls_head", 384), ("conv_cls_head", 1024)):
        state[f"{head}.weight"], state[f"{head}.bias"] = torch.zeros(1000, width), torch.zeros(1000)
    path = write(tmp_path / "Conformer_small_patch16.pth", state, wrapped)
    with torch.device("meta"):
        network = Conformer("conformer_small", double_class_token=double)
        network.initialise(str(path))
        del state["conv1.weight"]
        with pytest.raises(CheckpointError, match=r"missing: conv1\.weight"):
            network.initialise(str(write(path, state, wrapped)))


def test_the_classifier_of_psa_is_a_start(tmp_path):
    path = write(tmp_path / "res38_cls.pth", published("psa_cls"), "")
    with torch.device("meta"):
        ResNet38().initialise(str(path))
