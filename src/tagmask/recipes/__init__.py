"""Shipped recipes: YAML files that say only what differs from the defaults. Nothing here loads PyTorch."""

from __future__ import annotations

from pathlib import Path

from tagmask.errors import ConfigError, nearest

__all__ = ["find_recipe", "names"]


def names() -> list[str]:
    """Names of all shipped recipes, for example "voc/more"."""
    home = Path(__file__).parent
    return sorted(path.relative_to(home).with_suffix("").as_posix() for path in home.rglob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a recipe.

    Args:
        name: Name of a shipped recipe, or the path of a YAML file.

    Raises:
        ConfigError: There is no such recipe or file; the message names the nearest.
    """
    if name in names():
        return Path(__file__).parent / f"{name}.yaml"
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml"):
        raise ConfigError(f"no recipe file {path}")
    others = "a folder of images, a run folder, a model folder or a .yaml file"
    if _is_place(name):
        raise ConfigError(f"{name} does not exist; give {others}, or a recipe: {', '.join(names())}")
    raise ConfigError(
        f"unknown recipe '{name}', and there is no folder of that name. {nearest(name, names())} Or give "
        f"{others}"
    )


def _is_place(name: str) -> bool:
    """Whether somebody who writes this means a folder or file: no recipe's name looks like it."""
    path, groups = Path(name), {known.partition("/")[0] for known in names() if "/" in known}
    if path.is_absolute() or name.startswith((".", "~")) or name.endswith(("/", "\\")):
        return True
    return len(path.parts) > 1 and path.parts[0] not in groups
