"""A model of the server: transactions that commit, are streamed in that order, and become visible in any order.

The value of a key is the set of visible transactions that have changed it, so that any two values can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from cdc.caching.fence import Snapshot
from cdc.events import Effect, RowChange, Truncate, Update
from cdc.lsn import Lsn
from cdc.relation import Column, Relation
from cdc.row import Row
from cdc.transaction import Transaction

__all__ = ["RELATION", "Model", "Source", "Value", "Written"]

RELATION = Relation(
    1, "public", "books", "f",
    (Column("id", 23, -1, True, int), Column("shelf", 23, -1, True, int)), (0, 1),
)  # fmt: skip
EVERYTHING, REWRITE = -1, -2
"""In the place of a key: all of them, by a TRUNCATE, or by a rewrite of the table, which sends no changes."""


class Value(NamedTuple):
    """What a load brings: the transactions that it shows, when it was read, and by whom."""

    shows: frozenset[int]
    read_at: float
    reader: Any


@dataclass(slots=True)
class Written:
    """A transaction.

    Attributes:
        xid: its id.
        keys: what it changes.
        lsn: of its commit; None before that.
        visible_at: since when new snapshots show it.
    """

    xid: int
    keys: tuple[int, ...]
    lsn: int | None = None
    visible_at: float = math.inf

    @property
    def is_visible(self) -> bool:
        """Whether new snapshots show it."""
        return self.visible_at < math.inf

    def concerns(self, key: int) -> bool:
        """Whether it changes this key."""
        return bool({key, EVERYTHING, REWRITE} & set(self.keys))

    def events(self) -> list[RowChange | Truncate]:
        """Its changes, as the stream sends them."""
        assert self.lsn is not None
        transaction = Transaction("e", self.xid, Lsn(self.lsn), 0)
        return [_event(transaction, ordinal + 1, key) for ordinal, key in enumerate(self.keys)]


def _event(transaction: Transaction, ordinal: int, key: int) -> RowChange | Truncate:
    if key == EVERYTHING:
        return Truncate((transaction, ordinal), RELATION, False, False)
    row = Row.of_cells(RELATION.whole, [b"%d" % ordinal, b"%d" % key])
    return Update((transaction, ordinal), RELATION, row, row, Effect.STAY)


class Model:
    """The server.

    Args:
        now: the time.

    Attributes:
        running: transactions that have not committed.
        committed: the others, in the order of their commits.
        sent: how many of these were received.
        next: the id that the next transaction gets.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.running: list[Written] = []
        self.committed: list[Written] = []
        self.sent = 0
        self.next = 100

    def begin(self, keys: tuple[int, ...]) -> None:
        """A transaction that has an id and has not committed."""
        self.running.append(Written(self.next, keys))
        self.next += 1

    def commit(self, which: int) -> Written:
        """Its commit is in the WAL; it is not visible yet."""
        written = self.running.pop(which % len(self.running))
        written.lsn = 1000 + len(self.committed)
        self.committed.append(written)
        return written

    def show(self, written: Written) -> None:
        """New snapshots show it from now on."""
        written.visible_at = min(written.visible_at, self._now())

    @property
    def received(self) -> int:
        """The LSN up to which everything was received."""
        return 1000 + self.sent - 1 if self.sent else 0

    @property
    def written(self) -> int:
        """The LSN up to which there is WAL."""
        return 1000 + len(self.committed) - 1

    @property
    def unsent(self) -> list[Written]:
        """What was not received yet."""
        return self.committed[self.sent :]

    @property
    def hidden(self) -> list[Written]:
        """What has committed and is not visible."""
        return [each for each in self.committed if not each.is_visible]

    def shown(self, key: int) -> frozenset[int]:
        """The value of a key at this moment."""
        return frozenset(each.xid for each in self.committed if each.is_visible and each.concerns(key))

    def snapshot(self) -> Snapshot:
        """What a new snapshot shows."""
        unfinished = frozenset(each.xid for each in [*self.running, *self.hidden])
        return Snapshot(min(unfinished, default=self.next), self.next, unfinished)


class _Flushed:
    """In the place of a snapshot, for the defect that compares LSNs: what has committed counts as seen."""

    def __init__(self, model: Model) -> None:
        self._running = {each.xid for each in model.running}

    def sees(self, xid: int) -> bool:
        return xid not in self._running


class Source:
    """The source of a cache, over the model.

    Args:
        model: the server.
        turn: called wherever others may run.
        now: the time.
        by_lsn: whether snapshots are replaced by a comparison of LSNs.
    """

    def __init__(self, model: Model, turn: Callable[[], None], now: Callable[[], float], by_lsn: bool) -> None:
        self._model, self._turn, self._now, self._by_lsn = model, turn, now, by_lsn

    def read(self, key: int, reader: Any) -> Value:
        """A load's query; `reader` is whoever asks."""
        return Value(self._model.shown(key), self._now(), reader)

    def bare(self, load: Any, key: Any) -> Any:
        """See `cdc.caching.source.Source`."""
        self._turn()
        value = load(self, key)
        self._turn()
        return value

    def fenced(self, load: Any, key: Any) -> Any:
        """See `cdc.caching.source.Source`; the snapshot comes first."""
        self._turn()
        snapshot: Any = _Flushed(self._model) if self._by_lsn else self._model.snapshot()
        self._turn()
        value = load(self, key)
        self._turn()
        return value, snapshot

    def written(self, lsn: Lsn) -> tuple[Snapshot, int] | None:
        """See `cdc.caching.source.Source`."""
        self._turn()
        model = self._model
        written = (model.snapshot(), model.next) if model.written >= lsn else None
        self._turn()
        return written

    def received(self) -> Lsn:
        """See `cdc.caching.source.Source`."""
        return Lsn(self._model.received)

    def hurry(self, lsn: Lsn) -> Callable[[], object]:
        """See `cdc.caching.source.Source`."""
        return lambda: None
