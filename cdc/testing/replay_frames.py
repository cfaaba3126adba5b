"""Checks of recorded frames: their numbers, and what PostgreSQL promises of their order.

Pure: no I/O. It reads the messages with `cdc.pgoutput.Decoder`, which the consumer does not use, and so comes to its
own list of what has to be delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from cdc.errors import DecodeError
from cdc.lsn import Lsn, Position
from cdc.pgoutput import (
    Begin,
    BeginPrepare,
    Commit,
    CommitPrepared,
    Decoder,
    DeleteMessage,
    InsertMessage,
    Prepare,
    RelationMessage,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    TruncateMessage,
    UpdateMessage,
    describe,
)
from cdc.recording import Batch, Conversation, End, Told
from cdc.values import Types

__all__ = ["FrameChecks"]

_CHANGES = (InsertMessage, UpdateMessage, DeleteMessage, TruncateMessage)


@dataclass(slots=True)
class _Open:
    """A transaction that is not over: its changes as (sub-)transaction and table, and where its last one stands."""

    commit_lsn: Lsn | None = None
    changes: list[tuple[int, tuple[str, str]]] = field(default_factory=list)
    lsn: int = 0


class FrameChecks:
    """Looks at the records of a recording, one after the other.

    Attributes:
        conversations: the headers.
        frames: frames that were looked at.
        problems: what is wrong, in words.
    """

    def __init__(self) -> None:
        self.conversations: list[Conversation] = []
        self.frames = 0
        self.problems: list[str] = []
        self._changes: dict[Position, tuple[str, str]] = {}
        self._number = 0
        self._last: dict[int, set[Position]] = {}
        """By the number of the conversation: the changes that its last frames have committed."""
        self._undelivered: set[Position] = set()
        acts: dict[type, Callable[[Any], None]] = {
            Begin: self._begin,
            Commit: self._commit,
            RelationMessage: self._relation,
            StreamStart: self._stream_start,
            StreamStop: self._stream_stop,
            StreamCommit: self._stream_commit,
            StreamAbort: self._stream_abort,
            StreamPrepare: self._stream_prepare,
            BeginPrepare: self._begin_prepare,
            Prepare: self._prepare,
            CommitPrepared: self._commit_prepared,
            RollbackPrepared: self._rollback_prepared,
        }
        self._acts = acts | dict.fromkeys(_CHANGES, self._change)

    def expected(self, broken_off: Iterable[int]) -> set[Position]:
        """The positions of the changes that had to be delivered.

        Those that broke off may end anywhere in their last frames.
        """
        unsure = {position for number in broken_off for position in self._last.get(number, ())}
        delivered = {position for position, (schema, _) in self._changes.items() if schema != "cdc"}
        return delivered - self._undelivered - unsure

    def conversation(self, header: Conversation) -> None:
        """Another connection: the server begins anew."""
        self.conversations.append(header)
        self._number = 0
        self._decoder = Decoder()
        self._names: dict[int, tuple[str, str]] = {}
        self._open: _Open | None = None
        self._streamed: dict[int, _Open] = {}
        self._prepared: dict[str, _Open] = {}
        self._committed = self._alive = Lsn(0)
        self._floor: Lsn | None = None
        self._frame = b""
        for each in header.relations:
            self._decoder.relations[each.message.oid] = describe(each.message, Types())
            self._relation(each.message)

    def told(self, told: Told) -> None:
        """How a relation was described; the replay looks whether it is the right one."""

    def batch(self, batch: Batch) -> None:
        """Frames that were taken at once."""
        self._last[len(self.conversations)] = set()
        if batch.number != self._number + 1:
            missing = batch.number - self._number - 1
            what = f"{missing} frames are missing" if missing > 0 else "frames are there again"
            self._say(f"{what}: frame {batch.number} follows frame {self._number}")
        self._number = batch.number - 1
        for frame in batch.frames:
            self._number += 1
            self._look(frame)

    def end(self, end: End) -> None:
        """The end of a conversation, which knows how many frames it had."""
        if end.frames != self._number:
            self._say(f"the conversation ends with frame {self._number}, and {end.frames} were recorded")
        if end.received is not None:
            epoch, last = self.conversations[-1].epoch, end.finished
            later = {each for each in self._changes if each.epoch == epoch and (last is None or each > last)}
            self._undelivered |= later

    def _look(self, frame: bytes) -> None:
        self.frames += 1
        if frame[:1] == b"k":
            self._keepalive(Lsn.from_bytes(frame[1:9]))
            return
        if frame == self._frame:
            self._say("it is, to the microsecond, the frame before it")
        self._frame = frame
        try:
            message = self._decoder.decode(frame)
        except DecodeError as error:
            self._say(str(error))
            return
        self._advance(Lsn.from_bytes(frame[1:9]))
        act = self._acts.get(type(message))
        if act is not None:
            act(message)

    def _say(self, problem: str) -> None:
        self.problems.append(f"conversation {len(self.conversations)}, frame {self._number}: {problem}")

    def _keepalive(self, lsn: Lsn) -> None:
        """A server begins at what was confirmed, goes back to where it has to read from, and never back after that."""
        if self._floor is None:
            self._floor = max(lsn, self.conversations[-1].start_lsn)
        if lsn < self._alive and self._alive > self._floor:
            self._say(f"the LSN of a keepalive goes back from {self._alive} to {lsn}")
        self._alive = lsn

    def _advance(self, lsn: Lsn) -> None:
        """Within a transaction frames come in the order of the WAL; some have no place there, and say 0."""
        open_ = self._open
        if open_ is None or lsn == 0:
            return
        if lsn < open_.lsn:
            self._say(f"a transaction goes back from {Lsn(open_.lsn)} to {lsn}")
        open_.lsn = lsn

    def _relation(self, message: RelationMessage) -> None:
        self._names[message.oid] = (message.schema, message.table)

    def _change(self, message: Any) -> None:
        if self._open is None:
            self._say("a change outside of a transaction")
            return
        oids = message.relation_oids if isinstance(message, TruncateMessage) else (message.relation.oid,)
        for oid in oids:
            self._open.changes.append((message.xid or 0, self._names.get(oid, ("", str(oid)))))

    def _begin(self, message: Begin) -> None:
        if self._open is not None:
            self._say("a transaction begins, and the one before it has not ended")
        self._open = _Open(message.commit_lsn)

    def _commit(self, message: Commit) -> None:
        open_, self._open = self._open, None
        if open_ is None:
            self._say("a commit without its begin")
        elif open_.commit_lsn != message.commit_lsn:
            self._say(f"a commit at {message.commit_lsn} ends the transaction that commits at {open_.commit_lsn}")
        self._over(open_, message.commit_lsn)

    def _stream_start(self, message: StreamStart) -> None:
        if self._open is not None:
            self._say("a block of a streamed transaction begins inside of another transaction")
        if message.is_first == (message.xid in self._streamed):
            self._say(f"the first block of transaction {message.xid} is missing, or there twice")
        self._open = self._streamed.setdefault(message.xid, _Open())
        self._open.lsn = 0

    def _stream_stop(self, message: StreamStop) -> None:
        self._open = None

    def _stream_commit(self, message: StreamCommit) -> None:
        self._over(self._of(self._streamed.pop(message.xid, None), message.xid), message.commit_lsn)

    def _stream_abort(self, message: StreamAbort) -> None:
        """One of a transaction that is not known is sent by 18 without streaming, too."""
        if message.subxid == message.xid:
            self._streamed.pop(message.xid, None)
        elif message.xid in self._streamed:
            open_ = self._streamed[message.xid]
            open_.changes = [change for change in open_.changes if change[0] != message.subxid]

    def _stream_prepare(self, message: StreamPrepare) -> None:
        self._prepared[message.gid] = self._of(self._streamed.pop(message.xid, None), message.xid) or _Open()

    def _begin_prepare(self, message: BeginPrepare) -> None:
        if self._open is not None:
            self._say("a transaction begins, and the one before it has not ended")
        self._open = _Open()

    def _prepare(self, message: Prepare) -> None:
        open_, self._open = self._open, None
        if open_ is None:
            self._say("a prepare without its begin")
        self._prepared[message.gid] = open_ or _Open()

    def _commit_prepared(self, message: CommitPrepared) -> None:
        """Its changes may have been sent, and confirmed, on a connection before."""
        self._over(self._prepared.pop(message.gid, None), message.commit_lsn)

    def _rollback_prepared(self, message: RollbackPrepared) -> None:
        self._prepared.pop(message.gid, None)

    def _of(self, open_: _Open | None, xid: int) -> _Open | None:
        if open_ is None:
            self._say(f"the end of the streamed transaction {xid}, which never began")
        return open_

    def _over(self, open_: _Open | None, commit_lsn: Lsn) -> None:
        """A transaction has committed: its changes have to be delivered, unless that was done before."""
        if commit_lsn <= self._committed:
            self._say(f"a commit at {commit_lsn} follows one at {self._committed}")
        self._committed = commit_lsn
        header = self.conversations[-1]
        for ordinal, (_, table) in enumerate(open_.changes if open_ is not None else (), 1):
            if header.skip is None or (commit_lsn, ordinal) > header.skip:
                position = Position(header.epoch, commit_lsn, ordinal)
                self._changes[position] = table
                self._last.setdefault(len(self.conversations), set()).add(position)
