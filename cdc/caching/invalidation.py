"""Invalidation: changes remove entries from a mapping that the user has already.

Pure: no I/O, no clock; it takes the lock that it is given. There is no fence here: whoever reads an old value and puts
it into the mapping behind its removal leaves it there. `Cache` is what prevents that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

from cdc.caching.sent_row import rows_of
from cdc.errors import ConfigurationError, SubscriptionError
from cdc.events import Event, Prepared, RowChange
from cdc.relation import Relation

__all__ = ["Invalidation", "Key"]

Key: TypeAlias = "str | Sequence[str] | Callable[[Mapping[str, Any]], Any] | None"
"""What makes the key of a row: a column, several (a tuple of their values), or a function of the row."""


class Invalidation:
    """The handler behind `consumer.invalidate`.

    Args:
        mapping: whose entries are removed.
        table: its table's name, for messages.
        key: what makes the key of a row; None: every change clears the mapping.
        lock: held whenever the mapping is touched.
    """

    clears = True
    clears_at_start = True

    def __init__(
        self, mapping: MutableMapping[Any, Any], table: str, key: Key, lock: AbstractContextManager[Any] | None
    ) -> None:
        _check(mapping, table, key, lock)
        self._mapping = mapping
        self._lock: AbstractContextManager[Any] = nullcontext() if lock is None else lock
        self.columns: tuple[str, ...] = () if key is None or callable(key) else _columns(key)
        self._key = key if callable(key) else self._of_columns if key is not None else None
        self._single = isinstance(key, str)

    def __call__(self, event: Event) -> None:
        """Remove what the event concerns."""
        if isinstance(event, Prepared):
            return  # Its changes come when it commits.
        keys = self._keys(event)
        with self._lock:
            if keys is None:
                self._mapping.clear()
                return
            for key in keys:
                self._mapping.pop(key, None)

    def check(self, relation: Relation) -> None:
        """Raise SubscriptionError when the table has no such column."""
        for column in self.columns:
            if column not in relation.whole.columns:
                listed = ", ".join(relation.whole.columns)
                raise SubscriptionError(f"{relation} has no published column {column!r}; it has {listed}")

    def _keys(self, event: Event) -> list[Any] | None:
        """The keys that a change concerns; None when they are not known, or when everything is concerned."""
        if self._key is None or not isinstance(event, RowChange):
            return None
        try:
            keys = [self._key(row) for row in rows_of(event)]
            for key in keys:
                hash(key)
        except Exception:
            # A column was not sent, or the function cannot take this row: its entry may be any.
            return None
        return keys

    def _of_columns(self, row: Mapping[str, Any]) -> Any:
        values = tuple(row[column] for column in self.columns)
        return values[0] if self._single else values

    def __repr__(self) -> str:
        return f"invalidation by {', '.join(self.columns) or 'any change'}"


def _columns(key: str | Sequence[str]) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else tuple(key)


def _check(mapping: Any, table: str, key: Any, lock: Any) -> None:
    if not isinstance(mapping, MutableMapping):
        raise ConfigurationError(f"invalidate takes a mapping whose entries can be removed, not {mapping!r}")
    named = isinstance(key, str | list | tuple) and bool(key) and all(isinstance(each, str) and each for each in key)
    if key is not None and not callable(key) and not named:
        raise ConfigurationError(f"the key of what {table} invalidates is a column, several or a function, not {key!r}")
    if lock is not None and not isinstance(lock, AbstractContextManager):
        raise ConfigurationError(f"the lock of what {table} invalidates is a threading.Lock or the like, not {lock!r}")
