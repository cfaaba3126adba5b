"""Cells of PostgreSQL's own small types: `"char"`, identifiers of transactions and places, money, vectors.

Pure: no I/O, no clock. All but money and references to objects are text in both forms.
The manual: "Data Types", Object Identifier Types, pg_lsn Type; "Functions and Operators", System Information Functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from cdc.values.binary import Reader
from cdc.values.equality import quoted

__all__ = ["char_of", "integer_of_binary", "lsn_of_binary", "snapshot_of_binary", "text_of_number", "tid_of_binary"]
__all__ += ["vector_of_binary"]

_Integer: TypeAlias = Callable[[bytes], int]


def char_of(cell: bytes) -> str:
    r"""The text of a `"char"`, the same in both forms: one byte, beyond ASCII as `\` and three octal digits.

    Version 14 and 15 print such a byte as it is, which may be half a character. Raises ValueError.
    """
    if len(cell) != 1 or cell < b"\x80":
        return "" if cell == b"\x00" else cell.decode()
    return f"\\{cell[0]:03o}"


def integer_of_binary(size: int, *, signed: bool = True) -> _Integer:
    """What turns a binary cell of `size` bytes into an int, or raises ValueError."""

    def decode(cell: bytes) -> int:
        if len(cell) != size:
            raise ValueError(f"{quoted(cell)} is not an integer of {size} bytes")
        return int.from_bytes(cell, "big", signed=signed)

    return decode


def text_of_number(size: int) -> Callable[[bytes], str]:
    """What turns a binary cell of an unsigned number of `size` bytes into its digits, or raises ValueError."""
    integer = integer_of_binary(size, signed=False)
    return lambda cell: str(integer(cell))


def tid_of_binary(cell: bytes) -> str:
    """`(block,line)`, from Int32 and Int16. Raises ValueError."""
    reader = Reader(cell)
    text = f"({reader.unsigned(4)},{reader.unsigned(2)})"
    reader.end()
    return text


def lsn_of_binary(cell: bytes) -> str:
    """`16/B374D848`, from Int64. Raises ValueError."""
    reader = Reader(cell)
    text = f"{reader.unsigned(4):X}/{reader.unsigned(4):X}"
    reader.end()
    return text


def snapshot_of_binary(cell: bytes) -> str:
    """`xmin:xmax:xip,…`, from Int32 number of running transactions and Int64 each. Raises ValueError."""
    reader = Reader(cell)
    count = reader.signed(4)
    if reader.left != 8 * (count + 2):
        raise ValueError(f"{quoted(cell)} is not a snapshot in binary form")
    low, high, *running = (reader.unsigned(8) for _ in range(count + 2))
    return f"{low}:{high}:{','.join(map(str, running))}"


def vector_of_binary(cell: bytes) -> str:
    """The text of int2vector and oidvector, `1 2 3`: an array of one dimension, without NULL. Raises ValueError."""
    reader = Reader(cell)
    dimensions = reader.signed(4)
    reader.take(4)
    is_signed = reader.unsigned(4) == 21  # int2, otherwise oid
    counts = [(reader.signed(4), reader.signed(4))[0] for _ in range(min(dimensions, 2))]
    count = counts[0] if counts else 0
    if dimensions not in (0, 1) or not 0 <= count <= reader.left:
        raise ValueError(f"{quoted(cell)} is not a vector in binary form")
    items = [reader.item() for _ in range(count)]
    reader.end()
    return " ".join(str(int.from_bytes(item or b"", "big", signed=is_signed)) for item in items)
