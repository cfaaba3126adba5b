"""Binary cells of bit and bit varying, whose text form is a str of 0 and 1.

Pure: no I/O, no clock. The manual: "Data Types", Bit String Types.
"""

from __future__ import annotations

from cdc.values.binary import Reader
from cdc.values.equality import quoted

__all__ = ["bits_of_binary"]


def bits_of_binary(cell: bytes) -> str:
    """The digits of a cell: Int32 number of bits, then the bits from the left. Raises ValueError."""
    reader = Reader(cell)
    count = reader.signed(4)
    if count < 0 or reader.left != (count + 7) // 8:
        raise ValueError(f"{quoted(cell)} is not a bit string in binary form")
    packed = reader.take(reader.left)
    return f"{int.from_bytes(packed, 'big'):0{len(packed) * 8}b}"[:count]
