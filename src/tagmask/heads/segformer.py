"""SegFormer's segmentation head: one linear layer per stage, fused at the finest grid (Xie et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SegFormerHead"]


class SegFormerHead(nn.Module):
    """All-MLP head over a feature pyramid.

    Args:
        widths: Feature width of each stage, finest first.
        num_channels: C = K + 1 output channels.
        width: Width every stage is projected to.
        dropout: Share of fused channels dropped during training.
    """

    def __init__(
        self, widths: Sequence[int], num_channels: int, width: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        # Coarsest first, in names and in the fused order, as in published checkpoints.
        self.stages = tuple(reversed(range(1, len(widths) + 1)))
        for stage in self.stages:
            self.add_module(f"linear_c{stage}", _Projection(widths[stage - 1], width))
        self.linear_fuse = _Fusion(width * len(widths), width)
        self.dropout = nn.Dropout2d(dropout)
        self.linear_pred = nn.Conv2d(width, num_channels, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Segmentation logits (B, C, h_1, w_1) for maps (B, D_i, h_i, w_i), finest first."""
        logits: Tensor = self.linear_pred(self.dropout(self.fuse(maps)))
        return logits

    def fuse(self, maps: Sequence[Tensor]) -> Tensor:
        """Fused features (B, width, h_1, w_1); in training mode this updates the batch statistics."""
        size = maps[0].shape[2:]
        projected = []
        for stage in self.stages:
            x = self.get_submodule(f"linear_c{stage}")(maps[stage - 1])
            projected.append(x if stage == 1 else F.interpolate(x, size=size, mode="bilinear"))
        fused: Tensor = self.linear_fuse(torch.cat(projected, dim=1))
        return fused


class _Projection(nn.Module):
    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(before, width)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.proj(x.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])


class _Fusion(nn.Module):
    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, width, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))
