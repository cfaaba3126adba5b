"""The event for a table that looks different from now on.

Touches nothing. PostgreSQL does not send DDL; it describes a table anew before the first change that follows.
So a renamed column looks like one that was dropped and one that was added.
"""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from typing import Any

from cdc.relation import Column, Relation
from cdc.table_change import TableChange
from cdc.transaction import Place

__all__ = ["SchemaChange"]


class SchemaChange(TableChange):
    """The table's columns, their types, its replica identity or its name differ in the changes that follow.

    It stands between the old rows and the new ones and shares the position of the change that follows. A column
    that the subscriber may not read is not told of.
    """

    __slots__ = ("_hidden", "_old")
    event_type = "SCHEMA"

    def __init__(
        self,
        place: Place,
        relation: Relation,
        old: Relation,
        hidden: frozenset[str] = frozenset(),
        previous: Place | None = None,
    ) -> None:
        self._place = place
        self._relation = relation
        self._old = old
        self._hidden = hidden
        self._previous = previous

    @property
    def old_relation(self) -> Relation:
        """The table's description that was in force before."""
        return self._old

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the columns that were not there before."""
        before = self._shown(self._old)
        return tuple(name for name in self._shown(self._relation) if name not in before)

    @property
    def dropped(self) -> tuple[str, ...]:
        """Names of the columns that are not there any more."""
        after = self._shown(self._relation)
        return tuple(name for name in self._shown(self._old) if name not in after)

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the columns whose type, type modifier or part in the replica identity is another one."""
        before, after = self._shown(self._old), self._shown(self._relation)
        return tuple(name for name, column in after.items() if name in before and before[name] != column)

    @property
    def old_identity(self) -> str:
        """The replica identity before: `"d"` default, `"n"` nothing, `"f"` full, `"i"` index."""
        return self._old.replica_identity

    @property
    def identity(self) -> str:
        """The replica identity from now on."""
        return self._relation.replica_identity

    @property
    def is_visible(self) -> bool:
        """Whether anything that the subscriber may know of is different, the order of columns included."""
        old, new = self._old, self._relation
        if (old.schema, old.table, old.replica_identity) != (new.schema, new.table, new.replica_identity):
            return True
        return list(self._shown(old).items()) != list(self._shown(new).items())

    def apply(self, rows: MutableMapping[Any, Any]) -> None:
        """Rows that were kept stay as they are; the changes that follow bring the new columns."""

    def to_json(self) -> str:
        """One line of JSON: `to_dict()` with position, xid, and the names of added, dropped and changed columns."""
        names = {"added": self.added, "dropped": self.dropped, "changed": self.changed}
        return json.dumps(json.loads(super().to_json()) | names)

    def _shown(self, relation: Relation) -> dict[str, Column]:
        return {column.name: column for column in relation.columns if column.name not in self._hidden}
