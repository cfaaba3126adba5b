"""Bookmarks: how far the snapshot of each subscription has come, kept beside the slot's position.

May import psycopg. A bookmark is saved before any position that lies behind what it tells of, so that after a crash a
part of the table comes again at worst.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg
from psycopg import errors

from cdc.errors import ConfigurationError
from cdc.state import DatabaseState, FileState, State

__all__ = ["Bookmark", "Bookmarks", "open_bookmarks"]


@dataclass(frozen=True, slots=True)
class Bookmark:
    """How far a snapshot has come.

    Attributes:
        epoch: the slot's life in which it was begun; in another one it means nothing.
        wanted: what the subscription wants to see; when that changes the table is read anew.
        done: whether every row was handed over, or none was asked for.
        oid: OID of the table; another one under its name is read from its beginning.
        after: the key, as text, up to which all was read; None at the beginning.
        again: keys that have to be read once more.
        rows: rows handed over so far.
        chunks: chunks that are finished.
        lsn: where rows were handed over last, as a number.
        ordinal: how many were handed over there.
    """

    epoch: str
    wanted: str
    done: bool = False
    oid: int | None = None
    after: tuple[str, ...] | None = None
    again: tuple[tuple[str, ...], ...] = ()
    rows: int = 0
    chunks: int = 0
    lsn: int = 0
    ordinal: int = 0


class Bookmarks(Protocol):
    """Where bookmarks are kept."""

    def load(self, connection: psycopg.Connection[Any], slot: str) -> dict[str, Bookmark]:
        """The bookmarks of a slot, by the name of the subscription."""

    def save(
        self,
        connection: psycopg.Connection[Any],
        slot: str,
        marks: Mapping[str, Bookmark],
        changed: Collection[str],
        gone: Collection[str],
    ) -> None:
        """Remember `marks`, of which those in `changed` differ from what was saved; forget those in `gone`."""


_LOAD = "SELECT name, bookmark FROM cdc.snapshots WHERE slot = %s"
_SAVE = """
INSERT INTO cdc.snapshots (slot, name, bookmark, saved_at) VALUES (%s, %s, %s, now())
ON CONFLICT (slot, name) DO UPDATE SET bookmark = excluded.bookmark, saved_at = now()
"""
_FORGET = "DELETE FROM cdc.snapshots WHERE slot = %s AND name = ANY (%s)"
_REMEDY = (
    "run `cdc setup --dsn …` again as a role that may create it, with the same --role, or pass state=PATH to keep "
    "positions and snapshots in local files"
)


class DatabaseBookmarks:
    """Rows of `cdc.snapshots` on the server itself."""

    def load(self, connection: psycopg.Connection[Any], slot: str) -> dict[str, Bookmark]:
        """See `Bookmarks.load`. Raises ConfigurationError when the table is missing or not readable."""
        try:
            rows = connection.execute(_LOAD, (slot,)).fetchall()
        except (errors.UndefinedTable, errors.InvalidSchemaName, errors.InsufficientPrivilege) as error:
            raise ConfigurationError(f"the table cdc.snapshots cannot be used ({_said(error)}): {_REMEDY}") from error
        return {name: _bookmark(fields) for name, fields in rows}

    def save(
        self,
        connection: psycopg.Connection[Any],
        slot: str,
        marks: Mapping[str, Bookmark],
        changed: Collection[str],
        gone: Collection[str],
    ) -> None:
        """See `Bookmarks.save`."""
        try:
            for name in changed:
                connection.execute(_SAVE, (slot, name, json.dumps(asdict(marks[name]))))
            if gone:
                connection.execute(_FORGET, (slot, list(gone)))
        except (errors.UndefinedTable, errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction) as error:
            raise ConfigurationError(f"the table cdc.snapshots cannot be used ({_said(error)}): {_REMEDY}") from error


class FileBookmarks:
    """A local JSON file beside the one of the position."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, connection: psycopg.Connection[Any], slot: str) -> dict[str, Bookmark]:
        """See `Bookmarks.load`. Raises ConfigurationError when the file is not one of ours."""
        try:
            return {name: _bookmark(fields) for name, fields in json.loads(self._path.read_text()).items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{self._path} is not a file of cdc's snapshots ({error}); delete it, and tables are read anew"
            ) from None

    def save(
        self,
        connection: psycopg.Connection[Any],
        slot: str,
        marks: Mapping[str, Bookmark],
        changed: Collection[str],
        gone: Collection[str],
    ) -> None:
        """See `Bookmarks.save`: written beside, synced, then renamed over."""
        beside = self._path.with_name(self._path.name + ".new")
        try:
            with beside.open("w") as file:
                json.dump({name: asdict(mark) for name, mark in marks.items()}, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as error:
            raise ConfigurationError(f"snapshots cannot be saved to {self._path}: {error.strerror}") from error


def open_bookmarks(state: State | None) -> Bookmarks | None:
    """Where bookmarks go, by where the position goes; None when nothing is remembered."""
    if isinstance(state, DatabaseState):
        return DatabaseBookmarks()
    if isinstance(state, FileState):
        return FileBookmarks(state._path.with_name(state._path.name + ".snapshots"))
    return None


def _bookmark(fields: dict[str, Any]) -> Bookmark:
    after, again = fields.pop("after"), fields.pop("again")
    return Bookmark(**fields, after=None if after is None else tuple(after), again=tuple(tuple(key) for key in again))


def _said(error: psycopg.Error) -> str:
    """What the server said, without the statement that it quotes."""
    return error.diag.message_primary or str(error)
