"""Texts of dates and timestamps: what the server prints, and what people write.

Pure: no I/O, no clock. PostgreSQL reads a great many forms, partly by settings of its session. Read here are ISO 8601,
what the server itself prints, and infinities; other forms are undecided unless surely wrong.
The manual: "Data Types", Date/Time Input.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

from cdc.operators.calendar import (
    DATE_INFINITIES,
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    TIMESTAMP_INFINITIES,
    days_of,
    held_date,
    held_timestamp,
    is_finite_date,
    is_finite_timestamp,
    written_day,
)
from cdc.operators.context import Context, Failed, Undecided
from cdc.operators.zones import local_of, utc_of, zone_of
from cdc.values.binary_times import time_text
from cdc.values.equality import BLANKS
from cdc.values.times import TIMESTAMP, TIMESTAMPTZ

__all__ = ["date_input", "date_text", "read_date", "read_timestamp", "timestamp_input", "timestamp_text"]
__all__ += ["offset_text", "timestamptz_input", "timestamptz_text"]

_PRINTED = re.compile(
    r"([0-9]{4,7})-([0-9]{2})-([0-9]{2})(?: ([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?)?"
    r"(?:([+-])([0-9]{2})(?::([0-9]{2}))?(?::([0-9]{2}))?)?( BC)?"
)
_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:[Tt ]+([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.[0-9]+)?)?)?"
    r" *(?:[Zz]|([+-][0-9]{2})(?::?[0-9]{2})?)?"
)
_WORD = re.compile(r"[A-Za-z]+")
_DAY_LENGTH, _EPOCH_DAY = len("2000-01-01"), date(2000, 1, 1).toordinal()
_NAIVE, _AWARE = datetime(2000, 1, 1), datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DATES = {text: days for days, text in DATE_INFINITIES.items()}
_TIMESTAMPS = {text: micros for micros, text in TIMESTAMP_INFINITIES.items()}
_RELATIVE = frozenset({"now", "yesterday", "today", "tomorrow", "allballs", "zulu", "z"})
_OFFSETS_END = 16 * HOUR
_UNIX = days_of(1970, 1, 1)


def read_date(cell: bytes) -> int:
    """The datum of a cell of date. Raises ValueError."""
    text = cell.decode()
    if len(text) == _DAY_LENGTH:
        return date.fromisoformat(text).toordinal() - _EPOCH_DAY
    if text in _DATES:
        return _DATES[text]
    local, offset, has_time = _printed(text)
    if offset is not None or has_time:
        raise ValueError("not a date")
    return local // DAY


def read_timestamp(cell: bytes) -> int:
    """The datum of a cell of timestamp, or of timestamptz. Raises ValueError."""
    text = cell.decode()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _beyond_python(text)
    return (moment - (_NAIVE if moment.tzinfo is None else _AWARE)) // _MICROSECOND


def _beyond_python(text: str) -> int:
    """A timestamp that Python's type cannot hold. Raises ValueError when it is none."""
    if text in _TIMESTAMPS:
        return _TIMESTAMPS[text]
    local, offset, _ = _printed(text)
    return local - (offset or 0)


def _printed(text: str) -> tuple[int, int | None, bool]:
    """Microseconds, the offset in microseconds if there is one, and whether there is a time. Raises ValueError."""
    match = _PRINTED.fullmatch(text)
    if match is None:
        raise ValueError("not as the server prints it")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    days = days_of(1 - year if match[12] else year, month, day)
    if year == 0 or hour > 23 or minute > 59 or second > 59:
        raise ValueError("not as the server prints it")
    micros = days * DAY + hour * HOUR + minute * MINUTE + second * SECOND + int((match[7] or "").ljust(6, "0"))
    if match[8] is None:
        return micros, None, match[4] is not None
    size = int(match[9]) * HOUR + int(match[10] or 0) * MINUTE + int(match[11] or 0) * SECOND
    return micros, -size if match[8] == "-" else size, True


