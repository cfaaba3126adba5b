"""An inflow: what the changes of one table mean to a cache. The loop knows caches by their inflows.

Pure but for the cache's mutex. A cache has one for its own table, and one for each other table that it depends on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cdc.caching.fence import Snapshot
from cdc.caching.keys import Columns, Keys, Whole
from cdc.errors import SubscriptionError
from cdc.events import Event, Gap, Prepared, RowChange
from cdc.relation import Relation
from cdc.rls import Subject
from cdc.tuples import Cell
from cdc.values.equality import Equality

if TYPE_CHECKING:
    from cdc.caching.cache import Cache

__all__ = ["Inflow"]


class Inflow:
    """The changes of one table, for one cache.

    Attributes:
        cache: whose.
        table: the table's name.
        by: the columns that the rows' keys are made of; None when they are not.
        is_live: whether the table's changes arrive as they are made.
        has_begun: whether it has the changes that were made from some moment on.
        relation: what the table looks like; None when that is not known yet.
        kinds: of which kinds the columns are that make the key.
        is_decided: whether it would be told when the cache's subject sees something else of the table.
        reads_rows: whether it looks into the rows that change.
    """

    def __init__(self, cache: Cache, table: str, keys: Keys) -> None:
        self.cache = cache
        self.table = table
        self.by = keys.columns
        self.is_live = False
        self.has_begun = False
        self._keys = keys
        self.relation: Relation | None = None
        self.kinds: tuple[object, ...] = ()
        self.is_decided = True
        self.reads_rows = not isinstance(keys, Whole)

    @property
    def problem(self) -> str | None:
        """What a function `by` of it has raised last; None when it has not."""
        return getattr(self._keys, "problem", None)

    @property
    def subject(self) -> Subject | None:
        """As whom the cache's loads run."""
        return self.cache.subject

    def bind(self, relation: Relation, equalities: tuple[Equality, ...], kinds: tuple[object, ...] = ()) -> None:
        """What the table looks like, and so how keys compare.

        A table that looks different may have been rewritten, which sends no changes of rows. Columns of the same kind,
        of whatever table, make the same keys of equal values. Raises SubscriptionError when its keys are of another
        kind than those of the cache's own table.
        """
        cache, first = self.cache, self.cache.inflows[0]
        if self is not first and self.by is not None and kinds != first.kinds:
            raise SubscriptionError(
                f"{relation}: ({', '.join(self.by)}) is no key of the cache of {cache.table}. Let depends give a "
                "function of the row that makes such a key, or None, so that every change clears everything"
            )
        with cache._mutex:
            if self.relation != relation:
                cache._fence.blind()
                cache._drop_all()
            self.relation, self.kinds = relation, kinds
            self._keys.bind(relation, equalities)

    def receive(self, event: Event) -> None:
        """Clear what the event concerns, before any handler sees it."""
        cache = self.cache
        slots = self._keys.of(event) if isinstance(event, RowChange) else None
        with cache._mutex:
            cache.counters.invalidations += 1
            if isinstance(event, Gap):
                cache._fence.blind()
                cache._drop_all()
            elif slots is not None:
                for slot in slots:
                    cache._change(slot, event.xid)
            elif not isinstance(event, Prepared):
                cache._change_all(event.xid)

    def begin(self, unseen: Iterable[int], elsewhere: bool = False) -> None:
        """It has every change from here on; `unseen` were received before, and may not be visible yet.

        `elsewhere`: another server answers, which has other transactions.
        """
        with self.cache._mutex:
            if elsewhere:
                self.cache._fence.clear()
            self.has_begun = True
        self.distrust(unseen)

    def close(self) -> None:
        """Its changes arrive no more, and nobody wants them: nothing is kept from now on, nor served."""
        self.set_live(False)
        with self.cache._mutex:
            self.is_decided = False
            self.cache._drop_all()

    def distrust(self, unseen: Iterable[int]) -> None:
        """The subject may see something else, by one of these transactions or a visible one: drop everything."""
        cache = self.cache
        with cache._mutex:
            for xid in unseen:
                cache._fence.change_all(xid)
            cache._fence.blind()
            cache._drop_all()

    def clear(self, xid: int) -> None:
        """The table was rewritten by a transaction that was received, without changes of rows: drop everything."""
        cache = self.cache
        with cache._mutex:
            cache._change_all(xid)

    def set_live(self, live: bool) -> None:
        """Whether the table's changes arrive as they are made."""
        cache = self.cache
        with cache._mutex:
            self.is_live = live and self.has_begun
            cache._set_live()

    @property
    def has_tombstones(self) -> bool:
        """See `Cache`."""
        return self.cache.has_tombstones

    @property
    def is_blind(self) -> bool:
        """See `Cache`."""
        return self.cache.is_blind

    def seen(self, snapshot: Snapshot) -> None:
        """See `Cache`."""
        self.cache.seen(snapshot)

    def invalidate(self) -> None:
        """See `Cache`."""
        self.cache.invalidate()

    def polled(self, differing: Iterable[Sequence[Cell]] | None, same: Iterable[Sequence[Cell]], began: float) -> None:
        """The table was compared while there is no stream.

        Args:
            differing: cells of `by` of rows that are not what was found before; None when every row may be another one.
            same: cells of `by` of which there was one row all the time between two comparisons.
            began: when the second one began, by time.monotonic().

        What differs is dropped. What was read of a row that was there all the time is as good as read at `began`,
        unless it depends on more than that row.
        """
        cache, keys = self.cache, self._keys
        columns = keys if isinstance(keys, Columns) and keys.is_bound else None
        changed = None if differing is None else list(differing)
        with cache._mutex:
            cache._fence.blind()
            if changed is None or (changed and columns is None):
                cache._drop_all()
                return
            if columns is None:
                return
            for cells in changed:
                cache._drop(columns.of_cells(cells))
            if len(cache.inflows) > 1 or self.subject is not None:
                return
            for cells in same:
                entry = cache._entries.get(columns.of_cells(cells))
                if entry is not None and entry.value is not None:
                    entry.at = max(entry.at, began)
