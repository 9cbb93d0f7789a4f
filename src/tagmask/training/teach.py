"""A trained model learns from masks that a person corrected, within a minute on a CPU.

The lower blocks of the network stay as they are, so what they make of each view is computed once and kept;
the last blocks and the decoder learn from there. Images that nobody corrected may come along with the labels
that the run gave them, at less weight, and where a method has a classifier it must go on saying what it said:
both keep what was learned before (Li and Hoiem, "Learning without Forgetting", ECCV 2016). Some corrections
are held back; the new model is given only if it does better on those, and its weights go only as far from
the old ones as serves them: few images, or few strokes, are soon memorised (Wortsman et al., "Robust
fine-tuning", CVPR 2022). Where tags are known, no other class can win, as in the masks made with them.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tagmask.data.transforms.banded import for_bands
from tagmask.data.transforms.base import CropDraw, ResizedCrop
from tagmask.engine.compute import Compute
from tagmask.errors import DataError
from tagmask.losses.segmentation import mean_cross_entropy
from tagmask.methods.base import Method
from tagmask.models.trained import Trained
from tagmask.ops.resize import resize_bilinear
from tagmask.training.judging import Counts, allowed_labels, best_share, counted, within
from tagmask.training.lessons import Lesson, Taught, TeachConfig, as_trained, check_lessons
from tagmask.training.tokens import Cut, TokenStore, find_encoder

__all__ = ["teach"]

_FEW = 20  # fewer corrections are each held back once, in one of two halves, and learned from longer
_SHARES = (1.0, 0.5, 0.25)  # of the way from the old weights to those learned
_BATCH, _BESIDE = 12, 4
_KEEP = 4  # every so many updates the classifier is asked what it says now
_READING = 0.4
"""Share of the time in which views are read and go through the lower blocks."""
_NEEDED = 0.001  # of IoU, which a new model must gain
_FREELY = 0.3  # weight of telling all classes apart where the tags are known


class _Stop(Exception):
    """Somebody asked to stop."""


@dataclass
class _Work:
    """One call of `teach`."""

    config: TeachConfig
    compute: Compute
    seconds: float
    progress: Callable[[str, float], None] | None
    stop: Callable[[], bool] | None
    classes: int
    side: int
    began: float = field(default_factory=time.monotonic)
    store: TokenStore | None = None
    rows: dict[str, list[int]] = field(default_factory=dict)
    allowed: list[Tensor] = field(default_factory=list)
    tagged: bool = False
    chances: Tensor | None = None
    updates: int = 0

    @property
    def spent(self) -> float:
        """Share of the time that has passed."""
        return (time.monotonic() - self.began) / self.seconds

    def tell(self, what: str) -> None:
        """Report, and see whether to stop."""
        if self.stop is not None and self.stop():
            raise _Stop
        if self.progress is not None:
            self.progress(what, min(self.spent, 1.0))


def teach(
    trained: Trained,
    corrections: Sequence[Lesson],
    *,
    others: Sequence[Lesson] = (),
    seconds: float = 60,
    compute: Compute | None = None,
    config: TeachConfig | None = None,
    progress: Callable[[str, float], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Taught:
    """Teach a model from corrected masks; the model that is given does not change.

    Args:
        trained: The model; its method segments.
        corrections: Images whose masks a person corrected, at least two.
        others: Further images with the labels that they had.
        seconds: Time that all of it may take.
        compute: Device and precision; chosen by the machine if None.
        config: How.
        progress: Called with what is done ("reading", "learning", "checking") and the share of time passed.
        stop: Asked often; True ends the work.

    Raises:
        ConfigError: The method does not segment, or the time is no positive number.
        DataError: There are fewer than two corrections, or one cannot be used.
    """
    check_lessons(trained, corrections, seconds)
    config = config or TeachConfig()
    method = copy.deepcopy(trained.method)
    compute = compute or Compute.choose()
    side = config.side or _usual_side(method)
    work = _Work(config, compute, seconds, progress, stop, trained.classes.num_classes, side)
    cut = Cut(method.to(compute.device).eval(), config.blocks, compute)
    try:
        with torch.random.fork_rng(devices=[]):
            return _teach(work, cut, trained, corrections, others)
    except _Stop:
        return Taught(None, seconds=time.monotonic() - work.began, stopped=True)
    finally:
        if work.store is not None:
            work.store.close()


def _usual_side(method: Method) -> int:
    encoder = find_encoder(method)
    return 224 if encoder is None else encoder.grid[0] * encoder.patch_size


def _teach(
    work: _Work, cut: Cut, trained: Trained, corrections: Sequence[Lesson], others: Sequence[Lesson]
) -> Taught:
    beside = _read(work, cut, corrections, others)
    known = [lesson.name for lesson in corrections if lesson.name in work.rows]
    if len(known) < 2:
        raise DataError(f"{work.seconds:.0f} s are too short to read two images; give more time")
    shuffled = [known[i] for i in np.random.default_rng(work.config.seed).permutation(len(known))]
    cut.skip()
    work.chances = _chances(work, cut)
    start = cut.weights()
    few = len(known) < _FEW
    folds = [shuffled[0::2], shuffled[1::2]] if few else [shuffled[: max(len(known) // 5, 1)]]
    old: list[Counts] = []
    new: dict[float, list[Counts]] = {share: [] for share in _SHARES}
    for number, held in enumerate(folds):
        # With few corrections two halves check each other, and a third training learns from all of them.
        until = _READING + (1 - _READING) * (number + 1) / (len(folds) + few)
        began = work.spent
        old += _counts(work, cut, held)
        # What is checked afterwards takes as long for every share.
        until -= len(new) * (work.spent - began)
        _learn(work, cut, [name for name in shuffled if name not in held], beside, until)
        learned = cut.weights()
        for share, found in new.items():
            cut.go(start, learned, share)
            found += _counts(work, cut, held)
        cut.go(start, start, 0.0)
    before, after, share, better = best_share(old, new, _NEEDED, work.config.seed)
    if few and better:
        _learn(work, cut, shuffled, beside, 1.0)
        learned = cut.weights()
    cut.go(start, learned, share)
    counts = len(known), len(beside), sum(map(len, folds)), work.updates
    result = Taught(None, before, after, *counts, time.monotonic() - work.began)
    made = as_trained(cut.close(), trained, result) if better else None
    return dataclasses.replace(result, trained=made)


def _read(work: _Work, cut: Cut, corrections: Sequence[Lesson], others: Sequence[Lesson]) -> list[str]:
    """Fill the store: every correction once, the others once, then more views; as far as the time goes.

    Returns:
        Names of the others that were read.
    """
    fixed = {lesson.name for lesson in corrections}
    beside = [lesson for lesson in others if lesson.name not in fixed][: max(2 * len(fixed), 40)]
    rows = len(corrections) * work.config.views + len(beside)
    for number in range(work.config.views):
        for lesson in corrections:
            # The first views may take longer: without them there is nothing to check on.
            if work.spent > (_READING if number else 2 * _READING) and len(work.rows) >= 2:
                break
            _add(work, cut, lesson, number, rows)
        if number == 0:
            for lesson in beside:
                if work.spent > _READING / 2:
                    break
                _add(work, cut, lesson, 1, rows)
    return [lesson.name for lesson in beside if lesson.name in work.rows]


def _add(work: _Work, cut: Cut, lesson: Lesson, number: int, rows: int) -> None:
    """One view of one lesson; number 0 is the whole picture, the others are drawn."""
    work.tell("reading")
    image, mask = lesson.read(work.classes)
    view: Any = for_bands(ResizedCrop(work.side, scale=(0.4, 1.0), jitter=0.3), image.shape[2])
    rng = np.random.default_rng((work.config.seed, number, len(work.rows), *lesson.name.encode()))
    draw = CropDraw(0, 0, *mask.shape) if number == 0 else view.draw(mask.shape, rng)
    made = view.apply(image, draw, mask)
    if made.label is None:
        raise ValueError("a view without labels")
    kept = cut.lower(made.image[None])
    if work.store is None:
        work.store = TokenStore(rows, tuple(kept.shape[1:]), work.side)
    labels = made.label.numpy().astype(np.uint8)[None]
    work.rows.setdefault(lesson.name, []).extend(work.store.add(kept, labels))
    work.allowed.append(allowed_labels(work.classes + 1, lesson.tags, mask).to(work.compute.device))
    work.tagged |= lesson.tags is not None


def _learn(work: _Work, cut: Cut, names: Sequence[str], others: Sequence[str], until: float) -> None:
    """Train what lies above the cut, until the updates are done or a share of the time has passed."""
    config, store, method = work.config, work.store, cut.method
    assert store is not None  # something was read
    rows = np.asarray([row for name in names for row in work.rows[name]])
    beside = np.asarray([row for name in others for row in work.rows[name]], np.int64)
    groups = [{"params": cut.upper, "lr": config.lr}, {"params": cut.heads, "lr": config.lr_heads}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.01)
    peak = [group["lr"] for group in optimizer.param_groups]
    for param in method.parameters():
        param.requires_grad_(False)
    for param in (*cut.upper, *cut.heads):
        param.requires_grad_(True)
    rng, begin = np.random.default_rng((config.seed, 3)), work.spent
    count = min(config.updates, (60 if len(names) < _FEW else 20) + config.epochs * len(rows) // _BATCH)
    for update in range(count):
        done = max(update / count, (work.spent - begin) / max(until - begin, 1e-6))
        if done >= 1:
            break
        work.tell("learning")
        for group, rate in zip(optimizer.param_groups, peak, strict=True):
            group["lr"] = rate * min(1.0, (update + 1) / 10) * (1 - done) ** 0.9
        chosen = rng.choice(rows, _BATCH)
        loss = _loss(work, cut, store, chosen)
        if len(beside):
            more = 1 + work.tagged  # masks that know the tags are worth more
            known = rng.choice(beside, more * _BESIDE)
            loss = loss + more * config.weight * _loss(work, cut, store, known)
        if work.chances is not None and update % _KEEP == 0:
            loss = loss + _forgotten(work, cut, store, chosen)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        work.updates += 1


def _loss(work: _Work, cut: Cut, store: TokenStore, rows: NDArray[np.int64]) -> Tensor:
    kept, labels = store.get(rows, work.compute.device)
    with work.compute.autocast():
        logits = cut.upon(cut.method.segment, kept, work.side)
    large = resize_bilinear(logits.float(), (work.side, work.side))
    if not work.tagged:
        return mean_cross_entropy(large, labels)
    allowed = torch.stack([work.allowed[row] for row in rows])
    return mean_cross_entropy(within(large, allowed), labels) + _FREELY * mean_cross_entropy(large, labels)


def _chances(work: _Work, cut: Cut) -> Tensor | None:
    """What the classifier says of every view before anything is learned, (rows, K); None without one."""
    found, store = [], work.store
    assert store is not None  # something was read
    for first in range(0, store.used, _BATCH):
        work.tell("reading")
        kept, _ = store.get([*range(first, min(first + _BATCH, store.used))], work.compute.device)
        try:
            with work.compute.predicting():
                found.append(cut.upon(cut.method.classify, kept, work.side).float().sigmoid().clone())
        except AttributeError:
            return None  # a pure segmenter has no classifier
    return torch.cat(found)


def _forgotten(work: _Work, cut: Cut, store: TokenStore, rows: NDArray[np.int64]) -> Tensor:
    """Cross entropy between what the classifier says of views now and what it said before."""
    assert work.chances is not None  # asked for where there are some
    kept, _ = store.get(rows, work.compute.device)
    with work.compute.autocast():
        logits = cut.upon(cut.method.classify, kept, work.side)
    return F.binary_cross_entropy_with_logits(logits.float(), work.chances[rows].clone())


def _counts(work: _Work, cut: Cut, names: Sequence[str]) -> list[Counts]:
    """What the method says about whole pictures, counted against their corrections."""
    assert work.store is not None  # something was read
    found = []
    for name in names:
        work.tell("checking")
        row = work.rows[name][0]
        kept, labels = work.store.get([row], work.compute.device)
        with work.compute.predicting():
            logits = cut.upon(cut.method.segment, kept, work.side)
            large = resize_bilinear(logits.float(), (work.side, work.side))
        found.append(counted(within(large, work.allowed[row][None]).argmax(1), labels, work.classes + 1))
    return found
