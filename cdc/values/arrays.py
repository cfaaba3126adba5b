"""Cells of arrays.

Pure: no I/O, no clock. An array becomes a list, one of several dimensions a list of lists, NULL becomes None.
Lower bounds other than 1 (`[0:1]={1,2}`) are not kept. The manual: "Data Types", Arrays, Array Input and Output Syntax.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cdc.relation import Decode
from cdc.values.equality import quoted

__all__ = ["ArrayReader"]

_BOUNDS = re.compile(rb"(?:\[[+-]?[0-9]+:[+-]?[0-9]+\])+=")
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_MOST_DIMENSIONS = 6  # the server's own limit


@dataclass(frozen=True, slots=True)
class ArrayReader:
    """Decodes the cells of one array type; a `Decode`.

    Attributes:
        element: decodes one element.
        delimiter: the byte between two elements, `b","` for all built-in types but box.
    """

    element: Decode
    delimiter: bytes
    _pattern: re.Pattern[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        item = rb'"([^"\\]*(?:\\.[^"\\]*)*)"|([^{}"\\' + re.escape(self.delimiter) + rb"]+)"
        object.__setattr__(self, "_pattern", re.compile(item, re.DOTALL))

    def __call__(self, cell: bytes) -> list[object]:
        """The list of a cell. Raises ValueError when it is not an array of the type."""
        if cell == b"{}":
            return []
        if self._is_plain(cell):
            return [self._unquoted(item) for item in cell[1:-1].split(self.delimiter)]
        bounds = _BOUNDS.match(cell)
        values, end = self._list(cell, bounds.end() if bounds else 0, 1)
        if end != len(cell):
            raise _malformed(cell, end)
        return values

    def _is_plain(self, cell: bytes) -> bool:
        """Whether it has one dimension and nothing quoted: most arrays, and they only need to be split."""
        return (
            cell[:1] == b"{"
            and cell.find(b"}") == len(cell) - 1
            and cell.rfind(b"{") == 0
            and b'"' not in cell
            and b"\\" not in cell
        )

    def _list(self, cell: bytes, offset: int, depth: int) -> tuple[list[object], int]:
        """The list whose `{` is at `offset`, and the offset behind its `}`."""
        if cell[offset : offset + 1] != b"{" or depth > _MOST_DIMENSIONS:
            raise _malformed(cell, offset)
        offset += 1
        if cell[offset : offset + 1] == b"}":
            return [], offset + 1
        values: list[object] = []
        while True:
            value, offset = self._value(cell, offset, depth)
            values.append(value)
            mark = cell[offset : offset + 1]
            offset += 1
            if mark == b"}":
                return values, offset
            if mark != self.delimiter:
                raise _malformed(cell, offset - 1)

    def _value(self, cell: bytes, offset: int, depth: int) -> tuple[object, int]:
        if cell[offset : offset + 1] == b"{":
            return self._list(cell, offset, depth + 1)
        match = self._pattern.match(cell, offset)
        if match is None:
            raise _malformed(cell, offset)
        inside = match[1]
        if inside is None:
            return self._unquoted(match[2]), match.end()
        return self.element(_ESCAPED.sub(rb"\1", inside) if b"\\" in inside else inside), match.end()

    def _unquoted(self, item: bytes) -> object:
        if item == b"NULL":
            return None
        if not item:
            raise ValueError("an array has an element of no characters that is not quoted")
        return self.element(item)


def _malformed(cell: bytes, offset: int) -> ValueError:
    return ValueError(f"{quoted(cell)} is not an array (byte offset {offset})")
