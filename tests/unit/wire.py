"""An encoder of pgoutput and of replication frames, for tests of the decoder: it shares no code with it."""

from __future__ import annotations

from struct import pack

UNSENT = object()


def xlog(message: bytes, start: int = 1, end: int = 2) -> bytes:
    return b"w" + pack(">QQq", start, end, 0) + message


def keepalive(end: int, reply: bool = False) -> bytes:
    return b"k" + pack(">QqB", end, 0, reply)


def begin(commit_lsn: int, xid: int = 7, microseconds: int = 0) -> bytes:
    return b"B" + pack(">QqI", commit_lsn, microseconds, xid)


def commit(commit_lsn: int, end_lsn: int) -> bytes:
    return b"C" + pack(">BQQq", 0, commit_lsn, end_lsn, 0)


def origin(lsn: int, name: str) -> bytes:
    return b"O" + pack(">Q", lsn) + text(name)


def relation(oid: int, columns: list[tuple[str, int, bool]], identity: str = "d", name: str = "wells") -> bytes:
    head = b"R" + pack(">I", oid) + text("public") + text(name) + identity.encode() + pack(">h", len(columns))
    return head + b"".join(pack(">B", key) + text(each) + pack(">Ii", oid, -1) for each, oid, key in columns)


def type_message(oid: int, name: str) -> bytes:
    return b"Y" + pack(">I", oid) + text("public") + text(name)


def row(*cells: object) -> bytes:
    return pack(">H", len(cells)) + b"".join(map(cell, cells))


def cell(value: object) -> bytes:
    if value is None:
        return b"n"
    if value is UNSENT:
        return b"u"
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


def text(value: str) -> bytes:
    return value.encode() + b"\0"
