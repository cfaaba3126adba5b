"""The copy-both conversation with a walsender: frames in, changes out, feedback due.

Pure: no I/O, no clock; `now` is an argument. The manual: "Streaming Replication Protocol" and "Logical
Streaming Replication Protocol". A `Stream` lives as long as one connection: relations, the open transaction
and the ordinal are its state. It hands out each change once, in commit order, skips what a former connection
or process has finished, and knows which LSN may be confirmed: never one behind which something is unfinished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError
from typing import Any, TypeAlias

from cdc.errors import DecodeError
from cdc.events import Delete, Effect, Insert, Truncate, Update
from cdc.lsn import Lsn
from cdc.pgoutput import (
    Begin,
    Commit,
    LogicalMessage,
    RelationMessage,
    RowMessage,
    TruncateMessage,
    decode,
)
from cdc.relation import Column, Relation
from cdc.row import Row
from cdc.transaction import Transaction
from cdc.values import Types

__all__ = ["Keepalive", "Received", "Stream", "describe"]

_HEADER = 25
_SILENCE = 6
"""Intervals that the server gets to answer; decoding a large transaction can keep it busy."""
_XLOG_DATA = Struct(">QQq").unpack_from
_KEEPALIVE = Struct(">QqB").unpack_from
_STATUS = Struct(">cQQQqB").pack


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Primary keepalive: 'k', Int64 end of WAL, Int64 server time, Int8 whether to reply at once."""

    end_lsn: Lsn
    reply_now: bool


Received: TypeAlias = "Begin | Commit | Insert | Update | Delete | list[Truncate] | RelationMessage | Keepalive"
"""What a frame means to the loop."""


def describe(message: RelationMessage, types: Types, primary_key: Sequence[str]) -> Relation:
    """The relation of a Relation message.

    `primary_key` names the primary key's columns by the catalog; it is used under REPLICA IDENTITY FULL only,
    where every column is flagged as key, and only if the message has all of them.
    """
    columns = tuple(
        Column(column.name, column.type_oid, column.type_modifier, column.in_identity, types.decoder(column.type_oid))
        for column in message.columns
    )
    key = tuple(index for index, column in enumerate(columns) if _is_key(message, column, primary_key))
    wanted = len(primary_key) if message.replica_identity == "f" else 1
    whole = key if key and len(key) >= wanted else None
    return Relation(message.oid, message.schema, message.table, message.replica_identity, columns, whole)


def _is_key(message: RelationMessage, column: Column, primary_key: Sequence[str]) -> bool:
    return column.name in primary_key if message.replica_identity == "f" else column.in_identity