def date_input(context: Context, text: str) -> int:
    """The input function of date."""
    word = text.strip(BLANKS)
    if word.lower() in _DATES:
        return _DATES[word.lower()]
    if _WORD.fullmatch(word):
        return _named(word.lower()) // DAY
    local = _local(word)
    return held_date(local[0] // DAY)


def timestamp_input(context: Context, text: str) -> int:
    """The input function of timestamp: an offset is read, and ignored."""
    word = text.strip(BLANKS)
    if word.lower() in _TIMESTAMPS:
        return _TIMESTAMPS[word.lower()]
    if _WORD.fullmatch(word):
        return _named(word.lower())
    return held_timestamp(_local(word)[0])


def timestamptz_input(context: Context, text: str) -> int:
    """The input function of timestamptz: without an offset, it is a time of the session's zone."""
    word = text.strip(BLANKS)
    if word.lower() in _TIMESTAMPS:
        return _TIMESTAMPS[word.lower()]
    if _WORD.fullmatch(word):
        return _named(word.lower())
    local, offset = _local(word)
    return utc_of(zone_of(context), local) if offset is None else held_timestamp(local - offset)


def _named(word: str) -> int:
    """The time of a word. Raises Failed when there is no such word, Undecided when it depends on the moment."""
    if word == "epoch":
        return _UNIX * DAY
    if word in _RELATIVE:
        raise Undecided("a word that means a day or a time as of now")
    raise Failed("invalid input for a date or time")


def _local(word: str) -> tuple[int, int | None]:
    """The local time and its offset, in microseconds. Raises Failed for what is surely wrong, else Undecided."""
    try:
        local, offset, _ = _printed(word)
    except ValueError:
        return _written_by_people(word)
    if abs(offset or 0) >= _OFFSETS_END:
        raise Failed("time zone displacement out of range")
    return local, offset


def _written_by_people(word: str) -> tuple[int, int | None]:
    try:
        local = read_timestamp(_cell(TIMESTAMP.from_text(word)))
    except ValueError:
        raise Failed("invalid input for a date or time") if _is_wrong(word) else Undecided("a form of date") from None
    try:
        return local, local - read_timestamp(_cell(TIMESTAMPTZ.from_text(word)))
    except ValueError as error:
        if "no offset" in str(error):
            return local, None
        raise Undecided("a form of date") from None


def _cell(hashable: object) -> bytes:
    if not isinstance(hashable, bytes):
        raise ValueError("not a cell")
    return hashable


def _is_wrong(word: str) -> bool:
    """Whether a text is no date for the server either: nothing at all, or ISO with a number out of range."""
    match = _ISO.fullmatch(word)
    if match is None:
        return not word
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    try:
        days_of(year, month, day)
    except ValueError:
        return True
    return year == 0 or hour > 24 or minute > 59 or second > 60 or abs(int(match[7] or 0)) > 16


def date_text(context: Context, days: int) -> str:
    """The output function of date."""
    return "".join(written_day(days)) if is_finite_date(days) else DATE_INFINITIES[days]


def timestamp_text(context: Context, micros: int) -> str:
    """The output function of timestamp."""
    return _written(micros, "") if is_finite_timestamp(micros) else TIMESTAMP_INFINITIES[micros]


def timestamptz_text(context: Context, micros: int) -> str:
    """The output function of timestamptz, in the session's zone."""
    if not is_finite_timestamp(micros):
        return TIMESTAMP_INFINITIES[micros]
    zone = zone_of(context)
    local = micros if zone is UTC else local_of(zone, micros)
    return _written(local, offset_text((local - micros) // SECOND))


def _written(micros: int, offset: str) -> str:
    days, rest = divmod(micros, DAY)
    day, era = written_day(days)
    return f"{day} {time_text(rest)}{offset}{era}"


def offset_text(seconds: int) -> str:
    """An offset to UTC as the server writes it: `+01`, `-03:30`, `+00:19:32`."""
    sign, size = "-" if seconds < 0 else "+", abs(seconds)
    parts = [size // 3600, size // 60 % 60, size % 60]
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return sign + ":".join(f"{part:02d}" for part in parts)
