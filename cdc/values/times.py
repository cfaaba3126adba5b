"""Cells of date, time and timestamp, and the equality of dates and timestamps.

Pure: no I/O, no clock. Cells are ISO, and those of timestamp with time zone are in UTC, because the replication
connection sets DateStyle and TimeZone. Python's types end at the years 1 and 9999 and have no infinity; a
value beyond them comes as the server's own text, and so does the time `24:00:00`. A time with time zone keeps its
offset, as the server does.

Text that people write must be ISO 8601 with the years 1 to 9999, or `infinity`, `-infinity`. The server also reads
`now`, month names and much more, partly by settings of its session; that is refused here.
The manual: "Data Types", Date/Time Types.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from cdc.values.equality import BLANKS, Equality, quoted, wrong_type

__all__ = ["DATE", "TIMESTAMP", "TIMESTAMPTZ", "date_of", "time_of", "timestamp_of", "timestamptz_of", "timetz_of"]

_BEYOND = re.compile(r"-?infinity|[0-9]{4,}-[0-9]{2}-[0-9]{2}[0-9:.+ -]* BC|[0-9]{5,}-[0-9]{2}-[0-9]{2}[0-9:.+ -]*")
_INFINITIES = {"infinity": b"infinity", "-infinity": b"-infinity"}
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_TIMESTAMP = re.compile(
    _DATE.pattern
    + r"(?:(?:[Tt]| +)([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?"
    + r"(?: *([Zz]|[+-][0-9]{2}(?::?[0-9]{2}|:[0-9]{2}:[0-9]{2})?))?)?"
)
_END_OF_DAY = re.compile(r"24:00:00[+-][0-9]{2}(?::[0-9]{2}){0,2}")
_MAX_OFFSET_HOURS = 15  # the server's own limit


def date_of(cell: bytes) -> date | str:
    """The date of a cell, or its text when it is infinite, BC or above 9999. Raises ValueError."""
    text = cell.decode()
    try:
        return date.fromisoformat(text)
    except ValueError:
        return _beyond(text)


def time_of(cell: bytes) -> time | str:
    """The time of a cell, or the text `24:00:00`. Raises ValueError."""
    text = cell.decode()
    if text == "24:00:00":
        return text
    value = time.fromisoformat(text)
    if value.tzinfo is not None:
        raise ValueError(f"{quoted(text)} has an offset, a time without time zone has none")
    return value


def timetz_of(cell: bytes) -> time | str:
    """The time of a cell with its fixed offset, or its text when it is `24:00:00`. Raises ValueError."""
    text = cell.decode()
    if _END_OF_DAY.fullmatch(text):
        return text
    value = time.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError(f"{quoted(text)} has no offset, a time with time zone has one")
    return value


def timestamp_of(cell: bytes) -> datetime | str:
    """The naive datetime of a cell, or its text when it is infinite, BC or above 9999. Raises ValueError."""
    text = cell.decode()
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return _beyond(text)
    if value.tzinfo is not None:
        raise ValueError(f"{quoted(text)} has an offset, a timestamp without time zone has none")
    return value


def timestamptz_of(cell: bytes) -> datetime | str:
    """The datetime of a cell, aware and in UTC, or its text when Python cannot hold it. Raises ValueError."""
    text = cell.decode()
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return _beyond(text)
    if value.tzinfo is UTC:
        return value
    if value.tzinfo is None:
        raise ValueError(f"{quoted(text)} has no offset, a timestamp with time zone has one")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        return text


def _beyond(text: str) -> str:
    """The text itself when it is a time that Python's types cannot hold. Raises ValueError otherwise."""
    if _BEYOND.fullmatch(text):
        return text
    raise ValueError(f"{quoted(text)} is not an ISO date or timestamp")


def _as_sent(value: object) -> bytes | None:
    """The cell of a value that the decoders leave as text because Python cannot hold it, None for others."""
    return value.encode() if isinstance(value, str) and _BEYOND.fullmatch(value) else None


