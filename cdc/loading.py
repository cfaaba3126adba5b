"""Loading: what is said to the server round a load, and what its answers mean, for threads as for tasks.

May import psycopg; asks nothing itself.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from cdc.caching.fence import Snapshot
from cdc.errors import ConfigurationError
from cdc.lsn import Lsn
from cdc.rls import Subject
from cdc.rls.subject import SESSION_USER

__all__ = [
    "NOW",
    "NOW_AND_NEXT",
    "READ_ONLY",
    "check_role",
    "check_subject",
    "check_transaction",
    "lsn_written",
    "next_of",
    "prologue",
    "to_start_with",
    "when_refused",
]

READ_ONLY = "SET default_transaction_read_only = on"
"""What a connection for loads executes first."""
NOW = "SELECT pg_catalog.pg_current_snapshot()::text"
NOW_AND_NEXT = "SELECT pg_catalog.pg_current_snapshot()::text, pg_catalog.age('3'::xid)"
_ONLY_READS = "a load of a cache only reads: what it wrote would be undone, and its result be cached all the same"


def to_start_with(lsn: Lsn) -> sql.Composed:
    """The question whether WAL up to an LSN has been written, on a standby replayed; see `lsn_written`."""
    return sql.SQL(
        "SELECT pg_catalog.pg_is_in_recovery(), {} <= CASE WHEN pg_catalog.pg_is_in_recovery() "
        "THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END"
    ).format(sql.SQL("{}::pg_lsn").format(sql.Literal(str(lsn))))


def lsn_written(row: Any) -> tuple[bool, bool]:
    """Whether the server is a standby, and whether it has come to the LSN."""
    return bool(row[0]), bool(row[1])


def next_of(snapshot: Snapshot, age: int) -> int:
    """The id that the next transaction gets, by the age of the id 3, which has 32 bits only."""
    return snapshot.xmax + (age + 3 - snapshot.xmax) % (1 << 32)


def prologue(subject: Subject) -> sql.Composed:
    """Become a subject, for one transaction that only reads; the last result is its snapshot."""
    settings = [
        sql.SQL("SELECT pg_catalog.set_config({}, {}, true)").format(sql.Literal(name), sql.Literal(value))
        for name, value in subject.settings
    ]
    return sql.SQL("; ").join(
        [
            sql.SQL("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
            sql.SQL("SET LOCAL row_security = on"),
            *settings,
            sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(subject.role)),
            sql.SQL(NOW),
        ]
    )


def check_subject(subject: object) -> None:
    """Raise ConfigurationError for what loads cannot run as."""
    if not isinstance(subject, Subject):
        raise ConfigurationError(f"the subject of a cache is a cdc.Subject, not {subject!r}")
    if subject.setting(SESSION_USER) is not None:
        raise ConfigurationError(
            "the subject of a cache declares session_authorization, which a load cannot have: leave it out"
        )


def check_transaction(subject: Subject, status: TransactionStatus) -> None:
    """Raise ConfigurationError when a load that ran as a subject has ended its transaction."""
    if status != TransactionStatus.INTRANS:
        how = "failed" if status == TransactionStatus.INERROR else "was ended"
        raise ConfigurationError(
            f"a load that runs as {subject.role} has one transaction, which {how}: let errors of its statements out, "
            "and end no transaction"
        )


def check_role(subject: Subject, role: str) -> None:
    """Raise ConfigurationError when a load has left its role."""
    if role != subject.role:
        raise ConfigurationError(f"a load that runs as {subject.role} ended as {role}: it may not change its role")


def when_refused(error: psycopg.Error, subject: Subject | None = None) -> Exception:
    """What is raised for an error of the server that says too little."""
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        error.add_note(_ONLY_READS)
    elif subject is not None and isinstance(error, psycopg.errors.InsufficientPrivilege):
        return ConfigurationError(f"the DSN's role may not become {subject.role}: GRANT {subject.role} TO it")
    elif subject is not None and isinstance(error, psycopg.errors.InvalidParameterValue):
        return ConfigurationError(f"there is no role {subject.role}, or it may not have one of the subject's settings")
    return error
