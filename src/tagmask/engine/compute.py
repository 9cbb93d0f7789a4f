"""Device and precision: all that prediction needs to know about the machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from tagmask.errors import ConfigError

__all__ = ["PRECISIONS", "Compute", "choose_device", "native_bf16"]

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
"""fp32: full; tf32: fp32 with fast matrix products on GPUs; bf16, fp16: autocast, weights stay fp32."""


@dataclass(frozen=True)
class Compute:
    """Where and how exactly tensors are worked on.

    Attributes:
        device: Device of this process.
        precision: One of `PRECISIONS`.
    """

    device: torch.device
    precision: str

    @staticmethod
    def choose(device: str | int | torch.device = "auto", precision: str = "fp32") -> Compute:
        """Check and name what somebody asked for.

        Args:
            device: "auto" (CUDA, then Apple's MPS, then the CPU), "cpu", "mps", "cuda", "cuda:1", the number
                of a CUDA device, or a `torch.device`.
            precision: One of `PRECISIONS`.

        Raises:
            ConfigError: The device is not here, or cannot do the precision.
        """
        chosen = choose_device(device)
        if precision not in PRECISIONS:
            raise ConfigError(f"precision '{precision}' is unknown; one of {', '.join(PRECISIONS)}")
        if precision == "fp16" and chosen.type != "cuda":
            raise ConfigError(f"precision fp16 needs a CUDA device, not '{chosen}'; use bf16 or fp32")
        return Compute(chosen, precision)

    def autocast(self) -> Any:
        """Context in which forward passes run in the chosen precision."""
        if self.precision in ("bf16", "fp16"):
            dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
            return torch.autocast(self.device.type, dtype=dtype)
        return nullcontext()

    @contextmanager
    def predicting(self) -> Iterator[None]:
        """Context of a prediction: no gradients, the precision of this model, whatever others use.

        PyTorch has one setting of matrix products for all threads. On GPUs calls that want another one wait
        until it is free, and leave it as it was.
        """
        with torch.inference_mode(), _PRODUCTS.use(self.device, self.precision == "tf32"), self.autocast():
            yield


def native_bf16(device: str | int | torch.device = "auto") -> bool:
    """Whether a device multiplies in bf16 by itself, so that it is faster there and not only smaller."""
    chosen = choose_device(device)
    if chosen.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if chosen.type != "cpu":
        return False
    # Older releases cannot say; then the slower and exact way is taken.
    known = [
        getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ]
    return any(asked is not None and bool(asked()) for asked in known)


class _Products:
    """The process's setting of fast matrix products, lent to those who want the same."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users, self._fast = 0, False
        self._before: tuple[str, bool] = ("highest", False)

    @contextmanager
    def use(self, device: torch.device, fast: bool) -> Iterator[None]:
        if device.type != "cuda":
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: self._users == 0 or self._fast == fast)
            if self._users == 0:
                self._before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
                torch.set_float32_matmul_precision("high" if fast else "highest")
                torch.backends.cudnn.allow_tf32 = fast
            self._users, self._fast = self._users + 1, fast
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                if self._users == 0:
                    torch.set_float32_matmul_precision(self._before[0])
                    torch.backends.cudnn.allow_tf32 = self._before[1]
                    self._changed.notify_all()


_PRODUCTS = _Products()


def choose_device(device: str | int | torch.device) -> torch.device:
    """The device somebody named, if it is here; see `Compute.choose`.

    "auto" is what the environment variable TAGMASK_DEVICE names, else the fastest one there is.

    Raises:
        ConfigError: It is not here or unknown.
    """
    if device == "auto":
        device = os.environ.get("TAGMASK_DEVICE") or device
    if device == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(name)
    try:
        number = isinstance(device, int) or (isinstance(device, str) and device.isdecimal())
        chosen = torch.device(f"cuda:{device}" if number else device)
    except (RuntimeError, TypeError):
        raise ConfigError(f"device '{device}' is unknown; use auto, cpu, mps, cuda or cuda:N") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device '{device}' is not here: {torch.cuda.device_count()} CUDA devices found; "
            "use auto or cpu (--device cpu on the command line)"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device 'mps' is not here; use auto or cpu (--device cpu on the command line)")
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device '{device}' is not supported; use auto, cpu, mps, cuda or cuda:N")
    return chosen
