"""AFA's work outside the network: ``python benchmarks/affinity.py [--threads 1] [--out FILE]``.

The other side is the usual formulation, written here from its description: loops over pixels for the window,
over images for everything else, every class carried along, refinement per image and per threshold with a
copy per neighbour, and both kinds of labels made whether a step uses them or not.
"""

from __future__ import annotations

import argparse
import csv
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from refine import COLUMNS, in_turn, row, scene, stacked_par
from torch import Tensor, nn

from tagmask.backbones.mit import PyramidFeatures
from tagmask.losses.affinity import pair_loss
from tagmask.losses.segmentation import balanced_cross_entropy
from tagmask.methods.afa import AFA, AFAConfig
from tagmask.ops.affinity import affinity_labels, propagate_with_background, radius_mask, transition
from tagmask.types import Batch

CROP, STRIDE, RADIUS, CLASSES = 512, 16, 8, 20
SCALES = (1.0, 0.5, 1.5)
HIGH, LOW = 0.55, 0.35


def looped_mask(h: int, w: int, radius: int) -> Tensor:
    """The window, pixel by pixel."""
    mask = torch.zeros(h * w, h * w)
    for row_i in range(h):
        for column_i in range(w):
            for row_j in range(max(row_i - radius, 0), min(row_i + radius + 1, h)):
                for column_j in range(max(column_i - radius, 0), min(column_i + radius + 1, w)):
                    mask[row_i * w + column_i, row_j * w + column_j] = 1
    return mask


def looped_walk(maps: Tensor, affinity: Tensor, mask: Tensor, tags: Tensor, background: float) -> Tensor:
    """The random walk, image by image."""
    count, _, h, w = maps.shape
    planes = torch.cat([torch.full_like(maps[:, :1], background), maps], 1)
    steps = affinity.clone()
    for i in range(count):
        steps[i, mask == 0] = 0
    steps = steps**2
    steps = steps / (steps.sum(1, keepdim=True) + 0.1)
    out = torch.zeros_like(planes)
    for i in range(count):
        present = torch.nonzero(F.pad(tags[i], (1, 0), value=1))[:, 0]
        shares = planes[i, present].softmax(0).flatten(1)
        out[i, present] = (shares @ steps[i]).view(-1, h, w)
    return out


