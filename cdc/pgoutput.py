"""Decodes pgoutput: bytes of one message in, one message out.

Pure: no I/O, no clock. The manual: "Logical Replication Message Formats". Every function names its message's
format. `decode` dispatches on the first byte; a row message keeps its tuples as offsets into the bytes, and
they are split when somebody reads them. Nothing but `DecodeError` and `UnsupportedMessage` is raised, whatever
the bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError
from typing import NamedTuple

from cdc.errors import DecodeError, UnsupportedMessage
from cdc.lsn import Lsn
from cdc.tuples import split

__all__ = [
    "Begin",
    "Commit",
    "LogicalMessage",
    "Origin",
    "RelationColumn",
    "RelationMessage",
    "RowMessage",
    "StreamAbort",
    "TruncateMessage",
    "TypeMessage",
    "WireMessage",
    "decode",
]

_INT16 = Struct(">h").unpack_from
_OID = Struct(">I").unpack_from
_COLUMN = Struct(">Ii").unpack_from
_BEGIN = Struct(">QqI").unpack_from
_COMMIT = Struct(">BQQq").unpack_from
_LSN = Struct(">Q").unpack_from


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin: 'B', Int64 LSN of the commit, Int64 commit time (µs since 2000-01-01), Int32 xid."""

    commit_lsn: Lsn
    commit_microseconds: int
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Commit: 'C', Int8 flags, Int64 LSN of the commit, Int64 end LSN, Int64 commit time."""

    commit_lsn: Lsn
    end_lsn: Lsn
    commit_microseconds: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Origin: 'O', Int64 LSN of the commit on the origin, String name of the origin."""

    commit_lsn: Lsn
    name: str


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """A column of a Relation message: Int8 flags (1: part of the key), String name, Int32 type, Int32 modifier."""

    name: str
    type_oid: int
    type_modifier: int
    in_identity: bool


@dataclass(frozen=True, slots=True)
class RelationMessage:
    """Relation: 'R', Int32 OID, String namespace (empty for pg_catalog), String name, Int8 identity, columns."""

    oid: int
    schema: str
    table: str
    replica_identity: str
    columns: tuple[RelationColumn, ...]


@dataclass(frozen=True, slots=True)
class TypeMessage:
    """Type: 'Y', Int32 OID, String namespace (empty for pg_catalog), String name."""

    oid: int
    schema: str
    name: str


class RowMessage(NamedTuple):
    """Insert, Update or Delete: kind byte, Int32 relation OID, then one or two tuples behind a marker byte.

    Attributes:
        kind: `"I"`, `"U"` or `"D"`.
        relation_oid: OID of the relation.
        old_kind: `"K"` (the key only), `"O"` (the whole old row), or None when no old tuple was sent.
        old: byte offset of the old TupleData; 0 when there is none.
        new: byte offset of the new TupleData; 0 when there is none.
        data: the bytes that the offsets point into.
    """

    kind: str
    relation_oid: int
    old_kind: str | None
    old: int
    new: int
    data: bytes


@dataclass(frozen=True, slots=True)
class TruncateMessage:
    """Truncate: 'T', Int32 number of relations, Int8 options (1 CASCADE, 2 RESTART IDENTITY), Int32 OIDs."""

    relation_oids: tuple[int, ...]
    cascade: bool
    restart_identity: bool


@dataclass(frozen=True, slots=True)
class LogicalMessage:
    """Message: 'M', Int8 flags (1 transactional), Int64 LSN, String prefix, Int32 length, content."""

    transactional: bool
    lsn: Lsn
    prefix: str
    content: bytes


@dataclass(frozen=True, slots=True)
class StreamAbort:
    """Stream Abort: 'A', Int32 xid, Int32 xid of the sub-transaction.

    PostgreSQL 18 can send a stray one on protocol 1; it concerns nothing that was delivered.
    """

    xid: int
    subtransaction_xid: int


WireMessage = (
    Begin
    | Commit
    | Origin
    | RelationMessage
    | TypeMessage
    | RowMessage
    | TruncateMessage
    | LogicalMessage
    | StreamAbort
)


def decode(data: bytes) -> WireMessage:
    """The message in `data`, one pgoutput message without the XLogData header.

    Raises DecodeError for bytes that are not of the format, UnsupportedMessage for a type that this
    protocol version does not have.
    """
    if not data:
        raise DecodeError("an empty message", offset=0)
    decoder = _DECODERS.get(data[0])
    if decoder is None:
        raise UnsupportedMessage("not a message of pgoutput protocol 1", offset=0, kind=chr(data[0]))
    try:
        return decoder(data)
    except (StructError, IndexError):
        raise DecodeError("the message ends early", offset=len(data), kind=chr(data[0])) from None


