from __future__ import annotations

import functools

import pytest


@pytest.fixture(autouse=True, scope="session")
def _operators_once():
    """The exporter reads its library of 500 operators anew for every file, a sixth of the time."""
    pytest.importorskip("onnxscript")
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        once = staticmethod(functools.cache(ONNXRegistry.from_torchlib))
        patch.setattr(ONNXRegistry, "from_torchlib", once)
        yield
