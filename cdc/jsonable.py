"""Makes values ready for JSON.

Pure: no I/O, no clock. What JSON has no type for becomes the text that PostgreSQL would print, or ISO 8601.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ["jsonable"]


def jsonable(value: object) -> Any:
    """The value as None, bool, int, float, str, list or dict.

    A finite float stays, NaN and infinities become `NaN`, `Infinity`, `-Infinity`; Decimal becomes a str without
    exponent; times become ISO 8601, aware ones in UTC; bytes become `\\x` and hex digits; lists, tuples and dicts
    are converted throughout; anything else becomes `str(value)`.
    """
    convert = _CONVERSIONS.get(type(value))
    if convert is None:
        kinds = (_CONVERSIONS[kind] for kind in _CONVERSIONS if isinstance(value, kind))
        convert = next(kinds, str)
    return convert(value)


def _same(value: Any) -> Any:
    return value


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decimal(value: Decimal) -> str:
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


def _list(value: list[object] | tuple[object, ...]) -> list[Any]:
    return [jsonable(item) for item in value]


def _dict(value: dict[object, object]) -> dict[str, Any]:
    return {str(name): jsonable(item) for name, item in value.items()}


# Sub-classes take the first that fits, so bool stands before int and datetime before date.
_CONVERSIONS: dict[type, Callable[[Any], Any]] = {
    type(None): _same,
    bool: _same,
    int: _same,
    str: _same,
    float: _float,
    Decimal: _decimal,
    datetime: _datetime,
    date: _iso,
    time: _iso,
    UUID: str,
    bytes: _hex,
    list: _list,
    tuple: _list,
    dict: _dict,
}
