"""A conversation that was recorded, had once more: the session, the admission and the loop without a server.

Reads a recording and nothing else. The loop is the consumer's own, and so are the stream, the views and the delivery:
here is only what they ask a server for. A recorded frame takes the place of one that arrives, a recorded answer that of
the catalog, and the end of a recorded conversation that of a lost connection.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cdc.admission import Admission, _check_binary
from cdc.cache import Cache
from cdc.dispatcher import Dispatcher
from cdc.errors import CdcError, ConnectionFailed, SubscriptionError
from cdc.loop import Loop
from cdc.lsn import Lsn, Position
from cdc.pgoutput import RelationMessage, describe
from cdc.reading import Reading, outline
from cdc.reconnect import Backoff
from cdc.recording import Conversation, End, Recording, Told
from cdc.relation import Relation
from cdc.session import Session, Target
from cdc.slot import OpenSlot
from cdc.spool import MemoryOrFile
from cdc.state import Saved
from cdc.stream import Stream
from cdc.subscription import Subscription
from cdc.values import Types
from cdc.waiting import Call, Steps

__all__ = ["ReplayLoop"]

_INTERVAL = 10.0
_NEVER = Lsn(2**64 - 1)


class ReplayAdmission(Admission):
    """Decides as it was decided then, by what was recorded. There are no rights, so that there are no subjects."""

    def __init__(self, conversation: Conversation, types: Types, recorded: Collection[tuple[str, str]]) -> None:
        nowhere: Any = None
        super().__init__(nowhere, conversation.publications, {}, types, conversation.binary)
        self._recorded = recorded
        self._published_then = {(schema, table): oid for schema, table, oid in conversation.tables}

    def check(self, subscription: Subscription, cache: Cache | None = None) -> None:
        """See `Admission.check`."""
        if self._binary:
            _check_binary(subscription, cache)
        table = (subscription.schema, subscription.table)
        if table not in self._recorded:
            listed = ", ".join(sorted(".".join(name) for name in self._recorded if name[0] != "cdc"))
            raise SubscriptionError(
                f"the recording has no table {'.'.join(table)}: published were {listed or 'none'} when it was made"
            )
        if table in self._published_then:
            self._tables.setdefault(table, self._published_then[table])
        subscription._oid = self._tables.get(table)
        if self._streams:
            self._late.add(subscription)

    def told(self, told: Told) -> Relation:
        """The relation of a Relation message, with types and key as the catalog had them."""
        message = told.message
        self._streams = True
        if told.oid is not None:
            self._tables[message.schema, message.table] = told.oid
        self._types.add(told.types)
        self._nondeterministic[message.oid] = frozenset(told.nondeterministic)
        return describe(message, self._types, told.key)

    def _check_publications(self) -> None:
        """They existed."""


class ReplaySession(Session):
    """One recorded conversation in the place of an open one."""

    admission: ReplayAdmission

    def __init__(
        self, target: Target, conversation: Conversation, reading: Reading, recorded: Collection[tuple[str, str]]
    ) -> None:
        self._target = target
        self._conversation = conversation
        self._reading = reading
        self._spool = MemoryOrFile(target.options.spool_memory, target.options.spool_folder)
        self._closed = False
        self.admission = ReplayAdmission(conversation, Types(target.decoders), recorded)
        self.stream = None
        self.live_from = _NEVER
        self.dsn = target.dsn
        self.saved = Saved(
            conversation.system_id,
            conversation.timeline,
            conversation.epoch,
            conversation.position,
            conversation.start_lsn,
            conversation.publications,
        )
        self.slot = OpenSlot(conversation.slot, conversation.temporary, self.saved, conversation.gap)

    def start(self, skip: Position | None) -> tuple[Stream, float]:
        """See `Session.start`. What was skipped then is skipped now."""
        then = self._conversation
        self.stream = Stream(then.epoch, then.start_lsn, then.skip, _INTERVAL, self._spool)
        return self.stream, _INTERVAL

    def known(self) -> list[Relation]:
        """The relations that had been described before the recording began."""
        return [self.admission.told(each) for each in self._conversation.relations]

    def frames(self, limit: int) -> list[memoryview]:
        """The next frames. Raises ConnectionFailed at the end of the conversation."""
        batch = self._reading.batch()
        if batch is None:
            raise _over()
        return [memoryview(frame) for frame in batch.frames]

    def relation(self, message: RelationMessage, roles: Collection[str]) -> Relation:
        """See `Session.relation`."""
        told = self._reading.told(message)
        if told is None:
            raise _over()
        return self.admission.told(told)

    @property
    def remembers(self) -> bool:
        """Nothing is saved."""
        return False

    @property
    def sockets(self) -> tuple[int, int]:
        """There is nothing to wait for."""
        raise CdcError("a recorded conversation has no sockets")

    def invisible(self) -> set[int]:
        """There are no caches that would want to know."""
        return set()

    def save(self, position: Position | None, lsn: Lsn) -> None:
        """Confirm to nobody."""
        assert self.stream is not None
        self.stream.standby.confirm(lsn)

    def feedback(self) -> None:
        """Nobody listens."""

    def tick(self) -> None:
        """Nobody listens."""

    def check(self, now: float) -> None:
        """Nobody can go away."""

    def finish(self) -> None:
        """It ended long ago."""

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Nothing takes long."""
        yield

    def abort(self) -> None:
        """There are no sockets."""

    def close(self) -> None:
        """Give back the spool."""
        self._closed = True
        self._spool.close()


