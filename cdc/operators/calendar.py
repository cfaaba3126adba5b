"""Days and microseconds since 2000-01-01, and the calendar's years, months and days of them.

Pure: no I/O, no clock. The calendar is the Gregorian one without beginning and end, as PostgreSQL has it; the year
before 1 is 0 here and 1 BC in texts. Python's own dates end at the years 1 and 9999, but the calendar repeats itself.
"""

from __future__ import annotations

import math
from datetime import date
from typing import Final

from cdc.operators.context import Failed

__all__ = ["DATE_INFINITIES", "DAY", "HOUR", "MINUTE", "SECOND", "TIMESTAMP_INFINITIES"]
__all__ += ["civil", "day_key", "days_of", "held_date", "held_timestamp", "is_finite_date", "is_finite_timestamp"]
__all__ += ["month_length", "timestamp_key", "written_day"]

SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
"""Microseconds."""

_EPOCH = date(2000, 1, 1).toordinal()
_CYCLE_DAYS, _CYCLE_YEARS = 146_097, 400

DATE_INFINITIES: Final = {-(2**31): "-infinity", 2**31 - 1: "infinity"}
TIMESTAMP_INFINITIES: Final = {-(2**63): "-infinity", 2**63 - 1: "infinity"}

_FIRST_DATE, _AFTER_LAST_DATE = -2_451_545, 2_147_483_494 - 2_451_545
_FIRST_TIMESTAMP, _AFTER_LAST_TIMESTAMP = -211_813_488_000_000_000, 9_223_371_331_200_000_000


def days_of(year: int, month: int, day: int) -> int:
    """The days of a date. Raises ValueError when there is no such day."""
    cycles, within = divmod(year - 1, _CYCLE_YEARS)
    return date(within + 1, month, day).toordinal() + cycles * _CYCLE_DAYS - _EPOCH


def civil(days: int) -> tuple[int, int, int]:
    """Year, month and day."""
    cycles, rest = divmod(days + _EPOCH - 1, _CYCLE_DAYS)
    day = date.fromordinal(rest + 1)
    return day.year + cycles * _CYCLE_YEARS, day.month, day.day


def month_length(year: int, month: int) -> int:
    """Number of days of a month."""
    after = (year, month + 1) if month < 12 else (year + 1, 1)
    return days_of(*after, 1) - days_of(year, month, 1)


def written_day(days: int) -> tuple[str, str]:
    """A day as the server writes it, and ` BC` or nothing, which stands behind the time."""
    year, month, day = civil(days)
    return f"{year if year > 0 else 1 - year:04d}-{month:02d}-{day:02d}", "" if year > 0 else " BC"


def is_finite_date(days: int) -> bool:
    """Whether a date is no infinity."""
    return days not in DATE_INFINITIES


def is_finite_timestamp(micros: int) -> bool:
    """Whether a timestamp is no infinity."""
    return micros not in TIMESTAMP_INFINITIES


def held_date(days: int) -> int:
    """A finite date itself. Raises Failed when the type cannot hold it."""
    if not _FIRST_DATE <= days < _AFTER_LAST_DATE:
        raise Failed("date out of range")
    return days


def held_timestamp(micros: int) -> int:
    """A finite timestamp itself. Raises Failed when the type cannot hold it."""
    if not _FIRST_TIMESTAMP <= micros < _AFTER_LAST_TIMESTAMP:
        raise Failed("timestamp out of range")
    return micros


def day_key(days: int) -> int | float:
    """What a date is compared with timestamps by: microseconds, also where a timestamp could not hold them."""
    return days * DAY if days not in DATE_INFINITIES else math.copysign(math.inf, days)


def timestamp_key(micros: int) -> int | float:
    """What a timestamp is compared with dates by."""
    return micros if micros not in TIMESTAMP_INFINITIES else math.copysign(math.inf, micros)
