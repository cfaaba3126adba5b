"""A lane: the events of one subscription between the loop, which hands them out, and the handler.

Pure but for a mutex. A subscription has one when its handler does not finish with an event at once: when it has a
queue, takes lists or transactions, or is an iteration. The loop puts events in; a driver takes them out and says
when the handler has finished. What is unfinished holds back the saved position.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum
from typing import Any

from cdc.collector import NEVER, NOW, Collector, Entry, Mark, Portion, collector_of
from cdc.committed_transaction import CommittedTransaction
from cdc.lsn import Lsn, Position
from cdc.terms import Terms
from cdc.transaction import Place

__all__ = ["Driver", "Lane", "lane_of"]


class Driver(Enum):
    """Who takes events out of a lane."""

    LOOP = "the loop"
    OWN = "a thread or a task of its own"
    USER = "the user's own loop"


def _nobody() -> None:
    """Who is woken when nobody waits."""


class Lane:
    """The unfinished events of one subscription, in their order.

    Args:
        name: what the subscription is called.
        driver: who takes events out.
        limit: so many events may wait; None for any number.
        collector: what the handler gets at once.

    Attributes:
        stalls: whether the loop has to wait, since so many events wait here.
        is_closed: whether it takes no more events.
        is_forsaken: whether nobody can take anything out any more.
        whole: position of the last transaction that was finished as a whole; None before the first.
        wake_driver: called when there may be something to take; from any thread.
        changed: called when events were finished, or the loop need not wait any longer; from any thread.
    """

    def __init__(self, name: str, driver: Driver, limit: int | None, collector: Collector) -> None:
        self.name = name
        self.driver = driver
        self.stalls = False
        self.is_closed = False
        self.is_forsaken = False
        self.whole: Position | None = None
        self.wake_driver: Callable[[], None] = _nobody
        self.changed: Callable[[], None] = _nobody
        self._limit = limit
        self._collector = collector
        self._mutex = threading.Lock()
        self._at_hand: Portion | None = None
        self._has_last = False
        """Whether the last event that it takes is in it."""
        self._left: Mark | None = None
        self._sleeps_until = NOW
        """When the driver looks again by itself; `NOW` unless it has looked in vain."""

    def __len__(self) -> int:
        """Number of events that are not finished."""
        with self._mutex:
            return self._unfinished

    @property
    def oldest(self) -> Mark | None:
        """What was finished before the oldest unfinished event; None when every event is finished."""
        with self._mutex:
            return self._oldest

    @property
    def due(self) -> float:
        """When the next portion is due; `NEVER` while one is at hand."""
        with self._mutex:
            return NEVER if self._at_hand is not None else self._due

    @property
    def at_hand(self) -> Portion | None:
        """What was taken and is not finished."""
        return self._at_hand

    @property
    def is_left(self) -> bool:
        """Whether an iteration ended before it had finished its last event."""
        return self._left is not None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is at hand or due: what waits, if anything, waits for more to come."""
        with self._mutex:
            return self._at_hand is None and self._due == NEVER

    def put(self, event: Any, place: Place | None, mark: Mark, now: float, last: bool = False) -> float:
        """Hand an event out. It is taken also when the lane is full: then the loop waits before it goes on.

        Args:
            event: the event.
            place: place of the change that it is, or that it stands before; None between two transactions.
            mark: what was finished before it.
            now: the time, in seconds of a steady clock.
            last: whether it closes behind this event; what waits is forgotten.

        Returns when the next portion is due, as `due`.
        """
        collector, limit = self._collector, self._limit
        with self._mutex:
            if self.is_closed or self._has_last:
                return NEVER
            if last:
                collector.clear()
                self._has_last, self.stalls = True, False
            collector.add(Entry(event, place and place[0], mark, now))
            if last:
                collector.hurry()
            due = collector.due
            if limit is not None and due < NEVER and len(collector) >= limit:
                # The loop would wait for more events to come, and they for it.
                due = NOW
                self.stalls = True
            elif limit is not None and self._at_hand is not None and len(collector) >= limit:
                self.stalls = True
            wake = due < self._sleeps_until
            if wake:
                self._sleeps_until = NOW
            due = due if self._at_hand is None else NEVER
        if wake:
            self.wake_driver()
        return due

    def take(self, now: float) -> Portion | None:
        """What the handler gets now, which is unfinished until `finish`; None when nothing is due yet."""
        with self._mutex:
            if self._at_hand is not None:
                return None
            due = self._due
            if due > now:
                self._sleeps_until = due
                return None
            self._sleeps_until = NOW
            self._at_hand = portion = self._collector.take()
            eased = self.stalls and self._ease()
        if eased:
            self.changed()
        return portion

    def finish(self) -> None:
        """The handler has finished with what it took last. Nothing happens when it took nothing."""
        with self._mutex:
            finished, self._at_hand = self._at_hand, None
            if finished is not None and isinstance(finished.event, CommittedTransaction):
                self.whole = finished.event.position
            if self.stalls:
                self._ease()
            self.is_closed = self.is_closed or (self._has_last and not len(self._collector))
        if finished is not None:
            self.changed()

    def reach(self, lsn: Lsn) -> None:
        """Everything up to `lsn` was handed out."""
        self._tell(lambda: self._collector.reach(lsn))

    def hurry(self) -> None:
        """What waits now is due."""
        self._tell(self._collector.hurry)

    def forget(self) -> None:
        """Forget what waits, as a process that ends does."""
        with self._mutex:
            self._collector.clear()
            self.stalls = False

    def close(self) -> None:
        """Take no more events. What waits is forgotten, as nobody wants it; what is at hand may be finished."""
        with self._mutex:
            self.is_closed = True
            self._collector.clear()
            self.stalls = False
        self.wake_driver()
        self.changed()

    def leave(self) -> None:
        """The same for an iteration that nobody goes on with: what it has not finished stays unfinished."""
        with self._mutex:
            self._left = self._left or self._oldest
            self._at_hand = None
        self.close()

    @property
    def _unfinished(self) -> int:
        return len(self._collector) + (0 if self._at_hand is None else self._at_hand.size)

    @property
    def _oldest(self) -> Mark | None:
        if self._left is not None:
            return self._left
        return self._collector.oldest if self._at_hand is None else self._at_hand.mark

    @property
    def _due(self) -> float:
        due = self._collector.due
        return NOW if due < NEVER and self._limit is not None and len(self._collector) >= self._limit else due

    def _ease(self) -> bool:
        """Let the loop go on when half of the room is free, so that it is not woken for each event.

        A transaction may be larger than the limit: then there is room while nothing of it can be taken.
        """
        assert self._limit is not None
        moves = self._at_hand is not None or self._collector.due < NEVER
        self.stalls = moves and len(self._collector) > self._limit // 2
        return not self.stalls

    def _tell(self, tell: Callable[[], None]) -> None:
        with self._mutex:
            tell()
            wake = self._due < self._sleeps_until
            if wake:
                self._sleeps_until = NOW
        if wake:
            self.wake_driver()


def lane_of(name: str, terms: Terms) -> Lane | None:
    """The lane that these terms ask for; None when the handler is called at once, event by event."""
    gathers = terms.batch is not None or terms.debounce is not None or terms.transaction
    if terms.queue is None and not gathers:
        return None
    driver = Driver.LOOP if terms.queue is None else Driver.OWN
    return Lane(name, driver, terms.queue, collector_of(terms))
