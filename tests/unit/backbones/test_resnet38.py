from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tagmask.backbones.mxnet import read_params, rename_resnet38
from tagmask.backbones.resnet38 import ResNet38
from tagmask.errors import CheckpointError


@pytest.fixture
def net() -> ResNet38:
    torch.manual_seed(0)
    return ResNet38(width=4)


@pytest.mark.parametrize("size", [(64, 64), (33, 71), (8, 9)])
def test_maps_lie_at_an_eighth_rounded_up(net, size):
    out = net.eval()(torch.rand(1, 3, *size))
    grid = tuple(-(-side // 8) for side in size)
    assert out.conv4.shape == (1, 32, *grid)
    assert out.conv5.shape == (1, 64, *grid)
    assert out.conv6.shape == (1, 256, *grid)
    assert min(tap.min() for tap in (out.conv4, out.conv5, out.conv6)) >= 0


def test_normalisation_is_frozen_and_keeps_its_statistics(net):
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items() if "running" in k}
    net(torch.rand(2, 3, 32, 32)).conv6.sum().backward()
    after = net.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    trained = {name for name, p in net.named_parameters() if p.grad is not None}
    assert trained == {name for name, _ in net.named_parameters() if "conv_branch" in name}


def test_further_parts_can_be_frozen():
    net = ResNet38(width=4, frozen=("conv1a", "b2", "b2_1", "b2_2"))
    frozen = {
        name.split(".")[0] for name, p in net.named_parameters() if not p.requires_grad and "conv" in name
    }
    assert frozen == {"conv1a", "b2", "b2_1", "b2_2"}


def test_the_published_size():
    with torch.device("meta"):
        net = ResNet38()
    assert sum(p.numel() for p in net.parameters()) == 105_070_912


def test_initial_weights_leave_a_classifier_out(net, tmp_path):
    other = ResNet38(width=4)
    path = tmp_path / "res38_cls.safetensors"
    save_file({**other.state_dict(), "fc8.weight": torch.zeros(20, 256, 1, 1)}, path)
    net.initialise(str(path))
    assert torch.equal(net.b7.conv_branch1.weight, other.b7.conv_branch1.weight)


def test_there_is_no_hub_and_wrong_files_are_refused(net, tmp_path):
    with pytest.raises(CheckpointError, match=r"res38_cls\.pth"):
        net.initialise("hub")
    path = tmp_path / "other.safetensors"
    save_file({"conv1a.weight": torch.zeros(4, 3, 3, 3)}, path)
    with pytest.raises(CheckpointError, match="missing"):
        net.initialise(str(path))


def write_params(path, arrays, version):
    """An MXNet parameter file as its C++ writer lays it out."""
    out = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for array in arrays.values():
        if version:
            out += struct.pack("<I", {1: 0xF993FAC8, 2: 0xF993FAC9}[version])
        if version == 2:
            out += struct.pack("<i", 0)
        out += struct.pack(f"<I{array.ndim}{'q' if version else 'I'}", array.ndim, *array.shape)
        out += struct.pack("<iii", 1, 0, 0) + array.astype("<f4").tobytes()
    out += struct.pack("<Q", len(arrays))
    for name in arrays:
        out += struct.pack("<Q", len(name)) + name.encode()
    path.write_bytes(out)


def mxnet_names(state):
    """The names ademxapp gives to the same weights."""
    kinds = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}
    named = {}
    for key, value in state.items():
        unit, *middle, leaf = key.split(".")
        if leaf == "num_batches_tracked":
            continue
        place = "conv1a" if unit == "conv1a" else "bn7" if unit == "bn7" else None
        if place is None:
            stage, _, repeat = unit[1:].partition("_")
            kind, branch = middle[0].split("_", 1)
            place = f"{'res' if kind == 'conv' else 'bn'}{stage}{'b' + repeat if repeat else 'a'}_{branch}"
            leaf = kinds[leaf] if kind == "bn" else leaf
        elif place == "bn7":
            leaf = kinds[leaf]
        prefix = "aux" if leaf.startswith("moving") else "arg"
        named[f"{prefix}:{place}_{leaf}"] = value.numpy()
    return named


@pytest.mark.parametrize("version", [0, 1, 2])
def test_the_imagenet_file_of_mxnet_is_read(net, tmp_path, version):
    other = ResNet38(width=4)
    with torch.no_grad():
        for name, value in other.state_dict().items():
            if "running" in name:
                value.uniform_(0.5, 2)
    path = tmp_path / "ilsvrc.params"
    arrays = mxnet_names(other.state_dict())
    arrays["arg:linear1000_weight"] = np.zeros((10, 256), np.float32)
    write_params(path, arrays, version)
    net.initialise(str(path))
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in net.state_dict().items())


def test_damaged_and_foreign_parameter_files_are_refused(tmp_path):
    path = tmp_path / "a.params"
    with pytest.raises(CheckpointError, match="no weight file"):
        read_params(path)
    write_params(path, {"arg:x": np.ones((2, 3))}, 1)
    assert read_params(path)["x"].shape == (2, 3)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="cut short"):
        read_params(path)
    path.write_bytes(b"PK\x03\x04 something else entirely")
    with pytest.raises(CheckpointError, match=r"no MXNet \.params"):
        read_params(path)
    with pytest.raises(CheckpointError, match="no entry of ademxapp"):
        rename_resnet38({"fc6_weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="ends in"):
        rename_resnet38({"bn7_power": torch.zeros(1)})
