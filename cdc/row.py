"""A row of a table, read-only, split and decoded when it is read.

Touches nothing. A row keeps the message's bytes; the first read splits them into cells, and each read of a
column turns that one cell into a Python object. A subscriber that looks at two of forty columns pays for two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cdc.relation import Decode, Shape
from cdc.tuples import UNCHANGED, Binary, Cell, Undecoded, cell_at, damaged, split

__all__ = ["Row", "value_of"]


class Row(Mapping[str, Any]):
    """A read-only mapping from column name to value.

    None is NULL. `UNCHANGED` is a TOAST value that the server did not send. `Undecoded` is the text of a cell that
    could not be decoded, with the reason. A column that the row does not carry (outside the replica identity of an
    old row, or hidden from the subscriber) raises KeyError.
    """

    __slots__ = ("_cells", "_data", "_offset", "_older", "_shape")

    def __init__(self, shape: Shape, data: bytes, offset: int, older: Row | None = None) -> None:
        """A row of the TupleData at `offset` of `data`; `older`, a whole old row, restores unsent values."""
        self._shape = shape
        self._data = data
        self._offset = offset
        self._older = older
        self._cells: Sequence[Cell] | None = None

    @classmethod
    def of_cells(cls, shape: Shape, cells: Sequence[Cell]) -> Row:
        """A row of cells that are split already."""
        row = cls(shape, b"", 0)
        row._cells = cells
        return row

    @property
    def cells(self) -> Sequence[Cell]:
        """Every cell of the tuple, in the relation's order, also those that the row does not show.

        A cell that the server did not send is `UNCHANGED`, whatever it wrote in its place.
        """
        cells = self._cells
        return self._split() if cells is None else cells

    def cell(self, index: int) -> Cell:
        """The cell at `index` of the tuple. While nobody has read the row, the others are left as they are."""
        cells = self._cells
        if cells is None and self._older is None and not self._shape.absent:
            cell = cell_at(self._data, self._offset, index)
            if cell is not None:
                return cell
        return (cells or self._split())[index]

    @property
    def shape(self) -> Shape:
        """The columns that the row shows."""
        return self._shape

    def __getitem__(self, name: str) -> Any:
        index, decode = self._shape.readers[name]
        cell = (self._cells or self._split())[index]
        if type(cell) is bytes:
            try:
                return decode(cell)
            except ValueError:
                return value_of(cell, decode)
        return value_of(cell, self._shape.binary[index]) if type(cell) is Binary else cell

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a column, or `default` when the row does not carry it."""
        return self[name] if name in self._shape.readers else default

    def value(self, index: int) -> Any:
        """The value of the cell at `index` of the tuple, whether or not the row shows its column."""
        cell = self.cells[index]
        decoders = self._shape.binary if type(cell) is Binary else self._shape.text
        return value_of(cell, decoders[index])

    def __iter__(self) -> Iterator[str]:
        return iter(self._shape.columns)

    def __len__(self) -> int:
        return len(self._shape.columns)

    def text(self, name: str) -> str | None:
        """The server's own text of a column, None for NULL.

        Raises ValueError for `UNCHANGED`, and for a cell that was sent in binary form.
        """
        cell = self.cells[self._shape.columns[name]]
        if cell is None:
            return None
        if type(cell) is bytes:
            return cell.decode()
        if isinstance(cell, Binary):
            raise ValueError(f"column {name!r} was sent in binary form, which is no text")
        raise ValueError(f"column {name!r} is UNCHANGED: the server did not send it")

    def shown_as(self, shape: Shape) -> Row:
        """The same row with the columns of another shape; what it hides is not in its cells either."""
        cells = list(self.cells)
        for index in shape.absent:
            cells[index] = UNCHANGED
        return Row.of_cells(shape, cells)

    def filled_from(self, older: Row) -> Row:
        """This row with each `UNCHANGED` cell taken, by column name, from an older version of it.

        A column of another type then was rewritten since: what it holds now was not sent.
        """
        unsent = [(name, index) for name, index in self._shape.columns.items() if self.cells[index] is UNCHANGED]
        if not unsent:
            return self
        cells = list(self.cells)
        for name, index in unsent:
            known = older._shape.columns.get(name)
            if known is not None and older._shape.types[known] == self._shape.types[index]:
                cells[index] = older.cells[known]
        return Row.of_cells(self._shape, cells)

    def _split(self) -> Sequence[Cell]:
        cells, _ = split(self._data, self._offset)
        shape = self._shape
        if len(cells) != len(shape.text):
            problem = f"a tuple of {len(cells)} cells for a relation of {len(shape.text)} columns"
            raise damaged(self._data, self._offset, problem)
        if shape.absent:
            for index in shape.absent:
                cells[index] = UNCHANGED
        if self._older is not None:
            older = self._older.cells
            cells = [older[index] if cell is UNCHANGED else cell for index, cell in enumerate(cells)]
            self._older = None
        self._cells = cells
        return cells

    def __repr__(self) -> str:
        return f"Row({', '.join(f'{name}={self[name]!r}' for name in self)})"


def value_of(cell: Cell, decode: Decode) -> Any:
    """The Python object of a cell that `decode` is for; one that it does not take does not lose the event."""
    if not isinstance(cell, bytes):
        return cell
    try:
        return decode(cell)
    except ValueError as error:
        text = f"\\x{cell.hex()}" if isinstance(cell, Binary) else cell.decode("utf-8", "replace")
        return Undecoded(text, str(error))
