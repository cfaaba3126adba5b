"""A cache of what was read from a table, cleared by its changes, that never serves a value older than one of them.

No psycopg here: values are read through a `Source`. Expiry and size are cachetools' work; the fence decides
which loads may be kept. While the stream is not live, `fetch` loads and does not serve.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Protocol

from cachetools import TTLCache

from cdc.caching.counters import Counters
from cdc.caching.fence import Fence, Snapshot
from cdc.errors import ConfigurationError, NotYetVisible, SubscriptionError
from cdc.events import Event, Gap, Prepared, RowChange
from cdc.relation import Relation
from cdc.row import Row
from cdc.tuples import UNCHANGED, Binary
from cdc.values.equality import Equality

__all__ = ["Cache", "Counters", "Load", "Source"]

Load = Callable[[Any, Any], Any]
"""Called as `load(connection, key)` on a miss; `connection` is a read-only psycopg connection."""

_ATTEMPTS = 3
_MISSING = object()


class Source(Protocol):
    """Runs a load against the slot's own server, read-only."""

    def bare(self, load: Load, key: Any) -> Any:
        """The value of `load(connection, key)`."""

    def fenced(self, load: Load, key: Any) -> tuple[Any, Snapshot]:
        """The same in one snapshot, together with that snapshot."""


class _Fill:
    """One load under way; others who miss the same key wait for it."""

    __slots__ = ("done", "owner", "stale", "value")

    def __init__(self) -> None:
        self.owner = threading.get_ident()
        self.done = threading.Event()
        self.stale = False
        self.value: Any = _MISSING


