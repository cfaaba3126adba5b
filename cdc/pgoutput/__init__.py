"""Decodes pgoutput, the output plugin of logical replication.

Pure: no I/O, no clock. The manual: "Logical Replication Message Formats". `messages` says what there is, `formats`
how each is read, `describe` what a Relation message means to rows, `decoder` ties them together for those who have
messages from elsewhere.
"""

from __future__ import annotations

from cdc.pgoutput.decoder import Decoder
from cdc.pgoutput.describe import describe
from cdc.pgoutput.messages import (
    Begin,
    BeginPrepare,
    Commit,
    CommitPrepared,
    DeleteMessage,
    InsertMessage,
    LogicalMessage,
    Message,
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
    UpdateMessage,
)

__all__ = [
    "Begin",
    "BeginPrepare",
    "Commit",
    "CommitPrepared",
    "Decoder",
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
    "describe",
]
