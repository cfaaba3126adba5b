"""What the file of a store says of the rows in it: as of when they are, of which table, and how far it was read.

Touches nothing. The file keeps the mark in the same transaction as the rows, as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from cdc.lsn import Position
from cdc.recording import Told

__all__ = ["StoreMark"]


@dataclass(frozen=True, slots=True)
class StoreMark:
    """What a file says of its rows.

    Attributes:
        told: the table as it was described, with the types of its columns.
        wanted: a hash of what the store wants to see: its table, filter and subject.
        sight: a hash of what its subject might see; None for a store without a subject.
        source: a hash of the database's address, as the consumer was given it.
        database: the server's identity, and the database's name.
        publications: name and OID of each publication that was streamed.
        messages: whether logical messages were asked for: they count in ordinals.
        epoch: the slot's life in which `position` lies.
        position: the last change that was handed out to anybody; the rows have all up to it. None when there was none.
        ground: what the rows rest on that the stream does not tell; see `store_ground`.
        done: whether the rows are the whole table as of `position`.
        due: whether the table has to be read anew all the same, as behind a gap.
        after: the key, as text, up to which all was read while they are not; None: they are of no use.
    """

    told: Told
    wanted: str
    sight: str | None
    source: str
    database: tuple[str, str]
    publications: tuple[tuple[str, int], ...]
    messages: bool
    epoch: str
    position: Position | None
    ground: str
    done: bool
    due: bool = False
    after: tuple[str, ...] | None = None

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> StoreMark:
        """From JSON. Raises KeyError, TypeError, ValueError or AttributeError for what is something else."""
        found = {field.name: said[field.name] for field in fields(cls)}
        position, after = found["position"], found["after"]
        system_id, name = found["database"]
        return cls(
            **found
            | {
                "told": Told.read(found["told"]),
                "database": (system_id, name),
                "publications": tuple((name, oid) for name, oid in found["publications"]),
                "position": None if position is None else Position.parse(position),
                "after": None if after is None else tuple(after),
            }
        )

    def written(self) -> dict[str, Any]:
        """Ready for JSON."""
        position = None if self.position is None else str(self.position)
        return asdict(self) | {"told": self.told.written(), "position": position}