def _date_from_text(text: str) -> bytes:
    word = text.strip(BLANKS)
    if word.lower() in _INFINITIES:
        return _INFINITIES[word.lower()]
    match = _DATE.fullmatch(word)
    try:
        if match:
            return date(*map(int, match.groups())).isoformat().encode()
    except ValueError:
        pass
    raise ValueError(f"{quoted(text)} is not a date (write YYYY-MM-DD, years 0001 to 9999, or infinity)")


def _date_from_python(value: object) -> bytes:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat().encode()
    sent = _as_sent(value)
    if sent is None:
        raise wrong_type("a date", value)
    return sent


def _timestamp_from_text(text: str) -> bytes:
    # An offset is read and ignored: the server does the same for a timestamp without time zone.
    infinite, moment, _ = _moment(text, "a timestamp")
    return infinite or _written(moment)


def _timestamptz_from_text(text: str) -> bytes:
    infinite, moment, offset = _moment(text, "a timestamp with time zone")
    if infinite:
        return infinite
    if offset is None:
        raise ValueError(f"{quoted(text)} has no offset: write +00 or another behind it, or it depends on a session")
    try:
        return _written(moment - offset) + b"+00"
    except OverflowError:
        raise ValueError(f"{quoted(text)} lies outside the years 1 to 9999 in UTC") from None


def _timestamp_from_python(value: object) -> bytes:
    if isinstance(value, datetime) and value.utcoffset() is None:
        return _written(value.replace(tzinfo=None))
    sent = _as_sent(value)
    if sent is None:
        raise wrong_type("a datetime without time zone", value)
    return sent


def _timestamptz_from_python(value: object) -> bytes:
    offset = value.utcoffset() if isinstance(value, datetime) else None
    if isinstance(value, datetime) and offset is not None:
        try:
            return _written(value.replace(tzinfo=None) - offset) + b"+00"
        except OverflowError:
            raise ValueError(f"{quoted(value)} lies outside the years 1 to 9999 in UTC") from None
    sent = _as_sent(value)
    if sent is None:
        raise wrong_type("a datetime with time zone", value)
    return sent


def _moment(text: str, name: str) -> tuple[bytes | None, datetime, timedelta | None]:
    """The cell when it is infinite, else the local time and its offset to UTC. Raises ValueError."""
    word = text.strip(BLANKS)
    infinite = _INFINITIES.get(word.lower())
    if infinite:
        return infinite, datetime.max, None
    match = _TIMESTAMP.fullmatch(word)
    try:
        if match:
            return None, _local(match), _offset(match[8])
    except ValueError:
        pass
    form = "YYYY-MM-DD HH:MM:SS.ffffff+HH:MM, years 0001 to 9999, or infinity"
    raise ValueError(f"{quoted(text)} is not {name} (write {form})")


def _local(match: re.Match[str]) -> datetime:
    """The time of a match of `_TIMESTAMP`, without its offset. Raises ValueError when there is no such day or hour."""
    year, month, day, hour, minute, second = (int(number or 0) for number in match.group(1, 2, 3, 4, 5, 6))
    micros = int((match[7] or "").ljust(6, "0"))
    return datetime(year, month, day, hour, minute, second, micros)


def _offset(text: str | None) -> timedelta | None:
    """The offset of `Z`, `+05`, `+0530`, `+05:30` or `+00:19:32`. Raises ValueError when it is out of range."""
    if text is None:
        return None
    if text in "Zz":
        return timedelta(0)
    digits = text[1:].replace(":", "").ljust(6, "0")
    hours, minutes, seconds = int(digits[:2]), int(digits[2:4]), int(digits[4:])
    if hours > _MAX_OFFSET_HOURS or minutes > 59 or seconds > 59:
        raise ValueError
    size = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return -size if text[0] == "-" else size


def _written(moment: datetime) -> bytes:
    """The time as the server writes it: a blank in the middle, a fraction without trailing zeros."""
    text = moment.isoformat(" ")
    return (text.rstrip("0") if moment.microsecond else text).encode()


DATE = Equality(None, _date_from_text, _date_from_python)
TIMESTAMP = Equality(None, _timestamp_from_text, _timestamp_from_python)
TIMESTAMPTZ = Equality(None, _timestamptz_from_text, _timestamptz_from_python)
