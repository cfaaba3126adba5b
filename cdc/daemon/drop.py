"""The command `cdc drop`: removes a replication slot or, if asked, everything that `cdc setup` made.

Touches the slots that it is told of or that cdc.slots names, their rows, and what cdc.made notes. It refuses before
it changes anything when a slot is in use.
"""

from __future__ import annotations

from typing import Any

import click
import psycopg

from cdc.connection import connect
from cdc.daemon.scripts import PREPARATION, Notices, execute, quoted, read_script, refusal
from cdc.errors import SlotError
from cdc.slot_row import drop_slot, find_slot

__all__ = ["drop"]

_REMOVE = "08_remove.sql"


@click.command()
@click.option("--dsn", envvar="CDC_DSN", required=True, help="The database. Without it, CDC_DSN is read.")
@click.option("--slot", metavar="NAME", help="The slot to remove, and its row in cdc.slots.")
@click.option("--everything", is_flag=True, help="Undo all that cdc setup made, and remove the slots of cdc.slots.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, as a script for psql, and do nothing.")
def drop(dsn: str, slot: str | None, everything: bool, dry_run: bool) -> None:
    """Remove a slot or, with --everything, all that cdc setup made.

    What was in the database before setup stays. Stop the consumer first: a slot in use is refused, and then nothing
    is removed. Tables and their rows are never touched.

    \b
    cdc drop --slot ingest
    cdc drop --everything --dry-run
    """
    if not slot and not everything:
        raise click.UsageError("say what to remove: --slot NAME, or --everything")
    with connect(dsn) as connection:
        notices = Notices(connection)
        try:
            removal = _Removal(connection, slot, everything)
            if dry_run:
                click.echo("\n".join(removal.script()))
                return
            with connection.transaction():
                said = removal.run()
        except psycopg.Error as error:
            raise refusal(error, connection.info.user) from None
    notices.echo()
    for line in said:
        click.echo(line)


class _Removal:
    """What is to be removed. Raises SlotError when one of the slots cannot be."""

    def __init__(self, connection: psycopg.Connection[Any], slot: str | None, everything: bool) -> None:
        self._connection = connection
        self._everything = everything
        kept = connection.execute("SELECT to_regclass('cdc.slots') IS NOT NULL").fetchone() == (True,)
        rows = connection.execute("SELECT slot FROM cdc.slots ORDER BY slot").fetchall() if kept else []
        noted = [name for (name,) in rows]
        self._asked = slot
        self._rows = noted if everything else [name for name in noted if name == slot]
        names = dict.fromkeys([*filter(None, [slot]), *self._rows])
        self._slots = [name for name in names if self._removable(name)]

    def script(self) -> list[str]:
        """The statements, for psql."""
        lines = ["\\set ON_ERROR_STOP on", "BEGIN;"]
        lines += [f"DELETE FROM cdc.slots WHERE slot = {quoted(name)};" for name in self._rows]
        if self._everything:
            lines += ["-- What is noted in cdc.made; the script below executes it:"]
            lines += [f"--   {undo}" for undo in self._undo()] or ["--   nothing"]
            lines += [*PREPARATION, read_script(_REMOVE)]
        lines += [f"SELECT pg_catalog.pg_drop_replication_slot({quoted(name)});" for name in self._slots]
        return [*lines, "COMMIT;"]

    def run(self) -> list[str]:
        """Remove it all in the caller's transaction, the slots last, and say what was removed.

        Dropping a slot cannot be undone; what might fail comes before.
        """
        said = []
        for name in self._rows:
            self._connection.execute("DELETE FROM cdc.slots WHERE slot = %s", (name,))
            said.append(f"removed what was remembered of slot {name!r}")
        if self._everything:
            execute(self._connection, [*PREPARATION, read_script(_REMOVE)])
        said += [f"removed slot {name!r}" for name in self._slots if drop_slot(self._connection, name)]
        if self._asked is not None and self._asked not in self._slots:
            said.append(f"there is no slot {self._asked!r}")
        return said

    def _undo(self) -> list[str]:
        if self._connection.execute("SELECT to_regclass('cdc.made') IS NULL").fetchone() == (True,):
            return []
        return [undo for (undo,) in self._connection.execute("SELECT undo FROM cdc.made ORDER BY id DESC").fetchall()]

    def _removable(self, name: str) -> bool:
        """Whether the slot exists and may be dropped. Raises SlotError when it was asked for and may not."""
        row = find_slot(self._connection, name)
        if row is None:
            return False
        if row.slot_type != "logical" or row.database != self._connection.info.dbname:
            if name != self._asked:
                return False  # Of the same name as one that this database had.
            owner = "no database" if row.database is None else f"database {row.database!r}"
            raise SlotError(
                f"slot {name!r} is a {row.slot_type} slot of {owner}: connect to the database it belongs to"
            )
        if row.active_pid is not None:
            raise SlotError(
                f"slot {name!r} is in use by process {row.active_pid} of the server: stop its consumer first. "
                "Nothing was removed"
            )
        return True