def _over() -> ConnectionFailed:
    return ConnectionFailed("the recorded conversation ends here")


class ReplayLoop(Loop):
    """The consumer's loop over a recording: it ends where that ends.

    Args:
        until: the position of the last change that is handed out; None hands out all.
        on_run: called when another run begins, that is, another consumer's conversations.

    Attributes:
        reading: the place in the recording.
        tables: schema and name of every table that was published or described in it.
    """

    def __init__(
        self,
        target: Target,
        dispatcher: Dispatcher,
        recording: Recording,
        until: Position | None = None,
        on_run: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(target, dispatcher, Backoff(), float("inf"))
        self.reading = Reading(recording)
        self.tables, self._stops = outline(recording)
        self._until = until
        self._stop: End | None = None
        self._run = ""
        self._on_run = on_run

    def open(self, check: Callable[[Admission], None] | None = None) -> None:
        """Go to the first conversation, and check the subscriptions."""
        if not self._next() and check is not None:
            raise CdcError(f"the recording {self.reading.recording.path} is empty: nothing had arrived")
        if check is not None and self.session is not None:
            check(self.session.admission)

    def _next(self) -> bool:
        """Go to the next conversation; False when there is none."""
        conversation = self.reading.conversation()
        if conversation is None:
            return False
        self._stop = next(self._stops, None)
        if conversation.run != self._run:
            self._another(conversation.run)
        self.session = ReplaySession(self._target, conversation, self.reading, self.tables)
        self._dispatcher.forget_relations()
        return True

    def _another(self, run: str) -> None:
        """Another consumer, which knows nothing of what the one before it had."""
        if self._run:
            self.progress.finished = None
            for each in self._dispatcher.subscriptions:
                each._last = each._seen = None
                each._name_lost = False
            if self._on_run is not None:
                self._on_run()
        self._run = run

    def _start(self, session: Session) -> Stream:
        stream = super()._start(session)
        self._stop_ticker()
        assert isinstance(session, ReplaySession)
        for relation in session.known():
            stream.define(relation)
            if relation.schema != "cdc":
                self._dispatcher.define(relation, session.admission.view)
        return stream

    def _again(self, error: ConnectionFailed) -> Steps:
        """A recorded conversation is over. There is nothing to wait for before the next one."""
        session = self.session
        if session is not None:
            session.close()
        if (yield Call(self._next)):
            self.reconnects += 1
        else:
            self.is_stopping = True

    def _take(self, session: Session, stream: Stream, frames: Sequence[bytes | memoryview]) -> Steps:
        self._house.unseen.clear()  # it would ask a server which of them are visible
        if self._stop is None and self._until is None:
            yield from super()._take(session, stream, frames)
            return
        for frame in frames:
            if self._stop is not None and self._was_stopped(self._stop, stream):
                return
            if self._until is not None and self._has_finished(self._until):
                self.is_stopping = True
                return
            yield from super()._take(session, stream, (frame,))

    def _was_stopped(self, end: End, stream: Stream) -> bool:
        """Whether the recorded consumer was stopped before it looked at the next frame."""
        assert end.received is not None
        return stream.standby.received_lsn >= end.received and (
            end.finished is None or self._has_finished(end.finished)
        )

    def _has_finished(self, position: Position) -> bool:
        """Whether that change, or a later one of the epoch, was handed out."""
        finished = self.progress.position(position.epoch)
        return finished is not None and finished >= position
