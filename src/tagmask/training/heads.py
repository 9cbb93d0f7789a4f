"""Linear classifiers on a backbone that is frozen: fitted to the tokens of many views at once.

Updates on a few images at a time leave a linear classifier wherever the order of the images and its first
weights happened to lead it. With the tokens of all views at hand it can be fitted to the end instead, with a
penalty that makes the answer nearly the same whatever the seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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
    share of the mean variance; what tells small things apart often is in them. 0 leaves tokens alone."""
    penalty: float = Field(default=0.06, ge=0)
    """Factor of the mean squared length of the classes' weights."""
    steps: int = Field(default=120, ge=1)
    """Steps of the fit, each on `views` views."""
    views: int = Field(default=256, ge=1)
    """Views a step looks at."""
    starts: int = Field(default=3, ge=1)
    """Fits, each at half of the rate of the one before and with views in another order; every class is taken
    from the one with the lowest cost."""
    rate: float = Field(default=0.2, gt=0)
    """Rate of the first step of the first fit; it falls to zero with the square root. Too low a rate ends
    before the surroundings of a class give way to the class, too high a rate jumps past narrow valleys."""


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

    Minimises the soft-margin loss of the tags plus the penalty, in the whitened space, from zero on. The
    problem is not convex: a place in each image that tells the class may be the thing or what is around it.
    Of several fits each class takes the one with the lowest cost.

    Args:
        tokens: (V, N, D) float16.
        tags: 1 for classes in the view's image, (V, K).
        pooling: From a map to a logit.
        biased: Whether there is a bias; without one the tokens' mean is part of what the classifier reads.
        config: How.
        seed: Of the order of the views in the first fit.
        device: Where it is computed.
        look: (step, mean loss since the last call), called every 20 steps of the first fit and after it.

    Returns:
        Weights (K, D) and bias (K,), the latter zero if there is none.
    """
    flat = tokens.flatten(0, 1)
    sample = flat[:: max(1, len(flat) // _SPREAD_TOKENS)].float().to(device)
    white, mean = whitening(sample, config.whiten), sample.mean(0)
    problem = _Problem(tokens, tags, pooling, biased, config, white, mean)
    with torch.autocast(device.type, enabled=False):
        fits = [
            problem.solve(start, seed, device, look if start == 0 else None) for start in range(config.starts)
        ]
        costs = (
            torch.stack([problem.cost(*fit) for fit in fits])
            if len(fits) > 1
            else mean.new_zeros(1, tags.shape[1])
        )
    best, classes = costs.argmin(0), torch.arange(tags.shape[1], device=device)
    weight = torch.stack([own for own, _ in fits])[best, classes]
    bias = torch.stack([own for _, own in fits])[best, classes]
    return weight @ white, problem.shift(weight, bias)


@dataclass(frozen=True)
class _Problem:
    """The soft-margin loss of every class's tags plus the penalty; classes share nothing but the views."""

    tokens: Tensor
    tags: Tensor
    pooling: SoftPooling
    biased: bool
    config: HeadsConfig
    white: Tensor
    mean: Tensor

    def solve(
        self, start: int, seed: int, device: torch.device, look: Callable[[int, float], None] | None
    ) -> tuple[Tensor, Tensor]:
        """Weights (K, D) in the whitened space and bias (K,) of one of the fits, from zero on."""
        config, generator = self.config, torch.Generator().manual_seed(seed + start)
        rate = config.rate / 2**start
        weight = torch.zeros(self.tags.shape[1], len(self.mean), device=device, requires_grad=True)
        bias = torch.zeros(self.tags.shape[1], device=device, requires_grad=True)
        optimizer = torch.optim.Adam([weight, bias] if self.biased else [weight], lr=rate)
        losses: list[Tensor] = []
        with torch.enable_grad():
            for step in range(config.steps):
                for group in optimizer.param_groups:
                    group["lr"] = rate * (1 - step / config.steps) ** 0.5
                rows = torch.randperm(len(self.tokens), generator=generator)[: config.views]
                loss = multilabel_soft_margin(self.logits(weight, bias, rows), self.tags[rows].to(device))
                total = loss + config.penalty * weight.square().sum() / len(weight)
                optimizer.zero_grad(set_to_none=True)
                total.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(loss.detach())
                if look is not None and (len(losses) == _LOOK_AT or step + 1 == config.steps):
                    look(step + 1, float(torch.stack(losses).mean()))
                    losses.clear()
        return weight.detach(), bias.detach()

    def logits(self, weight: Tensor, bias: Tensor, rows: Tensor) -> Tensor:
        """Pooled logits of some views, (R, K)."""
        maps = (self.tokens[rows].to(weight.device).float() @ (weight @ self.white).T).transpose(1, 2)
        return soft_pool(maps.unsqueeze(3), self.pooling) + self.shift(weight, bias)

    def shift(self, weight: Tensor, bias: Tensor) -> Tensor:
        """What is added to pooled logits; centred tokens are the same as a shift of the bias."""
        return bias - weight @ (self.white @ self.mean) if self.biased else bias

    def cost(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Loss and penalty of every class over all views, (K,)."""
        total = weight.new_zeros(len(weight))
        for rows in torch.split(torch.arange(len(self.tokens)), self.config.views):
            tags = self.tags[rows].to(weight)
            total += F.binary_cross_entropy_with_logits(
                self.logits(weight, bias, rows), tags, reduction="none"
            ).sum(0)
        return total / len(self.tokens) + self.config.penalty * weight.square().sum(1)
