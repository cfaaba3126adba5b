"""The life of a replication slot: created, found again, compared with what is remembered, dropped.

May import psycopg. The manual: "Replication Slots", "CREATE_REPLICATION_SLOT", "pg_replication_slots". A slot's
life is an epoch. Whenever the server's slot and what is remembered of it do not fit together, changes may be
missing, and that is a `Gap`: never silence, never a new slot under the old name without a word.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import errors, sql

from cdc.connection import ReplicationConnection
from cdc.errors import ConnectionFailed, GapError, SlotError
from cdc.events import Gap
from cdc.log import log
from cdc.lsn import Lsn
from cdc.server import Identity
from cdc.state import Saved, State

__all__ = ["OpenSlot", "SlotRow", "drop_slot", "find_slot", "open_slot", "start_command"]


_SLOT = """
SELECT slot_type, plugin, database, active_pid, confirmed_flush_lsn::text, wal_status
FROM pg_catalog.pg_replication_slots WHERE slot_name = %s
"""
_RUNNING = "SELECT pid FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
_PREPARED = "SELECT gid FROM pg_catalog.pg_prepared_xacts"
_GRACE = 5.0
"""Seconds to wait for a slot that is still held, as by a process that was killed a moment ago."""


@dataclass(frozen=True, slots=True)
class SlotRow:
    """A slot as pg_replication_slots shows it."""

    slot_type: str
    plugin: str | None
    database: str | None
    active_pid: int | None
    confirmed_flush_lsn: Lsn | None
    wal_status: str | None


@dataclass(frozen=True, slots=True)
class OpenSlot:
    """A slot that is ready to stream.

    Attributes:
        name: its name.
        temporary: whether it goes with the connection.
        saved: what is remembered of it; its `flush_lsn` is where streaming starts.
        gap: what is missing before its start, when `on_gap="deliver"` lets the consumer go on.
    """

    name: str
    temporary: bool
    saved: Saved
    gap: Gap | None = None


def find_slot(connection: psycopg.Connection[Any], name: str) -> SlotRow | None:
    """The slot of that name, else None."""
    row = connection.execute(_SLOT, (name,)).fetchone()
    if row is None:
        return None
    slot_type, plugin, database, pid, flush, status = row
    return SlotRow(slot_type, plugin, database, pid, None if flush is None else Lsn.parse(flush), status)


def drop_slot(connection: psycopg.Connection[Any], name: str) -> bool:
    """Drop the slot; False when there was none. Raises SlotError while somebody streams from it."""
    try:
        connection.execute("SELECT pg_catalog.pg_drop_replication_slot(%s)", (name,))
    except errors.UndefinedObject:
        return False
    except errors.ObjectInUse as error:
        raise SlotError(f"slot {name!r} is in use ({error}): stop its consumer first") from None
    return True


def open_slot(
    replication: ReplicationConnection,
    connection: psycopg.Connection[Any],
    identity: Identity,
    name: str | None,
    state: State | None,
    on_gap: str,
    former: tuple[int, Saved] | None = None,
    two_phase: bool = False,
) -> OpenSlot:
    """Find or create the slot, and compare it with what is remembered.

    `name` None makes a temporary slot. `former` is the walsender of our own lost connection, which is ended
    when it still holds the slot, and what this process remembers. Raises SlotError, GapError, ConfigurationError.
    """
    fresh = Saved(identity.system_id, identity.timeline, secrets.token_hex(4))
    maker = _Maker(replication, connection, state, fresh, two_phase)
    if name is None:
        return maker.temporary()
    former_pid, remembered = former or (None, None)
    row = _released(connection, name, former_pid)
    saved = state.load(connection, name) if state is not None else remembered
    if row is not None:
        _check_kind(name, row, identity)
    reason = _gap_reason(row, saved, identity, remembers=state is not None)
    if reason is not None:
        gap = Gap(reason, saved.position if saved is not None else None)
        if on_gap == "stop":
            raise _gap_error(name, gap, state)
        return maker.behind(gap, name, row)
    if row is None:
        return OpenSlot(name, False, maker.create(name))
    known = saved or fresh
    return OpenSlot(name, False, replace(known, flush_lsn=known.flush_lsn or row.confirmed_flush_lsn))


def start_command(slot: OpenSlot, parameters: str) -> str:
    """START_REPLICATION for the slot, with the plugin's options."""
    start = slot.saved.flush_lsn or Lsn(0)
    return f'START_REPLICATION SLOT "{slot.name}" LOGICAL {start} ({parameters})'


def _released(connection: psycopg.Connection[Any], name: str, former_pid: int | None) -> SlotRow | None:
    """The slot once nobody holds it. Raises SlotError when somebody still does after a short grace."""
    deadline = time.monotonic() + _GRACE
    while True:
        row = find_slot(connection, name)
        if row is None or row.active_pid is None:
            return row
        if row.active_pid == former_pid:
            connection.execute("SELECT pg_catalog.pg_terminate_backend(%s)", (former_pid,))
        elif time.monotonic() > deadline:
            raise SlotError(
                f"slot {name!r} is in use by process {row.active_pid} of the server: one consumer a slot. "
                "Stop the other consumer, or choose another slot name"
            )
        time.sleep(0.05)


