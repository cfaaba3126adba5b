"""The event for a table that looks different from now on.

Touches nothing. PostgreSQL does not send DDL; it describes a table anew before the first change that follows.
So a renamed column looks like one that was dropped and one that was added.
"""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from typing import Any

from cdc.relation import Column, Relation
from cdc.row import Row, value_of
from cdc.table_change import TableChange
from cdc.transaction import Place
from cdc.tuples import UNCHANGED, Binary, Undecoded

__all__ = ["SchemaChange"]


class SchemaChange(TableChange):
    """The table's columns, their types, its key or its replica identity differ in the changes that follow.

    It stands between the old rows and the new ones and shares the position of the change that follows. A column
    that the subscriber may not read is not told of. What was altered between two runs of the process is not told.
    """

    __slots__ = ("_hidden", "_old", "_old_hidden")
    event_type = "SCHEMA"

    def __init__(
        self,
        place: Place,
        relation: Relation,
        old: Relation,
        hidden: frozenset[str] = frozenset(),
        old_hidden: frozenset[str] = frozenset(),
        previous: Place | None = None,
    ) -> None:
        self._place = place
        self._relation = relation.without(hidden)
        self._old = old.without(old_hidden)
        self._hidden = hidden
        self._old_hidden = old_hidden
        self._previous = previous

    @property
    def old_relation(self) -> Relation:
        """The table's description that was in force before, without columns that were hidden from you."""
        return self._old.shown

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the columns that were not there before."""
        before = self._before
        return tuple(name for name in self._after if name not in before)

    @property
    def dropped(self) -> tuple[str, ...]:
        """Names of the columns that are not there any more."""
        after = self._after
        return tuple(name for name in self._before if name not in after)

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the columns whose type or type modifier (as the 20 of `varchar(20)`) is another one."""
        before = self._before
        return tuple(
            name for name, column in self._after.items() if name in before and _type(before[name]) != _type(column)
        )

    @property
    def old_identity(self) -> str:
        """The replica identity before: `"d"` default, `"n"` nothing, `"f"` full, `"i"` index."""
        return self._old.replica_identity

    @property
    def identity(self) -> str:
        """The replica identity from now on."""
        return self._relation.replica_identity

    @property
    def old_key_columns(self) -> tuple[str, ...]:
        """Names of the columns that made a row's key before; none when it had no key."""
        return tuple(column.name for column in _key(self._old))

    @property
    def key_columns(self) -> tuple[str, ...]:
        """Names of the columns that make a row's key from now on."""
        return tuple(column.name for column in _key(self._relation))

    @property
    def is_visible(self) -> bool:
        """Whether anything that the subscriber may know of is different, the order of columns included."""
        if (self.old_identity, self.old_key_columns) != (self.identity, self.key_columns):
            return True
        return list(self._before.items()) != list(self._after.items())

    def apply(self, rows: MutableMapping[Any, Row]) -> None:
        """Let rows that are kept go by their new key, if the key is another one; else they stay as they are.

        A row without a value for the new key stays under its old one.
        """
        key = _key(self._relation)
        if list(map(_type, key)) == list(map(_type, _key(self._old))) and self.key_columns == self.old_key_columns:
            return
        moved = {old: new for old, row in rows.items() if (new := _key_of(row, key)) is not None}
        kept = {new: rows.pop(old) for old, new in moved.items()}
        rows.update(kept)

    def to_json(self) -> str:
        """One line of JSON: `to_dict()` with position and xid, the names of columns, the key's, and the identity."""
        names = {"added": self.added, "dropped": self.dropped, "changed": self.changed}
        more = {"key_columns": self.key_columns, "identity": self.identity}
        return json.dumps(json.loads(super().to_json()) | names | more)

    @property
    def _before(self) -> dict[str, Column]:
        return {column.name: column for column in self._old.columns if column.name not in self._old_hidden}

    @property
    def _after(self) -> dict[str, Column]:
        return {column.name: column for column in self._relation.columns if column.name not in self._hidden}


def _type(column: Column) -> tuple[int, int]:
    return column.type_oid, column.type_modifier


def _key(relation: Relation) -> list[Column]:
    return [relation.columns[index] for index in relation.key or ()]


def _key_of(row: Row, key: list[Column]) -> Any:
    """The key of a row that came before the key was made of these columns; None when it is not known."""
    values = [_value(row, column) for column in key]
    if not values or any(value is UNCHANGED or value is None or isinstance(value, Undecoded) for value in values):
        return None
    return values[0] if len(values) == 1 else tuple(values)


def _value(row: Row, column: Column) -> Any:
    """A cell of a former row, read as the column's type of now."""
    index = row.shape.columns.get(column.name)
    if index is None:
        return UNCHANGED
    cell = row.cells[index]
    if type(cell) is Binary:
        return row.value(index) if row.shape.types[index] == column.type_oid else UNCHANGED
    return value_of(cell, column.decode)
