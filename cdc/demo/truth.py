"""The truth: what the database itself says, to compare with what was delivered.

Asks PostgreSQL by plain SQL and uses no decoder of cdc. Touches the private PostgreSQL of the demo.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TypeAlias

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

import cdc
from cdc.demo.ledger import Change
from cdc.demo.setting import PUBLICATION, Person

__all__ = ["Rows", "Truth"]

Rows: TypeAlias = Mapping[Any, Mapping[str, Any]]
"""Rows of wells by id."""

_WITNESS = "cdc_demo_witness"
_CREATE = "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')"
_CHANGES = """
SELECT chr(get_byte(data, 0)), xid::text::bigint
FROM pg_logical_slot_get_binary_changes(%s, NULL, NULL, 'proto_version', '1', 'publication_names', %s)
"""


class Truth:
    """Questions to the database. A second slot, made on entering, is a witness of everything committed later.

    Args:
        dsn: the database, as superuser.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def __enter__(self) -> Self:
        self._connection = psycopg.connect(self._dsn, autocommit=True)
        self._connection.execute(_CREATE, (_WITNESS,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def version(self) -> str:
        """The server's version, such as `18.1`."""
        return str(self._connection.execute("SHOW server_version").fetchall()[0][0]).split()[0]

    def lsn(self) -> cdc.Lsn:
        """Where the server's WAL stands."""
        return cdc.current_lsn(self._connection)

    def committed(self) -> list[Change]:
        """Every change since this was entered, in commit order, told apart by the first byte of its message."""
        rows = self._connection.execute(_CHANGES, (_WITNESS, f'"{PUBLICATION}"')).fetchall()
        return [(kind, xid) for kind, xid in rows if kind in "IUDT"]

    def table(self) -> Rows:
        """Every well."""
        return self._select()

    def seen_by(self, person: Person) -> Rows:
        """The wells that a SELECT gives to this person, with the role and the claims."""
        with self._connection.transaction():
            self._connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(person.role)))
            self._connection.execute("SELECT set_config('request.jwt.claims', %s, true)", (person.claims_json,))
            return self._select()

    def _select(self) -> Rows:
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return {row["id"]: row for row in cursor.execute("SELECT * FROM public.wells")}
