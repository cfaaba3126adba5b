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
    convert = _CONVERSIONS.get(type(value))
    if convert is None:
        kinds = (_CONVERSIONS[kind] for kind in _CONVERSIONS if isinstance(value, kind))
        convert = next(kinds, _text)
    return convert(value)


def written_as(kind: type[_Kind], convert: Callable[[_Kind], str]) -> None:
    """Give the values of a class another text than their `str`."""
    _CONVERSIONS[kind] = convert


def _same(value: Any) -> Any:
    return value


def _int(value: int) -> int | str:
    return value if value.bit_length() < _LARGEST_BITS else _decimal(Decimal(value))


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decimal(value: Decimal) -> str:
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and abs(exponent) > _FIXED_POINT:
        return str(value)
    return format(value, "f")


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


def _container(value: object) -> Any:
    """A list, tuple or dict, converted without recursion."""
    top: list[Any] = [value]
    waiting: list[tuple[Any, int]] = [(top, 0)]
    while waiting:
        place, depth = waiting.pop()
        for name, item in place.items() if isinstance(place, dict) else enumerate(place):
            if not isinstance(item, _CONTAINERS):
                place[name] = jsonable(item)
            elif depth == _DEEPEST:
                place[name] = _text(item)
            else:
                place[name] = _copied(item)
                waiting.append((place[name], depth + 1))
    return top[0]


def _copied(value: Any) -> dict[str, Any] | list[Any]:
    """The container with its values as they are, and its names as text."""
    if isinstance(value, dict):
        return {name if type(name) is str else _text(name): item for name, item in value.items()}
    return list(value)


_CONTAINERS = (list, tuple, dict)

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
