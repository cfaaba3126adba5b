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

A domain's datum is that of its base.
"""

from __future__ import annotations

from collections.abc import Callable

from cdc.operators.context import Context
from cdc.values import Types

__all__ = ["Datums"]


class Datums:
    """Makes datums of the types of one server."""

    def __init__(self, types: Types) -> None:
        self._types = types

    def reader(self, oid: int) -> Callable[[bytes], object] | None:
        """What turns a cell in text form into a datum; None for a type that is not evaluated here.

        It raises ValueError for a cell that is not of the type.
        """
        return None

    def input(self, oid: int) -> Callable[[Context, str], object] | None:
        """The type's input function: what `'…'::type` does with a text. It raises Failed for what is no value."""
        return None

    def output(self, oid: int) -> Callable[[Context, object], str] | None:
        """The type's output function: the text of a datum, as a cast to text gives it."""
        return None
