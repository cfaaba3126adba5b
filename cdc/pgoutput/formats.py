"""The formats of pgoutput's messages: bytes in, message and the offset behind it out.

Pure: no I/O, no clock. The manual: "Logical Replication Message Formats". Each function reads what stands at `at`,
which is the offset behind the type byte and, inside a stream block, behind the xid. `data` may be a message or the
XLogData frame around it. Rows are not split here: `insert`, `update` and `delete` say where their tuples stand, and
whoever reads a row splits it. Nothing but `DecodeError` is raised, whatever the bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as StructError

from cdc.lsn import Lsn
from cdc.pgoutput.messages import (
    Begin,
    BeginPrepare,
    Commit,
    CommitPrepared,
    Controlling,
    LogicalMessage,
    Origin,
    Prepare,
    RelationColumn,
    RelationMessage,
    RollbackPrepared,
    StreamAbort,
    StreamCommit,
    StreamPrepare,
    StreamStart,
    StreamStop,
    TruncateMessage,
    TypeMessage,
)
from cdc.tuples import damaged, split

__all__ = ["FORMATS", "begin", "commit", "delete", "insert", "read", "update", "whole"]

_COUNT = Struct(">H").unpack_from
_OID = Struct(">I").unpack_from
_COLUMN = Struct(">Ii").unpack_from
_BEGIN = Struct(">QqI").unpack_from
_COMMIT = Struct(">BQQq").unpack_from
_LSN = Struct(">Q").unpack_from
_STREAM_START = Struct(">IB").unpack_from
_STREAM_COMMIT = Struct(">IBQQq").unpack_from
_STREAM_ABORT = Struct(">II").unpack_from
_ABORTED = Struct(">Qq").unpack_from
_BEGIN_PREPARE = Struct(">QQqI").unpack_from
_PREPARE = Struct(">BQQqI").unpack_from
_ROLLBACK = Struct(">BQQqqI").unpack_from

_EARLIEST, _LATEST = -63_000_000_000_000_000, 252_000_000_000_000_000
"""Microseconds since 2000 that a datetime holds, rounded inwards; no commit lies outside."""

_NO_TIME = "a time lies outside of the years 1 to 9999"

Read = Callable[[bytes, int, "int | None"], "tuple[Controlling, int]"]


def begin(data: bytes, at: int) -> tuple[int, int, int]:
    """Begin: Int64 LSN of the commit, Int64 commit time, Int32 xid; these, when nothing follows."""
    if len(data) != at + 20:
        whole(data, at + 20)
    found: tuple[int, int, int] = _BEGIN(data, at)
    if not _EARLIEST < found[1] < _LATEST:
        raise damaged(data, at + 8, _NO_TIME)
    return found


def commit(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Commit: Int8 flags, Int64 LSN of the commit, Int64 end LSN, Int64 commit time; these, when nothing follows."""
    if len(data) != at + 25:
        whole(data, at + 25)
    found: tuple[int, int, int, int] = _COMMIT(data, at)
    if not _EARLIEST < found[3] < _LATEST:
        raise damaged(data, at + 17, _NO_TIME)
    return found


def insert(data: bytes, at: int) -> tuple[int, int]:
    """Insert: Int32 relation OID, 'N', TupleData. The OID, and the offset of the tuple."""
    try:
        if data[at + 4] == 0x4E:  # N
            return _OID(data, at)[0], at + 5
    except IndexError:
        raise damaged(data, len(data), "the message ends early") from None
    raise _marker(data, at + 4, "N")


def update(data: bytes, at: int) -> tuple[int, str | None, int, int]:
    """Update: Int32 relation OID, perhaps 'K' or 'O' and the old TupleData, 'N', TupleData.

    The OID, the old tuple's kind or None, its offset, and the offset of the new tuple.
    """
    try:
        marker = data[at + 4]
        if marker == 0x4E:  # N
            return _OID(data, at)[0], None, 0, at + 5
        if marker not in b"KO":
            raise _marker(data, at + 4, "K, O or N")
        _, end = split(data, at + 5)
        if data[end] != 0x4E:
            raise _marker(data, end, "N")
    except IndexError:
        raise damaged(data, len(data), "the message ends early") from None
    return _OID(data, at)[0], chr(marker), at + 5, end + 1


def delete(data: bytes, at: int) -> tuple[int, str, int]:
    """Delete: Int32 relation OID, 'K' or 'O', the old TupleData. The OID, the tuple's kind and its offset."""
    try:
        if data[at + 4] in b"KO":
            return _OID(data, at)[0], chr(data[at + 4]), at + 5
    except IndexError:
        raise damaged(data, len(data), "the message ends early") from None
    raise _marker(data, at + 4, "K or O")


