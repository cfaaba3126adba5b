"""The loop: connect, receive, dispatch, confirm, and again after the connection was lost.

One generator for threads and asyncio; it yields what it waits for (see `waiting`). A change is handed to every
subscription that sees it, in commit order, before the next one is looked at, so what stands behind the last
returned handler is a contiguous prefix of the stream: that is what is saved and confirmed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import psycopg

from cdc.cache import Cache
from cdc.connecting import Connecting
from cdc.delivery import Delivery
from cdc.dispatcher import Dispatcher
from cdc.errors import ConnectionFailed
from cdc.events import Gap, RowChange
from cdc.failures import translated
from cdc.health import Status
from cdc.holding import Committed, PreparedEnd
from cdc.housekeeping import Housekeeping
from cdc.log import log
from cdc.pace import Pace
from cdc.pgoutput import RelationMessage
from cdc.progress import Progress
from cdc.reconnect import Backoff
from cdc.session import Session, Target
from cdc.snapshotting import Snapshotting
from cdc.stream import Reached, Received, Stream
from cdc.subscription import Subscription
from cdc.transaction import Transaction
from cdc.waiting import Breathe, Call, Nap, Steps, Wait

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
        snapshots: reads the tables of those who begin with their rows.
    """

    def __init__(
        self,
        target: Target,
        dispatcher: Dispatcher,
        backoff: Backoff,
        rights_interval: float,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.caches: dict[Subscription, Cache] = {}
        self.progress = Progress()
        self._target = target
        self._dispatcher = dispatcher
        self._delivery = Delivery(dispatcher, self.progress, target.on_gap)
        self._pace = Pace()
        self._house = Housekeeping(self.progress, self.caches, lambda: dispatcher.subscriptions, rights_interval)
        self.link = Connecting(target, dispatcher, self.caches, self.progress, self._house, backoff)
        self.snapshots = Snapshotting(
            target, dispatcher, self._delivery, self._house, self.progress, wake, lambda: self.link.is_stopping
        )

    def steps(self) -> Steps:
        """Run until `is_stopping`, or until an error that waiting cannot mend."""
        try:
            while not self.link.is_stopping:
                try:
                    yield from self._stream()
                except ConnectionFailed as error:
                    yield from self.link.again(error)
                except psycopg.Error as error:
                    failure = translated(error)
                    if not isinstance(failure, ConnectionFailed):
                        raise failure from error
                    yield from self.link.again(failure)
        finally:
            yield Call(self.link.end)
            self.snapshots.close()

    # Streaming.

    def _stream(self) -> Steps:
        session = self.link.session
        assert session is not None
        stream: Stream = yield Call(self.link.start, (session,))
        yield from self.snapshots.begin(session)
        if session.slot.gap is not None:
            yield from self._tell_gap(session, session.slot.gap)
            yield from self.snapshots.steps(session, stream)
            yield Call(self._house.save, (session, stream))
        while not self.link.is_stopping:
            frames = session.frames(_BATCH)
            yield from self._take(session, stream, frames)
            yield from self._keep_house(session, stream)
            if frames:
                nap = self._pace.nap(len(frames), time.monotonic())
                yield Nap(nap) if nap and self.link.status is Status.LIVE else Breathe()
            elif self.snapshots.is_ready(stream):
                yield Breathe()
            else:
                session.check(time.monotonic())
                yield Wait(session.sockets, self.snapshots.patience(self._house.patience()))

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
                        left = delivery.call(view.subscription, seen)
                        if left is not None:
                            yield from left
                progress.finished = item._place
                if clock() >= house.late_at:
                    yield from self._keep_house(session, stream)
            elif item is _REACHED:
                if progress.is_awaited:
                    progress.reached(stream.standby.finished_lsn)
            elif isinstance(item, Transaction):
                house.unseen.add(item.xid)
                if self._dispatcher.has_waiting:
                    self._activate(session)
            elif item is not None:
                yield from self._act(session, stream, item)

    def _act(self, session: Session, stream: Stream, item: Received) -> Steps:
        """What the rarer frames ask for."""
        if isinstance(item, RelationMessage):
            yield from self._define(session, stream, item)
        elif isinstance(item, list):
            yield from self._delivery.truncates(item)
        elif isinstance(item, Committed):
            yield from self._deliver(session, stream, item)
        elif isinstance(item, PreparedEnd):
            self._activate(session)
            if self._target.options.two_phase:  # A slot that was made with it tells of them without being asked.
                yield from self._delivery.prepared(item)
            stream.told(item)

    def _deliver(self, session: Session, stream: Stream, committed: Committed) -> Steps:
        """A transaction that was held has committed: its changes take the ordinary way now."""
        self._activate(session)
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
        self.progress.reached(stream.standby.finished_lsn)

    def _finish_prepared(self, stream: Stream, committed: Committed) -> None:
        """Remember that it is over, also when it had no change: after a restart its commit may come without them."""
        finished = self.progress.position(stream.epoch)
        if finished is None or finished.commit_lsn < committed.commit_lsn:
            transaction = Transaction(stream.epoch, committed.xid, committed.commit_lsn, committed.commit_microseconds)
            self.progress.finished = (transaction, 0)

    def _lost_prepared(self, session: Session, gid: str) -> Steps:
        if self._target.slot is not None and self._target.state is None:
            log.warning("prepared.unknown", gid=gid, reason="its changes were confirmed before; nothing is remembered")
            return
        gap = Gap(f"the changes of the transaction prepared as {gid!r} were confirmed before and are not sent again")
        self._delivery.check(gap)
        yield from self._tell_gap(session, gap)

    def _define(self, session: Session, stream: Stream, message: RelationMessage) -> Steps:
        roles = self._dispatcher.roles(message.schema, message.table)
        relation = yield Call(session.relation, (message, roles))
        stream.define(relation)
        if relation.schema != "cdc":
            self._dispatcher.define(relation, session.admission.view)
            self._delivery.fresh.add(relation.oid)

    def _tell_gap(self, session: Session, gap: Gap) -> Steps:
        log.warning("gap", reason=gap.reason, last=str(gap.last))
        self._house.unseen.clear()
        self._house.unseen |= yield Call(session.invisible)
        self._activate(session)
        yield from self._delivery.gap(gap)

    def _activate(self, session: Session) -> None:
        """Between two transactions: let new subscriptions begin."""
        if not self._dispatcher.has_waiting:
            return
        for subscription in self._dispatcher.activate(session.admission.view):
            cache = self.caches.get(subscription)
            if cache is not None:
                cache.begin(self._house.unseen)
                cache.set_live(self.link.status is Status.LIVE)
            self.snapshots.add(subscription, session)

    def _keep_house(self, session: Session, stream: Stream) -> Steps:
        """What is due between two batches."""
        now = time.monotonic()
        if stream.transaction is None:
            self._activate(session)
            if self.link.status is Status.CATCHING_UP and stream.standby.finished_lsn >= session.live_from:
                self.link.live()
        if self.snapshots.is_busy:
            yield from self.snapshots.steps(session, stream)
        for duty in self._house.due(session, stream, now):
            with session.busy():
                yield Call(duty)
        if self._house.rights_changed:
            self._house.rights_changed = False
            log.info("rights.changed")
            session.admission.review()
            self._dispatcher.rebind(session.admission.view)
        session.feedback()
