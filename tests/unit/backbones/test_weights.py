import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tagmask.backbones import weights
from tagmask.backbones.vit import ViT
from tagmask.backbones.weights import hub_weights, load_strictly, read_weights
from tagmask.errors import CheckpointError

TINY = "vit:patch=8,dim=32,depth=2,heads=2,size=32"


def test_half_precision_files_are_read_as_float32(tmp_path):
    values = torch.randn(2, 3)
    save_file({"a": values.half(), "n": torch.tensor(3)}, tmp_path / "w.safetensors")
    state = read_weights(tmp_path / "w.safetensors")
    assert state["a"].dtype == torch.float32
    torch.testing.assert_close(state["a"], values, rtol=1e-3, atol=1e-3)
    assert state["n"] == 3


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict", "model_state_dict"])
def test_the_state_dict_is_found_whatever_it_is_wrapped_in(tmp_path, wrapper):
    state = {"module.a": torch.ones(2)}
    content = state if wrapper is None else {"epoch": 3, wrapper: state}
    torch.save(content, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").keys() == {"a"}


class Evil:
    def __reduce__(self):
        return print, ("code from a weight file ran",)


def test_files_that_are_no_weights_give_one_clear_error(tmp_path, capsys):
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04garbage")
    (tmp_path / "w.npz").write_bytes(b"")
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    for name, message in (
        ("gone.pth", "no weight file"),
        ("cut.safetensors", "cannot be read"),
        ("cut.pth", "cannot be read|damaged"),
        ("w.npz", "must be one of"),
        ("evil.pth", "damaged or holds more than tensors"),
        ("list.pth", "no state dict"),
        ("empty.pth", "no state dict"),
    ):
        with pytest.raises(CheckpointError, match=message):
            read_weights(tmp_path / name)
    assert "ran" not in capsys.readouterr().out


def test_a_strict_load_names_what_differs_and_changes_nothing():
    layer = nn.Linear(2, 3)
    before = layer.weight.clone()
    with pytest.raises(CheckpointError, match=r"weight is \(3, 4\) but must be \(3, 2\)"):
        load_strictly(layer, {"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}, "w")
    with pytest.raises(CheckpointError, match=r"missing: bias; unknown: extra \(and 1 more\)"):
        load_strictly(layer, {"weight": before, "extra": before, "more": before}, "w")
    assert torch.equal(layer.weight, before)


def test_no_network_names_the_ways_out(monkeypatch, tmp_path):
    class Offline:
        def model_info(self, *args, **kwargs):
            raise ConnectionError("name or service not known\nand a long story")

    monkeypatch.setattr(weights, "HfApi", Offline)
    monkeypatch.setattr(weights, "try_to_load_from_cache", lambda *args: None)
    with pytest.raises(CheckpointError, match="Ways out: connect") as error:
        hub_weights("vit_tiny_patch16_224")
    assert "long story" not in str(error.value)
    assert 'weights="none"' in str(error.value)
    with pytest.raises(CheckpointError, match="no pretrained weights"):
        hub_weights("test_vit4")


def test_a_backbone_starts_from_a_file_or_from_nothing(tmp_path):
    source, model = ViT(TINY), ViT(TINY, 2, 1)
    save_file({k: v.half() for k, v in source.state_dict().items()}, tmp_path / "w.safetensors")
    model.initialise("none")
    model.initialise(str(tmp_path / "w.safetensors"))
    expected = source.blocks[0].mlp.fc1.weight.half().float()
    assert torch.equal(model.blocks[0].mlp.fc1.weight, expected)
