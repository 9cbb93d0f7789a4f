"""timm's attention and blocks, run step by step so that what lies inside can be used and trained."""

from __future__ import annotations

from typing import Any

from timm.layers.attention import Attention
from torch import Tensor, nn

__all__ = ["attention_with_scores", "block_with_scores"]


def attention_with_scores(attention: Attention, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of a timm block step by step, so that its scores can be used and trained.

    Args:
        attention: Attention module of a timm block.
        tokens: Normed tokens, (B, T, D).

    Returns:
        Output (B, T, D) and the scaled scores before softmax (B, A, T, T).
    """
    return _attention(attention, tokens)[:2]


def _attention(attention: Attention, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, scores, and probabilities before dropout."""
    batch, count, _ = tokens.shape
    qkv = attention.qkv(tokens).reshape(batch, count, 3, attention.num_heads, attention.head_dim)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    query, key = attention.q_norm(query), attention.k_norm(key)
    scores = (query * attention.scale) @ key.transpose(2, 3)
    probs = scores.softmax(-1)
    mixed = (attention.attn_drop(probs) @ value).transpose(1, 2).reshape(batch, count, -1)
    return attention.proj_drop(attention.proj(attention.norm(mixed))), scores, probs


def block_with_scores(block: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A timm block step by step.

    Args:
        block: The block.
        tokens: (B, T, D).

    Returns:
        Tokens behind the block (B, T, D), scores before the softmax and probabilities behind it (B, A, T, T),
        and the output of the attention branch (B, T, D) before the residual.
    """
    parts: Any = block
    mixed, scores, probs = _attention(parts.attn, parts.norm1(tokens))
    tokens = tokens + parts.drop_path1(parts.ls1(mixed))
    tokens = tokens + parts.drop_path2(parts.ls2(parts.mlp(parts.norm2(tokens))))
    return tokens, scores, probs, mixed
