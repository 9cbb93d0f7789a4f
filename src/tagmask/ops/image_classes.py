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


def one_class_scores(scores: A, tags: Array, power: float, nothing: bool) -> A:
    """Scores of an image that shows one class, or perhaps nothing.

    The classes of an image exclude each other, so the probabilities of its tags sum to 1, together with that
    of nothing if this is possible; then every pixel is background. A pixel of the foreground is of whichever
    class the image shows: what its classes have together goes to the likeliest class of the image, the one
    with the largest mean probability over all pixels. The others stay behind it by the difference of these
    means.

    Args:
        scores: Logits of background and classes, (B, K + 1, H, W).
        tags: Logits of the image's tags, (B, K).
        power: Of the probabilities of the tags; 0 makes no use of them.
        nothing: Whether the image may show none of the classes.

    Returns:
        Logarithms of probabilities but for a factor of each pixel, (B, K + 1, H, W): in every pixel the same
        class is ahead of the others.
    """
    where, given = tensor("scores", scores).float().log_softmax(1), tensor("tags", tags).float()
    if nothing:
        given = torch.cat([torch.zeros_like(given[:, :1]), given], 1)
    shares = (power * given.log_softmax(1))[:, :, None, None]
    background, classes = where[:, :1], where[:, 1:] + shares[:, -where[:, 1:].shape[1] :]
    if nothing and power:
        none = shares[:, :1].clamp(max=-1e-6)  # of exactly 0 the next line has no gradient
        background = torch.logaddexp(background + torch.log1p(-none.exp()), none.expand_as(background))
    means = torch.cat([background, classes], 1).softmax(1)[:, 1:].mean((2, 3), keepdim=True)
    behind = means.clamp(min=1e-12).log() - means.amax(1, keepdim=True).clamp(min=1e-12).log()
    return like(scores, torch.cat([background, classes.logsumexp(1, keepdim=True) + behind], 1))
