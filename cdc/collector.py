"""Collectors: what a subscription's handler gets at once, and when it is due.

Pure: no clock; the time of an event is an argument. A collector holds the events that wait, oldest first. It is
one of four: each event by itself, lists of so many, one list behind a burst, whole transactions.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from cdc.committed_transaction import CommittedTransaction
from cdc.events import Gap
from cdc.lsn import Lsn
from cdc.terms import Terms
from cdc.transaction import Place, Transaction

__all__ = ["NEVER", "NOW", "Collector", "Entry", "Mark", "Portion", "collector_of", "events_of"]

NOW, NEVER = 0.0, math.inf
"""When something is due, on the steady clock of the entries."""

_BOUND = 10
"""A burst that does not end is handed over after so many times its quiet."""


class Mark(NamedTuple):
    """What was finished just before an event was handed out; while the event is not, nothing more is.

    Attributes:
        number: counts the marks.
        place: place of the change handed out before; None before the first of this process.
        handed_lsn: everything up to here was handed out.
        safe_lsn: everything up to here may be confirmed.
    """

    number: int
    place: Place | None
    handed_lsn: Lsn
    safe_lsn: Lsn


class Entry(NamedTuple):
    """An event that waits.

    Attributes:
        event: the event.
        transaction: the transaction that it belongs to; None for one that stands between two.
        mark: what was finished before it.
        at: when it was handed out, in seconds of a steady clock.
    """

    event: Any
    transaction: Transaction | None
    mark: Mark
    at: float


class Portion(NamedTuple):
    """What the handler gets at once.

    Attributes:
        event: an event, a list of them, or a `CommittedTransaction`.
        mark: what was finished before the first of it.
        size: number of events.
    """

    event: Any
    mark: Mark
    size: int


def events_of(event: Any) -> Sequence[Any]:
    """The single events of what a handler got, oldest first."""
    if isinstance(event, CommittedTransaction):
        return event.events
    return event if isinstance(event, list) else (event,)


class Collector:
    """Hands each event over by itself. The others differ in what is due, and in what it looks like."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def oldest(self) -> Mark | None:
        """The mark of the event that has waited longest."""
        return self._entries[0].mark if self._entries else None

    @property
    def due(self) -> float:
        """When the next portion is due: `NOW`, a time, or `NEVER` when that depends on what comes."""
        return NOW if self._entries else NEVER

    def add(self, entry: Entry) -> None:
        """One more event."""
        self._entries.append(entry)

    def reach(self, lsn: Lsn) -> None:
        """Everything up to `lsn` was handed out."""

    def hurry(self) -> None:
        """What waits now is due."""

    def take(self) -> Portion:
        """The next portion, which has to be due."""
        size = self._size()
        entries = [self._entries.popleft() for _ in range(size)]
        return Portion(self._shape(entries), entries[0].mark, size)

    def clear(self) -> None:
        """Forget what waits."""
        self._entries.clear()

    def _size(self) -> int:
        return 1

    def _shape(self, entries: list[Entry]) -> Any:
        return entries[0].event


class _Lists(Collector):
    """Hands over lists."""

    def __init__(self) -> None:
        super().__init__()
        self._hurried = 0

    def hurry(self) -> None:
        """See `Collector.hurry`."""
        self._hurried = len(self._entries)

    def take(self) -> Portion:
        """See `Collector.take`."""
        portion = super().take()
        self._hurried = max(0, self._hurried - portion.size)
        return portion

    def clear(self) -> None:
        """See `Collector.clear`."""
        super().clear()
        self._hurried = 0

    def _size(self) -> int:
        return len(self._entries)

    def _shape(self, entries: list[Entry]) -> Any:
        return [entry.event for entry in entries]


class Batches(_Lists):
    """Lists of at most `most` events; a shorter one when its first event has waited for `linger` seconds."""

    def __init__(self, most: int, linger: float) -> None:
        super().__init__()
        self._most, self._linger = most, linger

    @property
    def due(self) -> float:
        """See `Collector.due`."""
        if not self._entries:
            return NEVER
        if self._hurried or len(self._entries) >= self._most:
            return NOW
        return self._entries[0].at + self._linger

    def _size(self) -> int:
        return min(self._most, len(self._entries))


class Bursts(_Lists):
    """One list of all that came, behind `quiet` seconds without an event; of one that does not end, pieces."""

    def __init__(self, quiet: float) -> None:
        super().__init__()
        self._quiet = quiet

    @property
    def due(self) -> float:
        """See `Collector.due`."""
        if not self._entries:
            return NEVER
        if self._hurried:
            return NOW
        return min(self._entries[-1].at + self._quiet, self._entries[0].at + _BOUND * self._quiet)


class Transactions(Collector):
    """Whole transactions. What stands between two, such as a `Gap`, comes by itself.

    A connection may be lost in the middle of one; the rest of it comes on the next. Only a commit that was handed
    out, or an event of another transaction, says that it is over.
    """

    def __init__(self) -> None:
        super().__init__()
        self._whole = 0
        """So many entries are of transactions that are over."""

    @property
    def due(self) -> float:
        """See `Collector.due`."""
        return NOW if self._whole else NEVER

    def add(self, entry: Entry) -> None:
        """See `Collector.add`."""
        entries = self._entries
        begun = entries[self._whole] if self._whole < len(entries) else None
        if begun is not None and entry.transaction is None and not isinstance(entry.event, Gap):
            # The connection was lost, and the rest is still to come.
            entries.insert(self._whole, entry._replace(mark=begun.mark))
            self._whole += 1
            return
        if begun is not None and entry.transaction is None:
            entry = entry._replace(transaction=begun.transaction)  # The rest will not come.
            entries.append(entry)
            self._whole = len(entries)
            return
        if begun is not None and entry.transaction != begun.transaction:
            self._whole = len(entries)
        entries.append(entry)
        if entry.transaction is None:
            self._whole = len(entries)

    def reach(self, lsn: Lsn) -> None:
        """See `Collector.reach`."""
        if self._whole < len(self._entries):
            last = self._entries[-1].transaction
            if last is None or lsn > last.commit_lsn:
                self._whole = len(self._entries)

    def hurry(self) -> None:
        """See `Collector.hurry`."""

    def take(self) -> Portion:
        """See `Collector.take`."""
        portion = super().take()
        self._whole -= portion.size
        return portion

    def clear(self) -> None:
        """See `Collector.clear`."""
        super().clear()
        self._whole = 0

    def _size(self) -> int:
        first = self._entries[0].transaction
        if first is None:
            return 1
        entries = islice(self._entries, self._whole)
        return next((size for size, entry in enumerate(entries) if entry.transaction != first), self._whole)

    def _shape(self, entries: list[Entry]) -> Any:
        transaction = entries[0].transaction
        if transaction is None:
            return entries[0].event
        return CommittedTransaction.of(transaction, tuple(entry.event for entry in entries))


def collector_of(terms: Terms) -> Collector:
    """The collector that these terms ask for."""
    if terms.transaction:
        return Transactions()
    if terms.batch is not None:
        return Batches(terms.batch, terms.linger)
    return Collector() if terms.debounce is None else Bursts(terms.debounce)
