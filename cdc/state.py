"""What a consumer remembers about its slot between two processes: epoch, position, flush LSN.

May import psycopg. The row is saved just before the server is told to advance, so that a server that is
further than the row has been advanced by somebody else, which is a gap.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg
from psycopg import errors

from cdc.errors import ConfigurationError
from cdc.lsn import Lsn, Position

__all__ = ["DatabaseState", "FileState", "Saved", "State", "open_state"]


@dataclass(frozen=True, slots=True)
class Saved:
    """What is remembered of a slot.

    Attributes:
        system_id: the cluster's identifier, as IDENTIFY_SYSTEM gives it.
        timeline: its timeline.
        epoch: token of the slot's life.
        position: the last change that every handler has finished, else None.
        flush_lsn: the LSN that the server was allowed to forget; None when the slot was about to be created.
        publications: names of the publications that were streamed. Ordinals count what these send, so that a
            position inside a transaction means nothing with other ones.
        publication_oids: their OIDs, in the same order. One that was dropped and made again has another.
        rights: id of the last row of cdc.rights before `flush_lsn`; None when it is not known.
    """

    system_id: str
    timeline: int
    epoch: str
    position: Position | None = None
    flush_lsn: Lsn | None = None
    publications: tuple[str, ...] = ()
    publication_oids: tuple[int, ...] = ()
    rights: int | None = None


class State(Protocol):
    """Where `Saved` is kept."""

    def load(self, connection: psycopg.Connection[Any], slot: str) -> Saved | None:
        """What is remembered of the slot."""

    def save(self, connection: psycopg.Connection[Any], slot: str, saved: Saved) -> None:
        """Remember it, durably."""

    def way_out(self, slot: str) -> str:
        """What a person does to forget the slot and start anew."""


_LOAD = """
SELECT system_id, timeline, epoch, commit_lsn::text, ordinal, flush_lsn::text, publications, publication_oids,
       rights
FROM cdc.slots WHERE slot = %s
"""
_SAVE = """
INSERT INTO cdc.slots (slot, system_id, timeline, epoch, commit_lsn, ordinal, flush_lsn, publications,
                       publication_oids, rights, saved_at)
VALUES (%(slot)s, %(system_id)s, %(timeline)s, %(epoch)s, %(commit_lsn)s, %(ordinal)s, %(flush_lsn)s,
        %(publications)s, %(publication_oids)s::oid[], %(rights)s, now())
ON CONFLICT (slot) DO UPDATE SET
    system_id = excluded.system_id, timeline = excluded.timeline, epoch = excluded.epoch,
    commit_lsn = excluded.commit_lsn, ordinal = excluded.ordinal, flush_lsn = excluded.flush_lsn,
    publications = excluded.publications, publication_oids = excluded.publication_oids, rights = excluded.rights,
    saved_at = now()
"""
_REMEDY = (
    "run `cdc setup --dsn …` as a role that may create it (it makes the schema cdc and the table cdc.slots), "
    "or pass state=PATH to keep the position in a local file, or state=None to keep nothing"
)
_UPGRADE = "run `cdc setup --dsn …` again, as the role that ran it before; it adds what is new and keeps what is there"


class DatabaseState:
    """A row of `cdc.slots` on the server itself."""

    def load(self, connection: psycopg.Connection[Any], slot: str) -> Saved | None:
        """See `State.load`. Raises ConfigurationError when the table is missing or not readable."""
        try:
            row = connection.execute(_LOAD, (slot,)).fetchone()
        except errors.UndefinedColumn as error:
            raise ConfigurationError(f"the table cdc.slots is of an older version of cdc: {_UPGRADE}") from error
        except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
            raise ConfigurationError(f"the table cdc.slots is missing: {_REMEDY}") from error
        except errors.InsufficientPrivilege as error:
            raise ConfigurationError(f"this role may not use cdc.slots ({error}): {_REMEDY}") from error
        if row is None:
            return None
        system_id, timeline, epoch, commit_lsn, ordinal, flush_lsn, publications, oids, rights = row
        position = None if commit_lsn is None else Position(epoch, Lsn.parse(commit_lsn), ordinal)
        flush = None if flush_lsn is None else Lsn.parse(flush_lsn)
        return Saved(system_id, timeline, epoch, position, flush, tuple(publications), tuple(oids), rights)

    def save(self, connection: psycopg.Connection[Any], slot: str, saved: Saved) -> None:
        """See `State.save`."""
        position = saved.position
        values = {
            "slot": slot,
            "system_id": saved.system_id,
            "timeline": saved.timeline,
            "epoch": saved.epoch,
            "commit_lsn": None if position is None else str(position.commit_lsn),
            "ordinal": None if position is None else position.ordinal,
            "flush_lsn": None if saved.flush_lsn is None else str(saved.flush_lsn),
            "publications": list(saved.publications),
            "publication_oids": list(saved.publication_oids),
            "rights": saved.rights,
        }
        try:
            connection.execute(_SAVE, values)
        except (errors.UndefinedTable, errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction) as error:
            raise ConfigurationError(f"the position cannot be saved ({error}): {_REMEDY}") from error

    def way_out(self, slot: str) -> str:
        """See `State.way_out`."""
        return f"run `cdc drop --slot {slot}`"


class FileState:
    """A local JSON file, for a standby or a role without the right to write. One slot a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, connection: psycopg.Connection[Any], slot: str) -> Saved | None:
        """See `State.load`. Raises ConfigurationError when the file is not one of ours, or another slot's."""
        try:
            fields = json.loads(self._path.read_text())
            if fields.pop("slot") != slot:
                raise ConfigurationError(f"{self._path} belongs to another slot; give each slot a file of its own")
            position, flush = fields.pop("position"), fields.pop("flush_lsn")
            fields["publications"] = tuple(fields["publications"])
            fields["publication_oids"] = tuple(fields.get("publication_oids", ()))
            return Saved(**fields, position=position and Position.parse(position), flush_lsn=flush and Lsn.parse(flush))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{self._path} is not a position file of cdc ({error}); delete or mend it"
            ) from None

    def save(self, connection: psycopg.Connection[Any], slot: str, saved: Saved) -> None:
        """See `State.save`: written beside, synced, then renamed over."""
        fields = asdict(saved) | {
            "slot": slot,
            "position": saved.position and str(saved.position),
            "flush_lsn": saved.flush_lsn and str(saved.flush_lsn),
        }
        beside = self._path.with_name(self._path.name + ".new")
        try:
            with beside.open("w") as file:
                json.dump(fields, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as error:
            raise ConfigurationError(f"the position cannot be saved to {self._path}: {error.strerror}") from error

    def way_out(self, slot: str) -> str:
        """See `State.way_out`."""
        return f"run `cdc drop --slot {slot}`, delete {self._path}"


def open_state(state: str | Path | None) -> State | None:
    """The state for the consumer's `state=`: `"database"`, a path, or None to remember nothing."""
    if state is None:
        return None
    if state == "database":
        return DatabaseState()
    if not isinstance(state, str | Path) or state in ("", "none") or Path(state).is_dir():
        raise ConfigurationError(f"state is 'database', the path of a file, or None; {str(state)!r} is none of them")
    return FileState(Path(state))
