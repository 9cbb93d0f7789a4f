"""Options of the segmentation views as settings name them, before it is known whose they are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Self

from pydantic import ConfigDict

from tagmask import methods
from tagmask.config import validate
from tagmask.errors import ConfigError, nearest
from tagmask.methods.base import Method, SegmentationViews
from tagmask.names import renamed_text

__all__ = ["UNUSED", "GivenViews", "views_of"]

UNUSED: Mapping[str, Any] = {
    "long_side": None,
    "short_side": None,
    "sampling": "sizes",
    "window": None,
    "window_stride": None,
    "window_batch": 4,
    "exits": [],
    "merge_at": "image",
}
"""What settings, models and records of version 0.1 hold whatever the method: values of no effect."""


class GivenViews(SegmentationViews):
    """Views of a method to be named later; options that are not common to all methods are kept as given."""

    model_config = ConfigDict(extra="allow")

    def of(self, kind: type[Method], where: str = "segment") -> SegmentationViews:
        """The views of a method.

        Args:
            kind: Its class.
            where: What the user knows the options as, for the message.

        Raises:
            ConfigError: An option is unknown, or a value does not fit.
        """
        common = {key: getattr(self, key) for key in SegmentationViews.model_fields}
        return views_of(kind, {**common, **(self.model_extra or {})}, where, type(self).model_fields)

    def settled(self, kind: type[Method], where: str = "segment") -> Self:
        """The same with all options of the method and no others, see `of`."""
        views = self.of(kind, where).model_dump(mode="json")
        common = self.model_dump(include=set(type(self).model_fields))
        return type(self).model_validate({**views, **common})


def views_of(
    kind: type[Method],
    values: Mapping[str, Any],
    where: str = "segment",
    known: Mapping[str, Any] | None = None,
) -> SegmentationViews:
    """The segmentation views of a method.

    Args:
        kind: Its class.
        values: Options; those of other methods at values of no effect are left out.
        where: What the user knows the options as, for the message.
        known: Further keys that stand beside them.

    Raises:
        ConfigError: An option is unknown, or a value does not fit.
    """
    schema = kind.views_class
    values = {k: v for k, v in values.items() if k in schema.model_fields or not _unused(k, v)}
    other = [key for key in values if key not in schema.model_fields]
    if other:
        owner = next((s for s in _all_views() if set(values) <= set(s.model_fields)), None)
        if owner is None:
            near = nearest(other[0], {**schema.model_fields, **(known or {})})
            raise ConfigError(f"{where}: unknown key '{other[0]}'. {near}")
        text = renamed_text(f"{where}: {other[0]}", f"an option of {owner.__name__} alone", "0.2")
        warnings.warn(text, FutureWarning, stacklevel=2)
        schema = owner
    return validate(schema, values, where)


def _unused(key: str, value: Any) -> bool:
    plain = list(value) if isinstance(value, tuple) else value
    return key in UNUSED and plain == UNUSED[key]


def _all_views() -> list[type[SegmentationViews]]:
    return [methods.get(name).views_class for name in methods.names()]
