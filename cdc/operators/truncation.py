"""date_trunc.

Pure: no I/O. The manual: "Functions and Operators", date_trunc.
"""

from __future__ import annotations

from datetime import UTC, tzinfo

from cdc.operators.builtins import Builtin, Table
from cdc.operators.calendar import DAY, HOUR, MINUTE, SECOND, civil, days_of, held_timestamp, is_finite_timestamp
from cdc.operators.context import Context, Failed, Undecided
from cdc.operators.dates import TIMESTAMP, TIMESTAMPTZ
from cdc.operators.fields import cut, unit_of
from cdc.operators.interval_texts import Span
from cdc.operators.intervals import finite
from cdc.operators.zones import local_of, named_zone, utc_of, zone_of

__all__ = ["TABLE"]

_SIZES = {"microsecond": 1, "millisecond": 1000, "second": SECOND, "minute": MINUTE, "hour": HOUR}
_MONTHS = {"month": 1, "quarter": 3, "year": 12, "decade": 120, "century": 1200, "millennium": 12_000}
_YEARS = {"century": 100, "millennium": 1000}


def _first_day(unit: str, days: int) -> int:
    """The first day of the unit in which a day is. Raises Failed for what is no such unit."""
    if unit == "day":
        return days
    if unit == "week":
        return days - (days + 5) % 7
    year, month, _ = civil(days)
    if unit == "month":
        return days_of(year, month, 1)
    if unit == "quarter":
        return days_of(year, (month - 1) // 3 * 3 + 1, 1)
    if unit == "decade":
        year = year // 10 * 10 if year > 0 else -((8 - (year - 1)) // 10) * 10
    elif unit in _YEARS:
        size = _YEARS[unit]
        year = (year - 1) // size * size + 1
    elif unit != "year":
        raise Failed("a unit that date_trunc does not have")
    return days_of(year, 1, 1)


def _truncated(name: str, micros: int, zone: tzinfo = UTC) -> int:
    """The start of a unit, by the clocks of a zone."""
    unit = unit_of(name)
    if not is_finite_timestamp(micros):
        if unit not in _SIZES and unit not in _MONTHS and unit not in ("day", "week"):
            raise Undecided("an infinite time and a unit that date_trunc does not have")  # versions differ
        return micros
    local = local_of(zone, micros)
    if unit in _SIZES:
        return held_timestamp(micros - local % _SIZES[unit])
    return utc_of(zone, held_timestamp(_first_day(unit, local // DAY) * DAY))


def _truncated_span(name: str, span: Span) -> Span:
    finite(span)
    unit, (months, days, micros) = unit_of(name), span
    if unit in _SIZES:
        return months, days, cut(micros, _SIZES[unit]) * _SIZES[unit]
    if unit == "day":
        return months, days, 0
    if unit == "quarter" and months < 0:
        raise Undecided("a quarter of a negative interval")
    if unit not in _MONTHS:
        raise Failed("a unit that date_trunc does not have")
    return cut(months, _MONTHS[unit]) * _MONTHS[unit], 0, 0


def _bin(span: Span, micros: int, origin: int) -> int:
    """The start of the bin, one of equal size that begin at the origin."""
    finite(span)
    months, days, time = span
    stride = days * DAY + time
    if not is_finite_timestamp(micros):
        return micros
    if not is_finite_timestamp(origin) or months or stride <= 0:
        raise Failed("a bin of no certain size")
    if stride >= 2**62 or origin > micros or micros - origin >= 2**63:
        raise Undecided("a bin before its origin")  # versions differ
    return micros - (micros - origin) % stride


def _in_session(context: Context, name: str, micros: int) -> int:
    return _truncated(name, micros, zone_of(context))


TABLE: Table = {
    f"date_trunc(text, {TIMESTAMP})": Builtin(_truncated),
    f"date_trunc(text, {TIMESTAMPTZ})": Builtin(_in_session, contextual=True),
    f"date_trunc(text, {TIMESTAMPTZ}, text)": Builtin(
        lambda name, micros, zone: _truncated(name, micros, named_zone(zone))
    ),
    **{f"date_bin(interval, {kind}, {kind})": Builtin(_bin) for kind in (TIMESTAMP, TIMESTAMPTZ)},
    "date_trunc(text, interval)": Builtin(_truncated_span),
}