class Cache:
    """What `consumer.cache(table, …)` gives.

    Args:
        table: the table's name, for messages.
        source: runs loads.
        ttl: seconds that an entry lives at most.
        maxsize: number of entries at most; the ones used longest ago go first.
        by: columns whose values make the key; None when any change of the table clears everything.
        patience: seconds that `fetch` waits for a change to become visible before it raises.
    """

    def __init__(
        self,
        table: str,
        source: Source,
        ttl: float,
        maxsize: int,
        by: tuple[str, ...] | None,
        patience: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.table = table
        self.by = by
        self.counters = Counters()
        self._source = source
        self._patience = patience
        self._mutex = threading.Lock()
        self._entries: TTLCache[Hashable, Any] = TTLCache(maxsize, ttl, clock)
        self._fence = Fence()
        self._fills: dict[Hashable, _Fill] = {}
        self._loading: dict[Hashable, set[_Fill]] = {}
        self._relation: Relation | None = None
        self._equalities: tuple[Equality, ...] | None = None
        self._live = False

    def __len__(self) -> int:
        with self._mutex:
            return len(self._entries)

    @property
    def is_live(self) -> bool:
        """Whether the stream is live, so that entries may be served."""
        return self._live

    def fetch(self, key: Any, load: Load) -> Any:
        """The value of `key`, from memory or by `load(connection, key)`.

        `key` is a value of the `by` column (a tuple for several), or any hashable for a whole-table cache.
        Concurrent misses of one key load once. Raises TypeError for a key of the wrong type, NotYetVisible
        when the server keeps showing a value older than a change that was received, and whatever `load` raises.
        """
        slot = self._slot(key)
        deadline = time.monotonic() + self._patience
        while True:
            with self._mutex:
                value = self._entries.get(slot, _MISSING) if self._live else _MISSING
                if value is not _MISSING:
                    self.counters.hits += 1
                    return value
                fill, mine = self._join(slot)
            if mine:
                return self._fill(fill, slot, key, load, deadline)
            if fill.owner == threading.get_ident():
                raise ConfigurationError(
                    f"the load of {self.table} fetches its own key {key!r}: it would wait for itself"
                )
            fill.done.wait()
            if fill.value is not _MISSING:
                return fill.value

    def invalidate(self, key: Any = _MISSING) -> None:
        """Drop one key, or everything, now; a load under way is not kept."""
        with self._mutex:
            if key is _MISSING:
                self._drop_all()
            else:
                self._drop(self._slot(key))

    def _slot(self, key: Any) -> Hashable:
        """The key in the form that a change's cells are brought into."""
        if self.by is None:
            hash(key)
            return key  # type: ignore[no-any-return]  # any hashable is a key
        if self._equalities is None:
            raise SubscriptionError(f"the cache of {self.table} is not open: enter or start its consumer first")
        if len(self.by) == 1:
            return self._equalities[0].from_python(key)
        if not isinstance(key, tuple) or len(key) != len(self.by):
            raise TypeError(f"the key of the cache of {self.table} is a tuple of ({', '.join(self.by)}), not {key!r}")
        pairs = zip(self._equalities, key, strict=True)
        return tuple(equality.from_python(value) for equality, value in pairs)

    def _join(self, slot: Hashable) -> tuple[_Fill, bool]:
        """The fill to wait for, or a new one of our own. Whoever is not live reads for himself."""
        self.counters.misses += 1
        fill = self._fills.get(slot)
        if fill is not None and self._live:
            return fill, False
        fill = _Fill()
        if self._live:
            self._fills[slot] = fill
        self._loading.setdefault(slot, set()).add(fill)
        return fill, True

    def _fill(self, fill: _Fill, slot: Hashable, key: Any, load: Load, deadline: float) -> Any:
        try:
            return self._load(fill, slot, key, load, deadline)
        finally:
            with self._mutex:
                self._loading[slot].discard(fill)
                if not self._loading[slot]:
                    del self._loading[slot]
                if self._fills.get(slot) is fill:
                    del self._fills[slot]
            fill.done.set()

    def _load(self, fill: _Fill, slot: Hashable, key: Any, load: Load, deadline: float) -> Any:
        """Load until the value is at least as new as every change received when the load began.

        A value that no change overtook is kept. On a busy key the value of the last attempt is returned
        without being kept: it is as new as what had been received when it was read.
        """
        attempt, pause = 0, 0.001
        while True:
            attempt += 1
            with self._mutex:
                fill.stale = False
                pending = self._fence.pending(slot)
                self.counters.loads += 1
            value, sees = self._read(load, key, pending)
            if sees and self._keep(fill, slot, value, last=attempt >= _ATTEMPTS):
                return value
            if time.monotonic() >= deadline and not sees:
                raise NotYetVisible(
                    f"{self.table}: the server still shows the value of {key!r} from before a change that was "
                    f"received; the commit may be waiting for a synchronous standby. Try again later"
                )
            if not sees:
                time.sleep(pause)
                pause = min(pause * 2, 0.05)

    def _read(self, load: Load, key: Any, pending: frozenset[int]) -> tuple[Any, bool]:
        """A loaded value, and whether its snapshot sees every pending transaction."""
        if not pending:
            return self._source.bare(load, key), True
        value, snapshot = self._source.fenced(load, key)
        with self._mutex:
            self._fence.seen(snapshot)
        return value, all(snapshot.sees(xid) for xid in pending)

    def _keep(self, fill: _Fill, slot: Hashable, value: Any, last: bool) -> bool:
        """Keep a value that no change overtook while it was read; True when it may be returned."""
        with self._mutex:
            if fill.stale:
                self.counters.discarded += 1
                return last
            if self._live and self._fills.get(slot) is fill:
                self._entries[slot] = value
                fill.value = value
                # Whoever comes from now on reads the entry, which the next change drops; not this fill.
                del self._fills[slot]
            return True

    # What the loop calls.

    def bind(self, relation: Relation, equalities: tuple[Equality, ...]) -> None:
        """What the table looks like, and so how keys compare.

        A table that looks different may have been rewritten, which sends no changes of rows.
        """
        with self._mutex:
            if self._relation != relation:
                self._drop_all()
            self._relation, self._equalities = relation, equalities

    def receive(self, event: Event) -> None:
        """Clear what the event concerns, before any handler sees it."""
        with self._mutex:
            self.counters.invalidations += 1
            if isinstance(event, Gap):
                self._fence.clear()
                self._drop_all()
            elif isinstance(event, RowChange) and self.by is not None:
                self._change(event)
            elif not isinstance(event, Prepared):
                self._change_all(event.xid)

    def set_live(self, live: bool) -> None:
        """Whether the stream is caught up, so that entries may be kept and served."""
        with self._mutex:
            if live and not self._live:
                # What is being read now began before changes were sure to arrive.
                for fills in self._loading.values():
                    for fill in fills:
                        fill.stale = True
            self._live = live

    def begin(self, unseen: Iterable[int]) -> None:
        """The cache begins between two transactions; `unseen` were received before, and may not be visible yet."""
        with self._mutex:
            for xid in unseen:
                self._fence.change_all(xid)
            self._drop_all()

    def clear(self, xid: int) -> None:
        """The table was rewritten by a transaction that was received, without changes of rows: drop everything."""
        with self._mutex:
            self._change_all(xid)

    def polled(self, differing: Iterable[Any] | None, began: float) -> None:
        """The table was compared while there is no stream.

        Args:
            differing: keys of rows that differ from what was found before; None when everything may differ.
            began: when the comparison began, by time.monotonic().

        What differs is dropped. Entries that are not named are as good as read at `began`.
        """
        with self._mutex:
            self._drop_all()

    @property
    def has_tombstones(self) -> bool:
        """Whether a change was received that no snapshot has been seen to show."""
        return bool(self._fence)

    def seen(self, snapshot: Snapshot) -> None:
        """A snapshot of the server was taken; changes that it shows need no fence any more."""
        with self._mutex:
            self._fence.seen(snapshot)

    def _change(self, event: RowChange) -> None:
        if event.relation is not self._relation and event.relation != self._relation:
            # A row of a shape that the keys are not made of.
            self._change_all(event.xid)
            return
        slots = [self._slot_of(event.relation, row) for row in (event.old, event.new) if row is not None]
        if event.event_type == "UPDATE" and event.old is None:
            slots.append(self._slot_before(event))
        if not slots or None in slots:
            self._change_all(event.xid)
            return
        for slot in slots:
            self._fence.change(slot, event.xid)
            self._drop(slot)

    def _slot_before(self, event: RowChange) -> Hashable | None:
        """The key before an UPDATE that came without an old row: the same, if it is made of the identity."""
        assert self.by is not None and event.new is not None
        within = all(column in event.relation.identity.columns for column in self.by)
        return self._slot_of(event.relation, event.new) if within else None

    def _slot_of(self, relation: Relation, row: Row) -> Hashable | None:
        """The key of a row; None when it cannot be known."""
        assert self.by is not None and self._equalities is not None
        cells = [row.cells[relation.whole.columns[column]] for column in self.by]
        if any(cell is UNCHANGED or isinstance(cell, Binary) for cell in cells):
            return None
        slots = tuple(_slot_of_cell(*pair) for pair in zip(self._equalities, cells, strict=True))
        return slots[0] if len(slots) == 1 else slots

    def _change_all(self, xid: int) -> None:
        self._fence.change_all(xid)
        self._drop_all()

    def _drop(self, slot: Hashable) -> None:
        self._entries.pop(slot, None)
        for fill in self._loading.get(slot, ()):
            fill.stale = True

    def _drop_all(self) -> None:
        self._entries.clear()
        for fills in self._loading.values():
            for fill in fills:
                fill.stale = True


def _slot_of_cell(equality: Equality, cell: Any) -> Hashable:
    if cell is None:
        return (None,)
    return cell if equality.from_cell is None else equality.from_cell(cell)


def columns_of(by: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The columns of a cache's `by`."""
    if by is None:
        return None
    return (by,) if isinstance(by, str) else tuple(by)
