"""Methods by name: ``methods/<paper>.py``, entry points of other packages, and classes registered in code."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar, overload

from tagmask.errors import ConfigError, nearest
from tagmask.names import lazy, points

if TYPE_CHECKING:
    from tagmask.methods.base import Method, MethodConfig

__all__ = ["Method", "MethodConfig", "create_method", "get", "list_methods", "names", "register_method"]

_GROUP = "tagmask.methods"
_REGISTERED: dict[str, type[Method]] = {}
_M = TypeVar("_M", bound="type[Method]")

# Hidden from type checkers, which then find a wrong name.
if not TYPE_CHECKING:
    __getattr__ = lazy(__name__, {"Method": ".base", "MethodConfig": ".base"})


def list_methods(filter: str = "*") -> list[str]:
    """Names of the methods there are, without importing any.

    Args:
        filter: Only names of this pattern, for example "mct*".
    """
    own = [m.name for m in pkgutil.iter_modules(__path__) if m.name != "base"]
    known = {*own, *_REGISTERED, *(point.name for point in points(_GROUP))}
    return sorted(name for name in known if fnmatchcase(name, filter))


def names() -> list[str]:
    """Names of all methods, see `list_methods`."""
    return list_methods()


def create_method(
    name: str | type[Method], num_classes: int, *, pretrained: bool = False, **settings: Any
) -> Method:
    """A method as a module, for a loop of one's own.

    Args:
        name: Its name, see `list_methods`, or a class.
        num_classes: K, the number of foreground classes.
        pretrained: Load the backbone's pretrained weights that the setting `weights` names; random if not.
        **settings: Fields of the method's settings that differ from the defaults, see ``tagmask show NAME``.

    Raises:
        ConfigError: The name or a setting is unknown, or a value does not fit.
        CheckpointError: The pretrained weights cannot be had.
    """
    from tagmask.config import validate

    kind = get(name_of(name))
    if num_classes < 1:
        raise ConfigError(f"num_classes must be at least 1, got {num_classes}")
    method = kind(validate(kind.config_class, settings, f"method {name_of(name)}"), num_classes)
    if pretrained:
        method.initialise(str(method.config.weights))
    return method


@overload
def register_method(method: _M) -> _M: ...
@overload
def register_method(method: str) -> Callable[[_M], _M]: ...
def register_method(method: _M | str) -> _M | Callable[[_M], _M]:
    """Class decorator that makes a method known by name in this process, as an entry point does for good.

    ``@register_method`` takes the name of the class in lower case, ``@register_method("name")`` another one.
    A saved model of the method can be loaded wherever the class was registered before.

    Args:
        method: The class, or the name for it.

    Raises:
        ConfigError: It is no subclass of `Method` with a `config_class`, or the name is taken or unusable.
    """
    if isinstance(method, str):
        name = method

        def decorate(cls: _M) -> _M:
            _register(name, cls)
            return cls

        return decorate
    _register(getattr(method, "__name__", str(method)).lower(), method)
    return method


def name_of(method: str | type[Method]) -> str:
    """The name of a method; a class that has none yet is registered.

    Raises:
        ConfigError: See `register_method`.
    """
    if isinstance(method, str):
        return method
    for name, cls in _REGISTERED.items():
        if cls is method:
            return name
    home, _, inner = getattr(method, "__module__", "").rpartition(".")
    if home == __name__ and inner in names() and get(inner) is method:
        return inner
    for point in points(_GROUP):
        if point.value.partition(":")[0] == getattr(method, "__module__", "") and point.load() is method:
            return str(point.name)
    register_method(method)
    return method.__name__.lower()


def get(name: str) -> type[Method]:
    """The method class behind a name.

    Raises:
        ConfigError: The name is unknown; the message lists the known ones and the nearest match.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in names():
        raise ConfigError(
            f"unknown method '{name}'. {nearest(name, names())} A method of your own is known once its "
            "class is registered (tagmask.methods.register_method)"
        )
    for point in points(_GROUP):
        if point.name == name:
            loaded: type[Method] = point.load()
            return loaded
    # Not at the top: listing the names must not load PyTorch.
    from tagmask.methods.base import Method

    module = importlib.import_module(f"{__name__}.{name}")
    found = [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Method) and cls.__module__ == module.__name__ and hasattr(cls, "config_class")
    ]
    return found[-1]


def _register(name: str, cls: type[Method]) -> None:
    from tagmask.methods.base import Method, MethodConfig

    if not (inspect.isclass(cls) and issubclass(cls, Method)):
        raise ConfigError(f"a method is a subclass of tagmask.methods.Method, got {cls!r}")
    if not issubclass(getattr(cls, "config_class", object), MethodConfig):
        raise ConfigError(f"{cls.__name__} needs a config_class: a subclass of tagmask.methods.MethodConfig")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise ConfigError(f"{cls.__name__} does not define {missing}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"the name of a method is lower-case letters, digits and '_', got '{name}'")
    if name not in _REGISTERED and name in names():
        raise ConfigError(f"there is a method '{name}' already; choose another name")
    _REGISTERED[name] = cls
