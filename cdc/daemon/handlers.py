"""Loads a handler that the configuration names as `module:name`.

Imports the user's module, with the current folder on the path. What is not found is said: the module or the name.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from cdc import Event
from cdc.errors import ConfigurationError

__all__ = ["load_handler"]


def load_handler(spec: str) -> Callable[[Event], Any]:
    """The callable that `spec` names, such as `"wells.changes:push"` or `"app:service.push"`.

    In messages it goes by this name. Raises ConfigurationError.
    """
    module_name, colon, path = spec.partition(":")
    if not colon or not module_name or not path:
        raise ConfigurationError(f"handler {spec!r}: write module:name, such as 'app.changes:push'")
    found: Any = _module(spec, module_name)
    for name in path.split("."):
        if not hasattr(found, name):
            raise ConfigurationError(f"handler {spec!r}: {_absent(found, name)}")
        found = getattr(found, name)
    if not callable(found):
        raise ConfigurationError(f"handler {spec!r}: {path} is of type {type(found).__name__} and cannot be called")
    if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__):
        raise ConfigurationError(f"handler {spec!r}: {path} is a coroutine function; the daemon calls plain functions")
    return _named(spec, found)


def _module(spec: str, name: str) -> ModuleType:
    folder = str(os.getcwd())  # noqa: PTH109
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            problem = f"module {error.name!r} is not found, neither in {folder} nor where Python looks for packages"
        else:
            problem = f"importing {name} raised {type(error).__name__}: {error}{_place(error)}"
        raise ConfigurationError(f"handler {spec!r}: {problem}") from None


def _place(error: Exception) -> str:
    """The line of the user's code that raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return "" if "importlib" in frame.filename else f" ({frame.filename}, line {frame.lineno})"


def _absent(owner: Any, name: str) -> str:
    what = f"module {owner.__name__!r}" if isinstance(owner, ModuleType) else type(owner).__name__
    alike = difflib.get_close_matches(name, dir(owner), 1)
    hint = f"; did you mean {alike[0]!r}?" if alike else ""
    return f"{what} has no {name!r}{hint}"


def _named(spec: str, function: Callable[[Event], Any]) -> Callable[[Event], Any]:
    def call(event: Event) -> Any:
        return function(event)

    call.__qualname__ = spec  # What an error of the handler calls it.
    return call
