"""What all changes of a table share, of its rows as of its shape.

Touches nothing.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from cdc.relation import Relation
from cdc.transaction import Placed

__all__ = ["TableChange"]


class TableChange(Placed):
    """What changes of a table share."""

    __slots__ = ("_relation",)

    _relation: Relation
    event_type: ClassVar[str]

    @property
    def relation(self) -> Relation:
        """The table's description that was in force for this change, without columns that are hidden from you."""
        return self._relation.shown

    @property
    def schema(self) -> str:
        """Name of the table's schema."""
        return self._relation.schema

    @property
    def table(self) -> str:
        """Name of the table."""
        return self._relation.table

    @property
    def key(self) -> Any:
        """The key of the row that it is about; None where it is about no single row."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """The change as six keys: schema, table, commit_timestamp, eventType, new, old.

        Values are ready for JSON: times are ISO 8601 in UTC, numeric is a string, `UNCHANGED` cells are
        left out. `old` is None on INSERT, `new` is None on DELETE, both on TRUNCATE.
        """
        return {
            "schema": self.schema,
            "table": self.table,
            "commit_timestamp": self.commit_time.isoformat(),
            "eventType": self.event_type,
            "new": None,
            "old": None,
        }

    def to_json(self) -> str:
        """The change as one line of JSON: `to_dict()` with position, key, effect and xid."""
        more = {"position": str(self.position), "key": None, "effect": None, "xid": self.xid}
        return json.dumps(self.to_dict() | more)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.schema}.{self.table} at {self.position}>"
