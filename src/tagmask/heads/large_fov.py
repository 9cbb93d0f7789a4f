"""LargeFOV decoder: two dilated convolutions and a pixel classifier (DeepLab; as ToCo and MoRe use it)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["LargeFOV"]


class LargeFOV(nn.Module):
    """Segmentation logits from a patch map.

    Args:
        in_channels: D, width of the patch tokens.
        num_outputs: C = K + 1 logits per place.
        width: Channels in between.
        dilation: Of both 3 x 3 convolutions.
    """

    def __init__(self, in_channels: int, num_outputs: int, width: int = 512, dilation: int = 5) -> None:
        super().__init__()
        # Names as in the published checkpoints, which count on from VGG's five stages.
        self.conv6 = nn.Conv2d(in_channels, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.conv7 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.conv8 = nn.Conv2d(width, num_outputs, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) to logits (B, C, h, w)."""
        hidden = F.relu(self.conv6(features))
        logits: Tensor = self.conv8(F.relu(self.conv7(hidden)))
        return logits
