"""Pretrain the small vision transformer that ships with `tagmask demo`, on formula-made textures alone.

Every training picture is a mosaic: a few irregular regions, each filled with an instance of one of 161
texture classes in random colours. A class is a formula with fixed coefficients; an instance draws its own
angle, scale, offset, noise and hardness. Each patch token learns which textures it shows and, after the
second
block, the energies of Gabor filters around it whatever the colours; the class token learns which textures the
picture holds. The heads are dropped afterwards.

No photograph and no scene of the demo takes part. What the formulas share with the demo's five textures: soft
two-tone fields with features of 6 to 14 pixels, and bands in the wavy and spiral families. What they do not:
no formula is a single plane wave (stripes), a sum or product of two perpendicular ones (dots, checker),
concentric circles (rings) or noise of one length in all directions (marble).

    python tools/pretrain_demo_backbone.py --out src/tagmask/assets/tagmask_demo.safetensors

writes the weights (half precision, timm's names) and a log beside them. The same seed, thread count and torch
version give the same file.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

SIZE, PATCH, TILE, INSTANCES, REGIONS = 96, 8, 144, 20, 6
VIT = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": 128, "depth": 4, "num_heads": 4, "num_classes": 0}
GABOR_BLOCK, ORIENTATIONS, PERIODS, REACH = 1, 6, (4.0, 6.0, 9.0, 14.0), 8
log = logging.getLogger("pretrain")
Floats = NDArray[np.floating]


def lattice(c: np.random.Generator, r: np.random.Generator, u: Floats, v: Floats) -> Floats:
    """Periodic tiling: four to seven random plane waves on an oblique lattice of two periods."""
    skew, ratio = c.uniform(-0.5, 0.5), c.uniform(0.6, 1.2)
    pairs = np.array([(m, n) for m in range(3) for n in range(-2, 3) if (m, n) > (0, 0)])
    chosen = c.choice(pairs, c.integers(4, 8), replace=False)
    waves = [
        c.uniform(0.5, 1.0) * np.cos(np.pi * (m * u + n * (ratio * v + skew * u)) + c.uniform(0, 2 * np.pi))
        for m, n in chosen
    ]
    return sum(waves) / len(waves) ** 0.5 + c.uniform(-0.3, 0.3)


def wavy(c: np.random.Generator, r: np.random.Generator, u: Floats, v: Floats) -> Floats:
    """Bands bent to waves or zigzags."""
    height, rate, sharp = c.uniform(0.3, 0.7), c.uniform(0.25, 0.6), c.random() < 0.5
    bend = np.sin(2 * np.pi * rate * v)
    return np.sin(2 * np.pi * (u + height * (np.arcsin(bend) if sharp else bend))) + c.uniform(-0.4, 0.4)


def neighbours(c: np.random.Generator, r: np.random.Generator, u: Floats, v: Floats) -> Iterator[tuple]:
    """Offsets to, and a random number of, the jittered lattice points in the nine cells around each pixel."""
    jitter, table = c.uniform(0.2, 0.5), r.random((3, 32, 32))
    iu, iv = np.floor(u).astype(int), np.floor(v).astype(int)
    for du in (-1, 0, 1):
        for dv in (-1, 0, 1):
            pu, pv, extra = table[:, (iu + du) % 32, (iv + dv) % 32]
            yield u - iu - du - 0.5 - jitter * (2 * pu - 1), v - iv - dv - 0.5 - jitter * (2 * pv - 1), extra


def cells(c: np.random.Generator, r: np.random.Generator, u: Floats, v: Floats) -> Floats:
    """Voronoi cells: walls between them, cones around their points, or a grey level of their own."""
    kind, squeeze = c.integers(3), c.uniform(0.5, 1.0)
    around = list(neighbours(c, r, u * 0.8, v * 0.8 * squeeze))
    stacked = np.stack([np.hypot(a, b) for a, b, _ in around])
    if kind == 2:
        return np.take_along_axis(np.stack([e for _, _, e in around]), stacked.argmin(0)[None], 0)[0] * 2 - 1
    stacked.sort(0)
    return 3 * (stacked[1] - stacked[0] - 0.25) if kind else 3 * (stacked[0] - c.uniform(0.3, 0.5))


def textons(c: np.random.Generator, r: np.random.Generator, u: Floats, v: Floats) -> Floats:
    """One small figure of two or three strokes, strewn with random turns."""
    strokes = c.uniform(-0.45, 0.45, (c.integers(2, 4), 4))
    spin, nearest = c.choice([0.0, 0.25, 1.0]), np.full(u.shape, 9.0)
    for a, b, extra in neighbours(c, r, u * 0.6, v * 0.6):
        cos, sin = np.cos(2 * np.pi * spin * extra), np.sin(2 * np.pi * spin * extra)
        a, b = a * cos - b * sin, a * sin + b * cos
        for x0, y0, x1, y1 in strokes:
            dx, dy = x1 - x0, y1 - y0
            t = np.clip(((a - x0) * dx + (b - y0) * dy) / (dx * dx + dy * dy + 1e-6), 0, 1)
            nearest = np.minimum(nearest, np.hypot(a - x0 - t * dx, b - y0 - t * dy))
    return 6 * (0.12 - nearest)


def fractal(c: np.random.Generator, r: np.random.Generator, u: Floats, v: Floats) -> Floats:
    """Noise with a power law over lengths, stretched along one direction, plain or folded into ridges."""
    slope, stretch, ridged = c.uniform(0.8, 2.2), c.uniform(1.5, 5.0), c.random() < 0.5
    ky, kx = np.meshgrid(np.fft.fftfreq(TILE), np.fft.rfftfreq(TILE), indexing="ij")
    # The coordinates carry the instance's angle and scale; their gradient turns the spectrum alike.
    (vy, vx), (uy, ux) = np.gradient(v)[:2], np.gradient(u)[:2]
    a = kx * ux.mean() + ky * uy.mean()
    b = kx * vx.mean() + ky * vy.mean()
    power = (np.hypot(a * stretch, b) / np.hypot(ux.mean(), uy.mean()) + 0.02) ** -slope
    noise = np.fft.irfft2(np.fft.rfft2(r.normal(size=u.shape)) * power, u.shape)
    noise /= noise.std()
    return 1.5 * (0.6 - np.abs(noise)) if ridged else noise


def spiral(c: np.random.Generator, r: np.random.Generator, u: Floats, v: Floats) -> Floats:
    """Two to seven arms around one point of the tile."""
    u, v = u - r.uniform(u.min(), u.max()), v - r.uniform(v.min(), v.max())
    return np.sin(c.integers(2, 8) * np.arctan2(v, u) + 2 * np.pi * c.uniform(0.3, 0.8) * np.hypot(u, v))


def plain(c: np.random.Generator, r: np.random.Generator, u: Floats, v: Floats) -> Floats:
    """Nearly flat: a slow gradient."""
    return 0.02 * r.uniform(0, 2) * (u - u.mean())


FAMILIES = ((lattice, 48), (wavy, 24), (cells, 24), (textons, 32), (fractal, 24), (spiral, 8), (plain, 1))
FORMULAS = [family for family, count in FAMILIES for _ in range(count)]
SIZES = [count for _, count in FAMILIES]


def texture(seed: int, label: int, instance: int) -> NDArray[np.uint8]:
    """(TILE, TILE) grey levels of one instance of one class."""
    c, r = np.random.default_rng((seed, label)), np.random.default_rng((seed, label, instance + 1))
    period = c.uniform(7, 12) * r.uniform(0.8, 1.25)
    angle, (du, dv) = r.uniform(0, 2 * np.pi), r.uniform(0, 30, 2)
    y, x = np.mgrid[0:TILE, 0:TILE] / period
    u, v = x * np.cos(angle) + y * np.sin(angle) + du, y * np.cos(angle) - x * np.sin(angle) + dv
    grey = np.tanh(r.uniform(1.0, 4.0) * FORMULAS[label](c, r, u, v))
    return (127.5 + 127.5 * grey).astype(np.uint8)


def uniform(g: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=g)


def mosaic(bank: Tensor, batch: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, SIZE, SIZE) in [0, 1] and the share of every class in every patch (B, N, classes)."""
    num = len(FORMULAS)
    labels = torch.randint(num, (batch, REGIONS), generator=g)
    labels[uniform(g, batch, REGIONS) < 0.2] = num - 1
    instances = torch.randint(bank.shape[1], labels.shape, generator=g)
    top, left = torch.randint(TILE - SIZE, (2,), generator=g).tolist()
    tiles = bank[:, :, top : top + SIZE, left : left + SIZE][labels, instances]
    if uniform(g, 1) < 0.5:
        tiles = tiles.transpose(-1, -2)

    # Regions: nearest of six random points, distances weighted, after a random bend of the plane.
    line = (torch.arange(SIZE) + 0.5) / SIZE
    plane = torch.stack(torch.meshgrid(line, line, indexing="ij")).expand(batch, 2, SIZE, SIZE)
    bend = F.interpolate(uniform(g, batch, 2, 8, 8) - 0.5, (SIZE, SIZE), mode="bicubic", align_corners=False)
    y, x = (plane + 0.25 * bend).flatten(2)[:, None].unbind(2)
    (py, px), weight = uniform(g, 2, batch, REGIONS, 1), 0.5 + uniform(g, batch, REGIONS, 1)
    region = (((y - py).square_() + (x - px).square_()) * weight).min(1).indices

    colours = uniform(g, batch, REGIONS, 2, 3)
    dull = (colours[:, :, 0] - colours[:, :, 1]).abs().mean(-1) < 0.25
    colours[:, :, 1] = torch.where(dull[..., None], (colours[:, :, 0] + 0.5) % 1, colours[:, :, 1])
    grey = tiles.flatten(2).gather(1, region[:, None]).float() / 255
    low, high = (c.movedim(-1, 1).gather(2, region[:, None].expand(-1, 3, -1)) for c in colours.unbind(2))
    noise = torch.randn(batch, 3, SIZE * SIZE, generator=g) * 0.04 * uniform(g, batch, 1, 1)
    image = torch.lerp(low, high, grey).add_(noise).clamp_(0, 1).unflatten(2, (SIZE, SIZE))

    side = SIZE // PATCH
    patches = region.view(batch, side, PATCH, side, PATCH).transpose(2, 3).reshape(batch, side * side, -1)
    share = F.one_hot(patches, REGIONS).float().mean(2)
    return image, share @ F.one_hot(labels, num).float()


