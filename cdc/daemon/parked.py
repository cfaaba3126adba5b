"""The command `cdc parked`: lists the events that handlers could not take, asks for another attempt, or drops them.

Touches the table cdc.parked, or with --file the file that stands in for it. It calls no handler: the consumer that
runs makes the attempt.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import psycopg

from cdc.connection import connect
from cdc.errors import CdcError, ConfigurationError
from cdc.lot import check_request
from cdc.park_file import ParkFile, default_files
from cdc.parked import Parked
from cdc.parking import Deed, load_parked, now, perform, reason_of
from cdc.pattern import table_name
from cdc.slot_row import find_slot

__all__ = ["parked"]

_LOOK = 0.2
_PATIENCE = 3.0
"""Seconds without a consumer after which none is expected; it may be connecting again."""
_F = TypeVar("_F", bound=Callable[..., Any])


class _Table:
    """The parked events of a database."""

    def __init__(self, dsn: str) -> None:
        self._connection = connect(dsn)

    def load(self) -> list[Parked]:
        """All of them, the oldest first."""
        try:
            return load_parked(self._connection)
        except psycopg.Error as error:
            raise _unusable(error) from None

    def do(self, deed: Deed) -> None:
        """Do it to one of them."""
        try:
            perform(self._connection, deed)
        except psycopg.Error as error:
            raise _unusable(error) from None

    def is_served(self, slot: str) -> bool:
        """Whether a consumer reads the slot at the moment."""
        row = find_slot(self._connection, slot)
        return row is not None and row.active_pid is not None

    def close(self) -> None:
        self._connection.close()


class _File:
    """The parked events of a file."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ConfigurationError(f"there is no file {path}")
        self._file = ParkFile(path)
        self._known: dict[str, Parked] = {}

    def load(self) -> list[Parked]:
        """All of them, the oldest first."""
        self._known = self._file.over({})
        return list(self._known.values())

    def do(self, deed: Deed) -> None:
        """Do it to one of them."""
        # The owner of the file has to find its name in each line.
        owner = next((each for each in self._file.deeds() if each["id"] == deed["id"]), {})
        self._file.append({name: owner[name] for name in ("slot", "cluster") if name in owner} | deed)

    def is_served(self, slot: str) -> bool:
        """Nobody can tell from a file."""
        return True

    def close(self) -> None:
        """Nothing is open."""


_Place = _Table | _File


def _options(command: _F) -> _F:
    for option in (
        click.option("--slot", metavar="NAME", help="Only those of this slot."),
        click.option("--table", metavar="TABLE", help="Only those of this table, `table` or `schema.table`."),
        click.option("--file", "file", type=click.Path(path_type=Path), help="A park_file instead of the database."),
        click.option("--dsn", envvar="CDC_DSN", help="The database. Without it, CDC_DSN is read."),
    ):
        command = option(command)
    return command


@click.group()
def parked() -> None:
    """Events that a handler with on_error="park" could not take: list, retry or drop them.

    \b
    cdc parked list
    cdc parked retry 3f9a1c0b77e2d450
    cdc parked drop --all --yes
    """


@parked.command("list")
@_options
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each, with all that is kept.")
def list_(dsn: str | None, file: Path | None, slot: str | None, table: str | None, as_json: bool) -> None:
    """List what is parked, the oldest first."""
    place = _place(dsn, file)
    try:
        found = _chosen(place, slot, table)
    finally:
        place.close()
        for path in default_files(slot) if file is None else ():
            click.echo(f"More may be in a file, which holds what the table could not: --file {path}", err=True)
    for each in found:
        click.echo(json.dumps(each.to_dict()) if as_json else _line(each))
    if not found and not as_json:
        click.echo("Nothing is parked.")


@parked.command()
@_options
@click.argument("ids", nargs=-1, metavar="ID…")
@click.option("--all", "everything", is_flag=True, help="All of them, but for those that are out of date.")
@click.option("--force", is_flag=True, help="Also those of which a later change of the row was delivered.")
@click.option("--wait", default=10.0, show_default=True, help="Seconds to wait for the consumer's attempts.")
def retry(
    dsn: str | None,
    file: Path | None,
    slot: str | None,
    table: str | None,
    ids: Sequence[str],
    everything: bool,
    force: bool,
    wait: float,
) -> None:
    """Let the running consumer hand events over again.

    The request is kept: a consumer that is not running makes the attempt when it runs. An event that is out of date,
    since a later change of its row was delivered, is refused unless --force is given.
    """
    place = _place(dsn, file)
    try:
        found = _asked(place, slot, table, ids, everything)
        if not ids and not force:
            for each in found:
                if each.superseded_by is not None:
                    click.echo(f"{each.id} is out of date and stays; --force retries it, `cdc parked drop` forgets it")
            found = [each for each in found if each.superseded_by is None]
        for each in found:
            check_request(each, force)
        for each in found:
            place.do({"do": "request", "id": each.id, "forced": force, "at": now().isoformat()})
        if not found:
            click.echo("Nothing to retry.")
        _follow(place, {each.id: each for each in found}, wait)
    finally:
        place.close()


