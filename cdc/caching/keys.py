"""Keys: which entries of a cache a changed row concerns, and how users' keys are brought into the same form.

Pure: no I/O, no lock. A change has keys when both its old and its new row are known to belong to them; else every
entry may be concerned. A function of the row sees which of the columns that it asks for were sent.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import Any, Protocol, TypeAlias

from cdc.errors import ConfigurationError, SubscriptionError
from cdc.events import RowChange
from cdc.log import log
from cdc.relation import Relation
from cdc.row import Row
from cdc.tuples import UNCHANGED, Binary, Cell
from cdc.values.equality import Equality

__all__ = ["By", "Columns", "Computed", "Keys", "Whole", "keys_of"]

By: TypeAlias = "str | Sequence[str] | Callable[[Mapping[str, Any]], Hashable] | None"
"""A column, several, or a function of the row that gives its key, or None for a row that concerns nobody."""


class Keys(Protocol):
    """How the rows of one table have keys."""

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The columns whose values make the key; None when they do not."""

    def bind(self, relation: Relation, equalities: tuple[Equality, ...]) -> None:
        """What the table looks like, and how the columns' values compare."""

    def slot(self, key: Any) -> Hashable:
        """A user's key in the form that changes have. Raises TypeError for one that cannot be."""

    def of(self, event: RowChange) -> Sequence[Hashable] | None:
        """The keys that a change concerns; None when it may be every one."""


class Whole:
    """Every change concerns every key."""

    columns = None

    def bind(self, relation: Relation, equalities: tuple[Equality, ...]) -> None:
        """See `Keys`."""

    def slot(self, key: Any) -> Hashable:
        """See `Keys`."""
        hash(key)
        return key  # type: ignore[no-any-return]  # any hashable is a key

    def of(self, event: RowChange) -> None:
        """See `Keys`."""
        return


