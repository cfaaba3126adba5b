"""The messages of pgoutput as values.

Touches nothing. The manual: "Logical Replication Message Formats". Each class names its message's format behind
the type byte. `xid` is the transaction, or sub-transaction, that a message inside a stream block (protocol 2 and
later) belongs to; it stands right behind the type byte there, and is None elsewhere. Times are microseconds since
2000-01-01 UTC, as sent; `commit_time` and its like are the same as datetime, aware, in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from cdc.lsn import Lsn
from cdc.relation import Relation
from cdc.row import Row
from cdc.transaction import commit_time as _datetime

__all__ = [
    "Begin",
    "BeginPrepare",
    "Commit",
    "CommitPrepared",
    "Controlling",
    "DeleteMessage",
    "InsertMessage",
    "LogicalMessage",
    "Message",
    "Origin",
    "Prepare",
    "RelationColumn",
    "RelationMessage",
    "RollbackPrepared",
    "StreamAbort",
    "StreamCommit",
    "StreamPrepare",
    "StreamStart",
    "StreamStop",
    "TruncateMessage",
    "TypeMessage",
    "UpdateMessage",
]


class _Committing:
    """What tells of a commit knows its time."""

    __slots__ = ()

    commit_microseconds: int

    @property
    def commit_time(self) -> datetime:
        """When it committed."""
        return _datetime(self.commit_microseconds)


class _Preparing:
    """What tells of a prepared transaction knows the time of its PREPARE TRANSACTION."""

    __slots__ = ()

    prepare_microseconds: int

    @property
    def prepare_time(self) -> datetime:
        """When it was prepared."""
        return _datetime(self.prepare_microseconds)


@dataclass(frozen=True, slots=True)
class _Prepared(_Preparing):
    """What the three messages about a PREPARE TRANSACTION have in common."""

    prepare_lsn: Lsn
    end_lsn: Lsn
    prepare_microseconds: int
    xid: int
    gid: str


@dataclass(frozen=True, slots=True)
class Begin(_Committing):
    """Begin: 'B', Int64 LSN of the commit, Int64 commit time, Int32 xid. Protocol 1."""

    commit_lsn: Lsn
    commit_microseconds: int
    xid: int


@dataclass(frozen=True, slots=True)
class Commit(_Committing):
    """Commit: 'C', Int8 flags (0), Int64 LSN of the commit, Int64 end LSN, Int64 commit time. Protocol 1."""

    commit_lsn: Lsn
    end_lsn: Lsn
    commit_microseconds: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Origin: 'O', Int64 LSN of the commit on the origin, String name of the origin. Protocol 1."""

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
    xid: int | None = None


@dataclass(frozen=True, slots=True)
class TypeMessage:
    """Type: 'Y', Int32 OID, String namespace (empty for pg_catalog), String name. Protocol 1."""

    oid: int
    schema: str
    name: str
    xid: int | None = None


@dataclass(frozen=True, slots=True)
class InsertMessage:
    """Insert: 'I', Int32 relation OID, 'N', TupleData. Protocol 1."""

    relation: Relation
    new: Row
    xid: int | None = None


@dataclass(frozen=True, slots=True)
class UpdateMessage:
    """Update: 'U', Int32 relation OID, perhaps 'K' or 'O' and TupleData, 'N', TupleData. Protocol 1.

    Attributes:
        old_kind: `"K"`: `old` has the replica identity's columns, since one of them changed; `"O"`: the whole old
            row, under REPLICA IDENTITY FULL; None: no old row was sent, and `old` is None.
    """

    relation: Relation
    old_kind: str | None
    old: Row | None
    new: Row
    xid: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteMessage:
    """Delete: 'D', Int32 relation OID, 'K' or 'O', TupleData. Protocol 1."""

    relation: Relation
    old_kind: str
    old: Row
    xid: int | None = None


@dataclass(frozen=True, slots=True)
class TruncateMessage:
    """Truncate: 'T', Int32 number of relations, Int8 options (1 CASCADE, 2 RESTART IDENTITY), Int32 OIDs."""

    relation_oids: tuple[int, ...]
    cascade: bool
    restart_identity: bool
    xid: int | None = None