def _check_kind(name: str, row: SlotRow, identity: Identity) -> None:
    if row.slot_type != "logical" or row.plugin != "pgoutput":
        kind = row.plugin or row.slot_type
        raise SlotError(f"slot {name!r} is a {kind} slot, which cdc cannot read: choose another slot name")
    if row.database != identity.database:
        raise SlotError(
            f"slot {name!r} belongs to database {row.database!r}, not {identity.database!r}: "
            "choose another slot name or mend the DSN"
        )


def _gap_reason(row: SlotRow | None, saved: Saved | None, identity: Identity, remembers: bool) -> str | None:
    """Why slot and memory do not fit together; None when they do."""
    created = saved is not None and saved.flush_lsn is not None
    if row is None:
        return "the slot is gone, but its position is remembered: somebody dropped it" if created else None
    if row.wal_status == "lost":
        return "the slot is lost: the server has removed WAL that it still needed (max_slot_wal_keep_size)"
    if saved is None:
        return "unknown past: the slot exists, but nothing is remembered of it" if remembers else None
    if (saved.system_id, saved.timeline) != (identity.system_id, identity.timeline):
        return "another server or timeline: the database was restored, or a standby took over"
    if saved.flush_lsn is not None and (row.confirmed_flush_lsn or 0) > saved.flush_lsn:
        return f"the slot was advanced by somebody else, from {saved.flush_lsn} to {row.confirmed_flush_lsn}"
    return None


def _gap_error(name: str, gap: Gap, state: State | None) -> GapError:
    way_out = f"run `cdc drop --slot {name}`" if state is None else state.way_out(name)
    return GapError(
        f"changes may be missing before slot {name!r} can go on: {gap.reason}. Bring your data up to date, then "
        f"start with on_gap='deliver' once, or {way_out} and start anew",
        gap,
    )


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes slots: over which connections, what is remembered of a new one and where, and of which kind."""

    replication: ReplicationConnection
    connection: psycopg.Connection[Any]
    state: State | None
    fresh: Saved
    two_phase: bool

    def behind(self, gap: Gap, name: str, row: SlotRow | None) -> OpenSlot:
        """The slot behind a gap: a new one unless it can still be read."""
        if row is not None and row.wal_status == "lost":
            drop_slot(self.connection, name)
            row = None
        if row is None:
            return OpenSlot(name, False, self.create(name), gap)
        return OpenSlot(name, False, replace(self.fresh, flush_lsn=row.confirmed_flush_lsn), gap)

    def create(self, name: str) -> Saved:
        """Create the slot. The intent is saved first, so that a crash in between is not taken for a gap."""
        self._save(name, self.fresh)
        created = replace(self.fresh, flush_lsn=self._create(name, temporary=False))
        self._save(name, created)
        log.info("slot.created", slot=name, lsn=str(created.flush_lsn))
        return created

    def temporary(self) -> OpenSlot:
        """A slot that goes with the connection."""
        name = f"cdc_{os.getpid()}_{self.fresh.epoch}"
        start = self._create(name, temporary=True)
        return OpenSlot(name, True, replace(self.fresh, flush_lsn=start))

    def _save(self, name: str, saved: Saved) -> None:
        if self.state is not None:
            self.state.save(self.connection, name, saved)

    def _create(self, name: str, temporary: bool) -> Lsn:
        """CREATE_REPLICATION_SLOT; the LSN from which it streams. Waits for running transactions, and says so."""
        running = [pid for (pid,) in self.connection.execute(_RUNNING).fetchall()]
        prepared = [gid for (gid,) in self.connection.execute(_PREPARED).fetchall()]
        if running or prepared:
            log.warning("slot.create.waits", slot=name, for_transactions_of=running, for_prepared=prepared)
        kind = "TEMPORARY LOGICAL" if temporary else "LOGICAL"
        quoted = sql.Identifier(name).as_string(self.connection)
        try:
            row = self.replication.query(f"CREATE_REPLICATION_SLOT {quoted} {kind} pgoutput {self._options()}")[0]
        except errors.ConfigurationLimitExceeded:
            raise SlotError(
                "all replication slots of the server are in use: drop one that nobody reads "
                "(SELECT * FROM pg_replication_slots), or raise max_replication_slots and restart the server"
            ) from None
        except errors.InvalidName as error:
            raise SlotError(f"{error}: a slot name has lower-case letters, digits and underscores") from None
        except errors.OperationalError as error:
            raise ConnectionFailed(f"the slot could not be created: {error}") from None
        return Lsn.parse(str(row[1]))

    def _options(self) -> str:
        """The options of CREATE_REPLICATION_SLOT; 14 knows only the old spelling."""
        if self.connection.info.server_version < 150000:
            return "NOEXPORT_SNAPSHOT"
        return "(SNAPSHOT 'nothing', TWO_PHASE)" if self.two_phase else "(SNAPSHOT 'nothing')"
