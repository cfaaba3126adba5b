"""Lines: a row as `COPY … TO STDOUT` writes it, which is how stores keep rows in memory and in files.

Touches nothing. The manual: "COPY", Text Format. A cell is the server's own text as bytes, None for NULL; a line has no
end of line. A cell that was not sent has no place in a line: fill it from the older row first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cdc.tuples import UNCHANGED, Cell

__all__ = ["cells_of", "filled", "line_of"]

_SPECIAL = re.compile(rb"[\\\b\f\n\r\t\v]")
_ESCAPES = {
    b"\\": rb"\\", b"\b": rb"\b", b"\f": rb"\f", b"\n": rb"\n", b"\r": rb"\r", b"\t": rb"\t", b"\v": rb"\v",
}  # fmt: skip
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_MEANT = {escape[1:]: plain for plain, escape in _ESCAPES.items()}
_NULL = rb"\N"


def line_of(cells: Iterable[Cell]) -> bytes:
    """The line of these cells. Raises TypeError for a cell that was not sent."""
    return b"\t".join(map(_written, cells))


def cells_of(line: bytes) -> Sequence[Cell]:
    """The cells of a line."""
    cells: list[Cell] = [*line.split(b"\t")]
    if b"\\" in line:
        return [_read(cell) for cell in line.split(b"\t")]
    return cells


def filled(new: Sequence[Cell], held: bytes | None) -> list[Cell]:
    """The cells of a new row, those that were not sent from the line that is held."""
    cells = list(new)
    if held is not None and UNCHANGED in cells:
        known = cells_of(held)
        return [known[place] if cell is UNCHANGED else cell for place, cell in enumerate(cells)]
    return cells


def _written(cell: Cell) -> bytes:
    if cell is None:
        return _NULL
    if not isinstance(cell, bytes):
        raise TypeError("a cell that was not sent cannot be written down")
    return _SPECIAL.sub(lambda found: _ESCAPES[found[0]], cell)


def _read(cell: bytes) -> Cell:
    if cell == _NULL:
        return None
    return _ESCAPED.sub(lambda found: _MEANT.get(found[1], found[1]), cell)
