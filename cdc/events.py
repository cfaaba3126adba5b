"""The typed events that subscribers receive.

Touches nothing. Events are immutable and cheap: a change keeps a reference to its transaction and its rows
keep the message's bytes, so that what a handler does not read is never computed.
"""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from enum import StrEnum
from typing import Any, TypeAlias

from cdc.gap import Gap, GapKind
from cdc.jsonable import jsonable
from cdc.prepared import Prepared
from cdc.relation import Relation
from cdc.row import Row
from cdc.schema_change import SchemaChange
from cdc.table_change import TableChange
from cdc.transaction import Place
from cdc.tuples import UNCHANGED

__all__ = [
    "Change",
    "Delete",
    "Effect",
    "Event",
    "Gap",
    "GapKind",
    "Insert",
    "Prepared",
    "Read",
    "RowChange",
    "SchemaChange",
    "Truncate",
    "Update",
]


class Effect(StrEnum):
    """What a change means to one subscriber's view: the row entered it, stayed in it, or left it."""

    ENTER = "ENTER"
    STAY = "STAY"
    LEAVE = "LEAVE"


class RowChange(TableChange):
    """An `Insert`, an `Update` or a `Delete`: one row before and after."""

    __slots__ = ("_effect", "_new", "_old")

    def __init__(
        self,
        place: Place,
        relation: Relation,
        old: Row | None,
        new: Row | None,
        effect: Effect,
        previous: Place | None = None,
    ) -> None:
        self._place = place
        self._relation = relation
        self._old = old
        self._new = new
        self._effect = effect
        self._previous = previous

    def seen_as(self, relation: Relation, old: Row | None, new: Row | None, effect: Effect) -> RowChange:
        """The same change as those see it who know the table by this description."""
        return type(self)(self._place, relation, old, new, effect)

    def linked(self, previous: Place | None) -> RowChange:
        """The same change for one who was handed another one before it."""
        return type(self)(self._place, self._relation, self._old, self._new, self._effect, previous)

    @property
    def old(self) -> Row | None:
        """The row before: whole under REPLICA IDENTITY FULL, else its key when the server sent it."""
        return self._old

    @property
    def new(self) -> Row | None:
        """The row after; None when it is gone, for this subscriber at least."""
        return self._new

    @property
    def effect(self) -> Effect:
        """ENTER, STAY or LEAVE: what the change means to this subscriber's view."""
        return self._effect

    @property
    def key(self) -> Any:
        """The row's key after the change (before it, when it is gone): a value, or a tuple of several.

        The replica identity's columns in the relation's order; under FULL the primary key's. None when the
        table has neither.
        """
        row = self._new if self._new is not None else self._old
        return None if row is None else _key_of(self._relation, row)

    @property
    def old_key(self) -> Any:
        """The row's key before the change; differs from `key` when the key changed. None on INSERT."""
        if self.event_type == "INSERT":
            return None
        return self.key if self._old is None else _key_of(self._relation, self._old)

    def to_dict(self) -> dict[str, Any]:
        """See `to_dict` of every change."""
        return super().to_dict() | {"new": _plain(self._new), "old": _plain(self._old)}

    def to_json(self) -> str:
        """See `to_json` of every change."""
        more = {
            "position": str(self.position),
            "key": jsonable(self.key),
            "effect": self._effect.value,
            "xid": self.xid,
        }
        return json.dumps(self.to_dict() | more)

    def apply(self, rows: MutableMapping[Any, Row]) -> None:
        """Keep `rows`, a mapping from key to row, in step: upsert, drop, key change, TOAST values kept.

        Raises ValueError when the table has no key.
        """
        if self._relation.key is None:
            raise ValueError(f"{self._relation} has no key, so its rows cannot be kept by key")
        older = None if self.event_type == "INSERT" else rows.pop(self.old_key, None)
        if self._new is not None:
            rows[self.key] = self._new if older is None else self._new.filled_from(older)


class Insert(RowChange):
    """A row was inserted (or, for this subscriber, an insert brought it into view)."""

    __slots__ = ()
    event_type = "INSERT"


class Update(RowChange):
    """A row was updated. The effect says whether it entered, stayed in or left this subscriber's view."""

    __slots__ = ()
    event_type = "UPDATE"


class Delete(RowChange):
    """A row was deleted."""

    __slots__ = ()
    event_type = "DELETE"


class Read(RowChange):
    """A row as a snapshot of the table read it: the newest value at its place in the stream.

    It stands between two transactions: its `position` is that of no change, its `xid` is 0, and its `commit_time` is
    when the row was read. The effect is ENTER; there is no old row.
    """

    __slots__ = ()
    event_type = "READ"

    @property
    def old_key(self) -> None:
        """None: nothing was changed."""
        return None

    def apply(self, rows: MutableMapping[Any, Row]) -> None:
        """Put the row into `rows`, a mapping from key to row. Raises ValueError when the table has no key."""
        if self._relation.key is None:
            raise ValueError(f"{self._relation} has no key, so its rows cannot be kept by key")
        if self._new is not None:
            rows[self.key] = self._new


class Truncate(TableChange):
    """Every row of a table was removed by TRUNCATE."""

    __slots__ = ("_cascade", "_restart_identity")
    event_type = "TRUNCATE"

    def __init__(
        self,
        place: Place,
        relation: Relation,
        cascade: bool,
        restart_identity: bool,
        previous: Place | None = None,
    ) -> None:
        self._place = place
        self._relation = relation
        self._cascade = cascade
        self._restart_identity = restart_identity
        self._previous = previous

    def seen_as(self, relation: Relation) -> Truncate:
        """The same change for those who know the table by this description."""
        return Truncate(self._place, relation, self._cascade, self._restart_identity)

    def linked(self, previous: Place | None) -> Truncate:
        """The same change for one who was handed another one before it."""
        return Truncate(self._place, self._relation, self._cascade, self._restart_identity, previous)

    @property
    def cascade(self) -> bool:
        """Whether TRUNCATE … CASCADE was said."""
        return self._cascade

    @property
    def restart_identity(self) -> bool:
        """Whether TRUNCATE … RESTART IDENTITY was said."""
        return self._restart_identity

    def apply(self, rows: MutableMapping[Any, Row]) -> None:
        """Empty `rows`."""
        rows.clear()


Change: TypeAlias = Insert | Update | Delete | Truncate
"""A change of a table."""

Event: TypeAlias = Insert | Update | Delete | Truncate | Read | SchemaChange | Prepared | Gap
"""What a handler receives of tables. `Prepared` comes only from a slot that was once read with `two_phase=True`, `Read`
only with `snapshot=True` or `on_gap="resync"`."""


def _key_of(relation: Relation, row: Row) -> Any:
    if relation.key is None:
        return None
    values = tuple(row.value(index) for index in relation.key)
    return values[0] if len(values) == 1 else values


def _plain(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {name: jsonable(value) for name, value in row.items() if value is not UNCHANGED}
