"""The command `cdc slots`: every logical slot of a server, who reads it, and what it keeps of the WAL.

Touches the terminal; reads pg_replication_slots and, where it may, cdc.slots. It changes nothing.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import psycopg

from cdc.connection import connect
from cdc.slot_row import SlotRow, logical_slots
from cdc.wal_budget import WalBudget, WalWatch, bytes_in_words, seconds_in_words

__all__ = ["slots"]

_SAVED = """
SELECT slot, epoch, CASE WHEN commit_lsn IS NOT NULL THEN epoch || ':' || commit_lsn || ':' || ordinal END,
       saved_at::timestamptz(0)::text
FROM cdc.slots
"""
_HEADINGS = ("slot", "plug-in", "database", "reader", "saved", "keeps", "safe", "per s", "lost in", "status")


@dataclass(frozen=True, slots=True)
class _Line:
    """One slot, with what cdc.slots remembers of it: epoch, position and when that was saved."""

    row: SlotRow
    budget: WalBudget
    saved: tuple[str | None, str | None, str | None]

    @property
    def status(self) -> str:
        """What the server says of it: why it was given up, else how well its WAL is kept."""
        return self.row.invalidation or self.row.wal_status or "-"

    def cells(self) -> list[str]:
        """The line of the table."""
        row, budget = self.row, self.budget
        rate = "-" if budget.rate is None else bytes_in_words(budget.rate)
        reader = "nobody" if row.active_pid is None else str(row.active_pid)
        return [
            row.name,
            row.plugin or "-",
            row.database or "-",
            reader,
            self.saved[2] or "-",
            bytes_in_words(budget.retained_bytes),
            bytes_in_words(budget.safe_bytes),
            rate,
            seconds_in_words(budget.lost_in),
            self.status,
        ]

    def to_dict(self) -> dict[str, Any]:
        """The same and more, ready for JSON."""
        epoch, position, saved_at = self.saved
        return {
            "slot": self.row.name,
            "plugin": self.row.plugin,
            "database": self.row.database,
            "temporary": self.row.temporary,
            "failover": self.row.failover,
            "active_pid": self.row.active_pid,
            "confirmed_lsn": None if self.row.confirmed_flush_lsn is None else str(self.row.confirmed_flush_lsn),
            "epoch": epoch,
            "position": position,
            "saved_at": saved_at,
            **self.budget.to_dict(),
            "invalidation": self.row.invalidation,
            "warning": self.budget.warning,
        }


def _interval(ctx: click.Context, parameter: click.Parameter, value: float) -> float:
    if not 0 <= value < math.inf:
        raise click.BadParameter("a number of seconds, 0 or more", ctx, parameter)
    return value


@click.command()
@click.option("--dsn", envvar="CDC_DSN", required=True, help="The server. Without it, CDC_DSN is read.")
@click.option(
    "--interval",
    type=float,
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    callback=_interval,
    help="Time between two looks, from which the rate is taken; 0 looks once.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each slot.")
def slots(dsn: str, interval: float, as_json: bool) -> int:
    """Show every logical slot of the server, and what it keeps of the WAL.

    `saved` is when a consumer of this database last saved its position. `keeps` is the WAL that the server holds back
    for the slot, `safe` what can still be written before max_slot_wal_keep_size is reached, `per s` how fast `keeps`
    grows, and `lost in` when the limit is reached at this rate.

    Ends with code 1 when a slot is lost or may be lost soon.

    \b
    cdc slots --dsn postgresql://app@db/app
    cdc slots --interval 10 --json
    """
    with connect(dsn) as connection:
        lines = _look(connection, interval)
    if as_json:
        for line in lines:
            click.echo(json.dumps(line.to_dict()))
    else:
        click.echo("\n".join(_table([_HEADINGS, *(line.cells() for line in lines)]) if lines else ["there is no slot"]))
        for line in lines:
            if line.budget.warning is not None:
                click.echo(f"warning: {line.row.name}: {line.budget.warning}", err=True)
    return 1 if any(line.budget.is_critical for line in lines) else 0


def _look(connection: psycopg.Connection[Any], interval: float) -> list[_Line]:
    """Look twice, `interval` seconds apart; once when it is 0."""
    watches: dict[str, WalWatch] = {}

    def look() -> list[tuple[SlotRow, WalBudget]]:
        now = time.monotonic()
        rows = logical_slots(connection)
        return [(row, watches.setdefault(row.name, WalWatch()).look(row.usage, now)) for row in rows]

    seen = look()
    if interval and seen:
        time.sleep(interval)
        seen = look()
    saved = _saved(connection)
    database = connection.info.dbname
    unknown = (None, None, None)
    return [
        _Line(row, budget, saved.get(row.name, unknown) if row.database == database else unknown)
        for row, budget in seen
    ]


def _saved(connection: psycopg.Connection[Any]) -> dict[str, tuple[str | None, str | None, str | None]]:
    """What cdc.slots of this database remembers; nothing where it is not there, or this role may not read it."""
    try:
        rows = connection.execute(_SAVED).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.InsufficientPrivilege):
        return {}
    return {slot: (epoch, position, saved_at) for slot, epoch, position, saved_at in rows}


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