class Columns:
    """The key is made of columns, as the server's `=` compares them."""

    def __init__(self, table: str, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self._table = table
        self._relation: Relation | None = None
        self._equalities: tuple[Equality, ...] | None = None
        self._slot_of_one: Callable[[object], Hashable] | None = None

    def bind(self, relation: Relation, equalities: tuple[Equality, ...]) -> None:
        """See `Keys`."""
        self._relation, self._equalities = relation, equalities
        self._slot_of_one = equalities[0].from_python if len(equalities) == 1 else None

    def slot(self, key: Any) -> Hashable:
        """See `Keys`."""
        if self._slot_of_one is not None:
            return self._slot_of_one(key)
        if self._equalities is None:
            raise SubscriptionError(f"the cache of {self._table} is not open: enter or start its consumer first")
        if not isinstance(key, tuple) or len(key) != len(self.columns):
            listed = ", ".join(self.columns)
            raise TypeError(f"the key of the cache of {self._table} is a tuple of ({listed}), not {key!r}")
        pairs = zip(self._equalities, key, strict=True)
        return tuple(equality.from_python(value) for equality, value in pairs)

    def of(self, event: RowChange) -> Sequence[Hashable] | None:
        """See `Keys`."""
        relation = event.relation
        if relation is not self._relation and relation != self._relation:
            return None  # A row of a shape that the keys are not made of.
        slots = [self._slot_of(relation, row) for row in (event.old, event.new) if row is not None]
        if event.event_type == "UPDATE" and event.old is None:
            # The identity is the same as before, or an old row would have come.
            within = all(column in relation.identity.columns for column in self.columns)
            slots.append(slots[0] if within else None)
        return None if not slots or None in slots else slots

    def _slot_of(self, relation: Relation, row: Row) -> Hashable | None:
        """The key of a row; None when it cannot be known."""
        cells = [row.cells[relation.whole.columns[column]] for column in self.columns]
        if any(cell is UNCHANGED or isinstance(cell, Binary) for cell in cells):
            return None
        return self.of_cells(cells)

    @property
    def is_bound(self) -> bool:
        """Whether it is known how the columns' values compare."""
        return self._equalities is not None

    def of_cells(self, cells: Sequence[Cell]) -> Hashable:
        """The key of a row by its cells of the columns."""
        assert self._equalities is not None
        slots = tuple(_slot_of_cell(*pair) for pair in zip(self._equalities, cells, strict=True))
        return slots[0] if len(slots) == 1 else slots


class Computed:
    """The key is what a function makes of the row.

    Args:
        table: for messages.
        function: gives a row's key, or None for a row that concerns nobody.
        into: brings a key into the form that users' keys are brought into.

    Attributes:
        problem: what the function raised last; None when it has not.
    """

    columns = None

    def __init__(
        self,
        table: str,
        function: Callable[[Mapping[str, Any]], Hashable],
        into: Callable[[Any], Hashable] | None = None,
    ) -> None:
        self.problem: str | None = None
        self._table = table
        self._function = function
        self._into = into or self.slot

    def bind(self, relation: Relation, equalities: tuple[Equality, ...]) -> None:
        """See `Keys`."""

    def slot(self, key: Any) -> Hashable:
        """See `Keys`."""
        if key is None:
            raise TypeError(f"the key of the cache of {self._table} is never None")
        hash(key)
        return key  # type: ignore[no-any-return]  # any hashable is a key

    def of(self, event: RowChange) -> Sequence[Hashable] | None:
        """See `Keys`."""
        rows = [_Partial(row) for row in (event.old, event.new) if row is not None]
        if event.event_type == "UPDATE" and event.old is None:
            # What belongs to the identity is the same as before; anything else may have been another value.
            assert event.new is not None
            rows.append(_Partial(event.new, frozenset(event.relation.identity.columns)))
        slots: list[Hashable] = []
        for row in rows:
            try:
                key = self._function(row)
                if row.lacks:
                    return None
                if key is not None:
                    slots.append(self._into(key))
            except Exception as error:
                if not row.lacks:
                    self._say(error)
                return None
        return slots

    def _say(self, error: Exception) -> None:
        problem = f"{type(error).__name__}: {error}"
        if problem != self.problem:
            log.warning("cache.by_failed", table=self._table, reason=problem)
        self.problem = problem


class _Partial(Mapping[str, Any]):
    """A row, and whether it was asked for a value that is not known.

    Attributes:
        lacks: whether it was.
    """

    __slots__ = ("_known", "_row", "lacks")

    def __init__(self, row: Row, known: frozenset[str] | None = None) -> None:
        self._row = row
        self._known = known
        self.lacks = False

    def __getitem__(self, name: str) -> Any:
        self._ask(name)
        return self._row[name]

    def text(self, name: str) -> str | None:
        """See `Row.text`."""
        self._ask(name)
        return self._row.text(name)

    def __iter__(self) -> Iterator[str]:
        self.lacks |= self._known is not None or bool(self._row.shape.absent)
        return iter(self._row)

    def __len__(self) -> int:
        return len(list(self))

    def __contains__(self, name: object) -> bool:
        self._ask(name)
        return name in self._row

    def _ask(self, name: object) -> None:
        carried = name in self._row
        if not carried:
            # A column that the table does not have is a mistake, unless only a part of the row was sent.
            self.lacks |= bool(self._row.shape.absent) or self._known is not None
        elif (self._known is not None and name not in self._known) or self._row[str(name)] is UNCHANGED:
            self.lacks = True


def keys_of(table: str, by: By, into: Callable[[Any], Hashable] | None = None) -> Keys:
    """How the rows of a table have keys. Raises ConfigurationError for a `by` that cannot be."""
    if by is None:
        return Whole()
    if callable(by):
        if iscoroutinefunction(by):
            raise ConfigurationError(f"cache of {table}: by is a coroutine function, which cannot be called for a row")
        return Computed(table, by, into)
    if not by or not isinstance(by, str | list | tuple) or not all(isinstance(each, str) and each for each in by):
        raise ConfigurationError(
            f"cache of {table}: by is a column or several, or a function of the row; leave it out for the whole table"
        )
    return Columns(table, (by,) if isinstance(by, str) else tuple(by))


def _slot_of_cell(equality: Equality, cell: Any) -> Hashable:
    if cell is None:
        return (None,)
    return cell if equality.from_cell is None else equality.from_cell(cell)
