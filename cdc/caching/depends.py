"""Depends: the settings of a cache, and which tables besides its own clear it. Touches nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from cdc.caching.keys import By
from cdc.errors import ConfigurationError
from cdc.pattern import table_name

__all__ = ["Depends", "check_sizes", "depends_of"]

Depends: TypeAlias = "str | Iterable[str] | Mapping[str, By]"
"""A table, several, or for each of them what `by` is for the cache's own table."""


def depends_of(table: str, depends: Depends) -> dict[str, By]:
    """`by` for each table that a cache depends on besides its own. Raises ConfigurationError for what names none."""
    if isinstance(depends, str):
        depends = (depends,)
    if not isinstance(depends, Iterable) or not all(isinstance(each, str) and each for each in depends):
        raise ConfigurationError(f"cache of {table}: depends names tables, as ('projects',), not {depends!r}")
    found: dict[str, By] = dict(depends) if isinstance(depends, Mapping) else dict.fromkeys(depends)
    names: dict[tuple[str, str], str] = {table_name(table): table}
    for each, by in list(found.items()):
        before = names.setdefault(table_name(each), each)
        if before is table and by is None:
            del found[each]
        elif before is not each or each == table:
            raise ConfigurationError(f"cache of {table}: depends names {each} once more")
    return found


def check_sizes(table: str, ttl: object, maxsize: object, patience: object, negative_ttl: object) -> None:
    """Raise ConfigurationError for numbers that cannot be."""
    if not _is_time(ttl) or not isinstance(maxsize, int) or maxsize < 1:
        raise ConfigurationError(f"cache of {table}: ttl is above 0 seconds and maxsize at least 1")
    if isinstance(patience, bool) or not isinstance(patience, int | float) or not 0 <= patience < math.inf:
        raise ConfigurationError(f"cache of {table}: patience is a number of seconds, 0 or above, not {patience!r}")
    if negative_ttl is not None and negative_ttl != 0 and not _is_time(negative_ttl):
        raise ConfigurationError(
            f"cache of {table}: negative_ttl is a number of seconds, or None, not {negative_ttl!r}"
        )


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
