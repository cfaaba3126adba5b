"""Cells of composite types.

Pure: no I/O, no clock. A composite becomes a dict from attribute to value, NULL becomes None. The attributes are
those of the catalog, which may be newer than a row: when their number does not fit, the cell is refused.
The manual: "Data Types", Composite Types.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cdc.relation import Decode
from cdc.values.binary import Reader
from cdc.values.equality import quoted
from cdc.values.quoting import inside, item_pattern

__all__ = ["BinaryRecordReader", "Field", "RecordReader"]

_FIELD = re.compile(item_pattern(b"(),") + rb"([,)])", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Field:
    """An attribute of a composite type.

    Attributes:
        name: its name.
        type_oid: OID of its type.
        decode: decodes one value.
    """

    name: str
    type_oid: int
    decode: Decode


@dataclass(frozen=True, slots=True)
class RecordReader:
    """Decodes the cells of one composite type, `(1,"a b",)`; a `Decode`."""

    fields: tuple[Field, ...]

    def __call__(self, cell: bytes) -> dict[str, object]:
        """The dict of a cell. Raises ValueError when it is not a composite of these attributes."""
        items = _items(cell)
        if len(items) != len(self.fields) and not (items == [None] and not self.fields):
            raise _unfitting(cell, len(items), len(self.fields))
        pairs = zip(self.fields, items, strict=False)
        return {field.name: None if item is None else field.decode(item) for field, item in pairs}


def _items(cell: bytes) -> list[bytes | None]:
    items: list[bytes | None] = []
    offset, mark = 1, b","
    while mark == b",":
        match = _FIELD.match(cell, offset) if cell[:1] == b"(" else None
        if match is None:
            raise ValueError(f"{quoted(cell)} is not a composite (byte offset {offset})")
        items.append(inside(match[1], match[2]))
        offset, mark = match.end(), match[3]
    if offset != len(cell):
        raise ValueError(f"{quoted(cell)} is not a composite (byte offset {offset})")
    return items


@dataclass(frozen=True, slots=True)
class BinaryRecordReader:
    """Decodes the binary cells of one composite type: Int32 count, for each Int32 OID and the value; a `Decode`."""

    fields: tuple[Field, ...]

    def __call__(self, cell: bytes) -> dict[str, object]:
        """The dict of a cell. Raises ValueError when it is not a composite of these attributes."""
        reader = Reader(cell)
        count = reader.signed(4)
        if count != len(self.fields):
            raise _unfitting(cell, count, len(self.fields))
        values = {field.name: _value(reader, field) for field in self.fields}
        reader.end()
        return values


def _value(reader: Reader, field: Field) -> object:
    oid = reader.unsigned(4)
    if oid != field.type_oid:
        raise ValueError(f"attribute {field.name!r} has type {oid}, and {field.type_oid} in the catalog")
    item = reader.item()
    return None if item is None else field.decode(item)


def _unfitting(cell: bytes, count: int, expected: int) -> ValueError:
    return ValueError(f"{quoted(cell)} has {count} attributes, its type has {expected} in the catalog")
