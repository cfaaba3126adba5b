"""How PostgreSQL's `=` of one type is decided in Python, by hashing.

Pure: no I/O, no clock. Two values are equal for the server exactly when their hashables are equal here, so an
index from hashable to subscribers, or from key to cache entry, finds what the server's `=` would find. A type
whose text form is canonical (equal values print alike) needs no parsing: its hashable is the cell's bytes.

The parsers are stricter than the server's: what it reads one way and Python another, or what depends on its
version or a session's settings, is refused, so that nothing is compared that the two read differently.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

__all__ = ["BLANKS", "Equality", "encoded", "quoted", "wrong_type"]

BLANKS = " \t\n\v\f\r"
"""What PostgreSQL's input functions skip around a value: C's isspace, not Python's idea of white space."""

_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Equality:
    """Equality of one type.

    Attributes:
        from_cell: turns a cell into its hashable; None when the cell's bytes are the hashable themselves.
            Raises ValueError when the cell is not of the type.
        from_text: turns what a person or a policy writes into the hashable. Raises ValueError with one
            sentence that names the text and the type.
        from_python: turns a Python value, as the type's decoder gives it, into the hashable. Raises TypeError
            for another Python type, ValueError for a value that the type cannot hold.
    """

    from_cell: Callable[[bytes], Hashable] | None
    from_text: Callable[[str], Hashable]
    from_python: Callable[[object], Hashable]


def wrong_type(expected: str, value: object) -> TypeError:
    """The error for a Python value of the wrong type; `expected` is a noun such as `a str`."""
    return TypeError(f"expected {expected}, got {quoted(value)} of type {type(value).__name__}")


def quoted(value: object) -> str:
    """The value as a message shows it: its repr, cut when it is long."""
    try:
        shown = repr(value)
    except ValueError:  # an int of more digits than Python prints
        return "a very large number"
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"


def encoded(text: str) -> bytes:
    """The text in UTF-8. Raises ValueError for what no PostgreSQL text holds: NUL, and half a surrogate pair."""
    if "\x00" in text:
        raise ValueError(f"{quoted(text)} contains the character NUL, which PostgreSQL's text cannot hold")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{quoted(text)} contains half a surrogate pair, which is no character") from None
