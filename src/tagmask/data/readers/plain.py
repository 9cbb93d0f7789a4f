"""JSON that means one thing: a key that stands twice in an object is refused, since only one would count."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["parse_json"]


def parse_json(text: str | bytes) -> Any:
    """Plain values of a JSON text.

    Raises:
        ValueError: It is not JSON, nests too deeply, or an object has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key '{twice[:60]}' appears twice in one object; keep one of them")
    return values
