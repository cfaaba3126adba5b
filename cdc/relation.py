"""What a Relation message says of a table, with the callable that decodes each column's cells.

Touches nothing. The manual: "Logical Replication Message Formats", Relation. A relation holds for the
connection (and, for streamed transactions, the transaction) on which its message arrived.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["Column", "Decode", "Relation", "Shape"]

Decode: TypeAlias = Callable[[bytes], object]
"""Turns a cell into a Python object. Raises ValueError when it is not of its type."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a relation.

    Attributes:
        name: the column's name.
        type_oid: OID of its type in pg_type.
        type_modifier: atttypmod, -1 for none.
        in_identity: whether it belongs to the replica identity (under FULL, every column does).
        decode: turns a cell's text into a Python object.
        decode_binary: the same for a cell in binary form.
    """

    name: str
    type_oid: int
    type_modifier: int
    in_identity: bool
    decode: Decode = field(compare=False, repr=False)
    decode_binary: Decode = field(compare=False, repr=False, default=bytes)


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns that a row shows.

    Attributes:
        columns: column name to its index in the tuple, in the relation's order.
        readers: column name to its index and to what turns the cell's text into a Python object.
        text: for each cell of the tuple, what turns its text into a Python object.
        binary: the same for a cell that came in binary form.
        absent: indices of cells that the server does not send in such a tuple (it writes NULL there).
        types: for each cell of the tuple, the OID of its type.
    """

    columns: dict[str, int]
    readers: dict[str, tuple[int, Decode]]
    text: tuple[Decode, ...]
    binary: tuple[Decode, ...]
    absent: tuple[int, ...]
    types: tuple[int, ...]

    @classmethod
    def of(cls, columns: tuple[Column, ...], shown: Callable[[Column], bool]) -> Shape:
        """The shape of a tuple of these columns that shows some of them."""
        named = {column.name: index for index, column in enumerate(columns) if shown(column)}
        readers = {name: (index, columns[index].decode) for name, index in named.items()}
        absent = tuple(index for index, column in enumerate(columns) if not shown(column))
        text = tuple(column.decode for column in columns)
        binary = tuple(column.decode_binary for column in columns)
        return cls(named, readers, text, binary, absent, tuple(column.type_oid for column in columns))

    def without(self, hidden: frozenset[str]) -> Shape:
        """The same shape without the columns named in `hidden`; their cells count as not sent."""
        columns = {name: index for name, index in self.columns.items() if name not in hidden}
        readers = {name: reader for name, reader in self.readers.items() if name not in hidden}
        masked = tuple(self.columns[name] for name in hidden if name in self.columns)
        return Shape(columns, readers, self.text, self.binary, self.absent + masked, self.types)


@dataclass(frozen=True, slots=True)
class Relation:
    """A published table as its Relation message describes it.

    Attributes:
        oid: OID of the table (of the partition root when the publication says so).
        schema: name of its schema.
        table: its name.
        replica_identity: `"d"` default, `"n"` nothing, `"f"` full, `"i"` index, as in pg_class.
        columns: the published columns, in order.
        key: indices of the columns that identify a row, in order; None when the table has no key.
        whole: the shape of a row with all columns.
        identity: the shape of an old row that carries the replica identity's columns only.
        hidden: columns that whoever receives its changes may not know of; `whole` and `identity` do not show them.
    """

    oid: int
    schema: str
    table: str
    replica_identity: str
    columns: tuple[Column, ...]
    key: tuple[int, ...] | None
    whole: Shape = field(init=False, repr=False, compare=False)
    identity: Shape = field(init=False, repr=False, compare=False)
    hidden: frozenset[str] = field(init=False, repr=False, compare=False, default=frozenset())
    _shown: Relation | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        object.__setattr__(self, "whole", Shape.of(self.columns, lambda column: True))
        object.__setattr__(self, "identity", Shape.of(self.columns, lambda column: column.in_identity))

    def without(self, hidden: frozenset[str]) -> Relation:
        """The same table for those who may not know of some columns. Its tuples are the same, and so are indices."""
        if not hidden:
            return self
        made = Relation(self.oid, self.schema, self.table, self.replica_identity, self.columns, self.key)
        object.__setattr__(made, "whole", self.whole.without(hidden))
        object.__setattr__(made, "identity", self.identity.without(hidden))
        object.__setattr__(made, "hidden", hidden)
        columns = tuple(column for column in self.columns if column.name not in hidden)
        places = {column.name: place for place, column in enumerate(columns)}
        names = [self.columns[index].name for index in self.key or ()]
        key = None if self.key is None or hidden & set(names) else tuple(places[name] for name in names)
        shown = Relation(self.oid, self.schema, self.table, self.replica_identity, columns, key)
        object.__setattr__(made, "_shown", shown)
        return made

    @property
    def shown(self) -> Relation:
        """The table as whoever receives its changes may know it: itself, unless columns are hidden."""
        return self if self._shown is None else self._shown

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}"
