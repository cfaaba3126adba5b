"""The loop over a recorded stream: it ends where the recording ends.

Reads a recording and nothing else. The loop is the consumer's own, and so are the stream, the views and the delivery.
The end of a recorded conversation takes the place of a lost connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from cdc.admission import Admission
from cdc.connecting import Connecting
from cdc.dispatcher import Dispatcher
from cdc.errors import CdcError, ConnectionFailed
from cdc.health import Status
from cdc.held import Held
from cdc.loop import Loop
from cdc.lsn import Lsn, Position
from cdc.reading import Outline, Reading, outline
from cdc.reconnect import Backoff
from cdc.recording import End, Recording
from cdc.replayed import ReplaySession, over
from cdc.session import Session
from cdc.stream import Stream
from cdc.target import Target
from cdc.waiting import Call, Steps

__all__ = ["ReplayLoop"]

_ALL = Lsn(2**64 - 1)


class ReplayConnecting(Connecting):
    """Goes from one recorded conversation to the next.

    Attributes:
        reading: the place in the recording.
        outline: what is in it.
        stop: the end of this conversation, when that may have come in the midst of a batch.
        is_over: whether nothing more is to be replayed.
        is_another: whether this conversation is another consumer's than the one before.
    """

    reading: Reading
    outline: Outline
    stop: End | None = None
    is_over = False
    is_another = False
    _run: str | None = None

    def open(self, check: Callable[[Admission], None] | None = None) -> None:
        """Go to the first conversation, and check the subscriptions."""
        if not self._next():
            raise CdcError(f"the recording {self.reading.recording.path} is empty: nothing had arrived")
        if check is not None and self.session is not None:
            check(self.session.admission)

    def _next(self) -> bool:
        """Go to the next conversation; False when there is none."""
        conversation = self.reading.conversation()
        if conversation is None:
            return False
        number = self.reading.number - 1
        self.stop = self.outline.stops[number] if number < len(self.outline.stops) else None
        self.is_another = self._run not in (None, conversation.run)
        self._run = conversation.run
        self.session = ReplaySession(self._target, conversation, self.reading, self.outline)
        self._dispatcher.forget_relations()
        return True

    def sure(self, held: Held | None) -> None:
        """See `Connecting.sure`. What had arrived behind it came again."""
        try:
            super().sure(held)
        except ConnectionFailed:
            self.reading.broken_off.add(self.reading.number)
            raise

    def start(self, session: Session) -> Stream:
        """See `Connecting.start`. What had been described before the recording began is known."""
        stream = super().start(session)
        self._stop_ticker()
        assert isinstance(session, ReplaySession)
        for relation in session.known():
            stream.define(relation)
            if relation.schema != "cdc":
                self._dispatcher.define(relation, session.admission.view)
        return stream

    def lost(self, error: CdcError) -> None:
        """See `Connecting.lost`. Nobody can be asked why, and the last one is no loss: `again` tells of the others."""

    def again(self, error: CdcError) -> Steps:
        """A recorded conversation is over. There is nothing to wait for before the next one."""
        if self.session is not None:
            self.session.close()
        if not (yield Call(self._next)):
            self.is_over = True
            return
        self.set_status(Status.CONNECTING, self.history.lost(error, datetime.now(UTC)), error)
        yield from self.herald.tell()


class ReplayLoop(Loop):
    """The consumer's loop over a recording: it ends where that ends, when handlers have had all of it.

    Args:
        until: the position of the last change that is handed out; None hands out all.
        on_run: called when another run begins, that is, another consumer's conversations.
        wake: ends a wait, from any thread.
    """

    link: ReplayConnecting

    def __init__(
        self,
        target: Target,
        dispatcher: Dispatcher,
        recording: Recording,
        until: Position | None,
        on_run: Callable[[], None] | None,
        wake: Callable[[], None],
    ) -> None:
        super().__init__(target, dispatcher, Backoff(), float("inf"), wake)
        self.link = ReplayConnecting(target, dispatcher, self.caches, self.progress, self._house, Backoff(), self.watch)
        self.link.reading, self.link.outline = Reading(recording), outline(recording)
        self._end_behind = until
        self._on_run = on_run

    def _again(self, error: CdcError) -> Steps:
        """The conversation, or what is wanted of it, is over. Before the end handlers take what is theirs."""
        link, session = self.link, self.link.session
        assert session is not None and session.stream is not None
        yield from self._duties(session, session.stream)
        yield from self.lanes.hurry()
        if not link.is_over:
            yield from link.again(error)
        if link.is_over or link.is_another:
            yield from self._until(self._have_all, session, session.stream)
        if link.is_over:
            link.is_stopping = True
        elif link.is_another:
            self._begin_anew()

    def _have_all(self) -> bool:
        """Whether every handler has what it can have. The rest of a transaction that broke off does not come."""
        return all(lane.is_idle for lane in self.progress.lanes)

    def _begin_anew(self) -> None:
        """Another consumer, which knows nothing of what the one before it had."""
        self.progress.begin_anew()
        for lane in self.progress.lanes:
            lane.forget()
        assert self.link.session is not None
        for each in [*self._dispatcher.readers, *self._dispatcher.subscriptions]:
            each._last = each._seen = each._oid = None
            each._name_lost = False
            self.link.session.admission.check(each)
        if self._on_run is not None:
            self._on_run()

    def _take(self, session: Session, stream: Stream, frames: Sequence[bytes | memoryview]) -> Steps:
        self._house.unseen.clear()  # it would ask a server which of them are visible
        stop, until = self.link.stop, self._end_behind
        if stop is None and until is None:
            yield from super()._take(session, stream, frames)
            return
        for frame in frames:
            if stop is not None and self._was_stopped(stop, stream):
                return
            if until is not None and self._has_handed(until):
                for lane in self.progress.lanes:
                    lane.reach(_ALL)  # A transaction that goes on is cut off here.
                self.link.is_over = True
                raise over()
            yield from super()._take(session, stream, (frame,))

    def _was_stopped(self, end: End, stream: Stream) -> bool:
        """Whether the recorded consumer was stopped before it looked at the next frame."""
        assert end.received is not None
        if stream.standby.received_lsn < end.received:
            return False
        if end.heard is not None and (self.progress.heard(stream.epoch) or end.heard[:0]) < end.heard:
            return False
        return end.finished is None or self._has_handed(end.finished)

    def _has_handed(self, position: Position) -> bool:
        """Whether that change, or a later one of the epoch, was handed out."""
        handed = self.progress.handed_out(position.epoch)
        return handed is not None and handed >= position
