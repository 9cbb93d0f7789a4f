"""WeakTr's two hot places: ``python benchmarks/weaktr.py [--part fusion|windows] [--threads N]``.

The other side is the usual formulation, written here from its description. Fusion: all attention maps of all
blocks stacked, copied into head-major order and multiplied by their weights, once for the class rows and once
for the patch rows. Windows: every window and every mirrored view alone, attention written out, and the
full-size merge done three times per view, for the list of windows, the probabilities and a second exit.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor
from turns import in_turn

import tagmask.methods.weaktr as weaktr
from tagmask.data.datasets.scenes import render
from tagmask.heads.attention_fusion import fuse_attention
from tagmask.methods.segmenter import Segmenter, SegmenterConfig
from tagmask.methods.weaktr import WeakTr, WeakTrConfig
from tagmask.ops.segmentation_views import segment_views
from tagmask.ops.windows import window_starts, windowed

RESULTS = Path(__file__).parent / "results"
ENCODER = "deit_small_patch16_224"
CLASSES = 20
WINDOW, STRIDE = 480, 320


def stacked_fusion(weights: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """The mean of all maps times their weights, over one tensor of all maps."""
    maps = torch.stack(list(blocks)).clone().permute(1, 2, 0, 3, 4).contiguous().flatten(1, 2)
    shares = weights[:, :, None, None]
    for_classes = (maps.clone() * shares).mean(1)[:, :CLASSES]
    for_patches = (maps.clone() * shares).mean(1)[:, CLASSES:]
    return torch.cat([for_classes, for_patches], 1)


def one_at_a_time(fn: Callable[[Tensor], Tensor], image: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean probabilities of a view and its twin, window by window."""
    found = []
    for mirrored in (False, True):
        view = image.flip(3) if mirrored else image
        for again in range(3):  # the merge of two of the three is thrown away
            if not again:
                pieces = list(_pieces(fn, view))
            merged = torch.zeros(1, CLASSES + 1, *view.shape[2:])
            seen = torch.zeros(view.shape[2:])
            for logits, rows, columns in pieces:
                merged[..., rows, columns] += logits
                seen[rows, columns] += 1
            large = F.interpolate(merged / seen, size, mode="bilinear")
            probs = (large.flip(3) if mirrored else large).softmax(1)
        found.append(probs)
    return torch.stack(found).mean(0)


def _pieces(fn: Callable[[Tensor], Tensor], view: Tensor) -> Iterator[tuple[Tensor, slice, slice]]:
    for top in window_starts(view.shape[2], WINDOW, STRIDE):
        for left in window_starts(view.shape[3], WINDOW, STRIDE):
            rows, columns = slice(top, top + WINDOW), slice(left, left + WINDOW)
            yield fn(view[:, :, rows, columns]), rows, columns


@contextmanager
def plain_attention(method: Segmenter, fused: bool) -> Iterator[None]:
    """Attention of every block written out, or PyTorch's fused kernel."""
    parts: list[Any] = [m for m in method.modules() if hasattr(m, "fused_attn")]
    for part in parts:
        part.fused_attn = fused
    yield
    for part in parts:
        part.fused_attn = True


def pictures(count: int, height: int, width: int) -> Tensor:
    side = max(height, width)
    made = [torch.from_numpy(render(i, 0, side).image).permute(2, 0, 1) for i in range(count)]
    return torch.stack(made)[:, :, :height, :width].float() / 255


