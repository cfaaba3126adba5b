"""Telling: what has changed in a store, for those who asked for it.

Touches nothing. What is told is made while it is told, since a fill may bring a million rows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Hashable, Iterable, Iterator, Mapping
from inspect import isawaitable
from typing import Any

from cdc.events import Effect
from cdc.lsn import Position
from cdc.storing.contents import Contents
from cdc.storing.store_change import StoreChange

__all__ = ["Changes", "Filled", "Handler", "differences", "left", "tell", "turned"]

Handler = Callable[[StoreChange], Any]
"""Called with each change of a store. With `AsyncConsumer` it may be a coroutine function."""

Changes = Iterable[StoreChange]

_Make = Callable[[bytes], Any]


class Filled:
    """What a store receives when rows were read for it, between two transactions.

    Attributes:
        changes: what is to be told of them; what a whole fill has changed is found by comparing.
    """

    def __init__(self, table: str, changes: Changes = ()) -> None:
        self.table = table
        self.changes = changes

    def __repr__(self) -> str:
        return f"<rows that were read of {self.table}>"


def turned(
    contents: Contents,
    changes: Iterable[tuple[Hashable, bytes | None, bytes | None]],
    make: _Make,
    position: Position | None,
) -> Iterator[StoreChange]:
    """What became of some rows: of each the line that was there, and the one that is."""
    lens = contents.lens
    for _, old, new in changes:
        if new is None:
            if old is not None:
                yield StoreChange(contents.key(old), Effect.LEAVE, make(old), None, position)
        elif old is None:
            yield StoreChange(contents.key(new), Effect.ENTER, None, make(new), position)
        elif lens.differ(old, new, lens):
            yield StoreChange(contents.key(new), Effect.STAY, make(old), make(new), position)


def left(
    contents: Contents, rows: Mapping[Any, bytes], make: _Make, position: Position | None
) -> Iterator[StoreChange]:
    """All of these rows are gone."""
    return turned(contents, ((slot, line, None) for slot, line in rows.items()), make, position)


def differences(shown: Contents, now: Contents, was: _Make, is_: _Make) -> Iterator[StoreChange]:
    """What is different in what was shown and in what is shown now; where their keys differ, all of it."""
    same = shown.lens.keys.names == now.lens.keys.names
    old = shown.rows
    for slot, line in old.items():
        if not (same and slot in now.rows):
            yield StoreChange(shown.key(line), Effect.LEAVE, was(line), None)
    for slot, line in list(now.rows.items()):
        before = old.get(slot) if same else None
        if before is None:
            yield StoreChange(now.key(line), Effect.ENTER, None, is_(line))
        elif now.lens.differ(before, line, shown.lens):
            yield StoreChange(now.key(line), Effect.STAY, was(before), is_(line))


def tell(handlers: Iterable[Handler], changes: Changes) -> Awaitable[None] | None:
    """Call the handlers with each change, in order; what is left to await, or None."""
    calls = (handler(change) for change in changes for handler in tuple(handlers))
    for result in calls:
        if isawaitable(result):
            return _Left(result, calls)
    return None


class _Left:
    """The rest of the calls, from the first that has to be awaited on."""

    def __init__(self, first: Awaitable[Any], calls: Iterable[Any]) -> None:
        self._first = first
        self._calls = calls

    def __await__(self) -> Generator[Any, Any, None]:
        yield from self._first.__await__()
        for result in self._calls:
            if isawaitable(result):
                yield from result.__await__()
