"""The command `cdc tail`: prints the changes of a table for a person to read.

Touches stdout, stderr and the signal handlers of this process. What it prints comes from a database, so control
characters are shown, never sent to the terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from cdc import (
    UNCHANGED,
    Change,
    Consumer,
    Delete,
    Effect,
    Event,
    Gap,
    GapKind,
    Insert,
    Prepared,
    Read,
    Row,
    SchemaChange,
    Subject,
    Truncate,
    Update,
)
from cdc.daemon.service import Signals, run_until_told
from cdc.sinks import json_line

__all__ = ["tail"]

_COLOURS = {Read: "green", Insert: "green", Update: "yellow", Delete: "red", Truncate: "magenta"}
_IDENTITIES = {"d": "default", "n": "nothing", "f": "full", "i": "an index"}
_HARMLESS = frozenset({GapKind.RIGHTS, GapKind.SUBJECT_EXPIRED})
"""Gaps that say what a subject may see: nothing was lost."""
_LONGEST = 60
"""Characters of a value that are shown; --json has all."""


@click.command()
@click.argument("table")
@click.option("--dsn", envvar="CDC_DSN", required=True, help="The server; the variable CDC_DSN gives it as well.")
@click.option("--publication", multiple=True, default=("wells",), show_default=True, help="Can be repeated.")
@click.option("--filter", metavar="COLUMN=eq.VALUE", help="Rows to show.")
@click.option("--operations", metavar="LIST", help="Of insert,update,delete,truncate; all when left out.")
@click.option("--as", "role", metavar="ROLE", help="Show what this role may see.")
@click.option("--claims", metavar="JSON", help='The role\'s claims, such as \'{"sub": "…"}\'.')
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@click.option("--slot", metavar="NAME", help="Read this slot, and let it move on, instead of beginning now.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
def tail(
    table: str,
    dsn: str,
    publication: tuple[str, ...],
    filter: str | None,
    operations: str | None,
    role: str | None,
    claims: str | None,
    as_json: bool,
    slot: str | None,
    count: int | None,
) -> None:
    """Print the changes of TABLE as they come, from now on, until Ctrl-C.

    It reads with a temporary slot, which leaves nothing behind. With --slot it reads a slot that remembers: what is
    printed is acknowledged and does not come again.

    \b
    cdc tail wells
    cdc tail wells --as authenticated --claims '{"sub": "…"}' --json
    """
    if claims is not None and role is None:
        raise click.UsageError("--claims needs --as: claims are those of a role")
    consumer = Consumer(dsn, publication=publication, slot=slot)
    printer = _Printer(json_line if as_json else _readable(sys.stdout.isatty()), consumer.stop, count)
    subscription = consumer.subscribe(
        table,
        printer.receive,
        operations=None if operations is None else [name.strip() for name in operations.split(",")],
        filter=filter,
        subject=None if role is None else Subject(role, claims),
    )
    who = "" if role is None else f" as {role}"
    waits = f"Waiting for changes of {table}{who} in publication {', '.join(publication)}. Ctrl-C ends it."

    def ready() -> None:
        click.echo(waits, err=True)
        if subscription.denied is not None:
            click.echo(f"Nothing is visible at the moment: {_visible(subscription.denied)}", err=True)

    with Signals() as signals:
        run_until_told(consumer, signals, ready)


class _Printer:
    """Prints events, and stops the consumer when it has printed enough or nobody reads any more."""

    def __init__(self, line: Callable[[Event], str], stop: Callable[[], None], count: int | None) -> None:
        self._line = line
        self._stop = stop
        self._left = count
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")

    def receive(self, event: Event) -> None:
        """Print one event."""
        try:
            sys.stdout.write(self._line(event) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            # As with `cdc tail … | head`. Python would complain at its end about what it could not flush.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._stop()
            return
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._stop()


def _readable(colours: bool) -> Callable[[Event], str]:
    """Gives an event's line for a person, with colours or without."""
    console = Console(force_terminal=colours, highlight=False, soft_wrap=True)

    def line(event: Event) -> str:
        text = _change(event) if isinstance(event, Change | Read) else _told(event)
        if not colours:
            return text.plain
        with console.capture() as captured:
            console.print(text, end="")
        return captured.get()

    return line


