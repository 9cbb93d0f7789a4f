"""What the weights of a plain ViT say about it: the rows of its position table, the colours it expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from tagmask.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from tagmask.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

__all__ = ["Normalisation", "check_plain", "freeze", "mean_and_deviation", "patch_rows"]

Normalisation = Literal["imagenet", "weights"] | tuple[tuple[float, float, float], tuple[float, float, float]]

_HALF = (0.5, 0.5, 0.5)


def freeze(encoder: nn.Module, blocks: Sequence[nn.Module], train_blocks: int) -> None:
    """Let only the last blocks of a ViT and its final norm learn.

    Args:
        encoder: With a final `norm`.
        blocks: Its blocks, the first first.
        train_blocks: How many of the last ones learn.

    Raises:
        ConfigError: There are not so many.
    """
    if train_blocks > len(blocks):
        raise ConfigError(f"train_blocks is {train_blocks}, the backbone has {len(blocks)} blocks")
    encoder.requires_grad_(False)
    for part in (*blocks[len(blocks) - train_blocks :], encoder.get_submodule("norm")):
        part.requires_grad_(True)


def mean_and_deviation(wanted: Normalisation, model: VisionTransformer) -> Sequence[tuple[float, ...]]:
    """Mean and standard deviation of the three channels, in [0, 1].

    Args:
        wanted: "imagenet", "weights" (what the model's pretrained weights expect), or the two themselves.
        model: timm's network.
    """
    if wanted == "imagenet":
        return IMAGENET_MEAN, IMAGENET_STD
    if wanted == "weights":
        settings = getattr(model, "pretrained_cfg", None) or {}
        return tuple(settings.get("mean", _HALF)), tuple(settings.get("std", _HALF))
    return tuple(wanted[0]), tuple(wanted[1])


def patch_rows(rows: int, registers: int) -> int:
    """How many of a position table's rows belong to patches; 0 if no square grid fits.

    Args:
        rows: All of them.
        registers: Register tokens that the weights hold.
    """
    # Tables either start with rows for the prefix tokens or (no_embed_class) leave some of them out.
    for count in (rows, rows - 1, rows - 1 - registers):
        if count > 0 and round(count**0.5) ** 2 == count:
            return count
    return 0


def check_plain(state: Mapping[str, Tensor], dim: int, source: str) -> None:
    """Refuse weights whose class token or position table cannot be this network's.

    Args:
        state: The weights, with timm's names.
        dim: D, the width of the network.
        source: What the user knows them as, for the message.

    Raises:
        CheckpointError: One is missing, of another width, or no square grid.
    """
    for key in ("cls_token", "pos_embed"):
        if key not in state or state[key].shape[-1] != dim:
            what = "missing" if key not in state else f"{tuple(state[key].shape)}, width {dim} needed"
            raise CheckpointError(f"{source} does not fit: {key} is {what} (weights of another shape)")
    registers = state.get("reg_token", state.get("register_tokens"))
    if not patch_rows(state["pos_embed"].shape[1], 0 if registers is None else registers.shape[1]):
        raise CheckpointError(
            f"{source} does not fit: pos_embed has {state['pos_embed'].shape[1]} rows, needed are a "
            f"square grid and one for the class token (weights of another shape)"
        )