def _begin(data: bytes) -> Begin:
    lsn, microseconds, xid = _BEGIN(data, 1)
    _ends(data, 21)
    return Begin(Lsn(lsn), microseconds, xid)


def _commit(data: bytes) -> Commit:
    _, lsn, end, microseconds = _COMMIT(data, 1)
    _ends(data, 26)
    return Commit(Lsn(lsn), Lsn(end), microseconds)


def _origin(data: bytes) -> Origin:
    name, end = _string(data, 9)
    _ends(data, end)
    return Origin(Lsn(_LSN(data, 1)[0]), name)


def _relation(data: bytes) -> RelationMessage:
    schema, offset = _string(data, 5)
    table, offset = _string(data, offset)
    identity = chr(data[offset])
    (count,) = _INT16(data, offset + 1)
    offset += 3
    columns = []
    for _ in range(count):
        name, end = _string(data, offset + 1)
        type_oid, modifier = _COLUMN(data, end)
        columns.append(RelationColumn(name, type_oid, modifier, bool(data[offset] & 1)))
        offset = end + 8
    _ends(data, offset)
    return RelationMessage(_OID(data, 1)[0], schema or "pg_catalog", table, identity, tuple(columns))


def _type(data: bytes) -> TypeMessage:
    schema, offset = _string(data, 5)
    name, end = _string(data, offset)
    _ends(data, end)
    return TypeMessage(_OID(data, 1)[0], schema or "pg_catalog", name)


def _insert(data: bytes) -> RowMessage:
    _marker(data, 5, b"N")
    return RowMessage("I", _OID(data, 1)[0], None, 0, 6, data)


def _update(data: bytes) -> RowMessage:
    marker = _marker(data, 5, b"KON")
    if marker == "N":
        return RowMessage("U", _OID(data, 1)[0], None, 0, 6, data)
    _, end = split(data, 6)
    _marker(data, end, b"N")
    return RowMessage("U", _OID(data, 1)[0], marker, 6, end + 1, data)


def _delete(data: bytes) -> RowMessage:
    return RowMessage("D", _OID(data, 1)[0], _marker(data, 5, b"KO"), 6, 0, data)


def _truncate(data: bytes) -> TruncateMessage:
    (count,) = _OID(data, 1)
    _ends(data, 6 + 4 * count)
    oids = tuple(_OID(data, offset)[0] for offset in range(6, 6 + 4 * count, 4))
    return TruncateMessage(oids, bool(data[5] & 1), bool(data[5] & 2))


def _message(data: bytes) -> LogicalMessage:
    prefix, offset = _string(data, 10)
    (length,) = _OID(data, offset)
    _ends(data, offset + 4 + length)
    return LogicalMessage(bool(data[1] & 1), Lsn(_LSN(data, 2)[0]), prefix, data[offset + 4 :])


def _stream_abort(data: bytes) -> StreamAbort:
    return StreamAbort(_OID(data, 1)[0], _OID(data, 5)[0])


def _string(data: bytes, offset: int) -> tuple[str, int]:
    """String: bytes up to a zero byte, in the client encoding (UTF-8). Returns it and the offset behind it."""
    end = data.find(b"\0", offset)
    if end < 0:
        raise DecodeError("a string has no end", offset=min(offset, len(data)), kind=chr(data[0]))
    try:
        return data[offset:end].decode(), end + 1
    except UnicodeDecodeError:
        raise DecodeError("a name is not UTF-8", offset=offset, kind=chr(data[0])) from None


def _marker(data: bytes, offset: int, expected: bytes) -> str:
    marker = data[offset]
    if marker not in expected:
        wanted = " or ".join(repr(chr(byte)) for byte in expected)
        raise DecodeError(f"{chr(marker)!r} where {wanted} is due", offset=offset, kind=chr(data[0]))
    return chr(marker)


def _ends(data: bytes, end: int) -> None:
    if len(data) != end:
        problem = "the message ends early" if len(data) < end else "bytes behind the end of the message"
        raise DecodeError(problem, offset=min(len(data), end), kind=chr(data[0]))


_DECODERS: dict[int, Callable[[bytes], WireMessage]] = {
    ord("B"): _begin,
    ord("C"): _commit,
    ord("O"): _origin,
    ord("R"): _relation,
    ord("Y"): _type,
    ord("I"): _insert,
    ord("U"): _update,
    ord("D"): _delete,
    ord("T"): _truncate,
    ord("M"): _message,
    ord("A"): _stream_abort,
}
