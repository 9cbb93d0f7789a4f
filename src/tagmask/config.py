"""Strict, frozen settings: read from YAML, changed by ``--set a.b=c``, errors in the user's words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tagmask.errors import ConfigError, nearest

__all__ = [
    "Config",
    "Count",
    "Power",
    "Rate",
    "Scales",
    "Share",
    "Weight",
    "apply_overrides",
    "parse_texts",
    "read_yaml",
    "validate",
]

_C = TypeVar("_C", bound="Config")
_MOST = 100_000
_LARGEST = 16 << 20


def _usable(scales: tuple[float, ...]) -> tuple[float, ...]:
    if not scales or not all(0 < scale <= 16 for scale in scales):
        raise ValueError("resize factors must be above 0 and at most 16, and there must be one at least")
    return scales


Scales = Annotated[tuple[float, ...], AfterValidator(_usable)]
"""Resize factors of an image."""

Rate = Annotated[float, Field(ge=0, le=100)]
"""A learning rate."""
Weight = Annotated[float, Field(ge=0, le=1e6)]
"""Factor of a loss, or decay of weights."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole, a probability, or a value of a map."""
Power = Annotated[float, Field(ge=0, le=100)]
"""Exponent of a decay."""
Count = Annotated[int, Field(ge=0, le=2**31)]
"""How many, or a 0-based update."""


class Config(BaseModel):
    """Base of all settings: unknown keys are errors, numbers are finite, values never change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )


def validate(schema: type[_C], values: Mapping[str, Any], where: str = "settings") -> _C:
    """Settings of type `schema`, or one ConfigError that names every problem.

    Args:
        schema: The settings class.
        values: Plain values, as read from YAML.
        where: What the user knows the values as (a file name, "--set"), for the message.

    Raises:
        ConfigError: A key is unknown (the nearest known one is named) or a value does not fit.
    """
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        lines = [_explain(schema, item) for item in error.errors()]
        raise ConfigError(f"{where}: " + "; ".join(lines)) from None


def _explain(schema: type[BaseModel], item: Any) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"'{path}': {item['msg']} (got {item['input']!r})"
    model = schema
    for part in item["loc"][:-1]:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return f"unknown key '{path}'. {nearest(str(item['loc'][-1]), model.model_fields)}"


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Plain values of one YAML file (data only: tags that would build objects are refused).

    Raises:
        ConfigError: The file is missing, is not YAML, or does not hold a mapping.
    """
    try:
        if Path(path).exists() and (not Path(path).is_file() or Path(path).stat().st_size > _LARGEST):
            raise ConfigError(f"{path} is no plain file of at most {_LARGEST:,} bytes; a recipe is")
        values = _load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read recipe {path}: {error}") from None
    except _Unclear as error:
        raise ConfigError(f"{path}, {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold 'key: value' lines, not a {type(values).__name__}")
    return values


def _load(text: str) -> Any:
    """Plain values of YAML text whose aliases unfold to something finite and small.

    Raises:
        YAMLError: The text is not YAML, nests too deeply, unfolds to too much, names a key twice, or holds a
            value that YAML takes for something else than people do.
    """
    try:
        return _built(text, yaml.SafeLoader)
    except RecursionError:
        raise yaml.YAMLError("it nests too deeply") from None


def parse_texts(text: str) -> Any:
    """Plain values of YAML text in which everything that is no group or list stays the text it is.

    For lists of names, where "yes", "010" and "null" are names.

    Raises:
        YAMLError: The text is not YAML, nests too deeply, unfolds to too much, or names a key twice.
    """
    try:
        return _built(text, yaml.BaseLoader)  # builds texts, lists and groups, nothing else
    except RecursionError:
        raise yaml.YAMLError("it nests too deeply") from None


def _built(text: str, kind: type[yaml.SafeLoader | yaml.BaseLoader]) -> Any:
    """Values of a text that is read once: looked through as it stands, then built from what was read."""
    loader = kind(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _weigh(node, {})
        _refuse_unclear(node, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


class _Unclear(yaml.YAMLError):
    """Valid YAML that does not mean what it looks like."""


def _refuse_unclear(node: yaml.Node, seen: set[int]) -> None:
    """Refuse keys that stand twice in a group, of which YAML keeps the last, and surprising values."""
    if id(node) in seen:
        return
    seen.add(id(node))
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        known: dict[str, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in known:
                raise _Unclear(
                    f"line {key.start_mark.line + 1}: '{key.value}' is in line {known[key.value]} too; "
                    "keep one of them"
                )
            if isinstance(key, yaml.ScalarNode):
                known[key.value] = key.start_mark.line + 1
            else:
                _refuse_unclear(key, seen)
            _refuse_unclear(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for part in node.value:
            _refuse_unclear(part, seen)
    elif isinstance(node, yaml.ScalarNode) and node.style is None:
        kind = node.tag.rpartition(":")[2]
        read = next(
            (read for name, pattern, read in _SURPRISES if kind == name and pattern(node.value)), None
        )
        if read is not None:
            raise _Unclear(
                f"line {line}: {node.value} is read as {read}; write what you mean, or put it in quotes"
            )


_SURPRISES: tuple[tuple[str, Callable[[str], object], str], ...] = (
    ("bool", re.compile(r"(?i)(yes|no|on|off)$").match, "true or false"),
    ("int", re.compile(r"[-+]?0[0-7_]+$").match, "a number with base 8"),
    ("int", re.compile(r"[-+]?0[bx]").match, "a number with base 2 or 16"),
    ("int", re.compile(r".*:").match, "a number with base 60"),
    ("float", re.compile(r".*:").match, "a number with base 60"),
    ("timestamp", str, "a date"),
)


def _weigh(node: yaml.Node, known: dict[int, int]) -> int:
    """Values a node unfolds to; a few lines with aliases can stand for billions, or for themselves."""
    if id(node) not in known:
        known[id(node)] = _MOST
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        flat = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_weigh(part, known) for part in flat)
    if known[id(node)] >= _MOST:
        raise yaml.YAMLError(f"it unfolds to more than {_MOST:,} values")
    return known[id(node)]


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of `values` with every ``a.b=c`` applied; c is read as YAML (numbers, lists, true/false).

    Raises:
        ConfigError: An override has no "=" or walks through a value that is not a mapping.
    """
    result = _copy(values)
    for item in overrides:
        key, found, text = item.partition("=")
        if not found or not key:
            raise ConfigError(f"--set needs key=value (for example train.iterations=1000), got '{item}'")
        node = result
        *parents, leaf = key.strip().split(".")
        for parent in parents:
            if node.get(parent) is None:
                node[parent] = {}
            node = node[parent]
            if not isinstance(node, dict):
                raise ConfigError(f"--set {item}: '{parent}' is a value, not a group of settings")
        try:
            node[leaf] = _load(text)
        except yaml.YAMLError:
            node[leaf] = text
    return result


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in values.items()}