class Stream:
    """The state of one copy-both conversation.

    Args:
        epoch: token of the slot's life, for positions.
        start: LSN up to which everything is confirmed.
        finished: commit LSN and ordinal of the last change that was finished before; changes up to it are skipped.
        interval: seconds between two status updates.
    """

    def __init__(self, epoch: str, start: Lsn, finished: tuple[Lsn, int] | None, interval: float) -> None:
        self.epoch = epoch
        self.relations: dict[int, Relation] = {}
        self.received_lsn = start
        self.finished_lsn = start
        self.confirmed_lsn = start
        self.server_lsn = start
        self.transaction: Transaction | None = None
        self.ordinal = 0
        self._skip = finished
        self._interval = interval
        self._due = 0.0
        self._reply = False
        self._ping = False
        self._heard = False
        self._asked_at = self._looked_at = 0.0
        self._frames: dict[int, Callable[[bytes | memoryview], Received | None]] = {
            ord("w"): self._xlog_data,
            ord("k"): self._keepalive,
        }
        self._messages: dict[type, Callable[[Any], Received | None]] = {
            Begin: self._begin,
            Commit: self._commit,
            TruncateMessage: self._truncate,
            RelationMessage: lambda message: message,
            LogicalMessage: self._message,
        }
        self._rows = {"I": self._insert, "U": self._update, "D": self._delete}

    def receive(self, frame: bytes | memoryview) -> Received | None:
        """Take one CopyData frame; None when it asks nothing of the loop.

        Raises DecodeError or UnsupportedMessage. A `RelationMessage` has to be answered by `define` before
        the next frame.
        """
        self._heard = True
        handler = self._frames.get(frame[0]) if len(frame) else None
        if handler is None:
            raise DecodeError("not a frame of the streaming replication protocol", offset=0)
        return handler(frame)

    def define(self, relation: Relation) -> None:
        """Remember a relation for the changes that follow."""
        self.relations[relation.oid] = relation

    def _xlog_data(self, frame: bytes | memoryview) -> Received | None:
        """XLogData: 'w', Int64 start LSN, Int64 end of WAL, Int64 server time, then the pgoutput message."""
        try:
            start, server, _ = _XLOG_DATA(frame, 1)
        except StructError:
            raise DecodeError("an XLogData header ends early", offset=len(frame), kind="w") from None
        if server > self.server_lsn:
            self.server_lsn = Lsn(server)
        try:
            message = decode(bytes(frame[_HEADER:]))
            if type(message) is RowMessage:
                return self._rows[message.kind](message)
            act = self._messages.get(type(message))
            return None if act is None else act(message)
        except DecodeError as error:
            error.lsn = Lsn(start)
            raise

    def _keepalive(self, frame: bytes | memoryview) -> Received | None:
        try:
            end, _, reply = _KEEPALIVE(frame, 1)
        except StructError:
            raise DecodeError("a keepalive ends early", offset=len(frame), kind="k") from None
        lsn = Lsn(end)
        self.server_lsn = max(self.server_lsn, lsn)
        if self.transaction is None and lsn > self.received_lsn:
            self.received_lsn = self.finished_lsn = lsn
        self._reply = self._reply or bool(reply)
        return Keepalive(lsn, bool(reply))

    def _begin(self, message: Begin) -> Received:
        self.transaction = Transaction(self.epoch, message.xid, message.commit_lsn, message.commit_microseconds)
        self.ordinal = 0
        return message

    def _commit(self, message: Commit) -> Received:
        self.transaction = None
        if message.end_lsn > self.received_lsn:
            self.received_lsn = self.finished_lsn = message.end_lsn
        return message

    def _insert(self, message: RowMessage) -> Insert | None:
        transaction = self._next()
        if transaction is None:
            return None
        relation = self._relation(message.relation_oid)
        new = Row(relation.whole, message.data, message.new)
        return Insert(transaction, self.ordinal, relation, None, new, Effect.ENTER)

    def _update(self, message: RowMessage) -> Update | None:
        transaction = self._next()
        if transaction is None:
            return None
        relation = self._relation(message.relation_oid)
        old = self._old(relation, message)
        whole = old if message.old_kind == "O" else None
        new = Row(relation.whole, message.data, message.new, whole)
        return Update(transaction, self.ordinal, relation, old, new, Effect.STAY)

    def _delete(self, message: RowMessage) -> Delete | None:
        transaction = self._next()
        if transaction is None:
            return None
        relation = self._relation(message.relation_oid)
        return Delete(transaction, self.ordinal, relation, self._old(relation, message), None, Effect.LEAVE)

    def _old(self, relation: Relation, message: RowMessage) -> Row | None:
        if message.old_kind is None:
            return None
        shape = relation.whole if message.old_kind == "O" else relation.identity
        return Row(shape, message.data, message.old)

    def _truncate(self, message: TruncateMessage) -> list[Truncate]:
        truncates = []
        for oid in message.relation_oids:
            transaction = self._next()
            if transaction is not None:
                relation = self._relation(oid)
                cascade, restart = message.cascade, message.restart_identity
                truncates.append(Truncate(transaction, self.ordinal, relation, cascade, restart))
        return truncates

    def _message(self, message: LogicalMessage) -> None:
        """A transactional message takes an ordinal, so that positions do not depend on who listens."""
        if message.transactional:
            self._next()

    def _next(self) -> Transaction | None:
        """The open transaction, one ordinal further; None when that change was finished before."""
        transaction = self.transaction
        if transaction is None:
            raise DecodeError("a change outside of a transaction", offset=0)
        self.ordinal += 1
        if self._skip is not None:
            if (transaction.commit_lsn, self.ordinal) <= self._skip:
                return None
            self._skip = None
        return transaction

    def _relation(self, oid: int) -> Relation:
        relation = self.relations.get(oid)
        if relation is None:
            raise DecodeError(f"a change of relation {oid}, which no Relation message announced", offset=1)
        return relation

    def confirm(self, lsn: Lsn) -> None:
        """Allow the server to forget everything up to `lsn`. Never moves back."""
        if lsn > self.confirmed_lsn:
            self.confirmed_lsn = lsn
            self._due = 0.0

    def ask_keepalive(self) -> None:
        """Let the next status update ask the server for a keepalive at once."""
        self._ping = True

    def is_silent(self, now: float) -> bool:
        """Whether the server has not answered a keepalive that it was asked for long ago.

        Call it when everything that has arrived was received: it asks after one interval without a frame, and
        gives the server six more to answer.
        """
        # A handler that took long kept us from asking: then the server gets its time from now on.
        late, self._looked_at = now - self._looked_at > self._interval, now
        if self._heard or late:
            self._heard, self._asked_at = False, now + self._interval
        elif now >= self._asked_at and now - self._asked_at < self._interval:
            self._ping = True
        return now - self._asked_at > _SILENCE * self._interval

    def feedback(self, now: float, microseconds: int) -> bytes | None:
        """The standby status update that is due at `now` (seconds, any steady clock), else None.

        Format: 'r', Int64 written, Int64 flushed, Int64 applied, Int64 client time in microseconds since
        2000-01-01, Int8 whether the server shall reply at once.
        """
        if not (self._reply or self._ping or now >= self._due):
            return None
        ping, self._ping, self._reply = self._ping, False, False
        self._due = now + self._interval
        flush = self.confirmed_lsn
        return _STATUS(b"r", max(self.received_lsn, flush), flush, flush, microseconds, ping)