@parked.command()
@_options
@click.argument("ids", nargs=-1, metavar="ID…")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(
    dsn: str | None,
    file: Path | None,
    slot: str | None,
    table: str | None,
    ids: Sequence[str],
    everything: bool,
    yes: bool,
) -> None:
    """Forget parked events for ever; their handlers never see them again."""
    place = _place(dsn, file)
    try:
        found = _asked(place, slot, table, ids, everything)
        if found and not yes:
            for each in found:
                click.echo(_line(each))
            try:
                is_wanted = click.confirm(f"Forget {len(found)} parked events for ever?")
            except click.Abort:
                raise CdcError("nothing was dropped: --yes goes without the question") from None
            if not is_wanted:
                raise CdcError("nothing was dropped")
        for each in found:
            place.do({"do": "remove", "id": each.id})
            click.echo(f"dropped {each.id}")
        if not found:
            click.echo("Nothing is parked.")
    finally:
        place.close()


def _place(dsn: str | None, file: Path | None) -> _Place:
    if file is not None:
        return _File(file)
    if dsn is None:
        raise click.UsageError("name the database with --dsn, or in the variable CDC_DSN; or a file with --file")
    return _Table(dsn)


def _unusable(error: psycopg.Error) -> CdcError:
    reason = reason_of(error)
    if (error.sqlstate or "08")[:2] in ("08", "57", "40", "53"):
        return CdcError(reason)
    return ConfigurationError(reason)


def _chosen(place: _Place, slot: str | None, table: str | None) -> list[Parked]:
    wanted = None if table is None else table_name(table)
    return [each for each in place.load() if slot in (None, each.slot) and wanted in (None, (each.schema, each.table))]


def _asked(place: _Place, slot: str | None, table: str | None, ids: Sequence[str], everything: bool) -> list[Parked]:
    """Those that the words of the command name. Raises ConfigurationError for an id that there is not."""
    if bool(ids) == bool(everything or (table is not None)):
        raise click.UsageError("name events by their ids, or take all with --all, or all of a table with --table")
    found = {each.id: each for each in _chosen(place, slot, table)}
    if not ids:
        return list(found.values())
    unknown = [id for id in ids if id not in found]
    if unknown:
        raise ConfigurationError(
            f"there is no parked event {', '.join(unknown)}; `cdc parked list` shows what there is"
        )
    return [found[id] for id in dict.fromkeys(ids)]


def _line(each: Parked) -> str:
    """One event in one line."""
    table = "" if each.table is None else f" {each.schema}.{each.table}"
    key = "" if each.key is None else f" {json.dumps(each.key)}"
    at = f" at {each.position}" if each.position else ""
    notes = [f"{each.attempts} attempts", f"{each.error_type}: {each.error}".splitlines()[0]]
    if each.superseded_by is not None:
        notes.append(f"out of date since {each.superseded_by}")
    if each.requested_at is not None:
        notes.append("retry asked for")
    told = "; ".join(notes)
    when = each.parked_at.isoformat(sep=" ", timespec="seconds")
    return f"{each.id}  {when}  {each.slot}  {each.subscription}: {each.operation}{table}{key}{at} ({told})"


def _follow(place: _Place, asked: dict[str, Parked], wait: float) -> None:
    """Say what becomes of the requests. Raises CdcError when an attempt failed."""
    deadline, unserved_since = time.monotonic() + wait, None
    failed = []
    while asked:
        left = {each.id: each for each in place.load()}
        for id, before in list(asked.items()):
            after = left.get(id)
            if after is not None and after.requested_at is not None:
                continue
            del asked[id]
            if after is None:
                click.echo(f"{id} was taken")
            else:
                failed.append(f"{id} ({_why(before, after)})")
        if _any_served(place, asked.values()):
            unserved_since = None
        elif unserved_since is None:
            unserved_since = time.monotonic()
        over = unserved_since is not None and time.monotonic() - unserved_since > _PATIENCE
        if not asked or over or time.monotonic() >= deadline:
            break
        time.sleep(_LOOK)
    for each in asked.values():
        click.echo(f"{each.id}: the request is kept. {_who(place, each)}")
    if failed:
        raise CdcError(f"not taken, and still parked: {', '.join(failed)}")


def _why(before: Parked, after: Parked) -> str:
    if after.attempts > before.attempts:
        return f"{after.error_type}: {after.error}"
    if after.superseded_by is not None:
        return f"a later change of its row was delivered, at {after.superseded_by}"
    return "refused; the consumer's log says why"


def _any_served(place: _Place, asked: Iterable[Parked]) -> bool:
    return any(place.is_served(slot) for slot in {each.slot for each in asked})


def _who(place: _Place, each: Parked) -> str:
    if not place.is_served(each.slot):
        return f"No consumer reads slot {each.slot!r} at the moment"
    return (
        f"The consumer of slot {each.slot!r} has not taken it up: is a subscription called {each.subscription!r} there?"
    )
