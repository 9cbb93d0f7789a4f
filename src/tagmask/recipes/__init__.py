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
    raise ConfigError(
        f"unknown recipe '{name}'. {nearest(name, names())} Or give the path of a .yaml file, a run "
        "folder or a model folder"
    )
