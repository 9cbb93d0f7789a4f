"""Processes, seeds and gradients of a training: the only file that knows Hugging Face Accelerate."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from tagmask.engine.compute import PRECISIONS, Compute
from tagmask.engine.memory import keep_freed_memory
from tagmask.errors import ProcessError, UserError

__all__ = ["PRECISIONS", "Runtime", "leave_processes", "out_of_memory"]


@dataclass(frozen=True)
class Runtime(Compute):
    """Where and how tensors are worked on, by one process or several.

    Attributes:
        accelerator: Accelerate's object; nothing outside this file looks inside.
        seed: Seed of every random stream; each process adds its rank.
    """

    accelerator: Accelerator
    seed: int

    @classmethod
    def create(
        cls,
        device: str = "auto",
        precision: str = "fp32",
        seed: int | None = 0,
        threads: int | None = None,
        deterministic: bool = False,
    ) -> Runtime:
        """Choose the device, start the processes' group if there are several, and seed.

        Args:
            device: "auto" (CUDA, then Apple's MPS, then the CPU), "cpu", "mps", "cuda" or "cuda:1".
            precision: One of `PRECISIONS`.
            seed: 0 or more; None leaves the random streams of the program alone.
            threads: CPU threads for tensor work; the environment decides if None.
            deterministic: Refuse algorithms whose result changes from run to run (slower on GPUs).

        Raises:
            ConfigError: The device is not here, or cannot do the precision.
        """
        chosen = Compute.choose(device, precision).device
        if threads is not None:
            torch.set_num_threads(threads)
        if chosen.type == "cpu":
            keep_freed_memory()
        if chosen.type == "cuda" and chosen.index is not None and "LOCAL_RANK" not in os.environ:
            torch.cuda.set_device(chosen)
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        if deterministic:
            # cuBLAS reads this when it starts; without it deterministic mode raises at the first product.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if deterministic or torch.are_deterministic_algorithms_enabled():
            # Not called without need: it loads PyTorch's compilers, as long as PyTorch itself takes.
            torch.use_deterministic_algorithms(deterministic, warn_only=True)
        accelerator = _accelerator(chosen, precision)
        launched = accelerator.num_processes > 1 or chosen.index is None
        runtime = cls(accelerator.device if launched else chosen, precision, accelerator, seed or 0)
        if seed is not None:
            runtime.reseed()
        return runtime

    @property
    def rank(self) -> int:
        """Number of this process, 0 to `world` - 1."""
        return int(self.accelerator.process_index)

    @property
    def world(self) -> int:
        """How many processes work together."""
        return int(self.accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return bool(self.accelerator.is_main_process)

    def reseed(self) -> None:
        """Start every random stream of this process again from the seed."""
        seed = self.seed + self.rank
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - other packages may draw from the global stream
        torch.manual_seed(seed)

    def reseed_part(self, part: int) -> None:
        """Start every random stream again for one micro-batch, whichever process works on it.

        What is drawn then depends on the seed and the micro-batch only: the same micro-batches give the same
        updates on one process and on many.

        Args:
            part: Number of the micro-batch, counted over all updates and processes.
        """
        first, second = np.random.SeedSequence((self.seed, 3, part)).generate_state(2, np.uint32).tolist()
        random.seed(first)
        np.random.seed(first)  # noqa: NPY002
        torch.manual_seed(first << 32 | second)

    def wrap(self, method: nn.Module, sync_norms: bool = False) -> nn.Module:
        """The module on the device, wrapped for several processes if there are several.

        Args:
            method: The module; changed in place.
            sync_norms: Whether batch norms shall take their statistics over all processes (GPUs only; PyTorch
                has no such layer for the CPU).
        """
        method.to(self.device)
        if sync_norms and self.world > 1 and self.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(method)  # type: ignore[no-untyped-call]
        return self.accelerator.prepare_model(method) if self.world > 1 else method

    @contextmanager
    def accumulating(self, method: nn.Module, last: bool) -> Iterator[None]:
        """Context of one micro-batch; gradients are exchanged between processes at the `last` one only."""
        quiet = nullcontext() if last or self.world == 1 else self.accelerator.no_sync(method)
        with quiet:
            yield

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss, scaled where the precision needs it."""
        self.accelerator.backward(loss)

    @property
    def scaler(self) -> Any:
        """Gradient scaler of fp16, else None."""
        return self.accelerator.scaler

    def reduce(self, values: Tensor, how: str = "sum") -> Tensor:
        """Sum, or mean, of a tensor over all processes."""
        if self.world == 1:
            return values
        reduced: Tensor = self.accelerator.reduce(values.to(self.device), reduction=how)
        return reduced

    @contextmanager
    def together(self) -> Iterator[None]:
        """Context of work that processes do together; what ends one of them is said with its number.

        Raises:
            ProcessError: With several processes: this one failed, or another one has gone.
        """
        try:
            yield
        except UserError as error:
            # Otherwise only the first process speaks.
            if self.world == 1:
                raise
            raise ProcessError(f"process {self.rank} of {self.world}: {error}") from None
        except RuntimeError as error:
            if self.world == 1 or not _lost(error):
                raise
            raise ProcessError(
                f"process {self.rank} of {self.world} lost contact with another one, which ended or cannot "
                "be reached; its message is above or in its machine's log. --resume continues from the last "
                "saved state"
            ) from None

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.accelerator.wait_for_everyone()

    def rng_state(self) -> dict[str, Tensor]:
        """Random streams of all processes (torch, device, NumPy, Python), each (world, n) uint8."""
        rows = {name: state[None].to(self.device) for name, state in self._own_rng().items()}
        if self.world > 1:
            rows = {name: self.accelerator.gather(row) for name, row in rows.items()}
        return {name: row.cpu() for name, row in rows.items()}

    def set_rng_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue the random streams; rows of other process counts or devices are left out."""
        # PyTorch crashes on a state that does not start its storage, so every row is copied out.
        rows = {name: value[self.rank].clone() for name, value in state.items() if self.rank < len(value)}
        if "torch" in rows:
            torch.set_rng_state(rows["torch"])
        if "numpy" in rows:
            words = rows["numpy"].numpy().view(np.int64)
            key = words[:624].astype(np.uint32)
            full = ("MT19937", key, int(words[624]), int(words[625]), float(words[626:].view(np.float64)[0]))
            np.random.set_state(full)  # noqa: NPY002
        if "python" in rows:
            words = rows["python"].numpy().view(np.int64)
            spare = float(words[-1:].view(np.float64)[0])
            random.setstate((3, tuple(int(w) for w in words[:-1]), None if np.isnan(spare) else spare))
        if "cuda" in rows and self.device.type == "cuda":
            torch.cuda.set_rng_state(rows["cuda"], self.device)

    def _own_rng(self) -> dict[str, Tensor]:
        _, key, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
        words = np.concatenate([np.asarray(key, np.int64), np.asarray([position, has_gauss], np.int64)])
        packed = np.concatenate([words, np.asarray([gauss], np.float64).view(np.int64)])
        _, state, spare = random.getstate()
        last = np.asarray([np.nan if spare is None else spare], np.float64).view(np.int64)
        python = np.concatenate([np.asarray(state, np.int64), last])
        states = {
            "torch": torch.get_rng_state(),
            "numpy": torch.from_numpy(packed.view(np.uint8).copy()),
            "python": torch.from_numpy(python.view(np.uint8).copy()),
        }
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def about(self) -> dict[str, Any]:
        """Device, precision and processes in words, for logs and result files."""
        on_gpu = self.device.type == "cuda"
        name = torch.cuda.get_device_name(self.device) if on_gpu else self.device.type
        threads = torch.get_num_threads()
        return {"device": name, "precision": self.precision, "processes": self.world, "threads": threads}


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; PyTorch has no type of its own for that on the CPU."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return (
        isinstance(error, kinds) or "DefaultCPUAllocator" in str(error) or "not enough memory" in str(error)
    )


_LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe", "Timed out waiting")


def _lost(error: RuntimeError) -> bool:
    """Whether an error means that another process cannot be reached."""
    return isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in _LOST)


def leave_processes() -> None:
    """Leave the group of processes once all have come this far; nothing happens outside of one.

    A process that ends while its group still has threads running is aborted now and then.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _accelerator(device: torch.device, precision: str) -> Accelerator:
    mixed = precision if precision in ("bf16", "fp16") else "no"
    if "LOCAL_RANK" not in os.environ:
        # Accelerate keeps one state per process; a second run here may want another device or precision.
        AcceleratorState._reset_state(reset_partial_state=True)
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True, gradient_as_bucket_view=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Accelerator(mixed_precision=mixed, cpu=device.type == "cpu", kwargs_handlers=[ddp])
