"""A cache of what was read from tables, cleared by their changes, that never serves a value older than one of them.

No psycopg here: values are read through a `Source`. Expiry and size are cachetools' work; the fence decides
which loads may be kept. While the stream is not live, changes may be on their way: then only what was read a few
seconds ago is served.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from cachetools import TTLCache

from cdc.caching.counters import Counters
from cdc.caching.driving import drive
from cdc.caching.entries import MISSING, NEVER, Entry, Fills
from cdc.caching.fence import Fence, Snapshot
from cdc.caching.filling import filling
from cdc.caching.inflow import Inflow
from cdc.caching.keys import By, keys_of
from cdc.caching.source import Load, Source
from cdc.caching.wraps import Wrapped, check_load, wrapped
from cdc.errors import ConfigurationError
from cdc.events import Event
from cdc.expiry import check_fresh
from cdc.lsn import Lsn
from cdc.relation import Relation
from cdc.rls import Subject
from cdc.values.equality import Equality

__all__ = ["Cache", "Counters", "Load", "Source"]

_ALL = object()


class Cache:
    """What `consumer.cache(table, …)` gives.

    Args:
        table: the table's name, for messages.
        source: runs loads.
        ttl: seconds that an entry lives at most.
        maxsize: number of entries at most; the ones used longest ago go first.
        by: columns whose values make the key, or a function of the row; None when any change of the table clears
            everything.
        patience: seconds that `fetch` waits for a change to become visible before it raises.
        clock: seconds, from anywhere on.
        polling_interval: seconds that an entry is served while the stream is not live, from the beginning of its load.
        negative_ttl: seconds that None is served; None: as any other value.
        depends: `by` for each further table whose changes clear entries.
        subject: as whom loads run, or None.

    Attributes:
        inflows: what clears it, by table: the first one is the table's own.
        polling_interval: seconds that an entry is served while the stream is not live.
        is_whole: whether every change concerns every entry, so that keys may be anything.
        wrapping: the function that it wraps, if its keys are those of rows.
    """

    def __init__(
        self,
        table: str,
        source: Source,
        ttl: float,
        maxsize: int,
        by: By,
        patience: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        polling_interval: float = 5.0,
        negative_ttl: float | None = None,
        depends: Mapping[str, By] | None = None,
        subject: Subject | None = None,
    ) -> None:
        self.table = table
        self.subject = subject
        self.counters = Counters()
        self._source = source
        self._patience = patience
        self._clock = clock
        self.polling_interval = polling_interval
        self._negative_ttl = negative_ttl
        self._mutex = threading.Lock()
        self._entries: TTLCache[Hashable, Entry] = TTLCache(maxsize, ttl, clock)
        self._fence = Fence()
        self._fills = Fills()
        self._live = self._is_plain = False
        self._since: float | None = clock()
        self._proven = (Lsn(0), NEVER)
        self._checked: object = None
        """The code of the load that was looked at last."""
        self.wrapping: str | None = None
        self._keys = keys_of(table, by)
        others = {name: keys_of(name, each, self._keys.slot) for name, each in (depends or {}).items()}
        self.inflows = (Inflow(self, table, self._keys), *(Inflow(self, name, keys) for name, keys in others.items()))
        self._slot = self._keys.slot
        self.is_whole = by is None
        self._expires = None if subject is None else subject.expires

    def __len__(self) -> int:
        with self._mutex:
            return len(self._entries)

    @property
    def by(self) -> tuple[str, ...] | None:
        """The columns whose values make the key; None when they do not."""
        return self._keys.columns

    @property
    def is_live(self) -> bool:
        """Whether the stream is live, so that entries of every age may be served."""
        return self._live

    @property
    def not_live_for(self) -> float | None:
        """Seconds since when it has not been live; None when it is."""
        since = self._since
        return None if since is None else self._clock() - since

    @property
    def problem(self) -> str | None:
        """What a function `by` has raised last; None when none has."""
        return next((inflow.problem for inflow in self.inflows if inflow.problem is not None), None)

    def fetch(self, key: Any, load: Load, after: Lsn | str | None = None) -> Any:
        """The value of `key`, from memory or by `load(connection, key)`.

        Concurrent misses of one key load once. A load returns `cdc.Uncached(value)` for what is not to be kept.

        Args:
            key: a value of the `by` column (a tuple for several), what a function `by` gives, or any hashable for a
                whole-table cache.
            load: called on a miss.
            after: the LSN of a write, as `cdc.current_lsn(connection)` gives it behind the commit; the value is not
                older than that.

        Raises TypeError for a key of the wrong type, NotYetVisible when the server keeps showing a value older than a
        change that was received, or than `after`, SubscriptionError when the subject has expired, and whatever `load`
        raises.
        """
        slot = self._slot(key)
        if after is None and self._is_plain:
            with self._mutex:
                try:
                    value = self._entries[slot].value
                except KeyError:
                    pass
                else:
                    self.counters.hits += 1
                    return value
        lsn = self._asked(after)
        if (code := getattr(load, "__code__", None)) is None or code is not self._checked:
            check_load(self.table, load, is_async=False)
            self._checked = code
        return drive(filling(self, slot, key, threading.get_ident(), lsn), self._source, load, key)

    def put(self, key: Any, value: Any, snapshot: Snapshot | str) -> bool:
        """Keep a value that you have read by a connection of your own, if it is as new as all that was received.

        Args:
            key: as for `fetch`.
            value: what `fetch` is to give for it.
            snapshot: the text of `pg_current_snapshot()`, read in the same REPEATABLE READ transaction as the value, on
                the slot's own server. That transaction has written nothing.

        Returns False, and keeps nothing, when a change has overtaken it, when it does not see a change that was
        received, and when the cache cannot know: while it is not live, in its first moments, and for snapshots older
        than what it remembers of changes.

        Raises TypeError for a key of the wrong type, ConfigurationError for what is no snapshot, and for a cache with
        a subject.
        """
        if self.subject is not None:
            raise ConfigurationError(
                f"the cache of {self.table} has a subject, and nobody knows as whom {key!r} was read: use fetch"
            )
        seen = _snapshot(snapshot)
        slot = self._slot(key)
        with self._mutex:
            if not self._live or not self._fence.admits(slot, seen):
                self.counters.discarded += 1
                return False
            # When it was read is not known: while the stream is not live it is of no use.
            self._entries[slot] = Entry(value, NEVER)
            return True

    def invalidate(self, key: Any = _ALL) -> None:
        """Drop one key, or everything, now; a load under way is not kept, nor is what `put` has read before."""
        slot = None if key is _ALL else self._slot(key)
        with self._mutex:
            self._fence.blind()
            if key is _ALL:
                self._drop_all()
            else:
                self._drop(slot)

    def wraps(self, function: Callable[..., Any]) -> Wrapped:
        """A decorator: let `function(connection, …)` be a load, and its arguments the key.

        `@cache.wraps` on `def well(connection, id)` makes `well(33)` a fetch; several arguments make a tuple. What it
        gives has `invalidate(33)`, `after(lsn, 33)`, and the function as `__wrapped__`. A cache without `by` may wrap
        several functions, which have entries of their own; one with `by` wraps one.

        Raises ConfigurationError for what cannot be a load.
        """
        return wrapped(self, self, function, self.fetch)

    # What the loop calls, for the table itself; `inflows` has the same for every table.

    def bind(self, relation: Relation, equalities: tuple[Equality, ...]) -> None:
        """See `Inflow.bind`."""
        self.inflows[0].bind(relation, equalities)

    def receive(self, event: Event) -> None:
        """See `Inflow.receive`."""
        self.inflows[0].receive(event)

    def begin(self, unseen: Iterable[int], elsewhere: bool = False) -> None:
        """See `Inflow.begin`."""
        self.inflows[0].begin(unseen, elsewhere)

    def clear(self, xid: int) -> None:
        """See `Inflow.clear`."""
        self.inflows[0].clear(xid)

    def set_live(self, live: bool) -> None:
        """Whether the stream is caught up, so that entries of every age may be served."""
        for inflow in self.inflows:
            inflow.set_live(live)

    @property
    def has_tombstones(self) -> bool:
        """Whether a change was received that no snapshot has been seen to show."""
        return bool(self._fence)

    @property
    def is_blind(self) -> bool:
        """Whether it wants to see a snapshot, without which `put` is refused."""
        return self._fence.is_blind

    def seen(self, snapshot: Snapshot) -> None:
        """A snapshot of the server was taken; changes that it shows need no fence any more."""
        with self._mutex:
            self._fence.seen(snapshot)

    # What fillings and inflows call; those marked so under the mutex.

    def _hit(self, key: Any, after: Lsn | str | None) -> Any:
        """The value that `fetch` gives at once, or MISSING."""
        slot, lsn = self._slot(key), self._asked(after)
        floor = NEVER if lsn is None else self._floor(lsn)
        if floor is None:
            return MISSING
        with self._mutex:
            entry = self._look(slot, floor)
            if entry is None:
                return MISSING
            self.counters.hits += 1
            return entry.value

    def _asked(self, after: Lsn | str | None) -> Lsn | None:
        if self._expires is not None:
            check_fresh(self.subject, time.time())
        if after is None or isinstance(after, Lsn):
            return after
        try:
            return Lsn.parse(after)
        except (ValueError, AttributeError):
            raise ConfigurationError(
                f"after is what cdc.current_lsn(connection) gives, or its text, not {after!r}"
            ) from None

    def _look(self, slot: Hashable, floor: float = NEVER) -> Entry | None:
        """The entry that may be served; with the mutex. One whose load began before `floor` may not."""
        try:
            entry = self._entries[slot]
        except KeyError:
            return None
        if not self._live:
            floor = max(floor, self._clock() - self.polling_interval)
        if entry.value is None and self._negative_ttl is not None:
            floor = max(floor, self._clock() - self._negative_ttl)
        return entry if entry.at >= floor else None

    def _floor(self, after: Lsn) -> float | None:
        """When the load of an entry has to have begun at the earliest, so that it shows `after`; None: not known."""
        if self._begun and self._source.received() >= after:
            return NEVER
        lsn, began = self._proven
        return began if lsn >= after else None

    def _proved(self, lsn: Lsn, began: float) -> None:
        """Loads that begin from `began` on see every commit up to `lsn`."""
        if lsn >= self._proven[0]:
            self._proven = (lsn, began)

    @property
    def keeps(self) -> bool:
        """Whether what is loaded may be kept at all."""
        return all(inflow.is_decided for inflow in self.inflows)

    @property
    def _begun(self) -> bool:
        return all(inflow.has_begun for inflow in self.inflows)

    def _set_live(self) -> None:
        """Whether all its tables' changes arrive; with the mutex."""
        live = all(inflow.is_live for inflow in self.inflows)
        if live != self._live:
            self._since = None if live else self._clock()
        self._live = live
        self._is_plain = live and self._negative_ttl is None and self._expires is None

    def _change(self, slot: Hashable, xid: int) -> None:
        """With the mutex."""
        self._fence.change(slot, xid)
        self._drop(slot)

    def _change_all(self, xid: int) -> None:
        """With the mutex."""
        self._fence.change_all(xid)
        self._drop_all()

    def _drop(self, slot: Hashable) -> None:
        """With the mutex."""
        self._entries.pop(slot, None)
        self._fills.overtake(slot)

    def _drop_all(self) -> None:
        """With the mutex."""
        self._entries.clear()
        self._fills.overtake_all()


def _snapshot(given: Snapshot | str) -> Snapshot:
    if isinstance(given, Snapshot):
        return given
    try:
        return Snapshot.parse(given)
    except (ValueError, AttributeError):
        raise ConfigurationError(
            f"the snapshot is the text of pg_current_snapshot(), such as '10:20:10,14', not {given!r}"
        ) from None
