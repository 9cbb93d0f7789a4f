"""What the settings of a run say about its methods, in the methods' own terms."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tagmask import methods
from tagmask.config import validate
from tagmask.steps.learners import Learner
from tagmask.training.config import TrainConfig

if TYPE_CHECKING:
    from tagmask.pipeline.config import RunConfig

__all__ = ["scaled", "shortened", "with_own_views"]

_LOG = logging.getLogger("tagmask")


def shortened(base: Mapping[str, Any], config: RunConfig, where: str) -> RunConfig:
    """The settings with what the method counts in updates shrunk like a run that was made shorter.

    Otherwise a loss that joins at update 600 would never learn in a run of 500. What the user set stays.

    Args:
        base: The recipe.
        config: The settings that came of it.
        where: What the user knows them as, for messages.
    """
    full = (base.get("train") or {}).get("iterations", TrainConfig().iterations)
    iterations, kind = config.train.iterations, methods.get(config.method)
    if not isinstance(full, int) or iterations >= full:
        return config
    before = base.get("model") or {}
    known = validate(kind.config_class, config.model, f"{where}: model ({config.method})")
    shrunk = {
        key: value * iterations // full
        for key in kind.config_class.updates
        if config.model.get(key) == before.get(key) and (value := getattr(known, key)) is not None
    }
    changed = {key: value for key, value in shrunk.items() if value != getattr(known, key)}
    if changed:
        told = ", ".join(f"model.{key} {value}" for key, value in changed.items())
        _LOG.info("%d updates instead of %d: %s", iterations, full, told)
    return config.model_copy(update={"model": {**config.model, **changed}})


def scaled(base: Mapping[str, Any], config: RunConfig, where: str) -> RunConfig:
    """The settings with the rate that the paper's rule gives for a batch that was changed.

    A rate that the user set stays, and so does one whose paper has no such rule, see `Method.batch_rule`.

    Args:
        base: The recipe.
        config: The settings that came of it.
        where: What the user knows them as, for messages.
    """
    given, before = config.model, base.get("model") or {}
    usual, asked = (base.get("train") or {}).get("batch_size"), config.train.batch_size
    if given.get("lr") != before.get("lr") or (usual is not None and not isinstance(usual, int)):
        return config
    # Without a recipe, the default batch is nobody's choice and the rate is left as it was published.
    if asked == (TrainConfig().batch_size if usual is None else usual):
        return config
    kind = methods.get(config.method)
    rule = kind.batch_rule(validate(kind.config_class, given, f"{where}: model ({config.method})"))
    if rule is None:
        return config
    rate, batch = rule
    # A recipe's rate is for the recipe's batch; without one both are the paper's.
    rate *= asked / (batch if usual is None else usual)
    _LOG.warning("batches of %d images: model.lr is %.4g (the paper's rate x batch / 512)", asked, rate)
    return config.model_copy(update={"model": {**given, "lr": rate}})


def with_own_views(config: RunConfig, where: str) -> RunConfig:
    """The settings with all options of the segmentation views that the methods have, and no others.

    Args:
        config: The settings as given.
        where: What the user knows them as, for messages.

    Raises:
        ConfigError: An option is unknown, or a value does not fit.
    """

    def settled(train: TrainConfig, method: str, place: str) -> TrainConfig:
        views = train.eval_segment
        if views is not None:
            views = views.settled(methods.get(method), f"{where}: {place}eval_segment")
        return train.model_copy(update={"eval_segment": views})

    segmenter = methods.get((config.student or config).method)
    changed: dict[str, Any] = {"train": settled(config.train, config.method, "train.")}
    if segmenter.segments:
        changed["segment"] = config.segment.settled(segmenter, f"{where}: segment")
    for name in ("affinity", "student"):
        learner: Learner | None = getattr(config, name)
        if learner is not None:
            train = settled(learner.train, learner.method, f"{name}.train.")
            changed[name] = learner.model_copy(update={"train": train})
    return config.model_copy(update=changed)
