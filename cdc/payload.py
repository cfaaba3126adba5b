"""The payload of a parked event: an event as JSON, and the same event again.

Pure: no I/O. Cells are kept as the server's text together with the description of the table, so that values decode as
they did when the event was live, by the types as they are known now.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cdc.errors import ConfigurationError
from cdc.events import (
    Delete,
    Effect,
    Event,
    Gap,
    GapKind,
    Insert,
    Prepared,
    Read,
    RowChange,
    SchemaChange,
    Truncate,
    Update,
)
from cdc.lsn import Lsn, Position
from cdc.message import Message
from cdc.parked import mark_of, row_names
from cdc.pgoutput import RelationColumn, RelationMessage
from cdc.pgoutput.describe import describe
from cdc.relation import Relation, Shape
from cdc.row import Row
from cdc.transaction import Place, Transaction
from cdc.tuples import UNCHANGED, Binary, Cell
from cdc.values import Types

__all__ = ["event_of", "operation_of", "payload_of", "type_oids"]

_ROW_CHANGES: dict[str, type[RowChange]] = {"INSERT": Insert, "UPDATE": Update, "DELETE": Delete, "READ": Read}


def operation_of(event: object) -> str:
    """`INSERT`, `UPDATE`, `DELETE`, `TRUNCATE`, `SCHEMA`, `GAP`, `PREPARED` or `MESSAGE`."""
    return str(getattr(event, "event_type", None) or type(event).__name__.upper())


def payload_of(event: Any) -> dict[str, Any]:
    """What `event_of` needs to make the event again, ready for JSON."""
    payload: dict[str, Any] = {"operation": operation_of(event), "mark": mark_of(event), "rows": row_names(event)}
    if isinstance(event, Gap):
        return payload | event.to_dict()
    if isinstance(event, Prepared):
        return payload | event.to_dict()
    places = {"place": event._place, "previous": event._previous}
    payload |= {name: place and _place(place) for name, place in places.items()}
    if isinstance(event, Message):
        return payload | {"prefix": event.prefix, "content": event.content.hex(), "lsn": str(event.lsn)}
    payload["relation"] = _relation(event._relation)
    if isinstance(event, RowChange):
        payload |= {"effect": event.effect.value, "old": _row(event.old), "new": _row(event.new)}
    elif isinstance(event, Truncate):
        payload |= {"cascade": event.cascade, "restart_identity": event.restart_identity}
    else:
        payload["before"] = _relation(event._old)
        payload |= {"hidden": sorted(event._hidden), "hidden_before": sorted(event._old_hidden)}
    return payload


def type_oids(payload: dict[str, Any]) -> set[int]:
    """OIDs of the types of the columns that the payload tells of."""
    relations = [payload[name] for name in ("relation", "before") if name in payload]
    return {column[1] for relation in relations for column in relation["columns"]}


def event_of(payload: dict[str, Any], types: Types) -> Event | Message:
    """The event that the payload was made of. Raises ConfigurationError when it is not one."""
    try:
        return _event(payload, types)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ConfigurationError(f"the payload is not an event that can be handed over again ({error!r})") from None


def _event(payload: dict[str, Any], types: Types) -> Event | Message:
    operation = payload["operation"]
    if operation == "GAP":
        return _gap(payload)
    if operation == "PREPARED":
        time = datetime.fromisoformat(payload["time"])
        return Prepared(payload["gid"], payload["xid"], Lsn.parse(payload["lsn"]), time, payload["rolled_back"])
    previous = payload["previous"] and _read_place(payload["previous"])
    if operation == "MESSAGE":
        at, content = payload["place"] and _read_place(payload["place"]), bytes.fromhex(payload["content"])
        return Message(at, payload["prefix"], content, Lsn.parse(payload["lsn"]), previous)
    place, relation = _read_place(payload["place"]), _read_relation(payload["relation"], types)
    if operation == "TRUNCATE":
        relation = relation.without(frozenset(payload["relation"].get("hidden", ())))
        return Truncate(place, relation, payload["cascade"], payload["restart_identity"], previous)
    if operation == "SCHEMA":
        hidden, hidden_before = frozenset(payload["hidden"]), frozenset(payload["hidden_before"])
        before = _read_relation(payload["before"], types)
        return SchemaChange(place, relation, before, hidden, hidden_before, previous)
    rows = [_read_row(payload[name], relation) for name in ("old", "new")]
    relation = relation.without(frozenset(payload["relation"].get("hidden", ())))
    kind = _ROW_CHANGES[operation]
    change = kind(place, relation, rows[0], rows[1], Effect(payload["effect"]), previous)
    assert isinstance(change, Insert | Update | Delete | Read)
    return change


def _gap(payload: dict[str, Any]) -> Gap:
    """What an earlier version kept has a reason and two positions only."""
    last, previous, at = (
        Position.parse(payload[name]) if payload.get(name) else None for name in ("last", "previous", "position")
    )
    kind = GapKind(payload.get("kind", GapKind.OTHER))
    return Gap(payload["reason"], last, previous, kind, tuple(payload.get("tables", ())), at)


def _place(place: Place) -> list[Any]:
    transaction, ordinal = place
    lsn = str(transaction.commit_lsn)
    return [transaction.epoch, transaction.xid, lsn, transaction.commit_microseconds, ordinal]


def _read_place(told: Sequence[Any]) -> Place:
    epoch, xid, lsn, microseconds, ordinal = told
    return Transaction(epoch, xid, Lsn.parse(lsn), microseconds), ordinal


def _relation(relation: Relation) -> dict[str, Any]:
    columns = [[each.name, each.type_oid, each.type_modifier, each.in_identity] for each in relation.columns]
    name = {"oid": relation.oid, "schema": relation.schema, "table": relation.table}
    told = {"identity": relation.replica_identity, "columns": columns, "key": relation.key}
    return name | told | ({"hidden": sorted(relation.hidden)} if relation.hidden else {})


def _read_relation(told: dict[str, Any], types: Types) -> Relation:
    columns = tuple(RelationColumn(*column) for column in told["columns"])
    # Under REPLICA IDENTITY FULL the key is the primary key's, as it was then.
    key = [columns[index].name for index in told["key"] or ()]
    message = RelationMessage(told["oid"], told["schema"], told["table"], told["identity"], columns)
    return describe(message, types, key)


def _row(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {"columns": list(row.shape.columns), "cells": [_cell(cell) for cell in row.cells]}


def _read_row(told: dict[str, Any] | None, relation: Relation) -> Row | None:
    if told is None:
        return None
    shown = frozenset(told["columns"])
    shape = Shape.of(relation.columns, lambda column: column.name in shown)
    return Row.of_cells(shape, [_read_cell(cell) for cell in told["cells"]])


def _cell(cell: Cell) -> Any:
    """Text as it is, None for NULL, an empty list for what was not sent, hexadecimal digits in a list for binary."""
    if cell is None:
        return None
    if isinstance(cell, Binary):
        return [cell.hex()]
    return cell.decode("utf-8", "surrogateescape") if isinstance(cell, bytes) else []


def _read_cell(told: Any) -> Cell:
    if told is None:
        return None
    if isinstance(told, str):
        return told.encode("utf-8", "surrogateescape")
    return Binary(bytes.fromhex(told[0])) if told else UNCHANGED
