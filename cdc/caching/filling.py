"""Filling: the steps from a missing entry to a value that is as new as all that was received.

A generator, driven by whoever may wait: a thread, or a task (see `Step`). Pure: no I/O; the cache's lock is held only
between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from cdc.caching.entries import MISSING, NEVER, Entry, Fill, Uncached
from cdc.errors import ConfigurationError, NotYetVisible
from cdc.lsn import Lsn

if TYPE_CHECKING:
    from cdc.caching.cache import Cache

__all__ = ["Ask", "Join", "Pause", "Read", "Step", "Steps", "arriving", "filling"]

_ATTEMPTS = 3
_LONGEST_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Read:
    """Run the load; with a snapshot when `fenced`. Answered by the value and the snapshot."""

    fenced: bool


@dataclass(frozen=True, slots=True)
class Join:
    """Wait until another load is over."""

    fill: Fill


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for some seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Ask:
    """Call what asks the server; answered by what it returns."""

    question: Callable[[], Any]


Step: TypeAlias = "Read | Join | Pause | Ask"
Steps: TypeAlias = "Generator[Step, Any, Any]"


def filling(cache: Cache, slot: Hashable, key: Any, owner: object, after: Lsn | None) -> Steps:
    """Give the value of a key: from memory, from a load that others have begun, or from one of our own."""
    deadline = cache._clock() + cache._patience
    floor = NEVER
    if after is not None:
        floor = yield from arriving(cache, after, deadline)
    while True:
        with cache._mutex:
            entry = cache._look(slot, floor)
            if entry is not None:
                cache.counters.hits += 1
                return entry.value
            cache.counters.misses += 1
            fill = cache._fills.current.get(slot)
            mine = fill is None or fill.began < floor
            if fill is None or mine:
                fill = cache._fills.begin(slot, owner, cache._clock())
        if mine:
            return (yield from _own(cache, fill, slot, key, deadline))
        if fill.owner == owner:
            raise ConfigurationError(f"the load of {cache.table} fetches its own key {key!r}: it would wait for itself")
        yield Join(fill)
        if fill.value is not MISSING:
            return fill.value


def _own(cache: Cache, fill: Fill, slot: Hashable, key: Any, deadline: float) -> Steps:
    try:
        return (yield from _load(cache, fill, slot, key, deadline))
    finally:
        with cache._mutex:
            cache._fills.end(slot, fill)
        fill.finish()


def _load(cache: Cache, fill: Fill, slot: Hashable, key: Any, deadline: float) -> Steps:
    """Load until the value is at least as new as every change received when the load began.

    A value that no change overtook is kept. On a busy key the value of the last attempt is returned
    without being kept: it is as new as what had been received when it was read.
    """
    attempt, pause = 0, 0.001
    while True:
        attempt += 1
        with cache._mutex:
            fill.stale, fill.began = False, cache._clock()
            pending = cache._fence.pending(slot)
            cache.counters.loads += 1
        value, snapshot = yield Read(bool(pending))
        sees = True
        if pending:
            sees = all(snapshot.sees(xid) for xid in pending)
        if sees:
            found = _keep(cache, fill, slot, value, last=attempt >= _ATTEMPTS)
            if found is not MISSING:
                return found
        elif cache._clock() >= deadline:
            raise NotYetVisible(
                f"{cache.table}: the server still shows the value of {key!r} from before a change that was "
                f"received; the commit may be waiting for a synchronous standby. Try again later"
            )
        else:
            yield Pause(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


def _keep(cache: Cache, fill: Fill, slot: Hashable, value: Any, last: bool) -> Any:
    """Keep a value that no change overtook while it was read. Gives what may be returned, or MISSING."""
    kept = not isinstance(value, Uncached)
    given = value if kept else value.value
    with cache._mutex:
        if fill.stale:
            cache.counters.discarded += 1
            return given if last else MISSING
        if cache._fills.current.get(slot) is fill:
            if kept and cache.keeps:
                cache._entries[slot] = Entry(value, fill.began)
            fill.value = given
            # Whoever comes from now on reads the entry, which the next change drops; not this fill.
            del cache._fills.current[slot]
        return given


def arriving(cache: Cache, after: Lsn, deadline: float) -> Steps:
    """Wait until every commit up to `after` was received, or is visible to all loads that begin from some moment on.

    Gives that moment, NEVER in the first case. A commit that was written and is not received may be on its way to being
    visible; its transaction then counts as running. So all that were running when the WAL had been written that far
    are waited for. As a rule none was, or the stream is there sooner.
    """
    floor = cache._floor(after)
    if floor is not None:
        return floor
    end: int | None = None
    pause, stop = 0.001, cache._source.hurry(after)
    try:
        while True:
            began = cache._clock()
            written = yield Ask(lambda: cache._source.written(after))
            if written is not None:
                snapshot, end = written[0], written[1] if end is None else end
                if snapshot.shows_all(end):
                    cache._proved(after, began)
            floor = cache._floor(after)
            if floor is not None:
                return floor
            if cache._clock() >= deadline:
                raise NotYetVisible(_not_arrived(cache, after, end is not None))
            yield Pause(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
    finally:
        stop()


def _not_arrived(cache: Cache, after: Lsn, is_written: bool) -> str:
    if not is_written:
        return f"{cache.table}: the server's WAL has not come to {after} yet. Is it the LSN of another server?"
    return (
        f"{cache.table}: the stream has not come to {after} yet, and a transaction that ran when that was written "
        "still runs, and may belong before it. Try again later"
    )
