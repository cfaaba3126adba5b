"""The server: what it is, whether it can stream, and where its WAL stands.

May import psycopg. Everything that waiting cannot mend is found here, before streaming starts, and named
together with its remedy.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, overload

import psycopg
from psycopg import AsyncConnection, Connection, errors

from cdc.connection import ReplicationConnection
from cdc.errors import ConfigurationError, FailureKind
from cdc.lsn import Lsn

__all__ = [
    "Identity",
    "check_server",
    "current_lsn",
    "flush_lsn",
    "identify",
    "invisible",
    "sender_timeout",
    "written_lsn",
]

_RIGHTS = """
SELECT current_setting('wal_level'), current_setting('server_version_num')::int, current_user,
       rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user
"""
_LSNS = """
SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('synchronous_commit'),
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
            ELSE pg_catalog.pg_current_wal_flush_lsn() END::text,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn() END::text,
       (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'),
       (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_block_size')
"""
_PAGE_HEADER, _SEGMENT_HEADER = 24, 40


@dataclass(frozen=True, slots=True)
class Identity:
    """Which server this is, as IDENTIFY_SYSTEM says: the cluster's identifier, its timeline, the database."""

    system_id: str
    timeline: int
    database: str


def check_server(connection: Connection[Any]) -> None:
    """Raise ConfigurationError, with the remedy, when this server or role cannot stream changes."""
    row = connection.execute(_RIGHTS).fetchone()
    assert row is not None
    wal_level, version, role, may_stream = row
    if version < 140000:
        raise ConfigurationError(f"PostgreSQL {version // 10000} is too old: cdc needs 14 or later")
    if wal_level != "logical":
        raise ConfigurationError(
            f"wal_level is {wal_level!r}: as a superuser run `ALTER SYSTEM SET wal_level = 'logical'`, "
            "then restart the server"
        )
    if not may_stream:
        quoted = psycopg.sql.Identifier(role).as_string(connection)
        raise ConfigurationError(
            f"role {role!r} has no replication right: as a superuser run `ALTER ROLE {quoted} REPLICATION`",
            failure=FailureKind.RIGHT,
        )


def identify(replication: ReplicationConnection) -> Identity:
    """Ask the walsender who it is. The manual: "Streaming Replication Protocol", IDENTIFY_SYSTEM."""
    system_id, timeline, _, database = replication.query("IDENTIFY_SYSTEM")[0]
    return Identity(str(system_id), int(timeline or 0), str(database))


@overload
def current_lsn(connection: Connection[Any]) -> Lsn: ...


@overload
async def current_lsn(connection: AsyncConnection[Any]) -> Lsn: ...


def current_lsn(connection: Connection[Any] | AsyncConnection[Any]) -> Any:
    """The LSN to wait for, so that everything this connection has committed is included.

    Pass it to `consumer.wait_for`. It is the server's flush LSN; under `synchronous_commit = off`, where
    one's own commit may not be flushed yet, the insert LSN. For an AsyncConnection the result is awaited.
    """
    if isinstance(connection, AsyncConnection):
        return _current_lsn_async(connection)
    row = connection.execute(_LSNS).fetchone()
    return _lsn(row)


async def _current_lsn_async(connection: AsyncConnection[Any]) -> Lsn:
    cursor = await connection.execute(_LSNS)
    return _lsn(await cursor.fetchone())


def flush_lsn(connection: Connection[Any]) -> Lsn:
    """Up to where the server's WAL is flushed (replayed, on a standby)."""
    row = connection.execute(_LSNS).fetchone()
    assert row is not None
    return Lsn.parse(row[2])


def written_lsn(connection: Connection[Any]) -> Lsn:
    """What no visible commit lies behind: where WAL is written next (replayed up to, on a standby).

    A commit that does not wait for the disk is visible before it is flushed.
    """
    row = connection.execute(_LSNS).fetchone()
    assert row is not None
    _, _, flush, insert, segment, block = row
    return Lsn.parse(flush) if insert is None else _before_header(Lsn.parse(insert), segment, block)


def nudge(connection: Connection[Any]) -> None:
    """Have what is written go to disk soon, where a commit lies in WAL that nobody flushes. Not on a standby."""
    with suppress(errors.ReadOnlySqlTransaction, errors.ObjectNotInPrerequisiteState):
        connection.execute("SELECT pg_catalog.pg_current_xact_id()")


def invisible(connection: Connection[Any]) -> set[int]:
    """32-bit ids of commits that are in the WAL and wait for a synchronous standby before they are visible.

    They may have been streamed to a process before this one. Another role's are seen by members of pg_read_all_stats
    only.
    """
    rows = connection.execute(
        "SELECT backend_xid::text::bigint FROM pg_catalog.pg_stat_activity "
        "WHERE wait_event = 'SyncRep' AND backend_xid IS NOT NULL"
    ).fetchall()
    return {xid for (xid,) in rows}


def sender_timeout(connection: Connection[Any]) -> float:
    """wal_sender_timeout in seconds; 0 when it is off."""
    row = connection.execute(
        "SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'"
    ).fetchone()
    return float(row[0]) / 1000 if row is not None else 0.0


def _lsn(row: Any) -> Lsn:
    _, synchronous_commit, flush, insert, segment, block = row
    if synchronous_commit != "off" or insert is None:
        return Lsn.parse(flush)
    return _before_header(Lsn.parse(insert), segment, block)


def _before_header(lsn: Lsn, segment: int, block: int) -> Lsn:
    """The insert LSN may lie behind a header that no commit ends in; step back over it."""
    if 0 < lsn % segment <= _SEGMENT_HEADER:
        return Lsn(lsn - lsn % segment)
    if 0 < lsn % block <= _PAGE_HEADER:
        return Lsn(lsn - lsn % block)
    return lsn
