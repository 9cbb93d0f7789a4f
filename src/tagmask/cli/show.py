"""Texts of ``tagmask show``: settings with the reasons that stand beside them in the code."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tagmask import methods, recipes
from tagmask.errors import ConfigError, nearest

if TYPE_CHECKING:
    from tagmask.methods.base import Method

__all__ = ["describe"]


def describe(name: str) -> str:
    """What there is to say about a method, a recipe, or (by the word "settings") a run.

    Raises:
        ConfigError: There is nothing of that name.
    """
    if name == "settings":
        from tagmask.pipeline.config import RunConfig

        return "\n".join(["All settings of a run (for recipes and --set):", "", *_fields(RunConfig, "")])
    if name in methods.names():
        return _method(name)
    known = [*methods.names(), *recipes.names(), "settings"]
    if name in recipes.names():
        return recipes.find_recipe(name).read_text(encoding="utf-8").rstrip()
    raise ConfigError(f"nothing called '{name}'. {nearest(name, known)}")


def _method(name: str) -> str:
    kind = methods.get(name)
    module = inspect.getmodule(kind)
    about = inspect.getdoc(module) or inspect.getdoc(kind) or ""
    offers = [f"maps: {', '.join(kind.map_kinds)}" if kind.map_kinds else "no maps"]
    offers.append("segments by itself" if kind.segments else "does not segment")
    head = [
        about,
        "",
        "; ".join(offers),
        "",
        "Settings (in a recipe under 'model:', or --set model.NAME=VALUE):",
        "",
    ]
    lines = [*head, *_fields(kind.config_class, "model.")]
    if own := _own_views(kind):
        lines += ["", "Options of its segmentation views, beside the common ones:", "", *own]
    return "\n".join(lines)


def _own_views(kind: type[Method]) -> list[str]:
    """What the step segment takes for this method alone."""
    from tagmask.methods.base import SegmentationViews

    common = SegmentationViews.model_fields
    own = {key: info for key, info in kind.views_class.model_fields.items() if key not in common}
    return _lines(own, "segment.") if kind.segments else []


def _fields(schema: type[BaseModel], prefix: str) -> list[str]:
    return _lines(schema.model_fields, prefix)


def _lines(fields: Mapping[str, FieldInfo], prefix: str) -> list[str]:
    lines: list[str] = []
    for key, info in fields.items():
        nested = info.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            lines += _fields(nested, f"{prefix}{key}.")
            continue
        lines.append(f"{prefix}{key}  ({_type(info)}, default {_default(info)})")
        if info.description:
            lines.append(textwrap.fill(info.description, 96, initial_indent="    ", subsequent_indent="    "))
    return lines


def _type(info: FieldInfo) -> str:
    text = info.annotation.__name__ if isinstance(info.annotation, type) else str(info.annotation)
    text = re.sub(r"Annotated\[(tuple\[float, \.\.\.\]), .*?\)\]", r"\1", text)
    for noise in ("typing.", "pathlib._local.", "pathlib."):
        text = text.replace(noise, "")
    return text


def _default(info: FieldInfo) -> Any:
    if info.is_required():
        return "none: must be given"
    value = info.get_default(call_default_factory=True)
    return "not given" if value is None else value
