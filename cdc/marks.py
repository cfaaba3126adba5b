"""The bookmarks of one slot: which subscriptions have had their table's rows, and what has to be saved of that.

May use everything below the loop. Whoever was not there for a while has missed changes, so a bookmark whose
subscription is not among those that begin with the stream goes, and its table is read anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

import psycopg

from cdc.bookmark import Bookmark, open_bookmarks
from cdc.errors import ConfigurationError, ConnectionFailed
from cdc.session import Session
from cdc.subscription import Subscription
from cdc.target import Target

__all__ = ["Marks"]


class Marks:
    """Bookmarks, by the name of the subscription.

    Attributes:
        is_loaded: whether those of a former process were looked for.
        unmarked: subscriptions whose bookmark is of another life of the slot, and who may not have been told.
    """

    def __init__(self, target: Target) -> None:
        self.is_loaded = False
        self.unmarked: list[Subscription] = []
        self._store = open_bookmarks(target.state)
        self._found: dict[str, Bookmark] = {}
        """Those of a former process whose subscriptions have not begun yet."""
        self._marks: dict[str, Bookmark] = {}
        self._kept: dict[str, Subscription] = {}
        self._changed: set[str] = set()
        self._gone: set[str] = set()
        self._ahead: dict[str, list[tuple[int, Bookmark]]] = {}
        """Bookmarks behind events that a lane has not finished yet, with the number of the first event behind them."""

    def load(self, session: Session, subscriptions: Sequence[Subscription]) -> None:
        """Find the bookmarks of a former process. Raises ConfigurationError when they are needed and cannot be had."""
        if self._store is None or not session.remembers:
            self.is_loaded = True
            return
        try:
            marks = self._store.load(session.control, session.slot.name)
        except ConfigurationError:
            if any(each._in_parts for each in subscriptions):
                raise
            self.is_loaded = True
            return
        self.is_loaded = True
        names = {each.name for each in subscriptions if not each.first}
        self._found = {name: mark for name, mark in marks.items() if name in names}
        if marks.keys() - names:
            self._store.save(session.control, session.slot.name, self._found, (), marks.keys() - names)

    def begin(self, subscription: Subscription, epoch: str) -> Bookmark | None:
        """A subscription begins: its bookmark, from which to read when it is not done; None when it needs none."""
        name, wanted = subscription.name, subscription.terms.snapshot
        found = self._found.pop(name, None)
        if not (subscription._in_parts or (found is not None and not found.done)):
            if found is not None:
                self._gone.add(name)
            return None
        self._kept[name] = subscription
        fresh = self.fresh(subscription, epoch, done=not wanted)
        if found is None or (wanted and found.wanted != fresh.wanted):
            return self.put(name, fresh)
        if found.epoch != epoch:
            self.unmarked.append(subscription)
            return self.put(name, replace(fresh, done=False))
        self._marks[name] = found
        return found

    def fresh(self, subscription: Subscription, epoch: str, done: bool = False) -> Bookmark:
        """A bookmark at the beginning. What the subscription sees is told by a hash: claims are not written down."""
        seen = (subscription.schema, subscription.table, subscription.filter, subscription.subject)
        return Bookmark(epoch, sha256(repr(seen).encode()).hexdigest()[:16], done)

    def put(self, name: str, mark: Bookmark) -> Bookmark:
        """Remember it, with the next save."""
        self._ahead.pop(name, None)
        self._marks[name] = mark
        self._changed.add(name)
        self._gone.discard(name)
        return mark

    def put_behind(self, name: str, mark: Bookmark, number: int) -> None:
        """Remember it with the first save behind which the subscription's handler has finished what came before."""
        self._ahead.setdefault(name, []).append((number, mark))

    def has_finished(self, subscription: Subscription, number: int) -> bool:
        """Whether the handler has finished the events before this number."""
        oldest = None if subscription.lane is None else subscription.lane.oldest
        return oldest is None or oldest.number >= number

    @property
    def is_due(self) -> bool:
        """Whether there is something to save."""
        return bool(self._changed or self._gone or self._ahead)

    def outlived(self, epoch: str) -> list[Subscription]:
        """Those whose bookmark is of another life of the slot."""
        return [self._kept[name] for name, mark in self._marks.items() if mark.epoch != epoch]

    def knows(self, subscription: Subscription) -> bool:
        """Whether the subscription has a bookmark."""
        return self._kept.get(subscription.name) is subscription and not subscription.closed

    def save(self, session: Session) -> None:
        """Save what has changed. Raises ConfigurationError, or ConnectionFailed."""
        for name in [name for name, subscription in self._kept.items() if subscription.closed]:
            del self._kept[name], self._marks[name]
            self._ahead.pop(name, None)
            self._gone.add(name)
        for name, ahead in list(self._ahead.items()):
            finished = [mark for number, mark in ahead if self.has_finished(self._kept[name], number)]
            if finished:
                self.put(name, finished[-1])
                if len(ahead) > len(finished):
                    self._ahead[name] = ahead[len(finished) :]
        changed, gone = self._changed & self._marks.keys(), set(self._gone)
        if self._store is not None and session.remembers and (changed or gone):
            try:
                self._store.save(session.control, session.slot.name, self._marks, changed, gone)
            except psycopg.OperationalError as error:
                raise ConnectionFailed(f"the snapshot's progress could not be saved: {error}") from None
        self._changed.clear()
        self._gone.clear()
