"""The loop: connect, receive, dispatch, confirm, and again after the connection was lost.

One generator for threads and asyncio; it yields what it waits for (see `waiting`). A change is handed to every
subscription that sees it, in commit order, before the next one is looked at. What stands before the first change that
a handler has not finished (see `progress`) is a contiguous prefix of the stream: that is what is saved and confirmed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import psycopg

from cdc.attempts import Attempts, Unfinished
from cdc.beside import Beside
from cdc.boundary import Boundary
from cdc.caching.inflow import Inflow
from cdc.connecting import Connecting
from cdc.delivery import Delivery
from cdc.dispatcher import Dispatcher
from cdc.errors import CdcError, ConnectionFailed
from cdc.events import Gap, GapKind, RowChange, Truncate
from cdc.gaps import Gaps
from cdc.health import Status
from cdc.holding import Committed, PreparedEnd
from cdc.housekeeping import Housekeeping
from cdc.lane import Lane
from cdc.log import log
from cdc.lot import Lot
from cdc.message import Message
from cdc.pace import Pace
from cdc.pgoutput import RelationMessage
from cdc.progress import Progress
from cdc.reconnect import Backoff
from cdc.revision import Revision
from cdc.session import Session
from cdc.stream import Reached, Received, Repeated, Stream
from cdc.subscription import Subscription
from cdc.target import Target
from cdc.transaction import Transaction
from cdc.waiting import Breathe, Call, Nap, Steps, Wait
from cdc.watch import Watch

__all__ = ["Loop"]


_REACHED = Reached.REACHED
_BATCH = 256
"""Frames that are taken at once."""


class Loop:
    """The one path of a change. `steps` is run by a waiter, on one thread or in one task.

    Attributes:
        link: the session of the moment, and what becomes of it.
        caches: the caches, by the subscription that clears them.
        progress: what was finished, and who waits for it.
        snapshots: reads the tables of those who begin with their rows, and of stores.
        lanes: where the events of some subscriptions wait for their handlers.
        lot: what is parked.
        wal: what the slot keeps of the server's WAL.
        watch: which handlers are at work for long.
        boundary: lets subscriptions begin, be renewed and expire.
    """

    def __init__(
        self,
        target: Target,
        dispatcher: Dispatcher,
        backoff: Backoff,
        rights_interval: float,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.caches: dict[Subscription, Inflow] = {}
        self.progress = Progress()
        self._target = target
        self._dispatcher = dispatcher
        self.lot = Lot(lambda: self.link.session, target.park_file, target.decoders)
        self.watch = Watch(lambda: dispatcher.readers)
        self._attempts = Attempts(self.lot, self._is_ending, target.slot is not None)
        self._delivery = Delivery(dispatcher, self.progress, target.on_gap, self._attempts, wake)
        self.lanes = self._delivery.lanes
        self.lanes.stop = lambda: self._stop(wake)
        self._pace = Pace()
        self._house = Housekeeping(self.progress, self.caches, dispatcher, rights_interval, self.lot)
        self.wal = self._house.wal
        self.link = Connecting(target, dispatcher, self.caches, self.progress, self._house, backoff, self.watch, wake)
        self.link.polling.hand = self._delivery.between
        self.snapshots = Beside(
            target, dispatcher, self._delivery, self._house, self.progress, wake, lambda: self.link.is_stopping
        )
        self._revision = Revision(self.link, dispatcher, self._delivery, self._house, self.progress, self.caches)
        self.rewriting = self._revision.rewriting
        self.boundary = Boundary(
            self.link, dispatcher, self._delivery, self._house, self.snapshots, self.caches, self.progress
        )
        self.link.boundary = self.boundary
        self._gaps = Gaps(self._house, self.boundary, self._delivery, self.progress, self._until)

    def steps(self) -> Steps:
        """Run until `is_stopping`, or until an error that waiting cannot mend."""
        failure: BaseException | None = None
        try:
            yield from self._sessions()
        except BaseException as error:
            failure = error
            self.link.failed(error)
            raise
        finally:
            try:
                yield from self.lanes.end()
            finally:
                self.snapshots.close()
                if failure is None and self.lanes.failure is not None:
                    self.link.failed(self.lanes.failure)
                yield Call(self.link.end)
                yield from self.link.herald.tell()
        self.lanes.check()

    def _sessions(self) -> Steps:
        """One connection after the other."""
        try:
            if self.link.refused is not None:
                yield from self.link.again(self.link.refused)
            while not self.link.is_stopping:
                try:
                    yield from self._stream()
                except (ConnectionFailed, psycopg.Error) as error:
                    failure: CdcError = yield Call(self.link.passing, (error,))
                    yield from self._again(failure)
        except Unfinished:
            pass  # It was stopped while an event waited for its next attempt.
        self.lanes.check()

    def _again(self, error: CdcError) -> Steps:
        """The connection was lost. What is there need not wait until there is another."""
        yield Call(self.link.lost, (error,))
        yield from self.lanes.hurry()
        yield from self.link.again(error)

    def _is_ending(self) -> bool:
        return self.link.is_stopping or self.lanes.is_ending

    def _stop(self, wake: Callable[[], None]) -> None:
        self.link.is_stopping = True
        wake()

    def _stream(self) -> Steps:
        session = self.link.session
        assert session is not None
        stream: Stream = yield Call(self.link.start, (session,))
        yield from self.boundary.expire()
        yield from self.snapshots.begin(session)
        yield from self.link.herald.tell()
        yield from self._gaps.begin(session, stream)
        while not self.link.is_stopping:
            frames = session.frames(_BATCH)
            if self.boundary.is_over:
                yield from self.boundary.expire()
            if (recorder := self.link.recorder) is not None:
                yield Call(recorder.keep, (session, stream, frames))
            yield from self._take(session, stream, frames)
            yield from self._keep_house(session, stream)
            if frames:
                nap = self._pace.nap(len(frames), time.monotonic())
                yield Nap(nap) if nap and self.link.status is Status.LIVE else Breathe()
            elif self.snapshots.is_ready(stream):
                yield Breathe()
            else:
                session.check(time.monotonic())
                yield Wait(session.sockets, self.snapshots.patience(self._patience()))

    def _take(self, session: Session, stream: Stream, frames: Sequence[bytes | memoryview]) -> Steps:
        """Let handlers have what the frames hold, one after the other. The path of a change; every call counts."""
        link, receive, views_of, progress = self.link, stream.receive, self._dispatcher.views, self.progress
        delivery, house, clock = self._delivery, self._house, time.monotonic
        for frame in frames:
            if link.is_stopping:
                return
            item = receive(frame)
            if isinstance(item, RowChange):
                if delivery.fresh and item._relation.oid in delivery.fresh:
                    yield from delivery.schema(item._place, item._relation)
                for view in views_of(item):
                    seen = view.see(item)
                    if seen is not None:
                        progress.dirty = True
                        subscription = view.reader
                        if subscription.lane is None:
                            left = delivery.call(subscription, seen)
                        else:
                            left = self._put(subscription, subscription.lane, seen)
                        if left is not None:
                            yield from left
                progress.handed = item._place
                if clock() >= house.late_at:
                    yield from self._keep_house(session, stream)
            elif item is _REACHED:
                if progress.is_awaited:
                    progress.reached()
            elif isinstance(item, Transaction):
                house.unseen.add(item.xid)
                if self._gaps.is_due(item.commit_lsn):
                    yield from self._gaps.steps(session, stream)
                if self.boundary.is_due:
                    yield from self.boundary.steps(session, stream)
            elif item is not None:
                yield from self._act(session, stream, item)

    def _put(self, subscription: Subscription, lane: Lane, seen: RowChange | Truncate) -> Steps | None:
        """Hand a change out to a lane. When that is full, the duties are due behind this change, and wait for room."""
        left = self.lanes.put(subscription, lane, seen, seen._place)
        if lane.stalls:
            self._house.late_at = 0.0
        return left

    def _act(self, session: Session, stream: Stream, item: Received) -> Steps:
        """What the rarer frames ask for."""
        if isinstance(item, RelationMessage):
            yield from self._define(session, stream, item)
        elif isinstance(item, list):
            yield from self._delivery.truncates(item)
            yield from self._keep_late_house(session, stream)
        elif isinstance(item, Message):
            yield from self._delivery.message(item, stream.epoch)
            yield from self._keep_late_house(session, stream)
        elif isinstance(item, Repeated):
            self._revision.row(item.row)
            yield from self._keep_late_house(session, stream)
        elif isinstance(item, Committed):
            self.link.sure(item.held)
            yield from self._deliver(session, stream, item)
        elif isinstance(item, PreparedEnd):
            if not item.rolled_back:
                self.link.sure(item.held)
            yield from self.boundary.steps(session, stream)
            if self._target.options.two_phase:  # A slot that was made with it tells of them without being asked.
                yield from self._delivery.prepared(item)
            stream.told(item)

    def _deliver(self, session: Session, stream: Stream, committed: Committed) -> Steps:
        """A transaction that was held has committed: its changes take the ordinary way now."""
        if self._gaps.is_due(committed.commit_lsn):
            yield from self._gaps.steps(session, stream)
        yield from self.boundary.steps(session, stream)
        if committed.held is None and committed.gid and not stream.is_finished(committed.commit_lsn):
            yield from self._lost_prepared(session, committed.gid)
        self._house.unseen.add(committed.xid)
        if committed.held is not None:
            # It is read as the tables were described when it began, and has to be judged that way, too.
            self._dispatcher.restore(committed.held.relations, session.admission.view)
            self._delivery.fresh |= committed.held.relations.keys()
        for frames in stream.deliver(committed):
            yield from self._take(session, stream, frames)
            if self.link.is_stopping:
                return
            yield from self._keep_house(session, stream)
            yield Breathe()
        self._dispatcher.restore(stream.relations, session.admission.view)
        self._delivery.fresh |= stream.relations.keys()
        if committed.gid:
            self._finish_prepared(stream, committed)
        self.progress.reached()

    def _finish_prepared(self, stream: Stream, committed: Committed) -> None:
        """Remember that it is over, also when it had no change: after a restart its commit may come without them."""
        handed = self.progress.handed_out(stream.epoch)
        if handed is None or handed.commit_lsn < committed.commit_lsn:
            transaction = Transaction(stream.epoch, committed.xid, committed.commit_lsn, committed.commit_microseconds)
            self.progress.handed = (transaction, 0)

    def _lost_prepared(self, session: Session, gid: str) -> Steps:
        if self._target.slot is not None and self._target.state is None:
            log.warning("prepared.unknown", gid=gid, reason="its changes were confirmed before; nothing is remembered")
            return
        reason = f"the changes of the transaction prepared as {gid!r} were confirmed before and are not sent again"
        gap = Gap(reason, kind=GapKind.PREPARED_LOST)
        self._delivery.check(gap)
        yield from self._gaps.tell(session, gap)

    def _define(self, session: Session, stream: Stream, message: RelationMessage) -> Steps:
        newcomers = self._dispatcher.newcomers(message.schema, message.table)
        roles = self._dispatcher.roles(message.schema, message.table)
        xid = None if stream.transaction is None else stream.transaction.xid
        with session.busy():
            relation = yield Call(session.relation, (message, roles, xid))
        if (recorder := self.link.recorder) is not None:
            recorder.told(session, relation)
        stream.define(relation)
        if newcomers:
            yield Call(session.join, (newcomers, relation))
        yield from self._revision.define(session, stream, relation)

    def _patience(self) -> float:
        """Seconds to wait before something may be due."""
        return self.boundary.patience(min(self._house.patience(), self.lanes.patience()))

    def _until(self, condition: Callable[[], bool], session: Session, stream: Stream) -> Steps:
        """Do nothing but the duties until lanes have come so far, the connection is lost or the loop has to end."""
        self.lanes.is_awaited = True
        while not (condition() or self.link.is_stopping):
            yield Wait((), self._patience())
            session.check_unread()
            yield from self._duties(session, stream)
        self.lanes.is_awaited = False

    def _keep_house(self, session: Session, stream: Stream) -> Steps:
        """What is due between two batches; also to wait until no lane is full any more."""
        yield from self._duties(session, stream)
        if self.lanes.stalled:
            self.lanes.say_stalled()
            yield from self._until(lambda: not self.lanes.stalled, session, stream)

    def _keep_late_house(self, session: Session, stream: Stream) -> Steps:
        """The same within a batch, when the duties are late or a lane is full."""
        if time.monotonic() >= self._house.late_at or self.lanes.stalled:
            yield from self._keep_house(session, stream)

    def _duties(self, session: Session, stream: Stream) -> Steps:
        now = time.monotonic()
        if self.boundary.is_over:
            yield from self.boundary.expire()
        if stream.transaction is None:
            if self._gaps.is_due(stream.standby.finished_lsn):
                yield from self._gaps.steps(session, stream)
            yield from self.boundary.steps(session, stream)
            if self.link.status is Status.CATCHING_UP and stream.standby.finished_lsn >= session.live_from:
                self.link.live()
                yield from self.link.herald.tell()
        if self.link.polling.is_active:
            yield from self.link.polling.steps()
        if self.snapshots.is_busy:
            yield from self.snapshots.steps(session, stream)
        if self.progress.lanes:
            yield from self.lanes.due()
            self.progress.reached()
        for duty in self._house.due(session, stream, now):
            with session.busy():
                yield Call(duty)
        if self._house.rights_changed:
            yield from self._revision.steps(session, stream)
        if self._house.requests and stream.transaction is None:
            requests, self._house.requests = self._house.requests, []
            yield from self._attempts.serve(requests, self._dispatcher.readers)
        session.feedback()
