"""Cells of arrays.

Pure: no I/O, no clock. An array becomes a list, one of several dimensions a list of lists, NULL becomes None. One
whose lower bounds are not all 1 (`[0:1]={1,2}`) becomes a `BoundedArray`.
The manual: "Data Types", Arrays, Array Input and Output Syntax.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from cdc.relation import Decode
from cdc.values.binary import Reader
from cdc.values.equality import quoted

__all__ = ["ArrayReader", "BinaryArrayReader", "BoundedArray"]

_BOUNDS = re.compile(rb"(?:\[[+-]?[0-9]{1,10}:[+-]?[0-9]{1,10}\])+=")
_LOWER = re.compile(rb"\[([+-]?[0-9]+):")
_PLAIN = re.compile(rb'\{[^{}"\\]+\}')  # one dimension and nothing quoted: most arrays, which only need to be split
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_MOST_DIMENSIONS = 6  # the server's own limit


class BoundedArray(list[object]):
    """A list of an array's elements whose subscripts do not all begin at 1. It equals a list with the same elements.

    Attributes:
        lower_bounds: the first subscript of each dimension.
    """

    __slots__ = ("lower_bounds",)

    def __init__(self, values: Iterable[object] = (), lower_bounds: tuple[int, ...] = ()) -> None:
        super().__init__(values)
        self.lower_bounds = lower_bounds

    def __repr__(self) -> str:
        return f"BoundedArray({super().__repr__()}, lower_bounds={self.lower_bounds})"


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
        if _PLAIN.fullmatch(cell):
            return self._plain(cell[1:-1].split(self.delimiter))
        bounds = _BOUNDS.match(cell)
        values, end = self._list(cell, bounds.end() if bounds else 0, 1)
        if end != len(cell):
            raise _malformed(cell, end)
        return _bounded(values, tuple(int(bound) for bound in _LOWER.findall(bounds[0]))) if bounds else values

    def _plain(self, items: list[bytes]) -> list[object]:
        if b"" in items or b"NULL" in items:
            return [self._unquoted(item) for item in items]
        return list(map(self.element, items))

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


@dataclass(frozen=True, slots=True)
class BinaryArrayReader:
    """Decodes the binary cells of one array type; a `Decode`.

    Int32 number of dimensions, Int32 whether there are NULLs, Int32 OID of the elements' type; for each dimension
    Int32 size and Int32 lower bound; then the elements.

    Attributes:
        element: decodes one element.
        element_oid: OID of the elements' type.
    """

    element: Decode
    element_oid: int

    def __call__(self, cell: bytes) -> list[object]:
        """The list of a cell. Raises ValueError when it is not an array of the type."""
        reader = Reader(cell)
        count, _, oid = reader.signed(4), reader.signed(4), reader.unsigned(4)
        if oid != self.element_oid or not 0 <= count <= _MOST_DIMENSIONS:
            raise ValueError(f"{quoted(cell)} is not an array in binary form of elements of type {self.element_oid}")
        pairs = [(reader.signed(4), reader.signed(4)) for _ in range(count)]
        sizes = [size for size, _ in pairs]
        total = math.prod(sizes) if sizes else 0
        if min(sizes, default=0) < 0 or 4 * total > reader.left:
            raise ValueError(f"an array of {sizes} elements does not fit into {reader.left} bytes")
        values = [self._value(reader) for _ in range(total)]
        reader.end()
        for size in reversed(sizes[1:] if values else []):
            values = [values[start : start + size] for start in range(0, len(values), size)]
        return _bounded(values, tuple(bound for _, bound in pairs)) if values else []

    def _value(self, reader: Reader) -> object:
        item = reader.item()
        return None if item is None else self.element(item)


def _bounded(values: list[object], lower_bounds: tuple[int, ...]) -> list[object]:
    return BoundedArray(values, lower_bounds) if any(bound != 1 for bound in lower_bounds) else values


def _malformed(cell: bytes, offset: int) -> ValueError:
    return ValueError(f"{quoted(cell)} is not an array (byte offset {offset})")
