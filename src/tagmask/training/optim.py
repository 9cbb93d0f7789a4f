"""Optimisers from a method's plan, in PyTorch's fused form, which can skip an update on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from tagmask.types import OptimPlan

__all__ = ["build_optimizer", "load_optimizer", "optimizer_tensors", "set_rates", "skip_if"]


def build_optimizer(plan: OptimPlan) -> Optimizer:
    """AdamW or SGD over the plan's groups.

    Args:
        plan: The method's wish; its parameters must already be on their device.

    Raises:
        ValueError: The plan names another optimiser, no parameters, or one parameter twice.
    """
    groups: list[dict[str, Any]] = [
        {"params": list(g.params), "lr": g.lr, "weight_decay": g.weight_decay, "name": g.name, "base": g.lr}
        for g in plan.groups
    ]
    if plan.name == "adamw":
        return AdamW(groups, betas=plan.betas, eps=plan.eps, fused=True)
    if plan.name != "sgd":
        raise ValueError(f"optimiser '{plan.name}' is unknown; adamw or sgd")
    optimizer = SGD(groups, lr=0.0, momentum=plan.momentum, nesterov=plan.nesterov, fused=True)
    if plan.momentum:
        # A zero buffer gives the same first update and, unlike PyTorch's lazy one, survives a skipped step.
        for group in optimizer.param_groups:
            for param in group["params"]:
                optimizer.state[param]["momentum_buffer"] = torch.zeros_like(param)
    return optimizer


def set_rates(optimizer: Optimizer, plan: OptimPlan, step: int) -> list[float]:
    """Set every group's rate for the 0-based update `step`, and return the rates.

    Raises:
        ValueError: The plan's curve gives another number of multipliers than there are groups.
    """
    factor = plan.factor(step)
    groups = optimizer.param_groups
    factors = [float(factor)] * len(groups) if isinstance(factor, (int, float)) else list(factor)
    for group, value in zip(groups, factors, strict=True):
        group["lr"] = group["base"] * value
    return [group["lr"] for group in groups]


def skip_if(optimizer: Optimizer, flag: Tensor) -> None:
    """Make the next update do nothing if `flag` (scalar tensor) is true, without reading it on the host."""
    # The fused kernels read these two attributes; they are how PyTorch's own gradient scaler skips a step.
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.found_inf = flag.float()  # type: ignore[attr-defined]


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors, for `load_optimizer`."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": torch.as_tensor(value) for i, one in state.items() for key, value in one.items()}


def load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Continue from tensors made by `optimizer_tensors`; rates come from the plan at the next step.

    Raises:
        ValueError: The tensors belong to other parameters.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", maxsplit=1)
        state.setdefault(int(index), {})[key] = value
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for number, one in state.items():
        known = number < len(params)
        if not known or any(v.ndim and v.shape != params[number].shape for v in one.values()):
            raise ValueError("the saved optimiser state belongs to other parameters")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