def read(data: bytes, kind: int, at: int, xid: int | None = None) -> tuple[Controlling, int]:
    """The message of this type byte, which is one of `FORMATS`, whose body stands at `at`; the offset behind it."""
    try:
        return FORMATS[kind](data, at, xid)
    except (IndexError, StructError):
        raise damaged(data, len(data), "the message ends early") from None


def whole(data: bytes, end: int) -> None:
    """Raise DecodeError unless the message ends with its data."""
    if len(data) > end:
        raise damaged(data, end, "bytes behind the end of the message")
    if len(data) < end:
        raise damaged(data, len(data), "the message ends early")


def _begin(data: bytes, at: int, xid: int | None) -> tuple[Begin, int]:
    """Begin: Int64 LSN of the commit, Int64 commit time, Int32 xid."""
    lsn, microseconds, own = begin(data[: at + 20], at)
    return Begin(Lsn(lsn), microseconds, own), at + 20


def _commit(data: bytes, at: int, xid: int | None) -> tuple[Commit, int]:
    """Commit: Int8 flags, Int64 LSN of the commit, Int64 end LSN, Int64 commit time."""
    _, lsn, end, microseconds = commit(data[: at + 25], at)
    return Commit(Lsn(lsn), Lsn(end), microseconds), at + 25


def _origin(data: bytes, at: int, xid: int | None) -> tuple[Origin, int]:
    """Origin: Int64 LSN of the commit on the origin, String name."""
    name, end = _string(data, at + 8)
    return Origin(Lsn(_LSN(data, at)[0]), name), end


def _relation(data: bytes, at: int, xid: int | None) -> tuple[RelationMessage, int]:
    """Relation: Int32 OID, String namespace, String name, Int8 identity, Int16 number of columns, and for each
    Int8 flags, String name, Int32 type OID, Int32 type modifier.
    """
    schema, offset = _string(data, at + 4)
    table, offset = _string(data, offset)
    identity = chr(data[offset])
    if identity not in "dnfi":
        raise damaged(data, offset, f"{identity!r} is not a replica identity")
    (count,) = _COUNT(data, offset + 1)
    offset += 3
    columns = []
    for _ in range(count):
        name, end = _string(data, offset + 1)
        type_oid, modifier = _COLUMN(data, end)
        columns.append(RelationColumn(name, type_oid, modifier, bool(data[offset] & 1)))
        offset = end + 8
    return RelationMessage(_OID(data, at)[0], schema or "pg_catalog", table, identity, tuple(columns), xid), offset


def _type(data: bytes, at: int, xid: int | None) -> tuple[TypeMessage, int]:
    """Type: Int32 OID, String namespace, String name."""
    schema, offset = _string(data, at + 4)
    name, end = _string(data, offset)
    return TypeMessage(_OID(data, at)[0], schema or "pg_catalog", name, xid), end


def _truncate(data: bytes, at: int, xid: int | None) -> tuple[TruncateMessage, int]:
    """Truncate: Int32 number of relations, Int8 options, an Int32 OID for each."""
    (count,) = _OID(data, at)
    options = data[at + 4]
    end = at + 5 + 4 * count
    if end > len(data):
        raise damaged(data, len(data), "the message ends early")
    oids = tuple(_OID(data, offset)[0] for offset in range(at + 5, end, 4))
    return TruncateMessage(oids, bool(options & 1), bool(options & 2), xid), end


def _message(data: bytes, at: int, xid: int | None) -> tuple[LogicalMessage, int]:
    """Message: Int8 flags, Int64 LSN, String prefix, Int32 length of the content, the content."""
    prefix, offset = _string(data, at + 9)
    start = offset + 4
    end = start + _OID(data, offset)[0]
    if end > len(data):
        raise damaged(data, len(data), "the message ends early")
    return LogicalMessage(bool(data[at] & 1), Lsn(_LSN(data, at + 1)[0]), prefix, data[start:end], xid), end


def _stream_start(data: bytes, at: int, xid: int | None) -> tuple[StreamStart, int]:
    """Stream Start: Int32 xid, Int8 1 for the first block."""
    own, first = _STREAM_START(data, at)
    return StreamStart(own, first == 1), at + 5


def _stream_stop(data: bytes, at: int, xid: int | None) -> tuple[StreamStop, int]:
    """Stream Stop: nothing."""
    return StreamStop(), at


def _stream_commit(data: bytes, at: int, xid: int | None) -> tuple[StreamCommit, int]:
    """Stream Commit: Int32 xid, Int8 flags, Int64 LSN of the commit, Int64 end LSN, Int64 commit time."""
    own, _, lsn, end, microseconds = _STREAM_COMMIT(data, at)
    return StreamCommit(own, Lsn(lsn), Lsn(end), _time(data, at + 21, microseconds)), at + 29


