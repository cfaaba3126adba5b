"""An encoder of pgoutput and of replication frames, for tests of the decoder: it shares no code with it."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

UNSENT = object()


def xlog(message: bytes, start: int = 1, end: int = 2) -> bytes:
    return b"w" + pack(">QQq", start, end, 0) + message


def keepalive(end: int, reply: bool = False) -> bytes:
    return b"k" + pack(">QqB", end, 0, reply)


def begin(commit_lsn: int, xid: int = 7, microseconds: int = 0) -> bytes:
    return b"B" + pack(">QqI", commit_lsn, microseconds, xid)


def commit(commit_lsn: int, end_lsn: int, microseconds: int = 0) -> bytes:
    return b"C" + pack(">BQQq", 0, commit_lsn, end_lsn, microseconds)


def origin(lsn: int, name: str) -> bytes:
    return b"O" + pack(">Q", lsn) + text(name)


def relation(
    oid: int,
    columns: Sequence[tuple[str, int, bool]],
    identity: str = "d",
    name: str = "wells",
    schema: str = "public",
    modifier: int = -1,
) -> bytes:
    head = b"R" + pack(">I", oid) + text(schema) + text(name) + identity.encode() + pack(">h", len(columns))
    return head + b"".join(pack(">B", key) + text(each) + pack(">Ii", oid, modifier) for each, oid, key in columns)


def type_message(oid: int, name: str, schema: str = "public") -> bytes:
    return b"Y" + pack(">I", oid) + text(schema) + text(name)


def row(*cells: object) -> bytes:
    return pack(">H", len(cells)) + b"".join(map(cell, cells))


def cell(value: object) -> bytes:
    if value is None:
        return b"n"
    if value is UNSENT:
        return b"u"
    if isinstance(value, bytes):
        return b"b" + pack(">i", len(value)) + value
    data = str(value).encode()
    return b"t" + pack(">i", len(data)) + data


def insert(oid: int, *cells: object) -> bytes:
    return b"I" + pack(">I", oid) + b"N" + row(*cells)


def update(oid: int, new: tuple, old: tuple | None = None, kind: str = "K") -> bytes:
    before = b"" if old is None else kind.encode() + row(*old)
    return b"U" + pack(">I", oid) + before + b"N" + row(*new)


def delete(oid: int, old: tuple, kind: str = "K") -> bytes:
    return b"D" + pack(">I", oid) + kind.encode() + row(*old)


def truncate(oids: list[int], options: int = 0) -> bytes:
    return b"T" + pack(">IB", len(oids), options) + b"".join(pack(">I", oid) for oid in oids)


def logical(prefix: str, content: bytes, transactional: bool = True, lsn: int = 5) -> bytes:
    return b"M" + pack(">BQ", transactional, lsn) + text(prefix) + pack(">I", len(content)) + content


def in_block(xid: int, message: bytes) -> bytes:
    """The message as it stands in a stream block: with the xid of its (sub-)transaction behind the type byte."""
    return message[:1] + pack(">I", xid) + message[1:]


def stream_start(xid: int, first: bool = True) -> bytes:
    return b"S" + pack(">IB", xid, first)


def stream_stop() -> bytes:
    return b"E"


def stream_commit(xid: int, commit_lsn: int, end_lsn: int, microseconds: int = 0) -> bytes:
    return b"c" + pack(">IBQQq", xid, 0, commit_lsn, end_lsn, microseconds)


def stream_abort(xid: int, subxid: int, lsn: int | None = None, microseconds: int = 0) -> bytes:
    return b"A" + pack(">II", xid, subxid) + (b"" if lsn is None else pack(">Qq", lsn, microseconds))


def begin_prepare(lsn: int, end_lsn: int, gid: str, xid: int = 7, microseconds: int = 0) -> bytes:
    return b"b" + pack(">QQqI", lsn, end_lsn, microseconds, xid) + text(gid)


def prepare(lsn: int, end_lsn: int, gid: str, xid: int = 7, microseconds: int = 0) -> bytes:
    return b"P" + pack(">BQQqI", 0, lsn, end_lsn, microseconds, xid) + text(gid)


def commit_prepared(lsn: int, end_lsn: int, gid: str, xid: int = 7, microseconds: int = 0) -> bytes:
    return b"K" + pack(">BQQqI", 0, lsn, end_lsn, microseconds, xid) + text(gid)


def rollback_prepared(
    prepare_end: int, end_lsn: int, gid: str, xid: int = 7, prepared: int = 0, rolled_back: int = 0
) -> bytes:
    return b"r" + pack(">BQQqqI", 0, prepare_end, end_lsn, prepared, rolled_back, xid) + text(gid)


def stream_prepare(lsn: int, end_lsn: int, gid: str, xid: int = 7, microseconds: int = 0) -> bytes:
    return b"p" + pack(">BQQqI", 0, lsn, end_lsn, microseconds, xid) + text(gid)


def text(value: str) -> bytes:
    return value.encode() + b"\0"
