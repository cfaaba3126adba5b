"""Cells of ranges and multiranges.

Pure: no I/O, no clock. They become psycopg's Range and Multirange, of decoded bounds; a bound that is not there is
None. A range over a discrete type has the bounds that the server gave it: `[1,4]` is stored as `[1,5)`.
The manual: "Data Types", Range Types.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from cdc.jsonable import jsonable, written_as
from cdc.relation import Decode
from cdc.values.binary import Reader
from cdc.values.equality import quoted
from cdc.values.quoting import inside, item_pattern

__all__ = ["BinaryMultirangeReader", "BinaryRangeReader", "MultirangeReader", "RangeReader"]

_BOUND = item_pattern(b"()[],")
_RANGE = re.compile(rb"empty|([\[(])" + _BOUND + rb"," + _BOUND + rb"([\])])", re.DOTALL)
_EMPTY, _LOWER_INCLUDED, _UPPER_INCLUDED, _NO_LOWER, _NO_UPPER = 1, 2, 4, 8, 16
_SPECIAL = re.compile(r'[()\[\],"\\\s]|^$')


@dataclass(frozen=True, slots=True)
class RangeReader:
    """Decodes the cells of one range type, `[1,5)`; a `Decode`.

    Attributes:
        bound: decodes one bound.
    """

    bound: Decode

    def __call__(self, cell: bytes) -> Range[object]:
        """The Range of a cell. Raises ValueError when it is none."""
        match = _RANGE.fullmatch(cell)
        if match is None:
            raise ValueError(f"{quoted(cell)} is not a range")
        return self.of_match(match)

    def of_match(self, match: re.Match[bytes]) -> Range[object]:
        """The Range of a match of `_RANGE`."""
        if match[1] is None:
            return Range(empty=True)
        lower, upper = inside(match[2], match[3]), inside(match[4], match[5])
        return Range(self._value(lower), self._value(upper), (match[1] + match[6]).decode())

    def _value(self, bound: bytes | None) -> object:
        return None if bound is None else self.bound(bound)


@dataclass(frozen=True, slots=True)
class MultirangeReader:
    """Decodes the cells of one multirange type, `{[1,2),[5,6)}`; a `Decode`.

    Attributes:
        range: decodes one of its ranges.
    """

    range: RangeReader

    def __call__(self, cell: bytes) -> Multirange[object]:
        """The Multirange of a cell. Raises ValueError when it is none."""
        if cell == b"{}":
            return Multirange()
        ranges: list[Range[object]] = []
        offset = 0
        while cell[offset : offset + 1] == (b"," if offset else b"{"):
            match = _RANGE.match(cell, offset + 1)
            if match is None:
                break
            ranges.append(self.range.of_match(match))
            offset = match.end()
        if not ranges or cell[offset:] != b"}":
            raise ValueError(f"{quoted(cell)} is not a multirange (byte offset {offset})")
        return Multirange(ranges)


@dataclass(frozen=True, slots=True)
class BinaryRangeReader:
    """Decodes the binary cells of one range type: Int8 flags, then the bounds that it has; a `Decode`.

    Attributes:
        bound: decodes one bound.
    """

    bound: Decode

    def __call__(self, cell: bytes) -> Range[object]:
        """The Range of a cell. Raises ValueError when it is none."""
        reader = Reader(cell)
        flags = reader.unsigned(1)
        if flags & _EMPTY:
            reader.end()
            return Range(empty=True)
        lower = None if flags & _NO_LOWER else self._value(reader)
        upper = None if flags & _NO_UPPER else self._value(reader)
        reader.end()
        marks = ("[" if flags & _LOWER_INCLUDED else "(") + ("]" if flags & _UPPER_INCLUDED else ")")
        return Range(lower, upper, marks)

    def _value(self, reader: Reader) -> object:
        item = reader.item()
        if item is None:
            raise ValueError("a bound of a range is NULL")
        return self.bound(item)


@dataclass(frozen=True, slots=True)
class BinaryMultirangeReader:
    """Decodes the binary cells of one multirange type: Int32 count and the ranges; a `Decode`.

    Attributes:
        range: decodes one of its ranges.
    """

    range: BinaryRangeReader

    def __call__(self, cell: bytes) -> Multirange[object]:
        """The Multirange of a cell. Raises ValueError when it is none."""
        reader = Reader(cell)
        count = reader.signed(4)
        if not 0 <= count <= reader.left:
            raise ValueError(f"{quoted(cell)} is not a multirange in binary form")
        items = [reader.item() for _ in range(count)]
        reader.end()
        return Multirange([self.range(item or b"") for item in items])


def _range_text(value: Range[object]) -> str:
    """The range as the server writes one, its bounds as in JSON."""
    if value.isempty:
        return "empty"
    return f"{value.bounds[0]}{_bound_text(value.lower)},{_bound_text(value.upper)}{value.bounds[1]}"


def _bound_text(bound: object) -> str:
    if bound is None:
        return ""
    plain = jsonable(bound)
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    if not _SPECIAL.search(text):
        return text
    doubled = text.replace("\\", "\\\\").replace('"', '""')
    return f'"{doubled}"'


def _multirange_text(value: Multirange[object]) -> str:
    return f"{{{','.join(map(_range_text, value))}}}"


written_as(Range, _range_text)
written_as(Multirange, _multirange_text)
