"""Datums: the form in which functions take values, and how cells and texts become them.

Pure: no I/O.

| types | datum |
|---|---|
| boolean | bool |
| smallint, integer, bigint, oid | int |
| real, double precision | float (a real is rounded to four bytes) |
| numeric | Decimal, NaN and the infinities among it |
| text, varchar, char(n), name, json | str (char(n) with its padding, as the cell has it) |
| uuid | str, canonical |
| bytea | bytes |
| date | int, days since 2000-01-01; `-infinity` and `infinity` are the ends of int4 |
| timestamp, timestamptz | int, microseconds since 2000-01-01 (UTC); the infinities are the ends of int8 |
| time | int, microseconds |
| interval | a tuple: months, days, microseconds |
| jsonb | `Json` |
| arrays | `Array` |
| enums | `Label`, which knows its place |
| inet, cidr | `Address` |
| time with time zone | a tuple: microseconds, seconds by which the zone is behind UTC |
| bit, varbit, macaddr, macaddr8 | str, as printed |
| money, pg_lsn, xid, xid8 | int |
| tid | a tuple: block, line |

A domain's datum is that of its base.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cdc.operators import (
    addresses,
    bits,
    booleans,
    dates,
    documents,
    floats,
    integers,
    internals,
    intervals,
    numerics,
    plain,
    times,
    uuids,
)
from cdc.operators.arrays import array_codec
from cdc.operators.codec import Codec, Input, Output
from cdc.operators.elements import ElementType
from cdc.operators.enums import enum_codec
from cdc.values import Types

__all__ = ["Datums"]

_FAMILIES: list[Mapping[int, Codec]] = [
    addresses.CODECS,
    bits.CODECS,
    booleans.CODECS,
    dates.CODECS,
    documents.CODECS,
    floats.CODECS,
    integers.CODECS,
    internals.CODECS,
    intervals.CODECS,
    numerics.CODECS,
    plain.CODECS,
    times.CODECS,
    uuids.CODECS,
]

_CODECS: dict[int, Codec] = {oid: codec for codecs in _FAMILIES for oid, codec in codecs.items()}


class Datums:
    """Makes datums of the types of one server."""

    def __init__(self, types: Types) -> None:
        self._types = types

    def reader(self, oid: int) -> Callable[[bytes], object] | None:
        """What turns a cell in text form into a datum; None for a type that is not evaluated here.

        It raises ValueError for a cell that is not of the type.
        """
        codec = self._codec(self._types.base(oid))
        return None if codec is None else codec.read

    def input(self, oid: int) -> Input | None:
        """The type's input function: what `'…'::type` does with a text. It raises Failed for what is no value.

        None for a domain, since its constraints are not known here.
        """
        codec = self._codec(oid)
        return None if codec is None else codec.input

    def output(self, oid: int) -> Output | None:
        """The type's output function: the text of a datum, as a cast to text gives it."""
        codec = self._codec(self._types.base(oid))
        return None if codec is None else codec.output

    def _codec(self, oid: int) -> Codec | None:
        """The codec of a type that is no domain."""
        if oid in _CODECS:
            return _CODECS[oid]
        found = self._types.element(oid)
        if found is not None:
            return self._array(*found)
        labels = self._types.labels(oid)
        return enum_codec(labels) if labels else None

    def element(self, oid: int) -> ElementType | None:
        """What the arrays of a type know of their elements; None for a type that is no array, or not evaluated here."""
        found = self._types.element(self._types.base(oid))
        return None if found is None or self.reader(found[0]) is None else self._kind(*found)

    def _kind(self, element: int, delimiter: str) -> ElementType:
        base = self._types.base(element)
        return ElementType(base, self.output(base), delimiter, bool(self._types.labels(base)))

    def _array(self, element: int, delimiter: str) -> Codec | None:
        """The codec of an array. That of a domain's elements has no input, since its constraints are not known here."""
        kind = self._kind(element, delimiter)
        codec = self._codec(kind.oid)
        return None if codec is None else array_codec(kind, codec, is_domain=kind.oid != element)