def looped_labels(labels: Tensor, mask: Tensor) -> Tensor:
    """Pair labels, image by image."""
    small = F.interpolate(labels[:, None].float(), (CROP // STRIDE, CROP // STRIDE)).flatten(1)
    pairs = (small[:, :, None].repeat(1, 1, small.shape[1]) == small[:, None, :]).long()
    for i in range(len(labels)):
        pairs[i, mask == 0] = 255
        pairs[i, :, small[i] == 255] = 255
        pairs[i, small[i] == 255, :] = 255
    return pairs


def looped_refined(images: Tensor, maps: Tensor, tags: Tensor, boxes: Tensor, soft: bool) -> Tensor:
    """Labels of maps that carry their background, refined one image at a time at half size."""
    out = torch.full((len(images), *images.shape[2:]), 255 if soft else 0)
    for i, (top, bottom, left, right) in enumerate(boxes.tolist()):
        present = torch.nonzero(F.pad(tags[i], (1, 0), value=1))[:, 0]
        image, own = images[i : i + 1], maps[i : i + 1, present]
        if not soft:
            image, own = image[..., top:bottom, left:right], own[..., top:bottom, left:right]
        half = (image.shape[2] // 2, image.shape[3] // 2)
        own = F.interpolate(own, half, mode="bilinear", align_corners=not soft)
        own = own.softmax(1) if soft else own
        refined = stacked_par(F.interpolate(image, half, mode="bilinear"), own)
        full = present[F.interpolate(refined, image.shape[2:], mode="bilinear").argmax(1)[0]]
        out[i, top:bottom, left:right] = full[top:bottom, left:right] if soft else full
    return out


def combined(high: Tensor, low: Tensor) -> Tensor:
    out = high.clone()
    out[high == 0] = 255
    out[(high + low) == 0] = 0
    return out


@dataclass
class Network:
    """What the network would give for one batch."""

    images: Tensor
    tags: Tensor
    boxes: Tensor
    raw: dict[int, Tensor]
    affinity: Tensor
    large_affinity: Tensor
    logits: Tensor

    @classmethod
    def random(cls, count: int) -> Network:
        torch.manual_seed(0)
        images = torch.stack([scene(i, CROP, CROP) for i in range(count)]).permute(0, 3, 1, 2) / 255
        tags = torch.zeros(count, CLASSES)
        for i in range(count):
            tags[i, torch.randperm(CLASSES)[: 1 + i % 2]] = 1
        grids = {int(s * CROP): int(s * CROP) // STRIDE for s in SCALES}
        raw = {side: torch.randn(2 * count, CLASSES, n, n) for side, n in grids.items()}
        symmetric = torch.rand(count, 48**2, 48**2)
        small = torch.rand(count, 32**2, 32**2)
        boxes = torch.tensor([[0, CROP, 0, CROP], [32, CROP, 0, 400]]).repeat(count // 2, 1)
        logits = torch.randn(count, CLASSES + 1, CROP // 4, CROP // 4)
        return cls(images, tags, boxes, raw, small, (symmetric + symmetric.transpose(1, 2)) / 2, logits)


class Encoder(nn.Module):
    """Hands out prepared maps, on which a classifier of ones and zeros acts as the identity."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, attention: Any, attended: Any) -> PyramidFeatures:
        return PyramidFeatures(
            (self.network.raw[images.shape[2]],), {0: (images, images)} if attention else {}
        )


class Pairs(nn.Module):
    """Hands out the prepared affinity."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, attention: Any) -> Tensor:
        return self.network.large_affinity


def our_step(network: Network, step: int) -> Any:
    """Targets and losses as `AFA` makes them, with a network that takes no time."""
    method = AFA(AFAConfig(backbone="mit_b0"), CLASSES).eval()
    method.encoder, method.attn_proj = Encoder(network), Pairs(network)
    method.classifier.weight.data = torch.eye(CLASSES)[:, :, None, None]
    names = tuple(str(i) for i in range(len(network.images)))
    batch = Batch(network.images, network.tags, names, network.boxes)

    def run() -> tuple[Tensor, Tensor]:
        labels, pairs = method.targets(batch, step, (CROP // STRIDE, CROP // STRIDE))
        logits = network.logits.clone().requires_grad_()
        affinity = network.affinity.clone().requires_grad_()
        large = F.interpolate(logits, (CROP, CROP), mode="bilinear")
        (balanced_cross_entropy(large, labels) + pair_loss(affinity, pairs)).backward()
        return labels, pairs

    return run


def other_step(network: Network, step: int, mask: Tensor, large_mask: Tensor) -> Any:
    """The same in the usual formulation; the windows are made once, before training."""
    images, tags, boxes = network.images, network.tags, network.boxes
    count = len(images)

    def run() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            total: Any = 0
            for raw in network.raw.values():
                large = F.interpolate(raw, (CROP, CROP), mode="bilinear")
                total = total + F.relu(torch.maximum(large[:count], large[count:].flip(3)))
            total = total - total.amin((2, 3), keepdim=True)
            maps = total / (total.amax((2, 3), keepdim=True) + 1e-5)
            valid = maps * tags[:, :, None, None]
            small = F.interpolate(valid, (48, 48), mode="bilinear")
            found = []
            for level in (HIGH, LOW):
                walked = looped_walk(small, network.large_affinity, large_mask, tags, level)
                walked = F.interpolate(walked, (CROP, CROP), mode="bilinear")
                found.append(looped_refined(images, walked, tags, boxes, soft=False))
            from_walk = combined(*found)
            for i, (top, bottom, left, right) in enumerate(boxes.tolist()):
                from_walk[i, :top], from_walk[i, bottom:] = 255, 255
                from_walk[i, :, :left], from_walk[i, :, right:] = 255, 255
            planes = [torch.cat([torch.full_like(maps[:, :1], level), maps], 1) for level in (HIGH, LOW)]
            from_maps = combined(*(looped_refined(images, p, tags, boxes, soft=True) for p in planes))
            labels = from_walk if step > 6000 else from_maps
            pairs = looped_labels(from_maps, mask)
        logits = network.logits.clone().requires_grad_()
        affinity = network.affinity.clone().requires_grad_()
        large = F.interpolate(logits, (CROP, CROP), mode="bilinear")
        behind, front = labels.clone(), labels.clone()
        behind[labels != 0], front[labels == 0] = 255, 255
        seg = sum(F.cross_entropy(large, part, ignore_index=255) for part in (behind, front)) / 2
        same, unlike = (pairs == 1).float(), (pairs == 0).float()
        pulled = (same * (1 - affinity)).sum() / (same.sum() + 1)
        pushed = (unlike * affinity).sum() / (unlike.sum() + 1)
        (seg + 0.5 * pulled + 0.5 * pushed).backward()
        return labels, pairs

    return run


def bench_pieces(rounds: int) -> list[dict[str, Any]]:
    """Window, walk and pair labels at the sizes of a 512 pixel crop."""
    rows, network = [], Network.random(2)
    for side in (32, 48):
        equal = torch.equal(radius_mask(side, side, RADIUS), looped_mask(side, side, RADIUS).bool())
        pair = in_turn(
            lambda n=side: radius_mask(n, n, RADIUS), lambda n=side: looped_mask(n, n, RADIUS), rounds
        )
        setting = f"{side}x{side} grid, radius {RADIUS}"
        rows.append(row("radius mask", setting, [pair], "pixel loops", agreement=f"equal: {equal}"))
    maps = torch.rand(2, CLASSES, 48, 48) * network.tags[:, :, None, None]
    mask = radius_mask(48, 48, RADIUS)

    def walk() -> Tensor:
        steps = transition(network.large_affinity, mask)
        return propagate_with_background(maps, network.tags, (HIGH, LOW), steps)

    def walk_looped() -> Tensor:
        return torch.stack(
            [looped_walk(maps, network.large_affinity, mask, network.tags, b) for b in (HIGH, LOW)]
        )

    gap = float((walk() - walk_looped()).abs().max())
    pair = in_turn(walk, walk_looped, rounds)
    rows.append(
        row(
            "random walk",
            "2x20x48x48, two levels",
            [pair],
            "image loop",
            agreement=f"max difference {gap:.1e}",
        )
    )
    labels = torch.randint(0, 4, (2, CROP, CROP)).masked_fill_(torch.rand(2, CROP, CROP) > 0.7, 255)
    mask = radius_mask(32, 32, RADIUS)
    cells = labels[:, ::STRIDE, ::STRIDE].to(torch.uint8)
    equal = bool((affinity_labels(cells, mask) == looped_labels(labels, mask)).all())
    pair = in_turn(lambda: affinity_labels(cells, mask), lambda: looped_labels(labels, mask), rounds)
    rows.append(row("pair labels", "2x32x32", [pair], "image loop", agreement=f"equal: {equal}"))
    return rows


def bench_step(rounds: int) -> list[dict[str, Any]]:
    """Everything between the network's passes and its gradients, in both phases that learn."""
    rows, network = [], Network.random(2)
    mask, large_mask = radius_mask(32, 32, RADIUS), radius_mask(48, 48, RADIUS)
    for step, name in ((4000, "labels from maps"), (10000, "labels from the walk")):
        ours, other = our_step(network, step), other_step(network, step, mask, large_mask)
        mine, theirs = ours(), other()
        share = float((mine[0] != theirs[0]).float().mean())
        wrong = float((mine[1] != theirs[1]).float().mean())
        text = f"{share:.4%} of labels, {wrong:.4%} of pairs differ"
        setting = f"2x3x512x512, 20 classes, {name}"
        rows.append(
            row("step without network", setting, [in_turn(ours, other, rounds)], "usual", agreement=text)
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="default: results/affinity-cpu-torchVERSION.csv")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = bench_pieces(args.rounds) + bench_step(args.rounds)
    version = torch.__version__.split("+")[0]
    out = args.out or Path(__file__).parent / "results" / f"affinity-cpu-torch{version}.csv"
    out.parent.mkdir(exist_ok=True)
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, "machine"], restval="")
        writer.writeheader()
        writer.writerows(line | {"machine": platform.machine()} for line in rows)
    for line in rows:
        print("  ".join(str(line.get(column, "")) for column in COLUMNS))


if __name__ == "__main__":
    main()
