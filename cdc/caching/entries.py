"""Entries: what a cache has read, and what it is reading at the moment.

Pure: no I/O; the cache that owns them holds a lock.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Any

__all__ = ["MISSING", "NEVER", "Entry", "Fill", "Fills", "Uncached"]

MISSING = object()
"""In the place of a value that there is not."""

NEVER = -math.inf
"""When something began that is of any age."""


class Uncached:
    """What a load returns to give a value without letting the cache keep it: `return cdc.Uncached(value)`.

    Attributes:
        value: what `fetch` gives.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Entry:
    """A value that is kept.

    Attributes:
        value: what was loaded.
        at: when its load began, by the cache's clock; it is as new as all that was visible then.
    """

    __slots__ = ("at", "value")

    def __init__(self, value: Any, at: float) -> None:
        self.value = value
        self.at = at


class Fill:
    """One load under way; others who miss the same key wait for it.

    Attributes:
        owner: the thread or task that loads.
        began: when the last attempt began, by the cache's clock.
        done: is set when the load is over.
        stale: whether a change has overtaken it.
        value: what was loaded and may be given to those who waited.
    """

    __slots__ = ("_callbacks", "began", "done", "owner", "stale", "value")

    def __init__(self, owner: object, began: float) -> None:
        self.owner = owner
        self.began = began
        self.done = threading.Event()
        self.stale = False
        self.value: Any = MISSING
        self._callbacks: list[Callable[[], None]] = []

    def finish(self) -> None:
        """The load is over."""
        self.done.set()
        for callback in self._callbacks:
            callback()

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` when it is over, on the thread that loads, or at once; maybe twice."""
        self._callbacks.append(callback)
        if self.done.is_set():
            callback()


class Fills:
    """The loads that are under way, by key.

    Attributes:
        current: those that whoever misses the key waits for.
    """

    def __init__(self) -> None:
        self.current: dict[Hashable, Fill] = {}
        self._all: dict[Hashable, set[Fill]] = {}

    def begin(self, slot: Hashable, owner: object, now: float) -> Fill:
        """A load begins."""
        fill = self.current[slot] = Fill(owner, now)
        self._all.setdefault(slot, set()).add(fill)
        return fill

    def end(self, slot: Hashable, fill: Fill) -> None:
        """A load is over."""
        fills = self._all[slot]
        fills.discard(fill)
        if not fills:
            del self._all[slot]
        if self.current.get(slot) is fill:
            del self.current[slot]

    def overtake(self, slot: Hashable) -> None:
        """A change of the key was received."""
        _overtake(self._all.get(slot, ()))

    def overtake_all(self) -> None:
        """A change that concerns every key was received."""
        for fills in self._all.values():
            _overtake(fills)


def _overtake(fills: Iterable[Fill]) -> None:
    for fill in fills:
        fill.stale = True
