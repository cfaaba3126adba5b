"""The loop: connect, receive, dispatch, confirm, and again after the connection was lost.

One generator for threads and asyncio; it yields what it waits for (see `waiting`). A change is handed to every
subscription that sees it, in commit order, before the next one is looked at, so what stands behind the last
returned handler is a contiguous prefix of the stream: that is what is saved and confirmed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import psycopg

from cdc.admission import Admission
from cdc.cache import Cache
from cdc.delivery import Delivery
from cdc.dispatcher import Dispatcher
from cdc.errors import CdcError, ConnectionFailed
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
from cdc.recorder import Recorder
from cdc.session import Session, Target
from cdc.stream import Reached, Received, Stream
from cdc.subscription import Subscription
from cdc.ticker import Ticker
from cdc.transaction import Transaction
from cdc.waiting import Breathe, Call, Nap, Steps, Wait

__all__ = ["Loop"]


_REACHED = Reached.REACHED
_BATCH = 256
"""Frames that are taken at once."""
_LAST_SAVE = 1.0
"""Seconds that a save may take when the stream was lost."""
_FAREWELL = 10.0
"""Seconds that the last save may take before the sockets are shut."""


class Loop:
    """The one path of a change. `steps` is run by a waiter, on one thread or in one task.

    Attributes:
        status: what it does at the moment.
        session: the open session; None before the first.
        reconnects: how often the connection was lost.
        attempts: failed attempts to connect since then.
        problem: why it is not connected, or None.
        recorder: keeps what arrives in a file, when somebody asked for that.
    """

    def __init__(self, target: Target, dispatcher: Dispatcher, backoff: Backoff, rights_interval: float) -> None:
        self.status = Status.OFFLINE
        self.session: Session | None = None
        self.caches: dict[Subscription, Cache] = {}
        self.progress = Progress()
        self.reconnects = 0
        self.attempts = 0
        self.problem: str | None = None
        self.recorder: Recorder | None = None
        self.is_stopping = False
        self._target = target
        self._dispatcher = dispatcher
        self._backoff = backoff
        self._delivery = Delivery(dispatcher, self.progress, target.on_gap)
        self._pace = Pace()
        self._house = Housekeeping(self.progress, self.caches, lambda: dispatcher.subscriptions, rights_interval)
        self._ticker: Ticker | None = None

    def open(self, check: Callable[[Admission], None] | None = None) -> None:
        """Connect and check; `check` is called before a slot is made. Raises what the user has to mend."""
        try:
            self.session = Session(self._target, self.caches, self.session, check)
        except psycopg.Error as error:
            raise translated(error) from error
        self._dispatcher.forget_relations()

    def steps(self) -> Steps:
        """Run until `is_stopping`, or until an error that waiting cannot mend."""
        try:
            while not self.is_stopping:
                try:
                    yield from self._stream()
                except ConnectionFailed as error:
                    yield from self._again(error)
                except psycopg.Error as error:
                    failure = translated(error)
                    if not isinstance(failure, ConnectionFailed):
                        raise failure from error
                    yield from self._again(failure)
        finally:
            yield Call(self._end)

    # Connecting.

    def _again(self, error: ConnectionFailed) -> Steps:
        """The connection was lost: connect again, for as long as it takes."""
        self.reconnects += 1
        yield Call(self._lost, (error,))
        while not self.is_stopping:
            self.attempts += 1
            yield from self._pause(self._backoff.wait(self.attempts, random.random()))
            if self.is_stopping:
                return
            try:
                yield Call(self.open, (self._still_published,))
                return
            except ConnectionFailed as failure:
                self.problem = str(failure)
                log.warning("reconnect.failed", attempt=self.attempts, reason=str(failure))

    def _still_published(self, admission: Admission) -> None:
        admission.check_published(self._dispatcher.subscriptions)

    def _lost(self, error: ConnectionFailed) -> None:
        log.warning("connection.lost", reason=str(error))
        self.problem = str(error)
        self._set_status(Status.CONNECTING)
        self._stop_ticker()
        session = self.session
        if session is not None:
            if session.stream is not None and self.progress.dirty:
                self._save_at_last(session, session.stream)
            session.close()

    def _save_at_last(self, session: Session, stream: Stream) -> None:
        """The stream is gone; the ordinary connection may still be there, to save what was delivered."""
        # A save that fails is made up for once there is a connection, or at the end.
        with suppress(CdcError, psycopg.Error), session.within(_LAST_SAVE):
            self._house.save(session, stream)

    def _pause(self, seconds: float) -> Steps:
        deadline = time.monotonic() + seconds
        while not self.is_stopping and (left := deadline - time.monotonic()) > 0:
            yield Wait((), left)

    def _start(self, session: Session) -> Stream:
        """Begin to stream behind what was finished in this process, else behind what was saved."""
        finished = self.progress.position(session.saved.epoch)
        stream, interval = session.start(finished or session.saved.position)
        if (recorder := self.recorder) is not None:
            recorder.begin(session, stream)
        self._house.unseen |= session.invisible()
        self._stop_ticker()
        self._ticker = Ticker(session.tick, min(interval / 2, 1.0))
        self._set_status(Status.CATCHING_UP)
        log.info("stream.started", slot=session.slot.name, lsn=str(session.saved.flush_lsn))
        return stream

    # Streaming.

    def _stream(self) -> Steps:
        session = self.session
        assert session is not None
        stream: Stream = yield Call(self._start, (session,))
        if session.slot.gap is not None:
            yield from self._tell_gap(session, session.slot.gap)
            yield Call(self._house.save, (session, stream))
        while not self.is_stopping:
            frames = session.frames(_BATCH)
            if (recorder := self.recorder) is not None:
                yield Call(recorder.keep, (session, stream, frames))
            yield from self._take(session, stream, frames)
            yield from self._keep_house(session, stream)
            if frames:
                nap = self._pace.nap(len(frames), time.monotonic())
                yield Nap(nap) if nap and self.status is Status.LIVE else Breathe()
            else:
                session.check(time.monotonic())
                yield Wait(session.sockets, self._house.patience())

    def _take(self, session: Session, stream: Stream, frames: Sequence[bytes | memoryview]) -> Steps:
        """Let handlers have what the frames hold, one after the other. The path of a change; every call counts."""
        receive, views_of, progress = stream.receive, self._dispatcher.views, self.progress
        delivery, house, clock = self._delivery, self._house, time.monotonic
        for frame in frames:
            if self.is_stopping:
                return
            item = receive(frame)
            if isinstance(item, RowChange):
                if delivery.fresh and item._relation.oid in delivery.fresh:
                    yield from delivery.schema(item._place, item._relation)
                for view in views_of(item):
                    seen = view.see(item)
                    if seen is not None:
                        progress.dirty = True
                        pending = delivery.call(view.subscription, seen)
                        if pending is not None:
                            yield from delivery.finish(view.subscription, seen, pending)
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
            if self.is_stopping:
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
        if (recorder := self.recorder) is not None:
            recorder.told(session, relation)
        stream.define(relation)
        if relation.schema != "cdc":
            self._dispatcher.define(relation, session.admission.view)
            self._delivery.fresh.add(relation.oid)

    def _tell_gap(self, session: Session, gap: Gap) -> Steps:
        log.warning("gap", reason=gap.reason, last=str(gap.last))
        self._house.unseen.clear()
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
                cache.set_live(self.status is Status.LIVE)

    def _keep_house(self, session: Session, stream: Stream) -> Steps:
        """What is due between two batches."""
        now = time.monotonic()
        if stream.transaction is None:
            self._activate(session)
            if self.status is Status.CATCHING_UP and stream.standby.finished_lsn >= session.live_from:
                self._live()
        for duty in self._house.due(session, stream, now):
            with session.busy():
                yield Call(duty)
        if self._house.rights_changed:
            self._house.rights_changed = False
            log.info("rights.changed")
            session.admission.review()
            self._dispatcher.rebind(session.admission.view)
        session.feedback()

    def _live(self) -> None:
        self.attempts = 0
        self.problem = None
        self._set_status(Status.LIVE)
        log.info("stream.live")

    def _set_status(self, status: Status) -> None:
        self.status = status
        for cache in list(self.caches.values()):
            cache.set_live(status is Status.LIVE)

    # The end.

    def _end(self) -> None:
        """Save what was finished, tell the server, close. A position that cannot be saved is only logged."""
        self._stop_ticker()
        if (recorder := self.recorder) is not None:
            recorder.end(self.is_stopping)
        session = self.session
        if session is not None:
            if session.stream is not None and self.status in (Status.LIVE, Status.CATCHING_UP):
                try:
                    with session.within(_FAREWELL):
                        self._house.save(session, session.stream)
                        session.finish()
                except (CdcError, psycopg.Error) as error:
                    log.warning("position.not_saved", reason=str(error))
            elif self.progress.dirty and session.saved.position != self.progress.position(session.saved.epoch):
                log.warning("position.not_saved", reason="the connection was lost")
            session.close()
        self._set_status(Status.STOPPED)

    def _stop_ticker(self) -> None:
        if self._ticker is not None:
            self._ticker.stop()
            self._ticker = None
