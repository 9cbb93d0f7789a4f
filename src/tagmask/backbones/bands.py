"""A network for more bands than red, green and blue, with what it learned of those three."""

from __future__ import annotations

from torch import Tensor, nn

from tagmask.errors import ConfigError
from tagmask.ops.resize import banded

__all__ = ["with_bands"]


def with_bands(network: nn.Module, bands: int) -> None:
    """Make the first layer of every backbone in a network take another number of bands, in place.

    The weights of red, green and blue are repeated from the first on and multiplied by 3 / C, so that the
    answers stay as large as they were: the rule of timm's `adapt_input_conv`
    (huggingface/pytorch-image-models, timm/models/_manipulate.py). Means and deviations are repeated alike.

    Args:
        network: A method; its backbones keep buffers `mean` and `std`, (3, 1, 1).
        bands: C, at least 3; with 3 nothing changes.

    Raises:
        ConfigError: No first layer is found.
    """
    if bands == 3:
        return
    found = False
    for module in _backbones(network):
        first = next((m for m in module.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3), None)
        if first is None:
            continue
        weight = banded(first.weight.detach().transpose(0, 1), bands).transpose(0, 1) * (3 / bands)
        first.weight = nn.Parameter(weight.contiguous(), first.weight.requires_grad)
        first.in_channels = bands
        module.mean, module.std = (
            banded(_buffer(module, "mean"), bands),
            banded(_buffer(module, "std"), bands),
        )
        found = True
    if not found:
        raise ConfigError(
            f"{type(network).__name__} with this backbone takes three bands; choose three with data.bands"
        )


def _backbones(network: nn.Module) -> list[nn.Module]:
    """The innermost modules that normalise."""
    every = [m for m in network.modules() if getattr(m, "_buffers", {}).get("mean") is not None]
    every = [m for m in every if _buffer(m, "mean").shape == (3, 1, 1)]
    return [m for m in every if not any(other is not m and other in set(m.modules()) for other in every)]


def _buffer(module: nn.Module, name: str) -> Tensor:
    return module.get_buffer(name)
