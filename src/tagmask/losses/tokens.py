"""Losses on class tokens and patch tokens (MoRe, AAAI 2025; token contrast from ToCo, CVPR 2023).

All of them compute in float32 whatever the surrounding precision.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "class_patch_contrast",
    "class_token_contrast",
    "patch_contrast",
    "uncertain_regions",
]

_COSINE_EPSILON = 1e-8


def class_patch_contrast(
    class_tokens: Tensor, patches: Tensor, labels: Tensor, tags: Tensor, temperature: float
) -> Tensor:
    """Localization-informed class-patch contrast, L_cre of MoRe.

    With z the dot products of the unit class token and all patches, divided by the temperature, every patch
    labelled with a positive class costs ``log(sum exp z + 1e-4) - z``. Costs are averaged per class, summed
    over the positive classes and averaged over the batch. Written with log-sum-exp: the original
    exponentiates and overflows from z of about 88.

    Args:
        class_tokens: (B, K, D); the gradient goes here only.
        patches: Patch tokens as a map, (B, D, h, w).
        labels: Token labels, int64, (B, h, w), 255 = ignore.
        tags: 1 for classes in the image, 0 for others, (B, K).
        temperature: Divides the similarities.
    """
    with _full_precision(patches):
        unit = F.normalize(class_tokens.float(), dim=2, eps=_COSINE_EPSILON)
        scores = unit @ patches.detach().float().flatten(2) / temperature
        floor = scores.new_tensor(math.log(1e-4))
        cost = torch.logaddexp(scores.logsumexp(2, keepdim=True), floor) - scores
        classes = torch.arange(1, tags.shape[1] + 1, device=labels.device)
        own = (labels.flatten(1)[:, None] == classes[:, None]) & (tags > 0)[:, :, None]
        per_class = (cost * own).sum(2) / (own.sum(2) + 1e-4)
        return per_class.sum() / tags.shape[0]


def class_token_contrast(
    class_tokens: Tensor, temperature: float = 0.07, tags: Tensor | None = None
) -> Tensor:
    """Pushes the class tokens of an image apart, L_mct of MoRe and the token contrast of MCTformer+.

    Cross entropy of row k of their cosine matrix against k; identical tokens give ln K and no gradient.

    Args:
        class_tokens: (B, K, D).
        temperature: Divides the cosines; MCTformer+ has 1.
        tags: If given, (B, K), only rows of positive classes count: their mean in each image, then over the
            batch; images without any contribute 0 (MCTformer+).
    """
    with _full_precision(class_tokens):
        unit = F.normalize(class_tokens.float(), dim=2)
        cosine = unit @ unit.transpose(1, 2) / temperature
        batch, count, _ = cosine.shape
        own = torch.arange(count, device=cosine.device).repeat(batch)
        if tags is None:
            return F.cross_entropy(cosine.flatten(0, 1), own)
        rows = F.cross_entropy(cosine.flatten(0, 1), own, reduction="none").view(batch, count)
        return ((rows * tags).sum(1) / (tags.sum(1) + 1e-8)).mean()


def patch_contrast(patches: Tensor, pairs: Tensor) -> Tensor:
    """Pulls patches of one label together and pushes others apart, L_ptc of ToCo.

    Half of 1 minus the mean |cosine| of equal pairs plus half of the mean |cosine| of unequal pairs, means
    over the batch with 1 added to the counts. Without any pair: 0.5.

    Args:
        patches: Patch tokens as a map, (B, D, h, w).
        pairs: 1 equal labels, 0 unequal, 255 ignore, (B, N, N); the paper ignores the diagonal.
    """
    with _full_precision(patches):
        unit = F.normalize(patches.float().flatten(2), dim=1, eps=_COSINE_EPSILON)
        cosine = (unit.transpose(1, 2) @ unit).abs()
        equal, unequal = pairs == 1, pairs == 0
        pulled = (cosine * equal).sum() / (equal.sum() + 1)
        pushed = (cosine * unequal).sum() / (unequal.sum() + 1)
        return 0.5 * (1 - pulled) + 0.5 * pushed


def uncertain_regions(class_tokens: Tensor, patches: Tensor, tags: Tensor, picked: Tensor) -> Tensor:
    """Aligns picked patches with the classes of their image, L_ure of MoRe.

    With s = |cosine| to every class token: half of 1 minus the mean over positive classes plus half of the
    mean over negative ones (1 added to both counts), averaged over the picked tokens.

    Args:
        class_tokens: (B, K, D), no gradient flows into them.
        patches: Patch tokens as a map, (B, D, h, w); the gradient goes here.
        tags: 1 for classes in the image, 0 for others, (B, K).
        picked: (image, row, column), int64, (S, 3), see `ops.uncertain.pick_uncertain`.

    Returns:
        Scalar; 0 if nothing is picked.
    """
    with _full_precision(patches):
        image, row, column = picked.to(patches.device).unbind(1)
        tokens = F.normalize(patches.float()[image, :, row, column], dim=1, eps=_COSINE_EPSILON)
        unit = F.normalize(class_tokens.detach().float(), dim=2, eps=_COSINE_EPSILON)
        scores = torch.einsum("sd,skd->sk", tokens, unit[image]).abs()
        positive = tags.to(scores.dtype)[image]
        negative = 1 - positive
        pulled = (scores * positive).sum(1) / (positive.sum(1) + 1)
        pushed = (scores * negative).sum(1) / (negative.sum(1) + 1)
        return (0.5 * (1 - pulled) + 0.5 * pushed).sum() / max(len(picked), 1)


def _full_precision(tensor: Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)
