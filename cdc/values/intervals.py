"""Cells of interval.

Pure: no I/O, no clock. An interval has three parts that the server never mixes: a month has no fixed number of
days, a day no fixed number of hours. Cells are in IntervalStyle postgres, which the replication connection sets.
The manual: "Data Types", Interval Input and Interval Output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from cdc.values.binary import Reader
from cdc.values.binary_times import time_text
from cdc.values.equality import quoted

__all__ = ["Interval", "interval_of", "interval_of_binary"]

_MONTHS = 12
_HOUR, _MINUTE, _SECOND = 3_600_000_000, 60_000_000, 1_000_000
_NUMBER = "([+-]?[0-9]{1,10})"
_FORM = re.compile(
    rf"(?!$)(?:{_NUMBER} years?(?: |$))?(?:{_NUMBER} mons?(?: |$))?(?:{_NUMBER} days?(?: |$))?"
    r"(?:([+-]?)([0-9]{2,10}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?)?(?<! )"
)
_INFINITIES = frozenset({"infinity", "-infinity"})
_LEAST = (-(2**63), -(2**31), -(2**31))
_MOST = (2**63 - 1, 2**31 - 1, 2**31 - 1)


@dataclass(frozen=True, slots=True)
class Interval:
    """A value of type interval; `str` writes it as PostgreSQL does.

    Two are equal when all three parts are. The server's `=` also takes a month for 30 days and a day for 24 hours.

    Attributes:
        months: months; twelve to a year.
        days: days.
        microseconds: the rest, which may be more than a day.
    """

    months: int = 0
    days: int = 0
    microseconds: int = 0

    @classmethod
    def from_text(cls, text: str) -> Interval:
        """The interval of what PostgreSQL prints, `1 year 2 mons -3 days +04:05:06.7`. Raises ValueError."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"{quoted(text)} is not an interval as PostgreSQL prints it")
        years, months, days, sign, hours, minutes, seconds, fraction = match.groups()
        micros = int(hours or 0) * _HOUR + int(minutes or 0) * _MINUTE + int(seconds or 0) * _SECOND
        micros += int((fraction or "").ljust(6, "0"))
        return cls(int(years or 0) * _MONTHS + int(months or 0), int(days or 0), -micros if sign == "-" else micros)

    def timedelta(self) -> timedelta:
        """The same as a timedelta, a day as 24 hours. Raises ValueError when there are months, or too many days."""
        if self.months:
            raise ValueError(f"{quoted(str(self))} has months, which have no fixed number of days")
        try:
            return timedelta(days=self.days, microseconds=self.microseconds)
        except OverflowError:
            raise ValueError(f"{quoted(str(self))} is longer than a timedelta can be") from None

    def __str__(self) -> str:
        size = abs(self.months)
        sign = -1 if self.months < 0 else 1
        parts = ((sign * (size // _MONTHS), "year"), (sign * (size % _MONTHS), "mon"), (self.days, "day"))
        words: list[str] = []
        after_negative = False
        for number, unit in parts:
            if number:
                plus = "+" if after_negative and number > 0 else ""
                words.append(f"{plus}{number} {unit}{'' if number == 1 else 's'}")
                after_negative = number < 0
        if self.microseconds or not words:
            mark = "-" if self.microseconds < 0 else "+" if after_negative else ""
            words.append(mark + time_text(abs(self.microseconds)))
        return " ".join(words)


def interval_of(cell: bytes) -> Interval | str:
    """The Interval of a cell, or its text when it is infinite, as it can be since version 17. Raises ValueError."""
    text = cell.decode()
    return text if text in _INFINITIES else Interval.from_text(text)


def interval_of_binary(cell: bytes) -> Interval | str:
    """As `interval_of`, from Int64 microseconds, Int32 days, Int32 months. Raises ValueError."""
    reader = Reader(cell)
    parts = reader.signed(8), reader.signed(4), reader.signed(4)
    reader.end()
    if parts in (_LEAST, _MOST):
        return "infinity" if parts == _MOST else "-infinity"
    micros, days, months = parts
    return Interval(months, days, micros)
