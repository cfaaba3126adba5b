"""The parking lot on the server: the table cdc.parked.

May import psycopg. A deed is what is done to one parked event, as a small mapping: `park`, `supersede`, `request`,
`refuse`, `fail`, `remove`. It is one statement here and one line in the file that stands in for the table.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import errors

from cdc.errors import ConfigurationError
from cdc.failures import first_line
from cdc.parked import Parked

__all__ = ["Deed", "count_parked", "load_parked", "now", "parked_fields", "perform", "reason_of", "requested"]

Deed = dict[str, Any]

_COLUMNS = (
    'id, slot, subscription, "position", schema, "table", key, operation, payload, error_type, error, attempts, '
    "parked_at, superseded_by, requested_at, forced"
)
_LOAD = f"SELECT {_COLUMNS} FROM cdc.parked"
_PARK = """
INSERT INTO cdc.parked (id, slot, subscription, "position", schema, "table", key, operation, payload, error_type, error,
                        attempts, parked_at)
VALUES (%(id)s, %(slot)s, %(subscription)s, %(position)s, %(schema)s, %(table)s, %(key)s, %(operation)s, %(payload)s,
        %(error_type)s, %(error)s, %(attempts)s, %(parked_at)s)
ON CONFLICT (id) DO UPDATE SET
    payload = excluded.payload, error_type = excluded.error_type, error = excluded.error,
    attempts = parked.attempts + excluded.attempts, requested_at = NULL, forced = false
"""
_STATEMENTS = {
    "park": _PARK,
    "supersede": "UPDATE cdc.parked SET superseded_by = %(by)s WHERE id = %(id)s AND superseded_by IS NULL",
    "request": "UPDATE cdc.parked SET requested_at = now(), forced = %(forced)s WHERE id = %(id)s",
    "refuse": "UPDATE cdc.parked SET requested_at = NULL, forced = false WHERE id = %(id)s",
    "fail": "UPDATE cdc.parked SET error_type = %(error_type)s, error = %(error)s, attempts = attempts + 1, "
    "requested_at = NULL, forced = false WHERE id = %(id)s",
    "remove": "DELETE FROM cdc.parked WHERE id = %(id)s",
}
_JSON = ("key", "payload")


def perform(connection: psycopg.Connection[Any], deed: Deed) -> None:
    """Do it to the table. Raises psycopg.Error."""
    values = {name: json.dumps(value) if name in _JSON else value for name, value in deed.items()}
    if values.get("key") == "null":
        values["key"] = None
    connection.execute(_STATEMENTS[deed["do"]].encode(), values)


def load_parked(
    connection: psycopg.Connection[Any],
    slot: str | None = None,
    subscription: str | None = None,
    ids: Sequence[str] | None = None,
) -> list[Parked]:
    """What is parked, the oldest first: of a slot, of a subscription, of these ids. Raises psycopg.Error."""
    asked = {"slot = %s": slot, "subscription = %s": subscription, "id = ANY(%s)": None if ids is None else list(ids)}
    conditions = [condition for condition, value in asked.items() if value is not None]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    values = [value for value in asked.values() if value is not None]
    return _parked(connection, f"{_LOAD}{where} ORDER BY number", values)


def requested(
    connection: psycopg.Connection[Any], slot: str, subscriptions: Collection[str], limit: int
) -> list[Parked]:
    """Those of which another attempt is asked for, at most `limit`. Raises psycopg.Error."""
    condition = "slot = %s AND subscription = ANY(%s) AND requested_at IS NOT NULL"
    return _parked(
        connection, f"{_LOAD} WHERE {condition} ORDER BY number LIMIT {limit:d}", [slot, list(subscriptions)]
    )


def count_parked(connection: psycopg.Connection[Any], slot: str) -> int:
    """How many are parked of a slot. Raises psycopg.Error."""
    row = connection.execute("SELECT count(*) FROM cdc.parked WHERE slot = %s", (slot,)).fetchone()
    return 0 if row is None else int(row[0])


def parked_fields(deed: Deed) -> Parked:
    """The parked event that a deed `park` makes."""
    fields = {name: value for name, value in deed.items() if name in Parked.__slots__}
    at = fields["parked_at"]
    return Parked(**fields | {"parked_at": datetime.fromisoformat(at) if isinstance(at, str) else at})


def reason_of(error: psycopg.Error) -> str:
    """Why the table cannot be used, and what to do about it."""
    if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName):
        return "the table cdc.parked is missing: run `cdc setup`"
    if isinstance(error, errors.InsufficientPrivilege):
        return "this role may not use cdc.parked: run `cdc setup` as the owner of schema cdc"
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return "this server only reads, as a standby does"
    return first_line(error)


def _parked(connection: psycopg.Connection[Any], query: str, values: Sequence[Any]) -> list[Parked]:
    rows = connection.execute(query.encode(), values).fetchall()
    try:
        parked = [Parked(*row) for row in rows]
        for each in parked:
            each.payload["mark"], each.payload["operation"]
    except (TypeError, KeyError) as error:
        raise ConfigurationError(f"cdc.parked holds a row that cdc did not write ({error!r}): delete it") from None
    return parked


def now() -> datetime:
    """The time, aware, in UTC."""
    return datetime.now(UTC)