def _told(event: Gap | SchemaChange | Prepared) -> Text:
    """What is no change of rows."""
    if isinstance(event, Gap):
        missing = "" if event.kind in _HARMLESS else "changes may be missing here: "
        return Text.assemble(("GAP", "bold red"), f" {missing}{_visible(event.reason)}")
    if isinstance(event, Prepared):
        what = "rolled back" if event.rolled_back else "prepared"
        return Text.assemble(("PREPARED", "bold"), f" transaction {_visible(event.gid)} was {what}")
    table = _visible(str(event.relation))
    return Text.assemble(("SCHEMA", "bold"), f" {table} looks different from here: {'; '.join(_differences(event))}")


def _differences(event: SchemaChange) -> list[str]:
    """What is different, in words."""
    columns = (("added", event.added), ("dropped", event.dropped), ("changed", event.changed))
    found = [f"{verb} {_listed(names)}" for verb, names in columns if names]
    if event.key_columns != event.old_key_columns:
        found.append(f"the key is {_listed(event.key_columns) or 'none'}")
    if event.identity != event.old_identity:
        found.append(f"the replica identity is {_IDENTITIES.get(event.identity, event.identity)}")
    return found or ["the columns stand in another order"]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(_visible, names))


def _change(event: Change | Read) -> Text:
    """Time, operation, table and key, what it means to the viewer, and the values."""
    name = event.table if event.schema == "public" else f"{event.schema}.{event.table}"
    time = event.commit_time.astimezone().strftime("%H:%M:%S.%f")[:-3]
    text = Text.assemble((time, "dim"), " ", (f"{event.event_type:<8}", _COLOURS[type(event)]), f" {_visible(name)}")
    if isinstance(event, Truncate):
        return text
    key = event.key
    if key is not None:
        text.append(f" {', '.join(map(_value, key)) if isinstance(key, tuple) else _value(key)}", "bold")
    if isinstance(event, Update) and event.effect is not Effect.STAY:
        text.append(f" {event.effect}", "cyan")
    for column, shown in _values(event):
        text.append(f"  {_visible(column)}=", "dim").append(shown)
    return text


def _values(event: Insert | Update | Delete | Read) -> list[tuple[str, str]]:
    """The columns worth showing, each with its text: of an update those that changed, where that is known."""
    new, old = event.new, event.old
    if new is None:
        return [(name, _value(value)) for name, value in _items(old)]
    if old is None or isinstance(event, Insert):
        return [(name, _value(value)) for name, value in _items(new)]
    before = dict(_items(old))
    after = [(name, value) for name, value in _items(new) if value is not UNCHANGED]
    if set(before) < set(new):  # Only the key came with it: what else changed is not known.
        return [(name, _step(before, name, value)) for name, value in after]
    return [(name, _step(before, name, value)) for name, value in after if before[name] != value]


def _items(row: Row | None) -> list[tuple[str, Any]]:
    """Each column with the server's own text, None or UNCHANGED."""
    return [] if row is None else [(name, _cell(row, name)) for name in row]


def _cell(row: Row, name: str) -> Any:
    try:
        return row.text(name)
    except ValueError:  # The server did not send it.
        return UNCHANGED


def _step(before: dict[str, Any], name: str, value: Any) -> str:
    if name not in before or before[name] == value:
        return _value(value)
    return f"{_value(before[name])} → {_value(value)}"


def _value(value: Any) -> str:
    if value is None:
        return "NULL"
    if value is UNCHANGED:
        return "(unchanged)"
    text = _visible(str(value))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _visible(text: str) -> str:
    """The text with control characters and the like written out."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
