"""Segmenter's mask transformer: class queries and patches attend to each other, masks are cosines."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["MaskTransformer"]


class MaskTransformer(nn.Module):
    """Decoder of Strudel et al. (Segmenter, ICCV 2021) as WeakTr uses it.

    Args:
        in_dim: Width of the encoder's patch tokens.
        num_labels: C, background included.
        dim: Width of the decoder.
        depth: Number of blocks.
        num_heads: Attention heads.
        dropout: On attention weights, projections and both MLP layers.
    """

    def __init__(
        self,
        in_dim: int,
        num_labels: int,
        dim: int = 384,
        depth: int = 2,
        num_heads: int = 6,
        dropout: float = 0.1,
    ) -> None:
        from timm.models.vision_transformer import Block  # seconds, and not every command builds a network

        super().__init__()
        self.proj_dec = nn.Linear(in_dim, dim)
        self.cls_emb = nn.Parameter(torch.zeros(1, num_labels, dim))
        self.blocks = nn.ModuleList(
            Block(
                dim, num_heads, qkv_bias=True, proj_drop=dropout, attn_drop=dropout, norm_layer=nn.LayerNorm
            )
            for _ in range(depth)
        )
        self.decoder_norm = nn.LayerNorm(dim)
        self.proj_patch = nn.Parameter(torch.randn(dim, dim) * dim**-0.5)
        self.proj_classes = nn.Parameter(torch.randn(dim, dim) * dim**-0.5)
        self.mask_norm = nn.LayerNorm(num_labels)
        self.apply(_init)
        nn.init.trunc_normal_(self.cls_emb, std=0.02)

    def forward(self, patches: Tensor, grid: tuple[int, int], exits: int = 1) -> Tensor:
        """Class logits on the patch grid.

        Args:
            patches: (B, N, in_dim) patch tokens, row-major.
            grid: (h, w) with h * w = N.
            exits: 1 for the last block only; more reads the masks after each of the last `exits` blocks.

        Returns:
            (B, C, h, w), or (B, exits, C, h, w) for several exits, the earliest first.

        Raises:
            ValueError: There are fewer blocks than exits.
        """
        if not 1 <= exits <= len(self.blocks):
            raise ValueError(f"exits must be in 1..{len(self.blocks)}, got {exits}")
        x = self.proj_dec(patches)
        x = torch.cat([x, self.cls_emb.expand(x.shape[0], -1, -1)], 1)
        masks = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index >= len(self.blocks) - exits:
                masks.append(self._masks(x, grid))
        return masks[0] if exits == 1 else torch.stack(masks, 1)

    def _masks(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        x = self.decoder_norm(x)
        count = grid[0] * grid[1]
        patches, classes = x[:, :count] @ self.proj_patch, x[:, count:] @ self.proj_classes
        patches = patches / patches.norm(dim=-1, keepdim=True)
        classes = classes / classes.norm(dim=-1, keepdim=True)
        masks: Tensor = self.mask_norm(patches @ classes.transpose(1, 2))
        return masks.transpose(1, 2).reshape(masks.shape[0], -1, *grid)


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
