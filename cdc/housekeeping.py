"""Housekeeping: what the loop does between two batches, each thing at its own pace.

No waiting here: `due` names the duties, the loop runs them. Positions are saved, caches hear which changes have
become visible, rights are read again, and whoever waits for an LSN makes the server be asked for a keepalive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import psycopg

from cdc.caching.inflow import Inflow
from cdc.dispatcher import Dispatcher
from cdc.landmarks import Landmarks
from cdc.loader import snapshot_of
from cdc.log import log
from cdc.lot import AT_ONCE, Lot
from cdc.lsn import Lsn, Position
from cdc.parked import Parked
from cdc.progress import Progress
from cdc.refusals import refuse_new_children
from cdc.session import Session
from cdc.stream import Stream
from cdc.subscription import Subscription
from cdc.wal_budget import WalWatch

__all__ = ["Housekeeping"]

_SAVE_EVERY = 1.0
_IDLE_WAL = 1 << 20
"""Each save makes WAL itself, so that progress without a delivery is saved for this many bytes only."""
_FENCE_EVERY = 0.2
_PING_EVERY = 0.05
_LOT_EVERY = 2.0
_MANY_UNSEEN = 10_000
_LATE = 0.1
_SAY_EVERY = 60.0
_WAL_EVERY = 10.0


class Housekeeping:
    """Knows what is due.

    Attributes:
        unseen: ids of received transactions that no snapshot has been seen to show yet.
        late_at: when, by time.monotonic(), handlers have kept the loop from its duties for long.
        rights_changed: set when rights were read again and differ.
        before_save: called before each position that is saved.
        holds: whether nothing may be saved, since a gap was not told to everybody yet.
        requests: parked events that are to be handed over again.
        wal: what the slot keeps of the server's WAL.
        looks: called every few seconds, as soon as there is a connection.
    """

    def __init__(
        self,
        progress: Progress,
        caches: dict[Subscription, Inflow],
        dispatcher: Dispatcher,
        rights_interval: float,
        lot: Lot,
    ) -> None:
        self.requests: list[Parked] = []
        self.unseen: set[int] = set()
        self.rights_changed = False
        self.before_save: list[Callable[[Session], None]] = []
        self.holds = False
        self.wal = WalWatch()
        self.looks: list[Callable[[Session], None]] = []
        self._progress = progress
        self._caches = caches
        self._dispatcher = dispatcher
        self._rights_interval = rights_interval
        self.late_at = 0.0
        self._lot = lot
        self._landmarks = Landmarks(progress)
        self._told_at = 0.0
        self._saved_at = self._fenced_at = self._pinged_at = self._parked_at = self._wal_at = 0.0
        self._rights_at = time.monotonic()
        self._looks_at = 0.0

    def due(self, session: Session, stream: Stream, now: float) -> Iterator[Callable[[], None]]:
        """The duties that are due at `now`; each may block for a round trip."""
        self.late_at = now + _LATE
        for table, reason, count in self._dispatcher.problems.news(now, _SAY_EVERY):
            log.warning("row.not_judged", table=table, reason=reason, changes=count)
        if self._progress.is_awaited and now - self._pinged_at >= _PING_EVERY:
            self._pinged_at = now
            stream.standby.ask_keepalive()
        if self._save_is_due(session, stream, now):
            yield partial(self.save, session, stream)
        if self._look_is_due(now):
            yield partial(self._look, session, stream)
        if now - self._rights_at >= self._rights_interval:
            self._rights_at = now
            yield partial(self._refresh_rights, session, stream)
        if now - self._looks_at >= self._rights_interval:
            self._looks_at = now
            yield from (partial(look, session) for look in self.looks)
        if now - self._wal_at >= _WAL_EVERY:
            self._wal_at = now
            yield partial(self._look_at_slot, session)

        if self._lot.is_used and stream.transaction is None and self._lot_is_due(now):
            self._parked_at = now
            yield self._see_to_lot

    def patience(self) -> float:
        """Seconds to wait for a frame before something may be due."""
        if self._progress.is_awaited:
            return _PING_EVERY
        return _FENCE_EVERY if self._caches and self.unseen else min(_SAVE_EVERY, self._rights_interval)

    def save(self, session: Session, stream: Stream) -> None:
        """Save the position and confirm what stands before it."""
        self._saved_at = time.monotonic()
        if self.holds:
            return
        # Before the look at what is finished, since a lane may finish more at any time.
        dirty, self._progress.dirty = self._progress.dirty, False
        position, lsn = self._finished(session)
        try:
            for call in self.before_save:
                call(session)
            session.save(position, lsn)
        except BaseException:
            self._progress.dirty = True
            raise
        if dirty and stream.transaction is not None:
            # Its end is still to be confirmed, or it would not be before the next change.
            self._progress.dirty = True

    def _finished(self, session: Session) -> tuple[Position | None, Lsn]:
        """The position and the LSN to save; for a user with positions of his own the last position that he had.

        Changes that nobody asked for are finished, too, but he does not hear of their positions.
        """
        epoch = session.saved.epoch
        finished, lsn = self._progress.finished(epoch)
        if finished is None or not session.by_user:
            return finished, lsn
        position, lsn = self._landmarks.finished(self._told(epoch), time.monotonic())
        return max(filter(None, [position, session.saved.position]), default=None), lsn

    def _told(self, epoch: str) -> Position | None:
        """The last position that any of the user's handlers was told of."""
        had = (each.previous for each in self._dispatcher.readers if not each.first)
        return max((each for each in had if each is not None and each.epoch == epoch), default=None)

    def _save_is_due(self, session: Session, stream: Stream, now: float) -> bool:
        if self.holds or now - self._saved_at < _SAVE_EVERY:
            return False
        if session.by_user:
            # It takes a look at every subscription.
            if now - self._told_at < _SAVE_EVERY:
                return False
            self._told_at = now
        position, lsn = self._finished(session)
        ahead = lsn - stream.standby.confirmed_lsn
        if self._progress.dirty:
            # Not again and again while a lane keeps it where it is.
            return ahead > 0 or position not in (None, session.saved.position)
        return ahead >= _IDLE_WAL or (ahead > 0 and not session.remembers)

    def _look_is_due(self, now: float) -> bool:
        if len(self.unseen) > _MANY_UNSEEN:
            return True
        if not self._caches or now - self._fenced_at < _FENCE_EVERY:
            return False
        return bool(self.unseen) or any(cache.is_blind for cache in list(self._caches.values()))

    def _look(self, session: Session, stream: Stream) -> None:
        """Look at a snapshot: changes that it shows need no fence any more."""
        snapshot = snapshot_of(session.control)
        self._fenced_at = time.monotonic()
        self.unseen = {xid for xid in self.unseen if not snapshot.sees(xid)}
        if stream.transaction is not None:
            # More of its changes will come, so caches have to be told again.
            self.unseen.add(stream.transaction.xid)
        for cache in list(self._caches.values()):
            cache.seen(snapshot)

    def _lot_is_due(self, now: float) -> bool:
        return not self.requests and (self._lot.is_asked or now - self._parked_at >= _LOT_EVERY)

    def _see_to_lot(self) -> None:
        """How many are parked, and which of them are asked for; at once again when there may be more of these."""
        self._lot.look()
        self.requests = self._lot.requests([each.name for each in self._dispatcher.readers if each.parks])
        if len(self.requests) >= AT_ONCE:
            self._parked_at = 0.0

    def _refresh_rights(self, session: Session, stream: Stream) -> None:
        """Read them again. While somebody alters a published table its lock would hold up the stream: then later."""
        with suppress(psycopg.errors.LockNotAvailable), session.without_waiting():
            session.check_publications()
            session.admission.check_published(subscriptions := self._dispatcher.subscriptions)
            refuse_new_children(session.control, subscriptions)
            self.rights_changed = session.admission.judge.refresh(stream.standby.finished_lsn) or self.rights_changed

    def _look_at_slot(self, session: Session) -> None:
        usage = session.usage()
        if usage is not None:
            self.wal.look(usage, time.monotonic())
