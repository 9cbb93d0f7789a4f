"""MoRe and one more loss: class maps should not change when the image is shown at half its size.

The idea is SEAM's (Wang et al., CVPR 2020).
"""

from __future__ import annotations

from pydantic import Field

from tagmask.methods.more import MoRe, MoReConfig
from tagmask.ops.maps import class_maps
from tagmask.ops.resize import resize_bilinear
from tagmask.types import Batch, StepResult


class MoReScaleConfig(MoReConfig):
    """MoRe's settings, and the weight of the new term."""

    w_scale: float = Field(default=0.1, ge=0)
    """Weight of the mean difference between the class maps of an image and of its half-size copy."""


class MoReScale(MoRe):
    """MoRe whose class maps agree at two sizes."""

    config_class = MoReScaleConfig
    config: MoReScaleConfig

    def forward(self, batch: Batch, step: int) -> StepResult:
        """MoRe's step, then the new term, which needs two more passes of the network."""
        result = super().forward(batch, step)
        if self.config.w_scale == 0:
            return result
        patch = self.encoder.patch_size
        height, width = (max(side // 2 // patch, 1) * patch for side in batch.images.shape[-2:])
        copies = batch.images, resize_bilinear(batch.images, (height, width))
        large, small = (class_maps(self.encoder(c).patches, self.classifier.weight) for c in copies)
        loss = (resize_bilinear(large, (height // patch, width // patch)) - small).abs().mean()
        return StepResult(result.loss + self.config.w_scale * loss, result.logs | {"scale": loss.detach()})