@torch.inference_mode()
def fusion(args: argparse.Namespace) -> list[dict[str, Any]]:
    method = WeakTr(WeakTrConfig(backbone=ENCODER, weights="none"), CLASSES).eval()
    rows = []
    for batch, height, width in ((2, 224, 224), (1, 375, 500)):
        images, kept = pictures(batch, height, width), []
        weaktr.fuse_attention = lambda w, b, kept=kept: (kept.append((w, b)), fuse_attention(w, b))[1]
        logits = method.all_logits(images)
        weights, blocks = kept[0]
        gap = float((fuse_attention(weights, blocks) - stacked_fusion(weights, blocks)).abs().max())
        part = in_turn(
            lambda w=weights, b=blocks: fuse_attention(w, b),
            lambda w=weights, b=blocks: stacked_fusion(w, b),
            args.rounds,
        )
        weaktr.fuse_attention = stacked_fusion
        apart = max(
            float((a - b).abs().max()) for a, b in zip(logits, method.all_logits(images), strict=True)
        )

        def forward(fuse: Any, images: Tensor = images) -> Any:
            weaktr.fuse_attention = fuse
            return method.all_logits(images)

        whole = in_turn(lambda: forward(fuse_attention), lambda: forward(stacked_fusion), args.rounds)
        setting = f"{batch} x {height} x {width}"
        rows.append(_row("fusion", setting, part, gap))
        rows.append(_row("forward", setting, whole, apart))
    weaktr.fuse_attention = fuse_attention
    return rows


@torch.inference_mode()
def windows(args: argparse.Namespace) -> list[dict[str, Any]]:
    method = Segmenter(SegmenterConfig(backbone=f"mask:{ENCODER}", weights="none"), CLASSES).eval()
    view, size = pictures(1, 520, 693), (375, 500)

    def ours(half: bool = False) -> Tensor:
        fn = windowed(method.segment, WINDOW, STRIDE, args.batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return segment_views(fn, view, [(520, 693)], size, flip="mean", merge="mean", probabilities=True)

    def other(fused: bool) -> Tensor:
        with plain_attention(method, fused):
            return one_at_a_time(method.segment, view, size)

    rows = []
    usual, fused = "usual formulation", "usual formulation, fused attention"
    for name, half, theirs in ((usual, False, False), (fused, False, True), (usual, True, False)):
        gap = float((ours(half) - other(theirs)).abs().max())
        times = in_turn(lambda h=half: ours(h), lambda f=theirs: other(f), args.rounds)
        precision = "bf16" if half else "fp32"
        what = f"windows in batches of {args.batch}, {precision}, against the {name} in fp32"
        rows.append(_row(what, "520 x 693", times, gap))
    rows.append({"profile_ms": profile(method, ours)})
    return rows


def profile(method: Segmenter, work: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds of one call by part; what is left is cutting, enlarging, merging and the softmax."""
    spent: dict[str, float] = defaultdict(float)
    started: dict[str, float] = {}
    network: Any = method.network
    parts = {"encoder": network.encoder, "decoder": network.decoder}
    handles = []
    for name, module in parts.items():
        handles.append(
            module.register_forward_pre_hook(lambda *_, n=name: started.update({n: time.perf_counter()}))
        )
        handles.append(
            module.register_forward_hook(
                lambda *_, n=name: spent.update({n: spent[n] + time.perf_counter() - started[n]})
            )
        )
    begin = time.perf_counter()
    work()
    total = time.perf_counter() - begin
    for handle in handles:
        handle.remove()
    spent["rest"] = total - sum(spent.values())
    return {name: round(1e3 * seconds, 1) for name, seconds in {**spent, "all": total}.items()}


def _row(part: str, setting: str, times: tuple[float, float], gap: float) -> dict[str, Any]:
    ours, other = times
    print(f"{part} {setting}: {ours:.1f} ms, {other:.1f} ms, {other / ours:.2f} x, difference {gap:.1e}")
    return {
        "part": part,
        "setting": setting,
        "ours_ms": round(ours, 1),
        "other_ms": round(other, 1),
        "speedup": round(other / ours, 2),
        "largest_difference": gap,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("fusion", "windows"), default="fusion")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows = (fusion if args.part == "fusion" else windows)(args)
    content = {
        "command": f"python benchmarks/weaktr.py --part {args.part} --threads {args.threads} "
        f"--rounds {args.rounds} --batch {args.batch}",
        "machine": f"CPU, 2 cores, {args.threads} thread(s), {platform.machine()}",
        "clock": "processor time of one thread" if args.threads == 1 else "wall clock, machine kept quiet",
        "seed": 0,
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
        "encoder": ENCODER,
        "rows": rows,
    }
    out = args.out or RESULTS / f"weaktr_{args.part}.json"
    out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
