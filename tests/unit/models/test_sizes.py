"""What a model's header says about its size is compared with its tensors before anything is built."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from tagmask.data import ClassTable
from tagmask.errors import CheckpointError, UserError
from tagmask.models.checkpoint import load_model, read_header, save_model
from tagmask.models.trained import build_method, load_trained, save_method

GOOD = "vit:patch=8,dim=32,depth=2,heads=2,size=64"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    values = {"backbone": GOOD, "weights": "none", "aux_block": -2, "scales": (1.0,)}
    method = build_method("more", values, 2)
    save_method(folder, method, "more", ClassTable(("cat", "dog")), {}, {})
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "vit:patch=8,dim=1000000000,depth=2,heads=2,size=64"},
        {"backbone": "vit:patch=8,dim=30000,depth=2,heads=2,size=64"},
        {"backbone": "vit:patch=8,dim=32,depth=100000,heads=2,size=64"},
        {"backbone": "vit:patch=8,dim=32,depth=2,heads=2,size=6400000"},
        {"backbone": "vit:patch=8,dim=32,depth=2,heads=0,size=64"},
        {"backbone": "vit:patch=0,dim=32,depth=2,heads=2,size=64"},
        {"backbone": "vit_large_patch16_224"},
        {"backbone": "nothing"},
        {"scales": [[]]},
    ],
    ids=str,
)
def test_a_header_that_its_tensors_do_not_fit_is_refused_in_no_time_and_memory(model, tmp_path, change):
    state, meta = load_model(model)
    meta = {key: value for key, value in meta.items() if key not in ("format", "tagmask")}
    save_model(tmp_path, state, {**meta, "settings": {**meta["settings"], **change}})
    resource = pytest.importorskip("resource", reason="this system does not tell")
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(UserError) as caught:
        load_trained(tmp_path)
    assert time.monotonic() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # kilobytes
    assert "\n" not in str(caught.value)


def test_a_model_of_the_right_size_is_built_as_before(model):
    state, _ = load_model(model)
    for name, value in load_trained(model).method.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_the_place_of_weights_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "weights.safetensors")
    for read in (load_trained, read_header):
        with pytest.raises(CheckpointError, match="is a named pipe"):
            read(tmp_path)
