"""Making a slot on the server, and changing one: the grammar of each version, and what may go wrong.

May import psycopg. The manual: "CREATE_REPLICATION_SLOT", "ALTER_REPLICATION_SLOT", "pg_replication_slot_advance".
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors, pq, sql

from cdc.connection import ReplicationConnection
from cdc.errors import CdcError, ConnectionFailed, FailureKind, SlotError
from cdc.failures import first_line
from cdc.log import log
from cdc.lsn import Lsn

__all__ = ["SlotMaker"]

_RUNNING = "SELECT pid FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
_PREPARED = "SELECT gid FROM pg_catalog.pg_prepared_xacts"
_ADVANCE = """
SELECT end_lsn::text FROM pg_catalog.pg_replication_slot_advance(%s,
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
         ELSE pg_catalog.pg_current_wal_flush_lsn() END)
"""


@dataclass(frozen=True, slots=True)
class SlotMaker:
    """Makes slots.

    Attributes:
        replication: the connection that makes them, before it streams.
        connection: an ordinary connection to the same server.
        two_phase: whether prepared transactions are sent when they are prepared.
        failover: whether standbys are to keep a copy.
    """

    replication: ReplicationConnection
    connection: psycopg.Connection[Any]
    two_phase: bool
    failover: bool

    def create(self, name: str, temporary: bool) -> Lsn:
        """CREATE_REPLICATION_SLOT; the LSN from which it streams. Waits for running transactions, and says so."""
        running = [pid for (pid,) in self.connection.execute(_RUNNING).fetchall()]
        prepared = [gid for (gid,) in self.connection.execute(_PREPARED).fetchall()]
        if running or prepared:
            log.warning("slot.create.waits", slot=name, for_transactions_of=running, for_prepared=prepared)
        kind = "TEMPORARY LOGICAL" if temporary else "LOGICAL"
        try:
            row = self.replication.query(
                f"CREATE_REPLICATION_SLOT {self._quoted(name)} {kind} pgoutput {self._options()}"
            )[0]
        except errors.ConfigurationLimitExceeded:
            raise SlotError(
                "all replication slots of the server are in use: drop one that nobody reads "
                "(`cdc slots` shows them), or raise max_replication_slots and restart the server"
            ) from None
        except errors.InvalidName as error:
            raise SlotError(
                f"{error}: a slot name has lower-case letters, digits and underscores",
                failure=FailureKind.CONFIGURATION,
            ) from None
        except errors.OperationalError as error:
            raise ConnectionFailed(f"the slot could not be created: {error}") from None
        except ConnectionFailed:
            self._give_up()
            raise
        return Lsn.parse(str(row[1]))

    def _give_up(self) -> None:
        """Nobody waits for the slot any more: end the walsender, which would make it all the same, and hold it."""
        if self.connection.info.transaction_status is pq.TransactionStatus.IDLE:
            with suppress(CdcError, psycopg.Error):
                pid = self.replication.process_id
                self.connection.execute("SELECT pg_catalog.pg_terminate_backend(%s)", (pid,))

    def let_fail_over(self, name: str) -> None:
        """ALTER_REPLICATION_SLOT: let standbys keep a copy of a slot that was made without."""
        try:
            self.replication.query(f"ALTER_REPLICATION_SLOT {self._quoted(name)} (FAILOVER true)")
        except (errors.ObjectNotInPrerequisiteState, errors.FeatureNotSupported) as error:
            raise SlotError(
                f"slot {name!r} cannot be made a failover slot ({first_line(error)}): leave out failover=True, or make "
                "the slot anew with it",
                failure=FailureKind.CONFIGURATION,
            ) from None
        log.info("slot.failover", slot=name)

    def advance(self, name: str) -> Lsn:
        """Move the slot to the end of the WAL, without reading what lies before; where it is then."""
        row = self.connection.execute(_ADVANCE, (name,)).fetchone()
        assert row is not None
        return Lsn.parse(row[0])

    def _quoted(self, name: str) -> str:
        return sql.Identifier(name).as_string(self.connection)

    def _options(self) -> str:
        """The options of CREATE_REPLICATION_SLOT; 14 knows only the old spelling."""
        if self.connection.info.server_version < 150000:
            return "NOEXPORT_SNAPSHOT"
        chosen = ["SNAPSHOT 'nothing'"]
        if self.two_phase:
            chosen.append("TWO_PHASE")
        if self.failover:
            chosen.append("FAILOVER")
        return f"({', '.join(chosen)})"
