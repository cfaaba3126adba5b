"""Keys: how rows are found by the values of some of their columns, as PostgreSQL's `=` finds them.

Touches nothing. A slot is what rows are kept by: the hashable of one cell, or a tuple of those of several. For types
whose text is canonical it is the cell itself, so that a key is cut from a line and nothing is parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from cdc.errors import SubscriptionError
from cdc.relation import Decode, Relation
from cdc.row import value_of
from cdc.storing.line import cells_of
from cdc.tuples import Cell
from cdc.values.equality import Equality

__all__ = ["NOWHERE", "EqualityOf", "Keys"]

EqualityOf = Callable[[int], Equality | None]
"""How the `=` of a type is decided, by the type's OID; None where that cannot be done."""

NOWHERE: Hashable = object()
"""The slot of a value that no row can have."""


class Keys:
    """Some columns of a relation, as what rows are found by.

    Args:
        relation: the table.
        places: indices of the columns.
        equality: how their types compare.

    Raises SubscriptionError for a column whose type cannot be compared.
    """

    def __init__(self, relation: Relation, places: Sequence[int], equality: EqualityOf) -> None:
        self.columns = tuple(column.name for column in relation.columns)
        self.places = tuple(places)
        self.names = tuple(relation.columns[place].name for place in places)
        self._decoders: tuple[Decode, ...] = tuple(relation.columns[place].decode for place in places)
        found = [equality(relation.columns[place].type_oid) for place in places]
        for name, each in zip(self.names, found, strict=True):
            if each is None:
                raise SubscriptionError(f"{relation}: rows cannot be found by {name!r}: its type cannot be compared")
        self._equalities = tuple(each for each in found if each is not None)
        self._single = len(self.places) == 1
        self._readers = tuple(each.from_cell for each in self._equalities)

    @classmethod
    def of(cls, relation: Relation, names: Iterable[str], equality: EqualityOf) -> Keys:
        """The keys of columns by their names."""
        columns = relation.whole.columns
        for name in names:
            if name not in columns:
                raise SubscriptionError(f"{relation} has no published column {name!r}; it has {', '.join(columns)}")
        return cls(relation, [columns[name] for name in names], equality)

    def of_cells(self, cells: Sequence[Cell]) -> Hashable:
        """The slot of a row; every cell of the key has to be there."""
        if self._single:
            return _slot(self._readers[0], cells[self.places[0]])
        return tuple(_slot(read, cells[place]) for read, place in zip(self._readers, self.places, strict=True))

    def of_lines(self, lines: Sequence[bytes]) -> dict[Any, bytes]:
        """Many lines by their slots."""
        if not (self._single and self._readers[0] is None):
            return {self.of_cells(cells_of(line)): line for line in lines}
        place = self.places[0]
        if place == 0:
            made: dict[Any, bytes] = {line.partition(b"\t")[0]: line for line in lines}
        else:
            made = {line.split(b"\t", place + 1)[place]: line for line in lines}
        if b"\\" in b"".join(made):
            return {self.of_cells(cells_of(line)): line for line in lines}
        return made

    def texts(self, cells: Sequence[Cell]) -> tuple[str, ...]:
        """The key of a row as the text of its values."""
        return tuple(cell.decode() if isinstance(cell, bytes) else "" for cell in (cells[each] for each in self.places))

    def of_python(self, value: Any) -> Hashable:
        """The slot of what a user gives; `NOWHERE` for what no row can have. Raises TypeError for another type."""
        if self._single:
            return _of_python(self._equalities[0], value)
        if not isinstance(value, tuple) or len(value) != len(self.places):
            raise TypeError(f"a key here is a tuple of ({', '.join(self.names)}), not {value!r}")
        slots = tuple(_of_python(*pair) for pair in zip(self._equalities, value, strict=True))
        return NOWHERE if NOWHERE in slots else slots

    def to_python(self, cells: Sequence[Cell]) -> Any:
        """The key of a row as users have it: a value, or a tuple of several."""
        values = tuple(value_of(cells[place], read) for place, read in zip(self.places, self._decoders, strict=True))
        return values[0] if self._single else values


def _slot(read: Callable[[bytes], Hashable] | None, cell: Cell) -> Hashable:
    if not isinstance(cell, bytes):
        return (None,)
    return cell if read is None else read(cell)


def _of_python(equality: Equality, value: Any) -> Hashable:
    if value is None:
        return (None,)
    try:
        return equality.from_python(value)
    except ValueError:
        return NOWHERE