def _stream_abort(data: bytes, at: int, xid: int | None) -> tuple[StreamAbort, int]:
    """Stream Abort: Int32 xid, Int32 xid of the sub-transaction; in parallel streaming Int64 LSN, Int64 time."""
    own, sub = _STREAM_ABORT(data, at)
    if len(data) < at + 24:
        return StreamAbort(own, sub), at + 8
    lsn, microseconds = _ABORTED(data, at + 8)
    return StreamAbort(own, sub, Lsn(lsn), _time(data, at + 16, microseconds)), at + 24


def _begin_prepare(data: bytes, at: int, xid: int | None) -> tuple[BeginPrepare, int]:
    """Begin Prepare: Int64 LSN of the prepare, Int64 end LSN, Int64 time, Int32 xid, String gid."""
    lsn, end, microseconds, own = _BEGIN_PREPARE(data, at)
    gid, behind = _string(data, at + 28)
    return BeginPrepare(Lsn(lsn), Lsn(end), _time(data, at + 16, microseconds), own, gid), behind


def _prepare(data: bytes, at: int, xid: int | None) -> tuple[Prepare, int]:
    """Prepare: Int8 flags, Int64 LSN of the prepare, Int64 end LSN, Int64 time, Int32 xid, String gid."""
    lsn, end, microseconds, own, gid, behind = _prepared(data, at)
    return Prepare(lsn, end, microseconds, own, gid), behind


def _commit_prepared(data: bytes, at: int, xid: int | None) -> tuple[CommitPrepared, int]:
    """Commit Prepared: Int8 flags, Int64 LSN of the commit, Int64 end LSN, Int64 time, Int32 xid, String gid."""
    lsn, end, microseconds, own, gid, behind = _prepared(data, at)
    return CommitPrepared(lsn, end, microseconds, own, gid), behind


def _stream_prepare(data: bytes, at: int, xid: int | None) -> tuple[StreamPrepare, int]:
    """Stream Prepare: Int8 flags, Int64 LSN of the prepare, Int64 end LSN, Int64 time, Int32 xid, String gid."""
    lsn, end, microseconds, own, gid, behind = _prepared(data, at)
    return StreamPrepare(lsn, end, microseconds, own, gid), behind


def _prepared(data: bytes, at: int) -> tuple[Lsn, Lsn, int, int, str, int]:
    _, lsn, end, microseconds, own = _PREPARE(data, at)
    gid, behind = _string(data, at + 29)
    return Lsn(lsn), Lsn(end), _time(data, at + 17, microseconds), own, gid, behind


def _rollback_prepared(data: bytes, at: int, xid: int | None) -> tuple[RollbackPrepared, int]:
    """Rollback Prepared: Int8 flags, Int64 end LSN of the prepare, Int64 end LSN of the rollback, Int64 time of the
    prepare, Int64 time of the rollback, Int32 xid, String gid.
    """
    _, prepare_end, end, prepared, rolled_back, own = _ROLLBACK(data, at)
    gid, behind = _string(data, at + 37)
    times = _time(data, at + 17, prepared), _time(data, at + 25, rolled_back)
    return RollbackPrepared(Lsn(prepare_end), Lsn(end), *times, own, gid), behind


def _string(data: bytes, offset: int) -> tuple[str, int]:
    """String: bytes up to a zero byte, in the client encoding (UTF-8). Returns it and the offset behind it."""
    end = data.find(b"\0", offset)
    if end < 0:
        raise damaged(data, len(data), "a string has no end")
    try:
        return data[offset:end].decode(), end + 1
    except UnicodeDecodeError:
        raise damaged(data, offset, "a name is not UTF-8") from None


def _time(data: bytes, offset: int, microseconds: int) -> int:
    if _EARLIEST < microseconds < _LATEST:
        return microseconds
    raise damaged(data, offset, _NO_TIME)


def _marker(data: bytes, offset: int, wanted: str) -> Exception:
    return damaged(data, offset, f"{chr(data[offset])!r} where {wanted} is due")


FORMATS: dict[int, Read] = {
    ord("B"): _begin,
    ord("C"): _commit,
    ord("O"): _origin,
    ord("R"): _relation,
    ord("Y"): _type,
    ord("T"): _truncate,
    ord("M"): _message,
    ord("S"): _stream_start,
    ord("E"): _stream_stop,
    ord("c"): _stream_commit,
    ord("A"): _stream_abort,
    ord("b"): _begin_prepare,
    ord("P"): _prepare,
    ord("K"): _commit_prepared,
    ord("r"): _rollback_prepared,
    ord("p"): _stream_prepare,
}
"""How each message but Insert, Update and Delete is read, by its type byte."""
