"""interval: comparisons and arithmetic.

Pure: no I/O. A month counts as 30 days and a day as 24 hours where intervals are compared, and where one is broken into
parts. What has to do with the infinite intervals of version 17 is undecided. The manual: "Functions and Operators",
Date/Time Functions and Operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from cdc.operators.builtins import Builtin, Table
from cdc.operators.calendar import DAY, HOUR, MINUTE, SECOND
from cdc.operators.codec import Codec
from cdc.operators.context import Failed, Undecided
from cdc.operators.interval_texts import INFINITE, Span, interval_input, interval_text, read_interval
from cdc.operators.orders import comparisons

__all__ = ["CODECS", "INTERVAL", "TABLE", "finite", "held_span", "justified_hours", "span_key"]

INTERVAL = "interval"
_MONTH_DAYS, _DAY_SECONDS = 30, 86_400
_ALL_FIELDS, _ALL_DIGITS = 0x7FFF, 0xFFFF
_MOST_SECONDS = 1e12

CODECS = {1186: Codec(read_interval, interval_input, interval_text)}


def span_key(span: Span) -> int:
    """What an interval is compared by: microseconds."""
    months, days, micros = span
    return (months * _MONTH_DAYS + days) * DAY + micros


def finite(*spans: Span) -> None:
    """Raises Undecided when one of the intervals is infinite."""
    if any(span in INFINITE for span in spans):
        raise Undecided("an infinite interval")


def held_span(months: int, days: int, micros: int) -> Span:
    """The interval of these parts. Raises Failed when the type cannot hold it."""
    if not (-(2**31) <= months < 2**31 and -(2**31) <= days < 2**31 and -(2**63) <= micros < 2**63):
        raise Failed("interval out of range")
    finite((months, days, micros))
    return months, days, micros


def _sum(left: Span, right: Span) -> Span:
    finite(left, right)
    return held_span(*(one + two for one, two in zip(left, right, strict=True)))


def _difference(left: Span, right: Span) -> Span:
    finite(left, right)
    return held_span(*(one - two for one, two in zip(left, right, strict=True)))


def _negative(span: Span) -> Span:
    finite(span)
    return held_span(*(-part for part in span))


def _multiplied(span: Span, factor: float) -> Span:
    return _scaled(span, factor, lambda number: number * factor)


def _divided(span: Span, factor: float) -> Span:
    if factor == 0:
        raise Failed("division by zero")
    return _scaled(span, factor, lambda number: number / factor)


def _scaled(span: Span, factor: float, scale: Callable[[int], float]) -> Span:
    """What is left of months becomes days, what is left of days becomes time, rounded as the server rounds."""
    finite(span)
    if not math.isfinite(factor):
        raise Undecided("an interval multiplied with what is no finite number")
    all_months, all_days = scale(span[0]), scale(span[1])
    months, days = _cut(all_months), _cut(all_days)
    more_days = _to_micros((all_months - months) * _MONTH_DAYS)
    seconds = _to_micros((all_days - days + more_days - int(more_days)) * _DAY_SECONDS)
    if abs(seconds) >= _DAY_SECONDS:
        whole = int(seconds / _DAY_SECONDS)
        days += whole
        seconds -= whole * _DAY_SECONDS
    micros = scale(span[2]) + seconds * SECOND
    if not -(2.0**63) <= micros < 2.0**63:
        raise Failed("interval out of range")
    return held_span(months, days + int(more_days), round(micros))


def _cut(number: float) -> int:
    if not -(2.0**31) <= number < 2.0**31:
        raise Failed("interval out of range")
    return int(number)


def _to_micros(number: float) -> float:
    return float(round(number * 1e6)) / 1e6


def _parts(number: int, size: int) -> tuple[int, int]:
    """Quotient and rest, towards zero."""
    whole = abs(number) // size
    whole = -whole if number < 0 else whole
    return whole, number - whole * size


def _alike(great: int, small: int, size: int) -> tuple[int, int]:
    """Both with the same sign; `size` of the smaller unit are one of the greater."""
    if great > 0 > small:
        return great - 1, small + size
    if great < 0 < small:
        return great + 1, small - size
    return great, small


def justified_hours(span: Span) -> Span:
    """With whole days out of the time."""
    finite(span)
    months, days, micros = span
    whole, micros = _parts(micros, DAY)
    days, micros = _alike(days + whole, micros, DAY)
    return held_span(months, days, micros)


def _justified_days(span: Span) -> Span:
    finite(span)
    months, days, micros = span
    whole, days = _parts(days, _MONTH_DAYS)
    months, days = _alike(months + whole, days, _MONTH_DAYS)
    return held_span(months, days, micros)


def _justified(span: Span) -> Span:
    finite(span)
    months, days, micros = span
    whole, micros = _parts(micros, DAY)
    more, days = _parts(days + whole, _MONTH_DAYS)
    months += more
    if months > 0 and (days < 0 or (days == 0 and micros < 0)):
        months, days = months - 1, days + _MONTH_DAYS
    elif months < 0 and (days > 0 or (days == 0 and micros > 0)):
        months, days = months + 1, days - _MONTH_DAYS
    days, micros = _alike(days, micros, DAY)
    return held_span(months, days, micros)


def _made(years: int, months: int, weeks: int, days: int, hours: int, minutes: int, seconds: float) -> Span:
    if not math.isfinite(seconds):
        raise Failed("interval out of range")
    if abs(seconds) > _MOST_SECONDS:
        raise Undecided("an extreme interval")
    parts = years * 12 + months, weeks * 7 + days, hours * HOUR + minutes * MINUTE + round(seconds * 1e6)
    if abs(parts[0]) >= 2**31 or abs(parts[1]) >= 2**31 or abs(parts[2]) >= 2**62:
        raise Undecided("an extreme interval")  # versions differ
    return parts


def _restricted(span: Span, modifier: int) -> Span:
    """The cast to `interval(digits)`; one to `interval day` and the like is undecided."""
    finite(span)
    fields, digits = (modifier >> 16) & 0xFFFF, modifier & 0xFFFF
    if modifier < 0:
        return span
    if fields != _ALL_FIELDS or (digits > 6 and digits != _ALL_DIGITS):
        raise Undecided("an interval of some fields")
    if digits == _ALL_DIGITS:
        return span
    unit: int = 10 ** (6 - digits)
    size = (abs(span[2]) + unit // 2) // unit * unit
    if size > 2**62:
        raise Undecided("an extreme interval")
    return span[0], span[1], -size if span[2] < 0 else size


def _is_finite(span: Span) -> bool:
    return span not in INFINITE


_BOTH = f"({INTERVAL}, {INTERVAL})"

TABLE: Table = {
    **comparisons("interval_{}", INTERVAL, keys=(span_key, span_key)),
    f"interval_larger{_BOTH}": Builtin(lambda one, two: one if span_key(one) > span_key(two) else two),
    f"interval_smaller{_BOTH}": Builtin(lambda one, two: one if span_key(one) < span_key(two) else two),
    f"interval_pl{_BOTH}": Builtin(_sum),
    f"interval_mi{_BOTH}": Builtin(_difference),
    f"interval_um({INTERVAL})": Builtin(_negative),
    f"interval_mul({INTERVAL}, double precision)": Builtin(_multiplied),
    f"mul_d_interval(double precision, {INTERVAL})": Builtin(lambda factor, span: _multiplied(span, factor)),
    f"interval_div({INTERVAL}, double precision)": Builtin(_divided),
    f"justify_hours({INTERVAL})": Builtin(justified_hours),
    f"justify_days({INTERVAL})": Builtin(_justified_days),
    f"justify_interval({INTERVAL})": Builtin(_justified),
    f"interval({INTERVAL}, integer)": Builtin(_restricted),
    f"isfinite({INTERVAL})": Builtin(_is_finite),
    "make_interval(years integer, months integer, weeks integer, days integer, hours integer, mins integer, "
    "secs double precision)": Builtin(_made),
}
