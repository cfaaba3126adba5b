"""Makes values ready for JSON.

Pure: no I/O, no clock. What JSON has no type for becomes the text that PostgreSQL would print, or ISO 8601.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

__all__ = ["jsonable", "written_as"]

_Kind = TypeVar("_Kind")

_DEEPEST = 300  # nested deeper than that, Python's json fails
_LARGEST_BITS = 14_000  # of an int that Python's json writes
_FIXED_POINT = 150_000  # digits; numeric has fewer


def jsonable(value: object) -> Any:
    """The value as None, bool, int, float, str, list or dict.

    A finite float stays, NaN and infinities become `NaN`, `Infinity`, `-Infinity`; Decimal becomes a str without
    exponent; times become ISO 8601, aware ones in UTC; bytes become `\\x` and hex digits; ranges become `[1,5)` and
    multiranges `{[1,5)}`; lists, tuples and dicts are converted throughout; anything else becomes `str(value)`, as do
    an int that Python's json refuses and what is nested more than 300 levels deep.
    """
    return (_CONVERSIONS.get(type(value)) or _inherited(value))(value)


def written_as(kind: type[_Kind], convert: Callable[[_Kind], str]) -> None:
    """Give the values of a class another text than their `str`."""
    _CONVERSIONS[kind] = convert


def _inherited(value: object) -> Callable[[Any], Any]:
    """The conversion of the first class in the table that the value is an instance of."""
    return next((_CONVERSIONS[kind] for kind in _CONVERSIONS if isinstance(value, kind)), _text)


def _same(value: Any) -> Any:
    return value


def _int(value: int) -> int | str:
    return value if value.bit_length() < _LARGEST_BITS else _decimal(Decimal(value))


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decimal(value: Decimal) -> str:
    return format(value, "f") if abs(value.adjusted()) < _FIXED_POINT else str(value)


def _datetime(value: datetime) -> str:
    if value.tzinfo is None:
        return value.isoformat()
    try:
        return value.astimezone(UTC).isoformat()
    except OverflowError:  # its time in UTC lies outside the years 1 to 9999
        return value.isoformat()


def _iso(value: date | time) -> str:
    return value.isoformat()


def _hex(value: bytes) -> str:
    return "\\x" + value.hex()


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # a user's class, or a depth that Python's recursion does not reach
        return f"<{type(value).__name__}>"


def _container(value: Any) -> Any:
    """A list, tuple or dict, converted without recursion."""
    top = _empty(value)
    waiting = [(top, value, 1)]
    while waiting:
        made, source, depth = waiting.pop()
        named = isinstance(source, dict)
        for name, item in source.items() if named else enumerate(source):
            convert = _CONVERSIONS.get(type(item)) or _inherited(item)
            if convert is not _container:
                plain = convert(item)
            elif depth > _DEEPEST:
                plain = _text(item)
            else:
                plain = _empty(item)
                waiting.append((plain, item, depth + 1))
            if named:
                made[name if type(name) is str else _text(name)] = plain
            else:
                made.append(plain)
    return top


def _empty(value: object) -> Any:
    return {} if isinstance(value, dict) else []


# Sub-classes take the first that fits, so bool stands before int and datetime before date.
_CONVERSIONS: dict[type, Callable[[Any], Any]] = {
    type(None): _same,
    bool: _same,
    int: _int,
    str: _same,
    float: _float,
    Decimal: _decimal,
    datetime: _datetime,
    date: _iso,
    time: _iso,
    UUID: str,
    bytes: _hex,
    list: _container,
    tuple: _container,
    dict: _container,
}
