"""Which transactions are held, and what each message about them means.

Pure: no I/O, no clock. Streamed transactions come in blocks between those of others; prepared ones come whole and
commit later, or never.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from cdc.errors import DecodeError
from cdc.held import Held, Spool
from cdc.lsn import Lsn
from cdc.pgoutput import (
    BeginPrepare,
    CommitPrepared,
    Prepare,
    RelationMessage,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
)
from cdc.pgoutput.announcements import Announcements
from cdc.pgoutput.formats import read, whole
from cdc.relation import Relation
from cdc.standby import Standby
from cdc.tuples import HEADER

__all__ = ["Committed", "Holding", "Inside", "PreparedEnd"]


class Inside(Enum):
    """What the messages that come now belong to."""

    NOTHING = "nothing that is held"
    BLOCK = "a block of a streamed transaction"
    PREPARED = "a transaction that will be prepared"


@dataclass(frozen=True, slots=True)
class Committed:
    """A transaction that was held has committed: `Stream.deliver` hands out its changes.

    Attributes:
        held: the transaction; None when its changes were not sent on this connection.
        gid: the name under which it was prepared, else empty.
        xid: its 32-bit id.
        commit_lsn: LSN of its commit record.
        end_lsn: end of it.
        commit_microseconds: commit time in microseconds since 2000-01-01 UTC.
    """

    held: Held | None
    gid: str
    xid: int
    commit_lsn: Lsn
    end_lsn: Lsn
    commit_microseconds: int


@dataclass(frozen=True, slots=True)
class PreparedEnd:
    """A transaction was prepared or, when `rolled_back`, a prepared one was rolled back. `lsn` is where."""

    held: Held
    gid: str
    lsn: Lsn
    microseconds: int
    rolled_back: bool


Outcome: TypeAlias = "Committed | PreparedEnd | None"


class Holding:
    """The transactions of one connection that have begun to arrive and have not committed.

    Args:
        spool: where their frames go.
        standby: is told which LSN the server must be able to send again.
        relations: gives the relations that hold for all.

    Attributes:
        inside: what the messages that come now belong to.
        acts: what each message about them does.
    """

    def __init__(self, spool: Spool, standby: Standby, relations: Callable[[], dict[int, Relation]]) -> None:
        self.inside = Inside.NOTHING
        self._spool = spool
        self._standby = standby
        self._relations = relations
        self._streamed: dict[int, Held] = {}
        self._prepared: dict[str, Held] = {}
        self._open: Held | None = None
        self._announcements = Announcements()
        self.acts: dict[type, Callable[[Any], Outcome]] = {
            StreamStart: self._stream_start,
            StreamStop: self._stream_stop,
            StreamCommit: self._stream_commit,
            StreamAbort: self._stream_abort,
            BeginPrepare: self._begin_prepare,
            Prepare: self._prepare,
            StreamPrepare: self._stream_prepare,
            CommitPrepared: self._commit_prepared,
            RollbackPrepared: self._rollback_prepared,
        }

    @property
    def is_empty(self) -> bool:
        """Whether no transaction is held."""
        return self._open is None and not self._streamed and not self._prepared

    def announce(self, oid: int) -> None:
        """A relation was announced to all."""
        self._announcements.to_all(oid)

    def announced(self, held: Held, own: dict[int, Relation]) -> dict[int, Relation]:
        """The relations, of those that hold at the end of a transaction, that hold for all from now on."""
        return {oid: own[oid] for oid in self._announcements.committed(held.announced) if oid in own}

    def keep(self, frame: bytes, at: int) -> None:
        """Keep the frame of a message that belongs to the open transaction."""
        assert self._open is not None
        self._open.keep(frame)

    def keep_relation(self, frame: bytes, at: int) -> RelationMessage:
        """The same for a Relation message; what it says."""
        held = self._open
        assert held is not None
        held.keep(frame)
        message, end = read(frame, frame[HEADER], held.body)
        whole(frame, end)
        assert isinstance(message, RelationMessage)
        held.names[message.oid] = (message.schema, message.table)
        if held.streamed:
            held.announced[message.oid] = self._announcements.number()
        return message

    def _stream_start(self, message: StreamStart) -> None:
        held = self._streamed.get(message.xid)
        if held is None:
            held = self._streamed[message.xid] = self._new(message.xid, streamed=True)
        self._open, self.inside = held, Inside.BLOCK

    def _stream_stop(self, message: StreamStop) -> None:
        if self._open is None:
            raise DecodeError("a Stream Stop without its Stream Start", offset=0)
        self._open, self.inside = None, Inside.NOTHING

    def _stream_commit(self, message: StreamCommit) -> Outcome:
        held = self._streamed_one(message.xid)
        return Committed(held, "", message.xid, message.commit_lsn, message.end_lsn, message.commit_microseconds)

    def _stream_abort(self, message: StreamAbort) -> None:
        """One of a transaction that is not known is accepted: version 18 sends it without streaming, too."""
        held = self._streamed.get(message.xid)
        if held is not None and message.subxid != message.xid:
            held.abort(message.subxid)
        elif held is not None:
            del self._streamed[message.xid]
            held.frames.drop()

    def _begin_prepare(self, message: BeginPrepare) -> None:
        self._open, self.inside = self._new(message.xid, streamed=False), Inside.PREPARED

    def _prepare(self, message: Prepare) -> Outcome:
        held, self._open, self.inside = self._open, None, Inside.NOTHING
        if held is None:
            raise DecodeError("a Prepare without its Begin Prepare", offset=0)
        return self._hold(held, message)

    def _stream_prepare(self, message: StreamPrepare) -> Outcome:
        return self._hold(self._streamed_one(message.xid), message)

    def _hold(self, held: Held, message: Prepare | StreamPrepare) -> Outcome:
        self._prepared[message.gid] = held
        self._standby.hold(message.gid, message.prepare_lsn)
        self._standby.reach(message.end_lsn)
        return PreparedEnd(held, message.gid, message.prepare_lsn, message.prepare_microseconds, rolled_back=False)

    def _commit_prepared(self, message: CommitPrepared) -> Outcome:
        held = self._prepared.pop(message.gid, None)
        lsn, end = message.commit_lsn, message.end_lsn
        return Committed(held, message.gid, message.xid, lsn, end, message.commit_microseconds)

    def _rollback_prepared(self, message: RollbackPrepared) -> Outcome:
        held = self._prepared.pop(message.gid, None)
        if held is None:
            self._standby.release(message.gid)
            self._standby.reach(message.rollback_end_lsn)
            return None
        held.frames.drop()
        end, microseconds = message.rollback_end_lsn, message.rollback_microseconds
        return PreparedEnd(held, message.gid, end, microseconds, rolled_back=True)

    def _streamed_one(self, xid: int) -> Held:
        """The streamed transaction that ends; the server has sent all of it on this connection."""
        held = self._streamed.pop(xid, None)
        if held is None:
            raise DecodeError(f"the end of the streamed transaction {xid}, which never began", offset=1)
        return held

    def _new(self, xid: int, streamed: bool) -> Held:
        relations = dict(self._relations())
        names = {oid: (relation.schema, relation.table) for oid, relation in relations.items()}
        return Held(xid, self._spool.open(), relations, streamed, names=names)
