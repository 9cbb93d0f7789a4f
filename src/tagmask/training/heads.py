"""Linear classifiers on a backbone that stands still: fitted to the tokens of many views at once.

Updates on a few images at a time leave a linear classifier wherever the order of the images and its first
weights happened to lead it. With the tokens of all views at hand it can be fitted to the end instead, with a
penalty that makes the answer nearly the same whatever the seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from tagmask.config import Config
from tagmask.losses.tags import multilabel_soft_margin
from tagmask.ops.pooling import SoftPooling, soft_pool

__all__ = ["HeadsConfig", "TokenBank", "fit_head", "whitening"]

_MOST_BYTES = 1 << 30
_SPREAD_TOKENS = 100_000
_LOOK_AT = 20


class HeadsConfig(Config):
    """How linear classifiers are fitted to the tokens of a backbone that does not learn."""

    whiten: float = Field(default=0.3, ge=0)
    """Directions in which tokens hardly vary count as much as those in which they vary most, down to this
    share of the mean variance; what tells small things apart often lies in them. 0 leaves tokens alone."""
    penalty: float = Field(default=0.06, ge=0)
    """Factor of the mean squared length of the classes' weights."""
    steps: int = Field(default=120, ge=1)
    """Steps of the fit, each on `views` views."""
    views: int = Field(default=256, ge=1)
    """Views a step looks at."""
    candidates: int = Field(default=4, ge=1)
    """Fits, each to a random two thirds of the views; every class is taken from the one whose maps follow the
    edges of the images best. 1 fits once, to all views."""
    rate: float = Field(default=0.05, gt=0)
    """Rate of the first step; it falls to zero with the square root."""


@dataclass
class TokenBank:
    """Tokens of the views seen so far, in half precision and bounded memory.

    Attributes:
        tokens: For every head (rows, N, D) float16.
        tags: (rows, K).
        used: Rows that are filled.
    """

    tokens: dict[str, Tensor]
    tags: Tensor
    used: int = 0

    @staticmethod
    def sized(found: dict[str, Tensor], tags: Tensor, rows: int) -> TokenBank:
        """An empty bank for views such as these; fewer rows than wanted where a GiB holds no more.

        Args:
            found: For every head (B, N, D).
            tags: (B, K).
            rows: Wanted.
        """
        size = 2 * sum(own[0].numel() for own in found.values())
        rows = max(len(tags), min(rows, _MOST_BYTES // size))
        kept = {name: torch.empty((rows, *own.shape[1:]), dtype=torch.float16) for name, own in found.items()}
        return TokenBank(kept, torch.empty((rows, tags.shape[1])))

    @property
    def full(self) -> bool:
        """Whether there is no room left."""
        return self.used >= len(self.tags)

    def add(self, found: dict[str, Tensor], tags: Tensor) -> None:
        """Keep views as far as there is room; see `sized` for the shapes."""
        rows = slice(self.used, min(self.used + len(tags), len(self.tags)))
        count = rows.stop - rows.start
        for name, own in found.items():
            # Half precision ends at 65504, which tokens come near only where something is broken.
            self.tokens[name][rows] = own[:count].clamp(-6e4, 6e4).cpu().half()
        self.tags[rows] = tags[:count].cpu().float()
        self.used = rows.stop


def whitening(tokens: Tensor, floor: float) -> Tensor:
    """Symmetric matrix (D, D) that makes all directions of tokens vary alike (ZCA), on the mean scale.

    Args:
        tokens: (M, D).
        floor: Variances are raised by this share of their mean first; 0 gives the identity.
    """
    dim = tokens.shape[1]
    if not floor:
        return torch.eye(dim, device=tokens.device)
    covariance = torch.cov(tokens.float().T)
    mean = covariance.diagonal().mean().clamp(min=1e-12)
    values, vectors = torch.linalg.eigh(covariance.cpu().double())
    scale = (mean.cpu().double() / (values.clamp(min=0) + floor * mean.cpu().double())).sqrt()
    matrix: Tensor = ((vectors * scale) @ vectors.T).float().to(tokens.device)
    return matrix


def fit_head(
    tokens: Tensor,
    tags: Tensor,
    pooling: SoftPooling,
    biased: bool,
    config: HeadsConfig,
    seed: int,
    device: torch.device,
    look: Callable[[int, float], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Weights of a linear classifier whose pooled maps tell the tags of views.

    Minimises the soft-margin loss of the tags plus the penalty, in the whitened space, from zero on.

    Args:
        tokens: (V, N, D) float16.
        tags: 1 for classes in the view's image, (V, K).
        pooling: From a map to a logit.
        biased: Whether there is a bias; without one the tokens' mean is part of what the classifier reads.
        config: How.
        seed: Of the order of the views.
        device: Where it is computed.
        look: (step, mean loss since the last call), called every 20 steps and after the last one.

    Returns:
        Weights (K, D) and bias (K,), the latter zero if there is none.
    """
    count, _, dim = tokens.shape
    generator = torch.Generator().manual_seed(seed)
    flat = tokens.flatten(0, 1)
    sample = flat[:: max(1, len(flat) // _SPREAD_TOKENS)].float().to(device)
    white, mean = whitening(sample, config.whiten), sample.mean(0)
    weight = torch.zeros(tags.shape[1], dim, device=device, requires_grad=True)
    bias = torch.zeros(tags.shape[1], device=device, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias] if biased else [weight], lr=config.rate)
    losses: list[Tensor] = []
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        for step in range(config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.rate * (1 - step / config.steps) ** 0.5
            rows = torch.randperm(count, generator=generator)[: config.views]
            maps = (tokens[rows].to(device).float() @ (weight @ white).T).transpose(1, 2)
            # Centred tokens are the same as a shift of the bias, and cost nothing here.
            shift = bias - weight @ (white @ mean) if biased else bias
            logits = soft_pool(maps.unsqueeze(3), pooling) + shift
            loss = multilabel_soft_margin(logits, tags[rows].to(device))
            total = loss + config.penalty * weight.square().sum() / len(weight)
            optimizer.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach())
            if look is not None and (len(losses) == _LOOK_AT or step + 1 == config.steps):
                look(step + 1, float(torch.stack(losses).mean()))
                losses.clear()
    with torch.no_grad():
        shift = bias - weight @ (white @ mean) if biased else bias
        return (weight @ white).detach(), shift.detach()
