"""timm's attention and blocks, run step by step so that what is inside can be used and trained.

Who has such a block has loaded timm; who only names methods and settings has not, and need not wait for it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["attention_with_scores", "block_with_scores"]


def attention_with_scores(
    attention: nn.Module, tokens: Tensor, position: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention of a timm block step by step, so that its scores can be used and trained.

    Args:
        attention: Attention module of a timm block (ViT, EVA, rotary ViT or BEiT).
        tokens: Normed tokens, (B, T, D).
        position: Rotary embedding of the patches, as timm's blocks take it, or the bias of BEiT's scores.

    Returns:
        Output (B, T, D) and the scaled scores before softmax (B, A, T, T).
    """
    return _attention(attention, tokens, position)[:2]


def _attention(attention: Any, tokens: Tensor, position: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Output, scores, and probabilities before dropout."""
    from timm.models.beit import Attention as BiasedAttention

    biased = isinstance(attention, BiasedAttention)  # it has neither norms nor a gate
    query, key, value = _heads(attention, tokens)
    if not biased:
        query, key = attention.q_norm(query), attention.k_norm(key)
        if position is not None:
            query, key = (_rotated(attention, x, position).type_as(value) for x in (query, key))
    scores = (query * attention.scale) @ key.transpose(2, 3)
    if biased and position is not None:
        scores = scores + position
    probs = scores.softmax(-1)
    mixed = (attention.attn_drop(probs) @ value).transpose(1, 2).flatten(2)
    if not biased:
        mixed = attention.norm(mixed)
        if getattr(attention, "gate", None) is not None:
            mixed = mixed * attention.gate(tokens).sigmoid()
    return attention.proj_drop(attention.proj(mixed)), scores, probs


def _heads(attention: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, (B, A, T, D / A) each."""
    if getattr(attention, "qkv", None) is None:
        parts = [layer(tokens) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
    elif getattr(attention, "q_bias", None) is None:
        parts = list(attention.qkv(tokens).chunk(3, dim=2))
    else:
        bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
        parts = list(F.linear(tokens, attention.qkv.weight, bias).chunk(3, dim=2))
    query, key, value = (part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for part in parts)
    return query, key, value


def _rotated(attention: Any, x: Tensor, rotary: Tensor) -> Tensor:
    from timm.layers.pos_embed_sincos import apply_rot_embed_cat

    prefix, patches = x.tensor_split([attention.num_prefix_tokens], dim=2)
    turned = apply_rot_embed_cat(patches, rotary, half=getattr(attention, "rotate_half", False))
    return torch.cat([prefix, turned], dim=2)


def block_with_scores(
    block: nn.Module, tokens: Tensor, position: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A timm block step by step.

    Args:
        block: The block, of a ViT, of BEiT, or of EVA and its variants.
        tokens: (B, T, D).
        position: Rotary embedding or bias, if the block takes one.

    Returns:
        Tokens behind the block (B, T, D), scores before the softmax and probabilities behind it (B, A, T, T),
        and the output of the attention branch (B, T, D) before the residual.
    """
    parts: Any = block
    mixed, scores, probs = _attention(parts.attn, parts.norm1(tokens), position)
    tokens = tokens + parts.drop_path1(_scaled(parts, 1, mixed))
    tokens = tokens + parts.drop_path2(_scaled(parts, 2, parts.mlp(parts.norm2(tokens))))
    return tokens, scores, probs, mixed


def _scaled(block: Any, number: int, branch: Tensor) -> Tensor:
    """A residual branch times the block's layer scale, a module in ViTs, a parameter in EVA and BEiT."""
    if hasattr(block, f"ls{number}"):
        scaled: Tensor = getattr(block, f"ls{number}")(branch)
        return scaled
    gamma = getattr(block, f"gamma_{number}", None)
    return branch if gamma is None else gamma * branch
