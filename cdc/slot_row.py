"""A replication slot as the server shows it, found by name, listed, dropped.

May import psycopg. The manual: "pg_replication_slots". The view's columns differ by version; what a version does not
know reads as if there were nothing to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors

from cdc.errors import SlotError
from cdc.lsn import Lsn
from cdc.wal_budget import Usage

__all__ = ["SlotRow", "drop_slot", "find_slot", "holder_of", "logical_slots"]


_SLOTS = """
SELECT slot_name, slot_type, plugin, database, temporary, active_pid, confirmed_flush_lsn::text, wal_status,
       {failover}, {invalidation},
       pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                                       ELSE pg_catalog.pg_current_wal_lsn() END, restart_lsn)::bigint,
       safe_wal_size
FROM pg_catalog.pg_replication_slots WHERE {condition} ORDER BY slot_name
"""
_HOLDER = """
SELECT application_name, host(client_addr), backend_start::timestamptz(0)::text
FROM pg_catalog.pg_stat_activity WHERE pid = %s
"""


@dataclass(frozen=True, slots=True)
class SlotRow:
    """A slot as pg_replication_slots shows it.

    Attributes:
        name: its name.
        slot_type: `"logical"` or `"physical"`.
        plugin: its output plug-in, such as `"pgoutput"`; None for a physical slot.
        database: the database it belongs to; None for a physical slot.
        temporary: whether it goes with its connection.
        active_pid: the server's process that holds it, or None.
        confirmed_flush_lsn: what the server was allowed to forget.
        wal_status: `"reserved"`, `"extended"`, `"unreserved"` or `"lost"`.
        failover: whether standbys are to keep a copy of it (17 and later).
        invalidation: why the server has given it up, such as `"wal_removed"` (17; 16 knows conflicts only), or None.
        usage: what it keeps of the WAL.
    """

    name: str
    slot_type: str
    plugin: str | None
    database: str | None
    temporary: bool
    active_pid: int | None
    confirmed_flush_lsn: Lsn | None
    wal_status: str | None
    failover: bool
    invalidation: str | None
    usage: Usage

    @property
    def is_lost(self) -> bool:
        """Whether nobody can read it any more."""
        return self.wal_status == "lost" or self.invalidation is not None


def find_slot(connection: psycopg.Connection[Any], name: str) -> SlotRow | None:
    """The slot of that name, else None."""
    found = connection.execute(_query(connection, "slot_name = %s"), (name,)).fetchone()
    return None if found is None else _row(found)


def logical_slots(connection: psycopg.Connection[Any]) -> list[SlotRow]:
    """Every logical slot of the server, by name."""
    return [_row(each) for each in connection.execute(_query(connection, "slot_type = 'logical'")).fetchall()]


def _query(connection: psycopg.Connection[Any], condition: str) -> Any:
    version = connection.info.server_version
    failover = "failover" if version >= 170000 else "false"
    invalidation = "NULL"
    if version >= 170000:
        invalidation = "invalidation_reason"
    elif version >= 160000:
        invalidation = "CASE WHEN conflicting THEN 'conflict' END"
    return _SLOTS.format(failover=failover, invalidation=invalidation, condition=condition)


def _row(found: Any) -> SlotRow:
    name, slot_type, plugin, database, temporary, pid, flush, status, failover, invalidation, retained, safe = found
    lsn = None if flush is None else Lsn.parse(flush)
    usage = Usage(retained, safe, status)
    return SlotRow(name, slot_type, plugin, database, temporary, pid, lsn, status, bool(failover), invalidation, usage)


def holder_of(connection: psycopg.Connection[Any], pid: int) -> str:
    """Who holds a slot, in words: the server's process, and what its client says of itself."""
    found = connection.execute(_HOLDER, (pid,)).fetchone()
    text = f"process {pid} of the server"
    if found is None:
        return text
    application, host, since = found
    known = [f"application {application!r}" if application else "", f"from {host}" if host else "", f"since {since}"]
    return f"{text} ({', '.join(filter(None, known if since else known[:2]))})"


def drop_slot(connection: psycopg.Connection[Any], name: str) -> bool:
    """Drop the slot; False when there was none. Raises SlotError while somebody streams from it."""
    try:
        connection.execute("SELECT pg_catalog.pg_drop_replication_slot(%s)", (name,))
    except errors.UndefinedObject:
        return False
    except errors.ObjectInUse as error:
        raise SlotError(f"slot {name!r} is in use ({error}): stop its consumer first") from None
    return True
