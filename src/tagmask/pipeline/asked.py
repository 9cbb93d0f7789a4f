"""What is asked of a step: the settings that decide, and what it reads as that is on the disk now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tagmask.steps.base import Context, Step
from tagmask.steps.models import Settings
from tagmask.store.manifest import Manifest

__all__ = ["Asked", "asked_of", "decisive", "section"]


@dataclass(frozen=True)
class Asked:
    """What is asked of a step, as the manifest would note it.

    Attributes:
        step: The step.
        settings: What decides about the result.
        inputs: Checksums of what it reads.
        defaults: Values of settings that an older record may not know.
    """

    step: Step
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]
    defaults: Mapping[str, Any]

    def done(self, manifest: Manifest) -> bool:
        """Whether this very work was finished and its outputs are whole."""
        return manifest.is_done(self.step.name, self.settings, self.inputs, self.defaults, self.step.free)

    def same(self, manifest: Manifest) -> bool:
        """Whether the record is about this very work, finished or not."""
        return manifest.same_work(self.step.name, self.settings, self.inputs, self.defaults, self.step.free)


def section(settings: Settings, step: Step) -> Any:
    """The section of the settings that belongs to a step."""
    return getattr(settings, step.name)


def asked_of(step: Step, context: Context) -> Asked:
    """What is asked of a step now.

    Raises:
        UserError: What it reads is not there or cannot be read.
    """
    config = section(context.settings, step)
    settings, defaults = decisive(step, config, context.settings)
    return Asked(step, settings, step.reads(config, context), defaults)


def decisive(step: Step, config: Any, settings: Settings) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What decides about a step's result, and its defaults where the section itself has some."""
    fields = type(config).model_fields.items()
    unset = {k: f.get_default(call_default_factory=True) for k, f in fields if not f.is_required()}
    usual = step.decides(config.model_copy(update=unset), settings)
    defaults = {k: v for k, v in usual.items() if k not in ("method", "model", "precision", "seed")}
    return step.decides(config, settings), defaults
