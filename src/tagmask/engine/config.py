"""Where and how to compute, as settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tagmask.config import Config
from tagmask.engine.runtime import Runtime

__all__ = ["RuntimeConfig"]


class RuntimeConfig(Config):
    """Where and how to compute; the same for every stage of a run."""

    device: str = "auto"
    """Where to compute: auto (CUDA, then MPS, then CPU), cpu, mps, cuda or cuda:1."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 compute in half precision where it is safe; weights stay fp32."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Random seed."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; the environment decides if not given. Bit-equal runs need the same number."""
    deterministic: bool = False
    """Refuse algorithms whose results vary from run to run; slower on GPUs."""

    def create(self) -> Runtime:
        """Start computing.

        Raises:
            ConfigError: The device is not here, or cannot do the precision.
        """
        return Runtime.create(self.device, self.precision, self.seed, self.threads, self.deterministic)
