"""Texts of intervals.

Pure: no I/O. Read here are what the server prints, and numbers with units written out (`1 day 2 hours`, `90 min`), with
a time behind them or not; other forms are undecided unless surely wrong. Written is IntervalStyle postgres.
The manual: "Data Types", Interval Input.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

from cdc.operators.calendar import DAY, HOUR, MINUTE, SECOND
from cdc.operators.codec import failing
from cdc.operators.context import Context, Failed, Undecided
from cdc.values.equality import BLANKS
from cdc.values.intervals import Interval

__all__ = ["INFINITE", "Span", "interval_input", "interval_text", "read_interval"]

Span: TypeAlias = tuple[int, int, int]
"""The datum: months, days, microseconds."""

_MOST: Final = (2**31 - 1, 2**31 - 1, 2**63 - 1)
_LEAST: Final = (-(2**31), -(2**31), -(2**63))
INFINITE: Final[dict[Span, str]] = {_MOST: "infinity", _LEAST: "-infinity"}
"""Since version 17; before, these are finite, and in nobody's table."""

_INFINITIES = {text: span for span, text in INFINITE.items()}

_MONTHS, _DAYS, _MICROS = 0, 1, 2
_UNITS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("year", "years", "y"), (_MONTHS, 12)),
    **dict.fromkeys(("decade", "decades"), (_MONTHS, 120)),
    **dict.fromkeys(("century", "centuries"), (_MONTHS, 1200)),
    **dict.fromkeys(("month", "months", "mon", "mons"), (_MONTHS, 1)),
    **dict.fromkeys(("week", "weeks", "w"), (_DAYS, 7)),
    **dict.fromkeys(("day", "days", "d"), (_DAYS, 1)),
    **dict.fromkeys(("hour", "hours", "hr", "hrs", "h"), (_MICROS, HOUR)),
    **dict.fromkeys(("minute", "minutes", "min", "mins"), (_MICROS, MINUTE)),
    **dict.fromkeys(("second", "seconds", "sec", "secs", "s"), (_MICROS, SECOND)),
    **dict.fromkeys(("millisecond", "milliseconds", "ms"), (_MICROS, 1000)),
    **dict.fromkeys(("microsecond", "microseconds", "us"), (_MICROS, 1)),
}
_NUMBER = re.compile(r"([+-]?[0-9]{1,9}) *([a-z]+)(?: +|$)")
_TIME = re.compile(r"([+-]?)([0-9]{1,7}):([0-5]?[0-9])(?::([0-5]?[0-9])(?:\.([0-9]{1,6}))?)?")
_WORD = re.compile(r"(?!p|inf)[a-z]+")


def read_interval(cell: bytes) -> Span:
    """The datum of a cell. Raises ValueError."""
    text = cell.decode()
    if text in _INFINITIES:
        return _INFINITIES[text]
    value = Interval.from_text(text)
    return value.months, value.days, value.microseconds


def interval_text(context: Context, span: Span) -> str:
    """The output function."""
    return INFINITE.get(span) or str(Interval(*span))


def interval_input(context: Context, text: str) -> Span:
    """The input function."""
    word = text.strip(BLANKS).lower()
    if not word or _WORD.fullmatch(word):
        raise failing("interval")
    parts, seen, offset = [0, 0, 0], set[tuple[int, int]](), 0
    while (match := _NUMBER.match(word, offset)) is not None:
        unit = _UNITS.get(match[2])
        if unit is None or unit in seen:
            raise Undecided("a form of interval")
        seen.add(unit)
        parts[unit[0]] += int(match[1]) * unit[1]
        offset = match.end()
    if offset < len(word):
        parts[_MICROS] += _time(word[offset:], any(place == _MICROS for place, _ in seen))
    return _held(parts)


def _time(word: str, has_time: bool) -> int:
    """The microseconds of the hours, minutes and seconds at an interval's end."""
    match = _TIME.fullmatch(word)
    if match is None or has_time:
        raise Undecided("a form of interval")
    micros = int(match[2]) * HOUR + int(match[3]) * MINUTE + int(match[4] or 0) * SECOND
    micros += int((match[5] or "").ljust(6, "0"))
    return -micros if match[1] == "-" else micros


def _held(parts: Any) -> Span:
    months, days, micros = parts
    if abs(months) >= 2**31 or abs(days) >= 2**31:
        raise Failed("interval out of range")
    if abs(micros) >= 2**63 or (DAY and abs(micros) > 2**62):
        raise Undecided("an extreme interval")
    return months, days, micros
