"""A parked event: one that a handler could not take, kept aside with what its handler raised.

Touches nothing. Which events are about the same row is decided here as well, since a later change of a row makes an
earlier one that is parked out of date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from cdc.events import Gap, Prepared, RowChange, SchemaChange, Truncate
from cdc.jsonable import jsonable
from cdc.lsn import Position
from cdc.message import Message
from cdc.tuples import UNCHANGED

__all__ = ["Kept", "Parked", "mark_of", "parked_id", "position_of", "row_names"]

_EVERY_ROW = "*"
"""Instead of a key: every row of the table, as of a TRUNCATE, or one of which nobody knows which it is."""
_NEW_ROW = "+"
"""Instead of a key: a row that was inserted into a table without a key."""


@dataclass(frozen=True, slots=True)
class Parked:
    """An event that waits in the parking lot.

    Attributes:
        id: by which it is retried and dropped; the same event of the same subscription always has the same.
        slot: name of the slot that it came from.
        subscription: name of the subscription that could not take it.
        position: its position as text; None for a `Gap`, a `Prepared` and a message without a transaction.
        schema, table: the table; None for a `Gap`, a `Prepared` and a message.
        key: the row's key, as JSON has it.
        operation: `INSERT`, `UPDATE`, `DELETE`, `TRUNCATE`, `SCHEMA`, `GAP`, `PREPARED` or `MESSAGE`.
        payload: all that is needed to hand it over again.
        error_type, error: what the handler raised at last.
        attempts: how often it was handed over.
        parked_at: when it was parked first; aware.
        superseded_by: position of a later change of the same row that the subscription has taken, or None.
        requested_at: when another attempt was asked for that has not been made yet, or None.
        forced: whether that was asked for although it is superseded.
    """

    id: str
    slot: str
    subscription: str
    position: str | None
    schema: str | None
    table: str | None
    key: Any
    operation: str
    payload: dict[str, Any]
    error_type: str
    error: str
    attempts: int
    parked_at: datetime
    superseded_by: str | None = None
    requested_at: datetime | None = None
    forced: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        told = {name: getattr(self, name) for name in self.__slots__}
        for name in ("parked_at", "requested_at"):
            told[name] = told[name] and told[name].isoformat()
        return told


class Kept:
    """The parked events of one subscription that are not out of date, found by their rows and by themselves."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        """By what `mark_of` tells of the event."""
        self._rows: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
        """By table, then by row: ids and positions."""
        self._events: dict[str, Parked] = {}
        """Without their payloads' rows, which may be large."""

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, parked: Parked) -> None:
        """Keep one more."""
        known = {name: parked.payload.get(name) for name in ("mark", "rows")}
        self._events[parked.id] = replace(parked, payload=known)
        self._ids[parked.payload["mark"]] = parked.id
        if parked.schema is None or parked.table is None or parked.position is None:
            return
        rows = self._rows.setdefault((parked.schema, parked.table), {})
        for name in known["rows"] or ():
            rows.setdefault(name, {})[parked.id] = parked.position

    def discard(self, gone: Collection[str]) -> None:
        """Forget these ids."""
        for parked in [self._events.pop(id) for id in gone if id in self._events]:
            del self._ids[parked.payload["mark"]]
            rows = self._rows.get((str(parked.schema), str(parked.table)), {})
            for name in parked.payload["rows"] or ():
                ids = rows.get(name, {})
                ids.pop(parked.id, None)
                if not ids:
                    rows.pop(name, None)

    def itself(self, event: object) -> str | None:
        """The id of this very event, when it is parked."""
        return self._ids.get(mark_of(event))

    def has(self, id: str) -> bool:
        """Whether the event of that id is among them."""
        return id in self._events

    def outdated(self, event: object) -> set[str]:
        """The ids of the parked events that are out of date once the handler has taken this one."""
        names = row_names(event)
        if not names or not isinstance(event, RowChange | Truncate):
            return set()
        rows = self._rows.get((event.schema, event.table), {})
        chosen = rows.values() if _EVERY_ROW in names else [rows.get(name, {}) for name in (*names, _EVERY_ROW)]
        at = event.position
        return {id for ids in chosen for id, position in ids.items() if _is_later(at, Position.parse(position))}


def position_of(event: object) -> str | None:
    """The event's position as text, None when it has none."""
    position = None if isinstance(event, Gap | Prepared) else getattr(event, "position", None)
    return None if position is None else str(position)


def mark_of(event: object) -> str:
    """What tells the event from every other one of its subscription, in this life of the slot and any other."""
    if isinstance(event, Gap):
        return f"gap {event.previous} {event.last} {event.reason}"
    if isinstance(event, Prepared):
        return f"prepared {event.lsn} {event.gid} {event.rolled_back}"
    if isinstance(event, SchemaChange):
        return f"schema {event.position}"  # The change that follows has the same position.
    if isinstance(event, Message):
        return f"message {event.position} {event.lsn}"  # Several may stand at one position, or at none.
    return str(position_of(event))


def parked_id(slot: str, subscription: str, event: object) -> str:
    """The id of an event in the parking lot: 16 hexadecimal digits."""
    text = json.dumps([slot, subscription, mark_of(event)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def row_names(event: object) -> list[str]:
    """The rows of its table that an event is about, by their keys: one, or two when its key changed."""
    if isinstance(event, Truncate):
        return [_EVERY_ROW]
    if not isinstance(event, RowChange):
        return []
    is_insert = event.event_type in ("INSERT", "READ")
    if event.relation.key is None:
        return [_NEW_ROW if is_insert else _EVERY_ROW]
    return sorted({_text(key) for key in ([event.key] if is_insert else [event.key, event.old_key])})


def _is_later(mine: Position, than: Position) -> bool:
    """Two lives of a slot cannot be compared: then what is delivered now is the later one."""
    return mine.epoch != than.epoch or mine > than


def _text(key: Any) -> str:
    """Keys that PostgreSQL's `=` takes for the same, as 1.0 and 1.00, have the same text."""
    parts = key if isinstance(key, tuple) else (key,)
    if any(part is None or part is UNCHANGED for part in parts):
        return _EVERY_ROW  # Which one it is was not sent.
    return json.dumps([_plain(part) for part in parts])


def _plain(part: Any) -> Any:
    if isinstance(part, Decimal) and part.is_finite():
        return jsonable(part.normalize())
    return jsonable(part)
