"""The command `cdc replay`: a recorded stream as JSON lines, through handlers, or checked.

Reads the recording. Touches stdout, stderr and what the handlers touch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from cdc import Event, Position
from cdc.daemon.handlers import load_handler
from cdc.errors import ConfigurationError
from cdc.sinks import JsonLines
from cdc.testing import Checked, Replay, check_recording
from cdc.testing import replay as replay_of

__all__ = ["replay"]


@click.command()
@click.argument("file", type=click.Path())
@click.option("--table", multiple=True, metavar="TABLE", help="Can be repeated; all published tables when left out.")
@click.option("--filter", metavar="COLUMN=eq.VALUE", help="Rows to take, of the one table that is named.")
@click.option("--operations", metavar="LIST", help="Of insert,update,delete,truncate; all when left out.")
@click.option("--handlers", metavar="MODULE:FUNCTION", multiple=True, help="Call it instead of printing; repeatable.")
@click.option("--until", metavar="POSITION", help="End behind the change at this position.")
@click.option("--check", is_flag=True, help="Prove order, links and completeness instead of printing.")
def replay(
    file: str,
    table: Sequence[str],
    filter: str | None,
    operations: str | None,
    handlers: Sequence[str],
    until: str | None,
    check: bool,
) -> int:
    """Make the events of a recorded stream again, without a server.

    FILE is what consumer.record() wrote. Prints the events as JSON lines.

    \b
    cdc replay stream.cdc --table wells
    cdc replay stream.cdc --handlers app.changes:push
    cdc replay stream.cdc --check
    """
    if filter is not None and len(table) != 1:
        raise click.UsageError("--filter needs one --table: its columns are those of a table")
    if check:
        if table or filter or operations or handlers or until:
            raise click.UsageError("--check looks at the whole recording: it goes with no other option")
        return _said(check_recording(file))
    again = replay_of(file, until=_position(until))
    tables = table or again.tables
    chosen = None if operations is None else [name.strip() for name in operations.split(",")]
    for handler in _handlers(handlers):
        for each in tables:
            again.subscribe(each, handler, operations=chosen, filter=filter)
        if not table and again.has_messages:
            again.on_message("*")(handler)
    _run(again)
    return 0


def _handlers(specs: Sequence[str]) -> list[Callable[[Event], Any]]:
    return [load_handler(spec) for spec in specs] or [JsonLines(None)]


def _run(again: Replay) -> None:
    try:
        again.run()
    finally:
        for note in again.notes:
            click.echo(f"cdc: {note}", err=True)


def _position(text: str | None) -> Position | None:
    if text is None:
        return None
    try:
        return Position.parse(text)
    except ValueError as error:
        raise ConfigurationError(f"--until: {error}") from None


def _said(found: Checked) -> int:
    """Say what a check has found; the exit code."""
    for problem in found.problems:
        click.echo(problem)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    again = f", {found.again} of them again after a restart" if found.again else ""
    verdict = "sound" if found.is_sound else f"{len(found.problems)} problems"
    click.echo(f"{verdict}: {found.frames} frames, {found.events} events{again}")
    sys.stdout.flush()
    return 0 if found.is_sound else 1
