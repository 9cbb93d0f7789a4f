"""What an image shows as a whole, brought into the scores of its pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tagmask.ops.arrays import A, Array, like, tensor

__all__ = ["one_class_scores", "tag_weighted_scores"]


def tag_weighted_scores(scores: A, tags: Array, power: float) -> A:
    """Multiply the probability of every class at a pixel by a power of its probability in the whole image.

    Args:
        scores: Logits of background and classes, (B, K + 1, H, W).
        tags: Logits of the image's tags, (B, K).
        power: Of the factor; 0 leaves scores alone.

    Returns:
        Logits, (B, K + 1, H, W); the background's are as before.
    """
    given, chances = tensor("scores", scores), F.logsigmoid(tensor("tags", tags).float())
    return like(scores, torch.cat([given[:, :1], given[:, 1:] + power * chances[:, :, None, None]], 1))


def one_class_scores(scores: A) -> A:
    """Scores of an image that shows one class at most.

    A pixel of the foreground is of whichever class the image shows, so what its classes have together goes to
    the likeliest class of the image: the one with the largest mean probability over all pixels. The others
    stay behind it by the difference of these means.

    Args:
        scores: Logits of background and classes, (B, K + 1, H, W).

    Returns:
        Logits, (B, K + 1, H, W): in every pixel the same class is ahead of the others. The background's
        probability is kept but for what the classes behind add.
    """
    given = tensor("scores", scores).float()
    foreground = given[:, 1:].logsumexp(1, keepdim=True)
    means = given.softmax(1)[:, 1:].mean((2, 3)).clamp(min=1e-12).log()
    behind = means - means.amax(1, keepdim=True)
    return like(scores, torch.cat([given[:, :1], foreground + behind[:, :, None, None]], 1))
