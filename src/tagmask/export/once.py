"""What several passes of a network have in common, computed once in a traced graph."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Once"]

_PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
_MAKERS = frozenset((torch.arange, torch.full, torch.ones, torch.tensor, torch.zeros))


class Once(TorchFunctionMode):
    """Calls of PyTorch inside, with the same function and the same arguments, give the same tensor.

    Tags, maps and scores of an image come from passes of the same network over the same pixels. A graph that
    is traced inside holds what they share once: it is traced, written, loaded and run in less time.

    Functions that change a tensor are called every time, and nothing is remembered beyond them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[Hashable, tuple[Any, Any]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """`func(*args, **kwargs)`, or what it gave before."""
        kwargs = kwargs or {}
        if _changes(func, kwargs):
            self._found.clear()
            return func(*args, **kwargs)
        tensors: list[Tensor] = []
        try:
            key = (func, _key(args, tensors), _key(kwargs, tensors))
            hash(key)
        except TypeError:
            return func(*args, **kwargs)
        # Without tensors it may be anything, such as the switch that turns gradients off.
        if not tensors and func not in _MAKERS:
            return func(*args, **kwargs)
        if key not in self._found:
            # Tensors are known by their identity, which lasts as long as they do.
            self._found[key] = tensors, func(*args, **kwargs)
        found = self._found[key][1]
        return list(found) if isinstance(found, list) else found


def _changes(func: Callable[..., Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a function writes into what it is given."""
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in ("__set__", "__setitem__", "__delete__") or kwargs.get("out") is not None


def _key(value: Any, tensors: list[Tensor]) -> Hashable:
    """What tells arguments apart; the tensors among them are added to `tensors`.

    Raises:
        TypeError: They are of a kind that cannot be told apart.
    """
    if isinstance(value, Tensor):
        tensors.append(value)
        return id(value)
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        expression: Hashable = value.node.expr
        return expression
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, list | tuple):
        return tuple(_key(part, tensors) for part in value)
    if isinstance(value, slice):
        return slice, _key((value.start, value.stop, value.step), tensors)
    if isinstance(value, Mapping):
        return tuple((name, _key(part, tensors)) for name, part in value.items())
    if value is Ellipsis:
        return "..."
    raise TypeError(f"{type(value).__name__} among the arguments")