@dataclass(frozen=True, slots=True)
class LogicalMessage:
    """Message: 'M', Int8 flags (1 transactional), Int64 LSN, String prefix, Int32 length, content. Protocol 1."""

    transactional: bool
    lsn: Lsn
    prefix: str
    content: bytes
    xid: int | None = None


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Stream Start: 'S', Int32 xid of the transaction, Int8 1 for its first block. Protocol 2."""

    xid: int
    is_first: bool


@dataclass(frozen=True, slots=True)
class StreamStop:
    """Stream Stop: 'E'. Protocol 2."""


@dataclass(frozen=True, slots=True)
class StreamCommit(_Committing):
    """Stream Commit: 'c', Int32 xid, Int8 flags (0), Int64 LSN of the commit, Int64 end LSN, Int64 time. Protocol 2."""

    xid: int
    commit_lsn: Lsn
    end_lsn: Lsn
    commit_microseconds: int


@dataclass(frozen=True, slots=True)
class StreamAbort:
    """Stream Abort: 'A', Int32 xid, Int32 xid of the sub-transaction; with `streaming 'parallel'` (protocol 4)
    Int64 LSN of the abort and Int64 its time, else None.

    A `subxid` other than `xid` aborts that sub-transaction only.
    """

    xid: int
    subxid: int
    abort_lsn: Lsn | None = None
    abort_microseconds: int | None = None

    @property
    def abort_time(self) -> datetime | None:
        """When it was aborted; None unless parallel streaming was asked for."""
        return None if self.abort_microseconds is None else _datetime(self.abort_microseconds)


@dataclass(frozen=True, slots=True)
class BeginPrepare(_Prepared):
    """Begin Prepare: 'b', Int64 LSN of the prepare, Int64 end LSN, Int64 time, Int32 xid, String gid. Protocol 3."""


@dataclass(frozen=True, slots=True)
class Prepare(_Prepared):
    """Prepare: 'P', Int8 flags (0), Int64 LSN of the prepare, Int64 end LSN, Int64 time, Int32 xid, String gid.

    Protocol 3.
    """


@dataclass(frozen=True, slots=True)
class CommitPrepared(_Committing):
    """Commit Prepared: 'K', Int8 flags (0), Int64 LSN of the commit, Int64 end LSN, Int64 time, Int32 xid, String gid.

    Protocol 3.
    """

    commit_lsn: Lsn
    end_lsn: Lsn
    commit_microseconds: int
    xid: int
    gid: str


@dataclass(frozen=True, slots=True)
class RollbackPrepared(_Preparing):
    """Rollback Prepared: 'r', Int8 flags (0), Int64 end LSN of the prepare, Int64 end LSN of the rollback,
    Int64 time of the prepare, Int64 time of the rollback, Int32 xid, String gid. Protocol 3.
    """

    prepare_end_lsn: Lsn
    rollback_end_lsn: Lsn
    prepare_microseconds: int
    rollback_microseconds: int
    xid: int
    gid: str

    @property
    def rollback_time(self) -> datetime:
        """When it was rolled back."""
        return _datetime(self.rollback_microseconds)


@dataclass(frozen=True, slots=True)
class StreamPrepare(_Prepared):
    """Stream Prepare: 'p', Int8 flags (0), Int64 LSN of the prepare, Int64 end LSN, Int64 time, Int32 xid, String gid.

    Protocol 3.
    """


Controlling: TypeAlias = (
    Begin
    | Commit
    | Origin
    | RelationMessage
    | TypeMessage
    | TruncateMessage
    | LogicalMessage
    | StreamStart
    | StreamStop
    | StreamCommit
    | StreamAbort
    | BeginPrepare
    | Prepare
    | CommitPrepared
    | RollbackPrepared
    | StreamPrepare
)
"""Every message but Insert, Update and Delete."""

Message: TypeAlias = InsertMessage | UpdateMessage | DeleteMessage | Controlling
"""Every message that pgoutput sends."""
