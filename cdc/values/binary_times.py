"""Binary cells of date, time and timestamp.

Pure: no I/O, no clock. They count days or microseconds from 2000-01-01. What Python's types cannot hold becomes the
text that the server would print, as in `times`. The manual: "Data Types", Date/Time Types.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone

from cdc.values.binary import Reader
from cdc.values.equality import quoted

__all__ = ["date_of_binary", "time_of_binary", "time_text", "timestamp_of_binary", "timestamptz_of_binary"]
__all__ += ["timetz_of_binary"]

_EPOCH = date(2000, 1, 1).toordinal()
_LAST = date.max.toordinal()
_NAIVE, _AWARE = datetime(2000, 1, 1), datetime(2000, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
_CYCLE_DAYS, _CYCLE_YEARS = 146_097, 400  # the calendar repeats itself
_INFINITIES = {size: {-(2 ** (8 * size - 1)): "-infinity", 2 ** (8 * size - 1) - 1: "infinity"} for size in (4, 8)}


def date_of_binary(cell: bytes) -> date | str:
    """As `times.date_of`, from Int32 days. Raises ValueError."""
    days = _count(cell, 4)
    if isinstance(days, str):
        return days
    ordinal = days + _EPOCH
    return date.fromordinal(ordinal) if 1 <= ordinal <= _LAST else "".join(_day_text(days))


def time_of_binary(cell: bytes) -> time | str:
    """As `times.time_of`, from Int64 microseconds. Raises ValueError."""
    reader = Reader(cell)
    value = _time(reader.signed(8), None)
    reader.end()
    return value


def timetz_of_binary(cell: bytes) -> time | str:
    """As `times.timetz_of`, from Int64 microseconds and Int32 seconds to the west of UTC. Raises ValueError."""
    reader = Reader(cell)
    micros, west = reader.signed(8), reader.signed(4)
    reader.end()
    if abs(west) >= 86_400:
        raise ValueError(f"{quoted(cell)} has an offset of more than a day")
    if micros == _DAY:
        return f"24:00:00{_offset_text(-west)}"
    return _time(micros, timezone(timedelta(seconds=-west)) if west else UTC)


def timestamp_of_binary(cell: bytes) -> datetime | str:
    """As `times.timestamp_of`, from Int64 microseconds. Raises ValueError."""
    micros = _count(cell, 8)
    if isinstance(micros, str):
        return micros
    try:
        return _NAIVE + timedelta(0, 0, micros)
    except OverflowError:
        return _moment_text(micros, "")


def timestamptz_of_binary(cell: bytes) -> datetime | str:
    """As `times.timestamptz_of`, from Int64 microseconds. Raises ValueError."""
    micros = _count(cell, 8)
    if isinstance(micros, str):
        return micros
    try:
        return _AWARE + timedelta(0, 0, micros)
    except OverflowError:
        return _moment_text(micros, "+00")


def time_text(micros: int) -> str:
    """`04:05:06.7`, of microseconds that are not negative; hours may have more than two digits."""
    seconds, fraction = divmod(micros, _SECOND)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    text = f"{hour:02d}:{minute:02d}:{second:02d}"
    return f"{text}.{fraction:06d}".rstrip("0") if fraction else text


def _count(cell: bytes, size: int) -> int | str:
    """The number in a cell, or the text of an infinity, which stands at either end of its range."""
    if len(cell) != size:
        raise ValueError(f"{quoted(cell)} does not have {size} bytes, as this date or timestamp has")
    number = int.from_bytes(cell, "big", signed=True)
    return _INFINITIES[size].get(number, number)


def _time(micros: int, zone: timezone | None) -> time | str:
    if not 0 <= micros <= _DAY:
        raise ValueError(f"{micros} microseconds are not a time of day")
    if micros == _DAY:
        return "24:00:00"
    moment = _NAIVE + timedelta(microseconds=micros)
    return time(moment.hour, moment.minute, moment.second, moment.microsecond, zone)


def _offset_text(seconds: int) -> str:
    sign, size = "-" if seconds < 0 else "+", abs(seconds)
    parts = [size // 3600, size // 60 % 60, size % 60]
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return sign + ":".join(f"{part:02d}" for part in parts)


def _day_text(days: int) -> tuple[str, str]:
    """A day of any year, and ` BC` or nothing behind it."""
    cycles, rest = divmod(days + _EPOCH - 1, _CYCLE_DAYS)
    day = date.fromordinal(rest + 1)
    year = day.year + cycles * _CYCLE_YEARS
    written = f"{year if year > 0 else 1 - year:04d}-{day.month:02d}-{day.day:02d}"
    return written, "" if year > 0 else " BC"


def _moment_text(micros: int, offset: str) -> str:
    days, rest = divmod(micros, _DAY)
    day, era = _day_text(days)
    return f"{day} {time_text(rest)}{offset}{era}"
