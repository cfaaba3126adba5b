"""Connecting: the session of the moment, what becomes of it when the connection is lost, and the last good-bye.

Part of the loop; it yields the same steps. It also knows what the consumer does at the moment, since that follows
from the connection.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Container
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from cdc.admission import Admission
from cdc.cached import distrust
from cdc.caching.inflow import Inflow
from cdc.dispatcher import Dispatcher
from cdc.errors import CdcError, ConfigurationError, ConnectionFailed
from cdc.failures import translated
from cdc.health import Status
from cdc.held import Held
from cdc.herald import Herald
from cdc.housekeeping import Housekeeping
from cdc.log import log
from cdc.polling import Polling
from cdc.progress import Progress
from cdc.reconnect import MANY, Backoff, Failure, History
from cdc.recorder import Recorder
from cdc.session import Session
from cdc.settings import check_record
from cdc.storing.feed import Feed
from cdc.stream import Stream
from cdc.subscription import Subscription
from cdc.target import Target
from cdc.ticker import Ticker
from cdc.waiting import Call, Steps, Wait
from cdc.watch import Watch

if TYPE_CHECKING:
    from cdc.boundary import Boundary

__all__ = ["Connecting"]

_LAST_SAVE = 1.0
"""Seconds that a save may take when the stream was lost."""
_FAREWELL = 10.0
"""Seconds that the last save may take before the sockets are shut."""


class Connecting:
    """Has a session, or gets one.

    Attributes:
        session: the open session; None before the first.
        herald: knows what the consumer does at the moment, and who wants to hear of it.
        history: what failed, and how often.
        is_stopping: whether somebody asked it to end.
        refused: why it has begun without a stream; None when it has not.
        polling: stands in for the stream while there is none.
        boundary: knows whose subject expires, also while there is no stream.
        recorder: keeps what arrives in a file, when somebody asked for that.
        whole: whether transactions have to come at their commit from now on; see `Held.unsure`.
    """

    boundary: Boundary

    def __init__(
        self,
        target: Target,
        dispatcher: Dispatcher,
        caches: dict[Subscription, Inflow],
        progress: Progress,
        house: Housekeeping,
        backoff: Backoff,
        watch: Watch,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.session: Session | None = None
        self.herald = Herald()
        self.history = History()
        self.recorder: Recorder | None = None
        self.is_stopping = False
        self.refused: CdcError | None = None
        self.polling = Polling(target, dispatcher, caches, wake, lambda: self.is_stopping)
        self.whole = False
        self._end: tuple[Failure, BaseException] | None = None
        self._target = target
        self._dispatcher = dispatcher
        self._caches = caches
        self._progress = progress
        self._house = house
        self._backoff = backoff
        self._watch = watch
        self._ticker: Ticker | None = None

    def open(self, check: Callable[[Admission], None] | None = None) -> None:
        """Connect and check; `check` is called before a slot is made. Raises what the user has to mend."""
        former = self.session
        try:
            self.session = Session(self._target, self._caches, former, check)
        except psycopg.Error as error:
            raise translated(error) from error
        if former is not None and former.dsn != self.session.dsn:
            for cache in list(self._caches.values()):
                cache.invalidate()  # What was read meanwhile may come from a server that has gone its own way.
        self._dispatcher.forget_relations()

    @property
    def status(self) -> Status:
        """What the consumer does at the moment."""
        return self.herald.status

    def lost(self, error: CdcError) -> None:
        """The connection was lost: say so, and why."""
        if self.session is not None:
            error.failure = self.session.why_lost(error.failure)
        log.warning("connection.lost", kind=error.failure.value, reason=str(error))
        self.polling.stream(begins=False)
        self.set_status(Status.CONNECTING, self.history.lost(error, datetime.now(UTC)), error)

    def passing(self, error: Exception) -> CdcError:
        """The failure behind `error`, if waiting may mend it or polling stands in; else it is raised."""
        failure = translated(error) if isinstance(error, psycopg.Error) else error
        assert isinstance(failure, CdcError)
        if isinstance(failure, ConnectionFailed) or self.polling.replaces(failure, self._dsn):
            return failure
        raise failure from (None if failure is error else error)

    def begin(self, check: Callable[[Admission], None]) -> None:
        """Open for the first time; without a stream where polling stands in: then the loop goes on trying."""
        try:
            self.open(check)
        except CdcError as error:
            if self.is_stopping or not self.polling.replaces(error, self._dsn, check):
                raise
            self.refused = error
            log.warning("stream.refused", kind=error.failure.value, reason=str(error))
            self.set_status(Status.CONNECTING, self.history.failed(error, datetime.now(UTC)), error)

    @property
    def _dsn(self) -> str:
        """The very server of the stream, where there was one."""
        return self._target.dsn if self.session is None else self.session.dsn

    def again(self, error: CdcError) -> Steps:
        """Connect again after `error`, for as long as it takes.

        What waiting cannot mend is raised, unless polling stands in.
        """
        history = self.history
        yield Call(self._let_go)
        yield from self.herald.tell()
        while not self.is_stopping:
            yield from self._pause(self._backoff.wait(history.attempts + 1, random.random()))
            if self.is_stopping:
                return
            history.attempts += 1
            try:
                yield from self.polling.beside(self._give_up, self.open, self._check)
                return
            except CdcError as refusal:
                failure: CdcError = yield Call(self.passing, (refusal,))
                history.failed(failure, datetime.now(UTC), history.attempts)
                log.warning(
                    "reconnect.failed", attempt=history.attempts, kind=failure.failure.value, reason=str(failure)
                )
                if history.attempts >= MANY:
                    self.polling.begin(self._dsn, str(failure))

    def sure(self, held: Held | None) -> None:
        """Raise ConnectionFailed when it is not known which messages of a streamed transaction were rolled back.

        They carry the xid of the whole transaction. The server sends it again at its commit, without them.
        """
        if held is not None and held.unsure:
            self.whole = True
            log.info("streaming.off", xid=held.xid, reason="messages, and a part that was rolled back")
            raise ConnectionFailed(
                f"the streamed transaction {held.xid} has messages, and a part of it was rolled back: "
                "it is read again, without streaming"
            )

    def _check(self, admission: Admission) -> None:
        """Whether what was subscribed can still be had; in the first session, whether it can be had at all."""
        if self.session is None:
            for subscription in list(self._dispatcher.readers):
                admission.check(subscription, self._caches.get(subscription))
        else:
            admission.check_published(self._dispatcher.subscriptions)

    def record(self, path: str | Path) -> Recorder:
        """See `Consuming.record`."""
        check_record(path)
        if self.status is Status.STOPPED:
            raise ConfigurationError("this consumer was stopped: nothing arrives that could be recorded")
        if self.recorder is not None and self.recorder.is_open:
            raise ConfigurationError(
                f"this consumer is recorded to {self.recorder.path} already: close that recording first"
            )
        self.recorder = recorder = Recorder(path, self._progress, self._recorded)
        return recorder

    def _recorded(self, recorder: Recorder) -> None:
        if self.recorder is recorder:
            self.recorder = None

    def _give_up(self) -> None:
        """Whoever was interrupted does not want what is under way."""
        self.is_stopping = True

    def _let_go(self) -> None:
        session = self.session
        self._stop_ticker()
        if session is not None:
            if session.stream is not None and self._progress.dirty:
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
            yield from self.polling.steps()
            if self.boundary.is_over:
                yield from self.boundary.expire()
            yield Wait((), self.boundary.patience(self.polling.patience(left)))

    def start(self, session: Session) -> Stream:
        """Begin to stream behind what was handed out in this process, else behind what was saved."""
        handed = self._progress.handed_out(session.saved.epoch)
        messages = self._dispatcher.listens
        # A temporary slot cannot be read again.
        whole = self.whole or (messages and session.slot.temporary)
        stream, interval = session.start(handed or session.saved.position, messages, whole)
        self.polling.stream(begins=True)
        if self.recorder is not None:
            self.recorder.begin(session, stream)
        self._progress.standby = stream.standby
        self._house.unseen |= session.invisible()
        self._stop_ticker()
        self._ticker = Ticker(partial(self._tick, session), min(interval / 2, 1.0))
        self.set_status(Status.CATCHING_UP)
        log.info("stream.started", slot=session.slot.name, lsn=str(session.saved.flush_lsn))
        return stream

    def _tick(self, session: Session) -> None:
        session.tick()
        self._watch.look(time.monotonic())

    def live(self) -> None:
        """What was there when it connected has been handled."""
        self.history.live()
        self.polling.end()
        self.set_status(Status.LIVE)
        log.info("stream.live")

    def set_status(self, status: Status, failure: Failure | None = None, error: BaseException | None = None) -> None:
        """Change what the consumer does at the moment; caches hear of it at once, others when the loop tells them."""
        self.herald.change(status, failure, error)
        for cache in list(self._caches.values()):
            cache.set_live(status is Status.LIVE)
        for each in self._dispatcher.readers:
            if isinstance(each, Feed):
                each.store.look()

    def distrust(self, session: Session, oids: Container[int]) -> None:
        """Rights on tables of these OIDs have changed: what caches have read as somebody is dropped."""
        distrust(self._caches, oids, session.admission.judge, list(self._house.unseen))

    def failed(self, error: BaseException) -> None:
        """The consumer ends by this error."""
        self._end = (self.history.failed(error, datetime.now(UTC)), error)

    def end(self) -> None:
        """Save what was finished, tell the server, close. A position that cannot be saved is only logged."""
        self.polling.close()
        self._stop_ticker()
        if self.recorder is not None:
            self.recorder.end(is_stopped=self._end is None)
        session = self.session
        if session is not None:
            if session.stream is not None and self.status in (Status.LIVE, Status.CATCHING_UP):
                try:
                    with session.within(_FAREWELL):
                        self._house.save(session, session.stream)
                        session.finish()
                except (CdcError, psycopg.Error) as error:
                    log.warning("position.not_saved", reason=str(error))
            elif self._progress.dirty and session.saved.position != self._progress.position(session.saved.epoch):
                log.warning("position.not_saved", reason="the connection was lost")
            session.close()
        self.set_status(Status.STOPPED, *(self._end or ()))

    def _stop_ticker(self) -> None:
        if self._ticker is not None:
            self._ticker.stop()
            self._ticker = None
