"""Cells of type boolean, and their equality.

Pure: no I/O, no clock. The manual: "Data Types", Boolean Type.
"""

from __future__ import annotations

from cdc.values.equality import BLANKS, Equality, quoted, wrong_type

__all__ = ["BOOLEAN", "boolean_of", "boolean_of_binary"]

_CELLS = {b"t": True, b"f": False}
_BINARY_CELLS = {b"\x01": True, b"\x00": False}
_WORDS = (
    {"true"[:size]: b"t" for size in range(1, 5)}
    | {"false"[:size]: b"f" for size in range(1, 6)}
    | {"yes"[:size]: b"t" for size in range(1, 4)}
    | {"no"[:size]: b"f" for size in range(1, 3)}
    | {"on": b"t", "of": b"f", "off": b"f", "1": b"t", "0": b"f"}
)


def boolean_of(cell: bytes) -> bool:
    """The bool of a cell, which is `t` or `f`. Raises ValueError for anything else."""
    try:
        return _CELLS[cell]
    except KeyError:
        raise ValueError(f"{quoted(cell)} is not a boolean") from None


def boolean_of_binary(cell: bytes) -> bool:
    """The bool of a cell in binary form, one byte. Raises ValueError for anything else."""
    try:
        return _BINARY_CELLS[cell]
    except KeyError:
        raise ValueError(f"{quoted(cell)} is not a boolean in binary form") from None


def _from_text(text: str) -> bytes:
    word = _WORDS.get(text.strip(BLANKS).lower())
    if word is None:
        raise ValueError(f"{quoted(text)} is not a boolean (true, false, yes, no, on, off, 1 or 0)")
    return word


def _from_python(value: object) -> bytes:
    if not isinstance(value, bool):
        raise wrong_type("a bool", value)
    return b"t" if value else b"f"


BOOLEAN = Equality(None, _from_text, _from_python)
