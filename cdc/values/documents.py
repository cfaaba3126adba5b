"""Cells of json and jsonb.

Pure: no I/O, no clock. Every number keeps its value: an integer is an int, and another number is a float when the
float's own digits say the same, otherwise a Decimal. The manual: "Data Types", JSON Types.
"""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import NoReturn

from cdc.values.binary import printed_of
from cdc.values.equality import quoted

__all__ = ["DEEPEST", "document_of", "document_of_printed", "is_deep"]

DEEPEST = 200
_SURE_DIGITS = 15  # a decimal of no more digits survives a float


def document_of(cell: bytes) -> object:
    """The Python value of a JSON cell: dict, list, str, int, float, Decimal, bool or None.

    Raises ValueError for what is no JSON, for a number that not even a Decimal can hold, and for a document nested
    more than 200 levels deep, on which Python's recursion would fail, if not here then where it is written again.
    """
    return _document(cell.decode())


def document_of_printed(cell: bytes) -> object:
    """As `document_of`, of a jsonb cell in binary form. Raises ValueError."""
    return _document(printed_of(cell))


def _document(text: str) -> object:
    try:
        value = _loaded(text)
    except RecursionError:
        raise _too_deep(text) from None
    if text.count("[") + text.count("{") > DEEPEST and is_deep(value):
        raise _too_deep(text)
    return value


def _loaded(text: str) -> object:
    try:
        return _PLAIN.decode(text)
    except (json.JSONDecodeError, _NotHeldError):
        raise
    except ValueError:  # Python's limit on the digits of an int
        return _LARGE.decode(text)


class _NotHeldError(ValueError):
    """The document holds something that has no value."""


def _number(digits: str) -> float | Decimal:
    """The float of a number with a fraction or an exponent, or its Decimal when the float is another number."""
    value = float(digits)
    if len(digits) <= _SURE_DIGITS and "e" not in digits and "E" not in digits:
        return value
    exact = _decimal(digits)
    return value if exact == Decimal(repr(value)) else exact


def _decimal(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:
        raise _NotHeldError(f"the number {quoted(digits)} is beyond what a Decimal can hold") from None


def _large(digits: str) -> int | Decimal:
    try:
        return int(digits)
    except ValueError:
        return _decimal(digits)


def _no_constant(word: str) -> NoReturn:
    raise _NotHeldError(f"{word} is not JSON")


_PLAIN = json.JSONDecoder(parse_float=_number, parse_constant=_no_constant)
_LARGE = json.JSONDecoder(parse_float=_number, parse_int=_large, parse_constant=_no_constant)


def is_deep(value: object) -> bool:
    """Whether a document is nested more than 200 levels deep; Python's own limit differs between its versions."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return any(isinstance(value, (dict, list)) for value in level)


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _too_deep(text: str) -> ValueError:
    return ValueError(f"the document {quoted(text[:100])} is nested more than {DEEPEST} levels deep")