def gabor_filters() -> Tensor:
    """Even and odd Gabor filters without a mean, (PERIODS x ORIENTATIONS x 2, 1, side, side)."""
    line = torch.arange(-REACH, REACH + 1.0)
    y, x = torch.meshgrid(line, line, indexing="ij")
    filters = []
    for period in PERIODS:
        window = torch.exp(-(x * x + y * y) / (2 * min(5.0, period / 2.2) ** 2))
        for turn in range(ORIENTATIONS):
            angle = math.pi * turn / ORIENTATIONS
            along = 2 * math.pi / period * (x * math.cos(angle) + y * math.sin(angle))
            for phase in (0.0, math.pi / 2):
                wave = window * torch.cos(along + phase)
                wave = wave - window * (wave.sum() / window.sum())
                filters.append(wave / wave.norm())
    return torch.stack(filters)[:, None]


def gabor_energies(image: Tensor, filters: Tensor) -> Tensor:
    """Log energies around each patch, over phase and colour, about standard normal: (B, N, F)."""
    padded = F.pad(image, (PATCH // 2, REACH + PATCH // 2) * 2, mode="reflect")
    response = F.conv2d(padded.flatten(0, 1)[:, None], filters, stride=PATCH)
    side = SIZE // PATCH
    energy = response[..., :side, :side].square().view(len(image), 3, -1, 2, side * side).sum((1, 3))
    return ((energy + 1e-3).log().transpose(1, 2) + 3) / 2.5


class Learner(nn.Module):
    """The backbone with its three throw-away heads."""

    def __init__(self) -> None:
        super().__init__()
        # timm's default start (deviation 0.02) leaves a net of this width all but linear for long.
        self.vit = VisionTransformer(**VIT, weight_init="jax")
        for block in self.vit.blocks:
            # On the CPU the written-out attention is twice as fast in bfloat16, backward pass included.
            block.attn.fused_attn = False
        width = VIT["embed_dim"]
        self.patches, self.whole = (nn.Linear(width, len(FORMULAS)) for _ in range(2))
        self.gabor = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(PERIODS) * ORIENTATIONS))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits of the patches and of the whole picture, and the energies around the patches."""
        final, (early,) = self.vit.forward_intermediates(
            image * 2 - 1, indices=[GABOR_BLOCK], output_fmt="NLC", norm=False
        )
        return self.patches(final[:, 1:]), self.whole(final[:, 0]), self.gabor(early)


def soft_cross_entropy(logits: Tensor, share: Tensor) -> Tensor:
    """Of the classes, plus that of their families, which is answered long before."""
    log_probs = logits.float().log_softmax(-1)
    coarse = torch.stack([part.logsumexp(-1) for part in log_probs.split(SIZES, -1)], -1)
    shares = torch.stack([part.sum(-1) for part in share.split(SIZES, -1)], -1)
    return -(share * log_probs).sum(-1).mean() - (shares * coarse).sum(-1).mean()


def accuracy(logits: Tensor, share: Tensor) -> tuple[float, float]:
    """Share of clear patches (over 90 % of one texture) whose class and whose family are right."""
    clear = share.amax(-1) > 0.9
    right = logits.argmax(-1) == share.argmax(-1)
    family = torch.tensor([FAMILIES.index(pair) for pair in FAMILIES for _ in range(pair[1])])
    related = family[logits.argmax(-1)] == family[share.argmax(-1)]
    return right[clear].float().mean().item(), related[clear].float().mean().item()


def pretrain(args: argparse.Namespace) -> nn.Module:
    """Train on fresh mosaics; now and then report on mosaics of instances kept apart."""
    torch.manual_seed(args.seed)
    g = torch.Generator().manual_seed(args.seed)
    start = time.process_time()
    grid = [[texture(args.seed, k, i) for i in range(INSTANCES)] for k in range(len(FORMULAS))]
    bank = torch.from_numpy(np.array(grid))
    train, held = bank[:, :-2], bank[:, -2:]
    log.info(
        "%d classes, %d instances each, made in %.0f CPU s", *bank.shape[:2], time.process_time() - start
    )
    test = mosaic(held, 128, torch.Generator().manual_seed(1))
    filters = gabor_filters()
    target = gabor_energies(test[0], filters)

    model = Learner()
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: min((t + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * t / args.steps))
    )
    for step in range(1, args.steps + 1):
        image, share = mosaic(train, args.batch, g)
        with torch.autocast("cpu", torch.bfloat16):
            patches, whole, gabor = model(image)
        loss = soft_cross_entropy(patches, share) + 0.2 * soft_cross_entropy(whole, share.mean(1))
        loss = loss + 3 * F.mse_loss(gabor.float(), gabor_energies(image, filters))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        if step % args.every == 0 or step == args.steps:
            with torch.no_grad():
                patches, _, gabor = model(test[0])
            explained = 1 - F.mse_loss(gabor, target) / target.var()
            line = "step %5d  loss %.3f  held-out: class %.3f, family %.3f, energies R2 %.3f  %5.0f CPU s"
            figures = *accuracy(patches, test[1]), explained.item(), time.process_time() - start
            log.info(line, step, loss.item(), *figures)
    return model.vit


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="file of the weights; the log goes beside it")
    parser.add_argument("--steps", type=int, default=5500)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=250, help="steps between two lines of the log")
    args = parser.parse_args()
    files: list[logging.Handler] = [
        logging.FileHandler(args.out.with_suffix(".log"), mode="w"),
        logging.StreamHandler(),
    ]
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=files)
    log.info("torch %s, %d threads, seed %d", torch.__version__, torch.get_num_threads(), args.seed)
    log.info("%s, %d steps of %d pictures, lr %g", json.dumps(VIT), args.steps, args.batch, args.lr)
    vit = pretrain(args)
    state = {name: value.half().contiguous() for name, value in vit.state_dict().items()}
    save_file(
        state,
        args.out,
        metadata={"vit": json.dumps(VIT), "licence": "Apache-2.0", "mean": "0.5", "std": "0.5"},
    )
    log.info("%s: %.2f MB", args.out.name, args.out.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
