"""Wraps: a function that loads, called by its own arguments. Touches nothing but the cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from inspect import Parameter, Signature, isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from typing import TYPE_CHECKING, Any, TypeAlias

from cdc.errors import ConfigurationError
from cdc.lsn import Lsn

if TYPE_CHECKING:
    from cdc.caching.cache import Cache

__all__ = ["Wrapped", "check_load", "plain", "wrapped"]


LoadOf: TypeAlias = "Callable[[Callable[..., Any], Callable[[Any], tuple[Any, ...]]], Callable[[Any, Any], Any]]"
"""Makes a load of a function, and of what turns a key into its arguments."""


def plain(function: Callable[..., Any], arguments: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any, Any], Any]:
    """The load that a function is, with the values of the key as its arguments."""
    return lambda connection, key: function(connection, *arguments(key))


class Wrapped:
    """A function whose results a cache keeps.

    Attributes:
        cache: the cache.
        __wrapped__: the function itself, which takes a connection first.
    """

    __wrapped__: Callable[..., Any]
    __name__: str

    def __init__(
        self, cache: Any, core: Cache, function: Callable[..., Any], fetch: Callable[..., Any], load_of: LoadOf
    ) -> None:
        update_wrapper(self, function)
        own = signature(function)
        _, *arguments = own.parameters.values()
        self.cache = cache
        self.__signature__: Signature = own.replace(parameters=arguments)
        self._core = core
        self._fetch = fetch
        self._names = [each.name for each in arguments]
        self._load = load_of(function, self._arguments)

    def __call__(self, *values: Any, **named: Any) -> Any:
        """What the function gives for these arguments, from memory or by calling it."""
        return self._fetch(self._key(values, named), self._load)

    def after(self, lsn: Lsn | str, *values: Any, **named: Any) -> Any:
        """The same, not older than a write; see `Cache.fetch`."""
        return self._fetch(self._key(values, named), self._load, after=lsn)

    def invalidate(self, *values: Any, **named: Any) -> None:
        """Drop what was kept for these arguments; without any, everything that the cache keeps."""
        if values or named or not self._names:
            self._core.invalidate(self._key(values, named))
        else:
            self._core.invalidate()

    def _key(self, values: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if named or len(values) != len(self._names):
            bound = self.__signature__.bind(*values, **named)
            bound.apply_defaults()
            values = tuple(bound.arguments[name] for name in self._names)
        if self._core.is_whole:
            return (self, *values)
        return values[0] if len(values) == 1 else values

    def _arguments(self, key: Any) -> tuple[Any, ...]:
        if self._core.is_whole:
            return tuple(key[1:])
        return (key,) if len(self._names) == 1 else tuple(key)


def wrapped(
    cache: Any, core: Cache, function: Callable[..., Any], fetch: Callable[..., Any], load_of: LoadOf = plain
) -> Wrapped:
    """The function, kept by the cache. Raises ConfigurationError for one that cannot be a load."""
    if not callable(function):
        raise ConfigurationError(f"@cache.wraps takes a function, not {function!r}")
    check_load(core.table, function, load_of is not plain)
    kinds = [each.kind for each in signature(function).parameters.values()]
    if not kinds or any(kind not in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds):
        raise ConfigurationError(
            f"{function.__qualname__} cannot be wrapped: a load takes a connection first, and then the key's values"
        )
    if not core.is_whole:
        if len(kinds) == 1:
            raise ConfigurationError(f"{function.__qualname__} takes no key, and the cache of {core.table} has by=")
        if core.wrapping is not None:
            raise ConfigurationError(
                f"the cache of {core.table} wraps {core.wrapping} already, and its key is that of a row: make "
                f"another one for {function.__qualname__}"
            )
        core.wrapping = function.__qualname__
    return Wrapped(cache, core, function, fetch, load_of)


def check_load(table: str, load: Callable[..., Any], is_async: bool) -> None:
    """Raise ConfigurationError for a function whose result is not the value."""
    name = getattr(load, "__qualname__", repr(load))
    if iscoroutinefunction(load) and not is_async:
        raise ConfigurationError(f"load of {table}: {name} is a coroutine function: use AsyncConsumer")
    if isgeneratorfunction(load) or isasyncgenfunction(load):
        raise ConfigurationError(
            f"load of {table}: {name} is a generator, whose values could be had once: return a list"
        )
