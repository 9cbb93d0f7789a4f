from __future__ import annotations

import random
import types

import numpy as np
import pytest
import torch

from tagmask.engine.runtime import Runtime
from tagmask.errors import ConfigError


def draw() -> tuple[float, float, float]:
    return torch.rand(()).item(), random.random(), float(np.random.rand())  # noqa: NPY002


def test_equal_seeds_draw_equal_numbers():
    first = [Runtime.create("cpu", seed=5) and draw() for _ in range(2)]
    assert first[0] == first[1]
    Runtime.create("cpu", seed=6)
    assert draw() != first[0]


def test_random_streams_continue_where_they_were():
    runtime = Runtime.create("cpu", seed=5)
    draw(), random.gauss(0, 1), np.random.randn()  # noqa: NPY002
    state = {k: v.clone() for k, v in runtime.rng_state().items()}
    expected = draw(), random.gauss(0, 1), np.random.randn()  # noqa: NPY002
    draw()
    runtime.set_rng_state(state)
    assert (draw(), random.gauss(0, 1), np.random.randn()) == expected  # noqa: NPY002


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "cuda:77"}, "not here"),
        ({"device": "tpu"}, "unknown"),
        ({"precision": "int8", "device": "cpu"}, "fp32, tf32, bf16, fp16"),
        ({"precision": "fp16", "device": "cpu"}, "needs a CUDA device"),
    ],
)
def test_what_is_not_here_is_said(options, words):
    with pytest.raises(ConfigError, match=words):
        Runtime.create(**options)


def test_precision_may_change_between_runs_of_one_process():
    with Runtime.create("cpu", precision="bf16").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with Runtime.create("cpu").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


class _OnGPU(torch.nn.Sequential):
    def to(self, *args, **kwargs):
        return self


@pytest.mark.parametrize(("device", "world", "asked", "synced"), [
    ("cuda", 2, True, True), ("cuda", 2, False, False), ("cuda", 1, True, False), ("cpu", 2, True, False),
])  # fmt: skip
def test_batch_norms_are_shared_by_processes_on_gpus_only(device, world, asked, synced):
    accelerator = types.SimpleNamespace(num_processes=world, prepare_model=lambda module: module)
    runtime = Runtime(torch.device(device), "fp32", accelerator, 0)
    module = _OnGPU(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    names = list(module.state_dict())
    wrapped = runtime.wrap(module, sync_norms=asked)
    assert isinstance(module[1], torch.nn.SyncBatchNorm) == synced
    assert wrapped is module
    assert list(module.state_dict()) == names
