"""Pages of the site that nobody writes: references from the code, tables from the result files."""

from __future__ import annotations

import importlib.util
import json
import re
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).parent.parent
HIDDEN = {"reference/errors.md"}
REPOSITORY_FILES = {
    "project/changelog.md": "CHANGELOG.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/security.md": "SECURITY.md",
    "project/upgrading.md": "UPGRADING.md",
}


@cache
def generated() -> dict[str, str]:
    """{place in the site: Markdown} of every generated page."""
    made = {
        "evidence/results.md": _module("benchmarks/tables.py").page(),
        "reference/commands.md": commands(),
        "reference/settings.md": settings(),
    }
    parity = ROOT / "benchmarks" / "results" / "parity.json"
    if parity.is_file():
        record = json.loads(parity.read_text(encoding="utf-8"))
        made["evidence/parity.md"] = _module("docs/parity.py").page(record)
    for place, name in REPOSITORY_FILES.items():
        made[place] = (ROOT / name).read_text(encoding="utf-8")
    return made


def filled(text: str) -> str:
    """A written page with its marks replaced by tables from the code and from the result files."""
    own = re.sub(r"<!-- made: (\w+) -->", lambda mark: MADE[mark[1]](), text)
    found: str = _module("docs/evidence.py").filled(own)
    return found


def recipes_table() -> str:
    """Every shipped recipe: method, size of its training, and its own first comment."""
    from tagmask import recipes
    from tagmask.pipeline.config import read_config

    lines = ["| recipe | method | training | |", "|---|---|---|---|"]
    for name in sorted(recipes.names(), key=lambda each: ("/" in each, each)):
        train, method = read_config(name).train, read_config(name).method
        size = f"{train.iterations:,} updates of {train.batch_size} images at {train.size} px"
        text = recipes.find_recipe(name).read_text(encoding="utf-8")
        comment = re.match(r"(?:# .*\n)+", text)
        about = " ".join(line.removeprefix("# ") for line in comment[0].splitlines()) if comment else ""
        lines.append(f"| `{name}` | `{method}` | {size} | {_cell(about)} |")
    return "\n".join([*lines, ""])


def files_table() -> str:
    """What every step of a run writes, in their order."""
    from tagmask.pipeline.order import ALL_STEPS

    lines = ["| step | writes into the run folder |", "|---|---|"]
    lines += [
        f"| `{name}` | {', '.join(f'`{_folder(w)}`' for w in s.writes)} |" for name, s in ALL_STEPS.items()
    ]
    return "\n".join([*lines, ""])


def _folder(place: str) -> str:
    return place if "." in place.rpartition("/")[2] else f"{place}/"


MADE = {"recipes": recipes_table, "files": files_table}


def _module(place: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(place).stem, ROOT / place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands() -> str:
    """Every command with its arguments and options, as ``--help`` prints them."""
    from tagmask.cli.main import app

    parts = ["# Commands", "", "`tagmask COMMAND --help` prints the same.", ""]
    for path, command in sorted(_leaves(typer.main.get_command(app), ("tagmask",))):
        parts += [f"## {' '.join(path)}", "", _plain(command.help), ""]
        rows = [_parameter(each) for each in command.params if not getattr(each, "hidden", False)]
        rows = [row for row in rows if row]
        if rows:
            parts += ["| argument or option | |", "|---|---|", *rows, ""]
    return "\n".join(parts)


def _leaves(command: Any, path: tuple[str, ...]) -> Any:
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from _leaves(inner, (*path, name))


def _parameter(parameter: Any) -> str:
    if "--help" in parameter.opts:
        return ""
    option = parameter.param_type_name == "option"
    names = ", ".join([*parameter.opts, *parameter.secondary_opts]) if option else parameter.name.upper()
    about = _plain(getattr(parameter, "help", ""))
    default = parameter.default
    if option and default not in (None, False, ()) and not callable(default):
        about += f" Default: {default}."
    return f"| `{_cell(names)}` | {_cell(about)} |"


def settings() -> str:
    """Every setting of a run and of every method, with type, default and meaning."""
    from tagmask import methods
    from tagmask.methods.base import SegmentationViews
    from tagmask.pipeline.config import RunConfig

    parts = ["# Settings", "", "In a recipe, or on the command line as `--set KEY=VALUE`.", ""]
    for key, info in RunConfig.model_fields.items():
        nested = info.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            parts += [f"## {key}", "", _plain(nested.__doc__), "", *_rows(nested, f"{key}.")]
        else:
            parts += [f"## {key}", "", _plain(info.description), ""]
    for name in methods.names():
        schema = methods.get(name).config_class
        parts += [f"## model, method {name}", "", _plain(schema.__doc__), "", *_rows(schema, "model.")]
        views = methods.get(name).views_class
        if methods.get(name).segments and views is not SegmentationViews:
            parts += [f"## segment, method {name}", "", _plain(views.__doc__), "", *_rows(views, "segment.")]
    return "\n".join(parts)


def _rows(schema: type[BaseModel], prefix: str) -> list[str]:
    rows = ["| setting | | default | type |", "|---|---|---|---|"]
    for key, info in schema.model_fields.items():
        nested = _schema(info.annotation)
        if nested is not info.annotation:
            cells = f"`{prefix}{key}`", _plain(info.description), _default(info), _type(info.annotation)
            rows.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
        if nested is not None:
            rows += _rows(nested, f"{prefix}{key}.")[2:-1]
    return [*rows, ""] if len(rows) > 2 else [""]


def _schema(annotation: Any) -> type[BaseModel] | None:
    """The settings that a setting holds, if it holds some, or may."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


def _type(annotation: Any) -> str:
    """A type as somebody would write it, without the limits that its message tells."""
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return _type(inner[0])
    if kind in (Union, UnionType):
        return " | ".join(_type(each) for each in inner)
    if kind is Literal:
        return " | ".join(f'"{each}"' for each in inner)
    if annotation in (None, NoneType, ...):
        return "..." if annotation is ... else "None"
    name: str = annotation.__name__ if hasattr(annotation, "__name__") else str(annotation)
    return f"{name}[{', '.join(_type(each) for each in inner)}]" if inner else name


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "must be given"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, tuple) and len(value) > 12:  # a row of thresholds
        value = f"({value[0]}, {value[1]}, ... {value[-1]})"
    return "" if value is None else f"`{value}`"


def _plain(text: str | None) -> str:
    return " ".join((text or "").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
