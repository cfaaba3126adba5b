"""The copy-both conversation with a walsender: frames in, changes out.

Pure: no I/O, no clock. The manual: "Streaming Replication Protocol" and "Logical Streaming Replication Protocol". A
`Stream` lives as long as one connection: relations, the open transaction and the ordinal are its state. It hands out
each change once, in commit order, and skips what a former connection or process has finished.

A frame is dispatched by its message's type byte, through the table of what the conversation is in: between blocks,
in a block of a streamed transaction, in a prepared one, or in the delivery of one that was held and has committed.

Logical messages take no ordinal: those of a sub-transaction that is rolled back are sent while it is streamed, under
the xid of the whole transaction, and not sent when it is not streamed. Ordinals must not depend on that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from struct import Struct
from struct import error as StructError
from typing import Any, NamedTuple, TypeAlias

from cdc.errors import DecodeError, UnsupportedMessage
from cdc.events import Delete, Effect, Insert, Truncate, Update
from cdc.held import Spool
from cdc.holding import Committed, Holding, Inside, PreparedEnd
from cdc.lsn import Lsn
from cdc.message import Message
from cdc.pgoutput import LogicalMessage, RelationMessage, TruncateMessage
from cdc.pgoutput.formats import FORMATS, begin, commit, delete, insert, read, update, whole
from cdc.relation import Relation
from cdc.row import Row
from cdc.standby import Standby
from cdc.transaction import Place, Transaction
from cdc.tuples import HEADER, damaged

__all__ = ["Reached", "Received", "Repeated", "Stream"]

_KEEPALIVE = Struct(">QqB").unpack_from
_KEEPALIVE_SIZE = 18
_BODY = HEADER + 1
_ENTER, _STAY, _LEAVE = Effect.ENTER, Effect.STAY, Effect.LEAVE


class Reached(Enum):
    """Everything up to `standby.finished_lsn` was handed out: at the end of a commit, and by a keepalive."""

    REACHED = "reached"


_REACHED = Reached.REACHED


class Repeated(NamedTuple):
    """A row of cdc.rights that was finished before. It says what the rights are, and is no event."""

    row: Insert


Received: TypeAlias = (
    "Transaction | Insert | Update | Delete | list[Truncate] | Message | RelationMessage | Reached | Committed"
    " | PreparedEnd | Repeated"
)
"""What a frame means to the loop. A `Transaction` begins."""

_Act: TypeAlias = "Callable[[bytes, int], Received | None]"


class Stream:
    """The state of one copy-both conversation.

    Args:
        epoch: token of the slot's life, for positions.
        start: LSN up to which everything is confirmed.
        finished: commit LSN and ordinal of the last change that was finished before; changes up to it are skipped.
        interval: seconds between two status updates.
        spool: where the frames of transactions go that have not committed.
    """

    def __init__(self, epoch: str, start: Lsn, finished: tuple[Lsn, int] | None, interval: float, spool: Spool) -> None:
        self.epoch = epoch
        self.relations: dict[int, Relation] = {}
        self.standby = Standby(start, interval)
        self.transaction: Transaction | None = None
        self.ordinal = 0
        self._skip = finished
        self._delivering = False
        self._body = _BODY
        self._holding = Holding(spool, self.standby, lambda: self.relations)
        usual: dict[int, _Act] = {
            ord("B"): self._begin,
            ord("I"): self._insert,
            ord("U"): self._update,
            ord("D"): self._delete,
            ord("C"): self._commit,
        }
        kept: dict[int, _Act] = dict.fromkeys(b"YIUDTM", self._holding.keep) | {ord("O"): self._control}
        self._tables: dict[Inside, dict[int, _Act]] = {
            Inside.NOTHING: dict.fromkeys(FORMATS, self._control) | usual,
            Inside.BLOCK: kept | {ord("R"): self._keep_relation, ord("E"): self._control},
            Inside.PREPARED: kept | {ord("R"): self._keep_and_announce, ord("P"): self._control},
        }
        self._acts = self._tables[Inside.NOTHING]
        self._controls: dict[type, Callable[[Any], Received | None]] = {
            TruncateMessage: self._truncate,
            RelationMessage: self._announce,
            LogicalMessage: self._message,
            **self._holding.acts,
        }

    def receive(self, frame: bytes | memoryview) -> Received | None:
        """Take one CopyData frame; None when it asks nothing of the loop.

        Raises DecodeError or UnsupportedMessage. A `RelationMessage` has to be answered by `define` before
        the next frame.
        """
        data = bytes(frame)
        try:
            act = self._acts[data[HEADER]]
        except (IndexError, KeyError):
            act = self._other
        try:
            return act(data, self._body)
        except DecodeError as error:
            raise self._placed(error, data) from None

    def define(self, relation: Relation) -> None:
        """Remember a relation for the changes that follow."""
        self.relations[relation.oid] = relation

    def deliver(self, committed: Committed) -> Iterator[list[bytes]]:
        """The frames of a held transaction, to be received now, in lists; behind the last one it is over."""
        held = committed.held
        self.standby.server_lsn = max(self.standby.server_lsn, committed.end_lsn)
        if held is not None:
            relations, self.relations = self.relations, dict(held.relations)
            self._body = held.body
            self.transaction = Transaction(
                self.epoch, committed.xid, committed.commit_lsn, committed.commit_microseconds
            )
            self.ordinal, self._delivering = 0, True
            yield from held.committed()
            self._body, self.transaction, self._delivering = _BODY, None, False
            self.relations = relations | self._holding.announced(held, self.relations)
            held.frames.drop()
        self.standby.reach(committed.end_lsn)
        self.standby.release(committed.gid)

    def told(self, end: PreparedEnd) -> None:
        """Handlers have heard of it: only then is one that was rolled back over."""
        if end.rolled_back:
            self.standby.release(end.gid)
            self.standby.reach(end.lsn)

    @property
    def is_quiet(self) -> bool:
        """Whether no transaction is open, neither in the stream nor among those that are held."""
        return self.transaction is None and self._holding.is_empty

    def is_finished(self, commit_lsn: Lsn) -> bool:
        """Whether a former connection or process has finished with the transaction, or with a part of it."""
        return self._skip is not None and commit_lsn <= self._skip[0]

    def _placed(self, error: DecodeError, data: bytes) -> DecodeError:
        """The error with the place and the type of the message in which it was found."""
        if data[:1] == b"w" and len(data) > HEADER:
            error.lsn, error.kind = Lsn.from_bytes(data[1:9]), chr(data[HEADER])
        return error

    def _other(self, data: bytes, at: int) -> Received | None:
        """A keepalive, or what should not be there."""
        if data[:1] == b"k":
            return self._keepalive(data)
        if data[:1] != b"w":
            raise DecodeError("not a frame of the streaming replication protocol", offset=0)
        if len(data) <= HEADER:
            raise DecodeError("an XLogData frame ends early", offset=len(data), kind="w")
        if data[HEADER] in self._tables[Inside.NOTHING]:
            raise damaged(data, HEADER, "this message is not due here")
        raise damaged(data, HEADER, "a message of an unknown type", UnsupportedMessage)

    def _keepalive(self, frame: bytes) -> Received:
        try:
            end, _, reply = _KEEPALIVE(frame, 1)
        except StructError:
            raise DecodeError("a keepalive ends early", offset=len(frame), kind="k") from None
        if len(frame) != _KEEPALIVE_SIZE:
            raise DecodeError("bytes behind the end of a keepalive", offset=_KEEPALIVE_SIZE, kind="k")
        lsn, standby = Lsn(end), self.standby
        standby.server_lsn = max(standby.server_lsn, lsn)
        if self.transaction is None:
            standby.reach(lsn)
        if reply:
            standby.answer()
        return _REACHED

    # Changes of rows.

    def _insert(self, data: bytes, at: int) -> Insert | Repeated | None:
        place = self._next()
        if place is None:
            return self._repeated(data, at)
        oid, new = insert(data, at)
        relation = self.relations.get(oid) or self._unknown(oid)
        return Insert(place, relation, None, Row(relation.whole, data, new), _ENTER)

    def _repeated(self, data: bytes, at: int) -> Repeated | None:
        """What is told of an insert that was finished before."""
        oid, new = insert(data, at)
        relation, transaction = self.relations.get(oid), self.transaction
        if transaction is None or relation is None or (relation.schema, relation.table) != ("cdc", "rights"):
            return None
        place = (transaction, self.ordinal)
        return Repeated(Insert(place, relation, None, Row(relation.whole, data, new), _ENTER))

    def _update(self, data: bytes, at: int) -> Update | None:
        place = self._next()
        if place is None:
            return None
        oid, kind, before, after = update(data, at)
        relation = self.relations.get(oid) or self._unknown(oid)
        if kind is None:
            return Update(place, relation, None, Row(relation.whole, data, after), _STAY)
        if kind == "K":
            old = Row(relation.identity, data, before)
            return Update(place, relation, old, Row(relation.whole, data, after), _STAY)
        old = Row(relation.whole, data, before)
        return Update(place, relation, old, Row(relation.whole, data, after, old), _STAY)

    def _delete(self, data: bytes, at: int) -> Delete | None:
        place = self._next()
        if place is None:
            return None
        oid, kind, before = delete(data, at)
        relation = self.relations.get(oid) or self._unknown(oid)
        shape = relation.whole if kind == "O" else relation.identity
        return Delete(place, relation, Row(shape, data, before), None, _LEAVE)

    def _next(self) -> Place | None:
        """The place of the next change; None when that change was finished before."""
        transaction = self.transaction
        if transaction is None:
            raise DecodeError("a change outside of a transaction", offset=0)
        self.ordinal = ordinal = self.ordinal + 1
        if self._skip is not None:
            if (transaction.commit_lsn, ordinal) <= self._skip:
                return None
            self._skip = None
        return (transaction, ordinal)

    def _unknown(self, oid: int) -> Relation:
        raise DecodeError(f"a change of relation {oid}, which no Relation message announced", offset=1)

    # Everything else.

    def _control(self, data: bytes, at: int) -> Received | None:
        """Any message but those of rows."""
        message, end = read(data, data[HEADER], at)
        whole(data, end)
        act = self._controls.get(type(message))
        item = None if act is None else act(message)
        self._acts = self._tables[self._holding.inside]
        return item

    def _keep_relation(self, data: bytes, at: int) -> None:
        """In a block of a streamed transaction a relation holds for that transaction."""
        self._holding.keep_relation(data, at)

    def _keep_and_announce(self, data: bytes, at: int) -> Received:
        """In a prepared transaction that was not streamed a relation holds for all at once, and for its own rows."""
        return self._announce(self._holding.keep_relation(data, at))

    def _begin(self, data: bytes, at: int) -> Received:
        lsn, microseconds, xid = begin(data, at)
        self.transaction = transaction = Transaction(self.epoch, xid, Lsn(lsn), microseconds)
        self.ordinal = 0
        return transaction

    def _commit(self, data: bytes, at: int) -> Received:
        _, _, end, _ = commit(data, at)
        self.transaction = None
        self.standby.committed(Lsn(end))
        return _REACHED

    def _truncate(self, message: TruncateMessage) -> list[Truncate]:
        truncates = []
        for oid in message.relation_oids:
            place = self._next()
            if place is not None:
                relation = self.relations.get(oid) or self._unknown(oid)
                truncates.append(Truncate(place, relation, message.cascade, message.restart_identity))
        return truncates

    def _message(self, message: LogicalMessage) -> Message | None:
        """Behind the last finished change it may have been finished or not: its LSN tells those who remember it."""
        if not message.transactional:
            return Message(None, message.prefix, message.content, message.lsn)
        transaction, skip = self.transaction, self._skip
        if transaction is None:
            raise DecodeError("a transactional message outside of a transaction", offset=0)
        if skip is not None and (transaction.commit_lsn, self.ordinal) < skip:
            return None
        return Message((transaction, self.ordinal), message.prefix, message.content, message.lsn)

    def _announce(self, message: RelationMessage) -> Received:
        if not self._delivering:
            self._holding.announce(message.oid)
        return message
