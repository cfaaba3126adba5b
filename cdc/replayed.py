"""A conversation that was recorded, had once more: the session and the admission without a server.

Reads a recording and nothing else. Here is only what the loop asks a server for: a recorded frame takes the place of
one that arrives, and a recorded answer that of the catalog.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cdc.admission import Admission
from cdc.caching.inflow import Inflow
from cdc.errors import CdcError, ConnectionFailed, SubscriptionError
from cdc.family import Family, Member
from cdc.listener import Listener
from cdc.lsn import Lsn, Position
from cdc.operators import Collation
from cdc.pgoutput import RelationMessage, describe
from cdc.publication import Publication
from cdc.reading import Outline, Reading
from cdc.recording import Conversation, Told
from cdc.refusals import check_binary
from cdc.relation import Relation
from cdc.session import Session
from cdc.slot import OpenSlot
from cdc.spool import MemoryOrFile
from cdc.state import Saved
from cdc.stream import Stream
from cdc.subscription import Subscription
from cdc.target import Target
from cdc.values import Types
from cdc.view import View

__all__ = ["ReplaySession", "over"]

_INTERVAL = 10.0
_NEVER = Lsn(2**64 - 1)


class ReplayAdmission(Admission):
    """Decides as it was decided then, by what was recorded. There are no rights, so that there are no subjects."""

    def __init__(self, conversation: Conversation, types: Types, outline: Outline) -> None:
        self._outline = outline
        self._published_then = {(schema, table): oid for schema, table, oid in conversation.tables}
        nowhere: Any = None
        super().__init__(nowhere, conversation.publications, {}, types, conversation.binary)

    def check(self, subscription: Subscription, cache: Inflow | None = None) -> None:
        """See `Admission.check`."""
        if isinstance(subscription, Listener) and not any(self._outline.messages):
            raise SubscriptionError(
                "the recording has no logical messages: the server sends them only to a consumer that had an "
                "on_message handler when streaming began. Leave on_message out, or record such a consumer"
            )
        if isinstance(subscription, Family):
            self._gather(subscription)
        if subscription.parts != (subscription,):
            return
        if self._binary:
            check_binary(subscription, cache)
        table = (subscription.schema, subscription.table)
        recorded = self._outline.tables
        if table not in recorded:
            listed = ", ".join(sorted(".".join(name) for name in recorded if name[0] != "cdc"))
            raise SubscriptionError(
                f"the recording has no table {'.'.join(table)}: published were {listed or 'none'} when it was made"
            )
        if table in self._published_then:
            self._tables.setdefault(table, self._published_then[table])
        subscription._oid = self._tables.get(table)
        if self._streams:
            self._late.add(subscription)

    def join(self, member: Member, relation: Relation) -> None:
        """See `Admission.join`."""
        member.refused, member._oid = None, relation.oid

    def view(self, subscription: Subscription, relation: Relation) -> View:
        """See `Admission.view`."""
        if subscription._oid is None:  # The table was not published yet when the recording began.
            subscription._oid = relation.oid
        return super().view(subscription, relation)

    def told(self, told: Told) -> Relation:
        """The relation of a Relation message, with types and key as the catalog had them."""
        message = told.message
        self._streams = True
        if told.oid is not None:
            self._tables[message.schema, message.table] = told.oid
        self._types.add(told.types)
        self._collations[message.oid] = {
            **dict.fromkeys(told.plain_case, Collation.PLAIN_CASE),
            **dict.fromkeys(told.code_point, Collation.CODE_POINT),
            **dict.fromkeys(told.nondeterministic, Collation.NONDETERMINISTIC),
        }
        return describe(message, self._types, told.key)

    def _publications(self) -> list[Publication]:
        """They existed, and had every table that is in the recording at some time."""
        tables = frozenset(name for name in self._outline.tables if name[0] != "cdc")
        return [Publication(name, frozenset(), tables, {}) for name in self._names]


class ReplaySession(Session):
    """One recorded conversation in the place of an open one."""

    admission: ReplayAdmission

    def __init__(self, target: Target, conversation: Conversation, reading: Reading, outline: Outline) -> None:
        self._target = target
        self._conversation = conversation
        self._reading = reading
        self._spool = MemoryOrFile(target.options.spool_memory, target.options.spool_folder)
        self._closed = False
        self.admission = ReplayAdmission(conversation, Types(target.decoders), outline)
        self.stream = None
        self.messages = None
        self.untold = None
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

    def start(self, skip: Position | None, messages: bool = False, whole: bool = False) -> tuple[Stream, float]:
        """See `Session.start`. What was asked for then, and what was skipped, is so now."""
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
            raise over()
        return [memoryview(frame) for frame in batch.frames]

    def join(self, newcomers: Sequence[Member], relation: Relation) -> None:
        """See `Session.join`."""
        for member in newcomers:
            self.admission.join(member, relation)

    def relation(self, message: RelationMessage, roles: Collection[str], xid: int | None = None) -> Relation:
        """See `Session.relation`."""
        told = self._reading.told(message)
        if told is None:
            raise over()
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

    def check_unread(self) -> None:
        """Nobody can go away."""

    def usage(self) -> None:
        """No server keeps anything for it."""

    def finish(self) -> None:
        """It ended long ago."""

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Nobody is asked."""
        yield

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


def over() -> ConnectionFailed:
    """What ends a recorded conversation."""
    return ConnectionFailed("the recorded conversation ends here")
