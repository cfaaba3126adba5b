"""The decoder for whoever has pgoutput messages from elsewhere: files, other drivers, SQL functions.

Pure: no I/O, no clock. It keeps what a message needs of earlier ones: relations, names of types, and whether it
stands in a stream block. The consumer's own path does not use it: there a frame becomes an event at once, by the
same formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cdc.errors import ConfigurationError, DecodeError, UnsupportedMessage
from cdc.pgoutput.announcements import Announcements
from cdc.pgoutput.describe import describe
from cdc.pgoutput.formats import FORMATS, delete, insert, read, update, whole
from cdc.pgoutput.messages import (
    DeleteMessage,
    InsertMessage,
    Message,
    RelationMessage,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    TypeMessage,
    UpdateMessage,
)
from cdc.pgoutput.type_names import type_info
from cdc.relation import Relation
from cdc.row import Row
from cdc.tuples import HEADER, UNCHANGED, damaged, split
from cdc.values import Types

__all__ = ["Decoder"]

_IN_BLOCKS = b"RYIUDTM"
"""Messages that carry an xid inside a stream block. Origin does not."""
_DUE_IN_BLOCKS = _IN_BLOCKS + b"OE"
_STOP = ord("E")
_ABORT = ord("A")
_SHORT_ABORT, _LONG_ABORT = 9, 25
"""Bytes of a Stream Abort, which does not say itself which one it is."""
_NEWLINE = 0x0A

Streamed = dict[int, "tuple[int, Relation]"]


class Decoder:
    """Turns the messages of one replication connection, in their order, into values.

    Args:
        types: the types of the server; by default the built-in ones. What it does not know, it learns from Type
            messages: a domain over a built-in type is decoded as that one, any other type comes as text.
        streaming: the option with which the messages were asked for: `"off"`, `"on"` or `"parallel"`. Only `feed`
            needs it, to know how long a Stream Abort is.

    Raises ConfigurationError for another word. A decoder is not to be shared by threads.

    Attributes:
        relations: the relations that have been announced to all, by OID; those inside a streamed transaction join
            them when it commits.
    """

    def __init__(self, types: Types | None = None, *, streaming: str = "off") -> None:
        if streaming not in ("on", "off", "parallel"):
            raise ConfigurationError(f"streaming is 'on', 'off' or 'parallel', not {streaming!r}")
        self.relations: dict[int, Relation] = {}
        self._types = Types() if types is None else types
        self._named: set[int] = set()
        self._abort_size = _LONG_ABORT if streaming == "parallel" else _SHORT_ABORT
        self._block: int | None = None
        self._announcements = Announcements()
        self._streamed: dict[int, Streamed] = {}
        self._rest, self._at = b"", 0
        self._rows: dict[int, Callable[[bytes, int, int | None], tuple[Message, int]]] = {
            ord("I"): self._insert,
            ord("U"): self._update,
            ord("D"): self._delete,
        }

    def decode(self, message: bytes) -> Message:
        """The value of one message: the payload of a CopyData frame, with or without its XLogData header.

        Every tuple in it is split, so that its rows are read without an error. Raises DecodeError when the bytes are
        not of the format or not due here, UnsupportedMessage for an unknown type; the decoder is as before then.
        """
        data = bytes(message)
        value, end = self._message(data, HEADER if data[:1] == b"w" else 0)
        whole(data, end)
        self._learn(value)
        return value

    def feed(self, data: bytes) -> Iterator[Message]:
        """The values of the messages in a piece of what `pg_recvlogical` writes: each followed by a newline.

        Pieces may be cut anywhere; an unfinished message waits for the next one (`pending` tells how many bytes).
        Raises as `decode` does, again and again for the same message.
        """
        self._rest, self._at = self._rest[self._at :] + data, 0
        return self._messages()

    @property
    def pending(self) -> int:
        """Bytes that `feed` was given and that wait: for the rest of their message, or to be asked for."""
        return len(self._rest) - self._at

    def _messages(self) -> Iterator[Message]:
        while self._at < len(self._rest):
            found = self._complete(self._rest, self._at)
            if found is None:
                return
            value, self._at = found
            self._learn(value)
            yield value

    def _complete(self, data: bytes, at: int) -> tuple[Message, int] | None:
        """The message at `at` and the offset behind its newline; None when bytes are missing."""
        is_abort = data[at] == _ABORT
        if is_abort and len(data) < at + self._abort_size:
            return None
        try:
            value, end = self._message(data[: at + self._abort_size] if is_abort else data, at)
        except DecodeError as error:
            if error.offset >= len(data):
                return None
            self._message(data[at:], 0)  # raises the same, with the offset in the message
            raise
        if end >= len(data):
            return None
        if data[end] != _NEWLINE:
            asked = "; is it made with another option `streaming`?" if is_abort else ""
            raise damaged(data[at:], end - at, f"a message of pg_recvlogical does not end with a newline{asked}")
        return value, end + 1

    def _message(self, data: bytes, start: int) -> tuple[Message, int]:
        if len(data) <= start:
            raise damaged(data, start, "an empty message")
        kind, at, xid = data[start], start + 1, None
        if kind not in FORMATS and kind not in self._rows:
            raise damaged(data, start, "a message of an unknown type", UnsupportedMessage)
        if kind == _STOP if self._block is None else kind not in _DUE_IN_BLOCKS:
            raise damaged(data, start, "this message is not due here")
        if self._block is not None and kind in _IN_BLOCKS:
            if len(data) < at + 4:
                raise damaged(data, len(data), "the message ends early")
            xid = int.from_bytes(data[at : at + 4], "big")
            at += 4
        if kind in self._rows:
            return self._rows[kind](data, at, xid)
        return read(data, kind, at, xid)

    def _insert(self, data: bytes, at: int, xid: int | None) -> tuple[InsertMessage, int]:
        oid, new = insert(data, at)
        relation = self._relation(data, at, oid)
        cells, end = self._row(data, new, relation)
        return InsertMessage(relation, cells, xid), end

    def _update(self, data: bytes, at: int, xid: int | None) -> tuple[UpdateMessage, int]:
        oid, kind, old, new = update(data, at)
        relation = self._relation(data, at, oid)
        before = None if kind is None else self._row(data, old, relation, kind)[0]
        after, end = self._row(data, new, relation)
        if before is not None and kind == "O":
            after = after.filled_from(before)
        return UpdateMessage(relation, kind, before, after, xid), end

    def _delete(self, data: bytes, at: int, xid: int | None) -> tuple[DeleteMessage, int]:
        oid, kind, old = delete(data, at)
        relation = self._relation(data, at, oid)
        row, end = self._row(data, old, relation, kind)
        return DeleteMessage(relation, kind, row, xid), end

    def _row(self, data: bytes, at: int, relation: Relation, kind: str = "N") -> tuple[Row, int]:
        cells, end = split(data, at)
        if len(cells) != len(relation.columns):
            problem = f"a tuple of {len(cells)} cells for {relation}, which has {len(relation.columns)} columns"
            raise damaged(data, at, problem)
        shape = relation.identity if kind == "K" else relation.whole
        for index in shape.absent:
            cells[index] = UNCHANGED
        return Row.of_cells(shape, cells), end

    def _relation(self, data: bytes, at: int, oid: int) -> Relation:
        if self._block is not None and oid in self._streamed[self._block]:
            return self._streamed[self._block][oid][1]
        relation = self.relations.get(oid)
        if relation is None:
            raise damaged(data, at, f"a change of relation {oid}, which no Relation message announced")
        return relation

    def _learn(self, message: Message) -> None:
        """Remember what later messages need."""
        if isinstance(message, RelationMessage):
            self._define(message)
        elif isinstance(message, TypeMessage):
            self._name(message)
        elif isinstance(message, StreamStart):
            self._block = message.xid
            self._streamed.setdefault(message.xid, {})
        elif isinstance(message, StreamStop):
            self._block = None
        elif isinstance(message, StreamCommit):
            self._keep(self._streamed.pop(message.xid, {}))
        elif isinstance(message, (StreamAbort, StreamPrepare)):
            # After an abort, also of a sub-transaction, the server announces anew what the transaction still needs.
            self._streamed.pop(message.xid, None)

    def _name(self, message: TypeMessage) -> None:
        """What the catalog says of a type counts for more than a Type message."""
        if message.oid in self._named or self._types.missing([message.oid]):
            self._types.add([type_info(message)])
            self._named.add(message.oid)

    def _define(self, message: RelationMessage) -> None:
        """A relation inside a streamed transaction holds for that transaction until it commits."""
        relation = describe(message, self._types)
        if self._block is not None:
            self._streamed[self._block][message.oid] = self._announcements.number(), relation
        else:
            self.relations[message.oid] = relation
            self._announcements.to_all(message.oid)

    def _keep(self, streamed: Streamed) -> None:
        numbers = {oid: number for oid, (number, _) in streamed.items()}
        self.relations |= {oid: streamed[oid][1] for oid in self._announcements.committed(numbers)}
