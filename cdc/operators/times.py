"""time and timetz: their texts, comparisons and arithmetic.

Pure: no I/O. A timetz is a pair: microseconds since midnight, and seconds by which its zone is behind UTC. The manual:
"Data Types", Date/Time Types.
"""

from __future__ import annotations

import re

from cdc.operators.builtins import Builtin, Table
from cdc.operators.calendar import DAY, HOUR, MINUTE, SECOND, is_finite_timestamp
from cdc.operators.codec import Codec, failing
from cdc.operators.context import Context, Failed, Undecided
from cdc.operators.interval_texts import Span
from cdc.operators.intervals import finite
from cdc.operators.orders import comparisons
from cdc.operators.time_texts import offset_text
from cdc.operators.zones import local_of, zone_of
from cdc.values.binary_times import time_text
from cdc.values.equality import BLANKS

__all__ = ["CODECS", "TABLE", "TIME", "TIMETZ", "time_of_day"]

TIME, TIMETZ = "time without time zone", "time with time zone"
_Zoned = tuple[int, int]

_PRINTED = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?")
_OFFSET = re.compile(r"([+-])([0-9]{2})(?::([0-9]{2}))?(?::([0-9]{2}))?")
_WRITTEN = re.compile(r"([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?")
_WORD = re.compile(r"(?!now|allballs)[a-zA-Z]*")


def _micros(match: re.Match[str]) -> int:
    """The time of a match. Raises ValueError when there is none such."""
    hour, minute, second = (int(part or 0) for part in match.groups()[:3])
    micros = hour * HOUR + minute * MINUTE + second * SECOND + int((match[4] or "").ljust(6, "0"))
    if micros > DAY or minute > 59 or second > 59:
        raise ValueError("not a time")
    return micros


def _read(cell: bytes) -> int:
    match = _PRINTED.fullmatch(cell.decode())
    if match is None:
        raise ValueError("not a time")
    return _micros(match)


def _read_zoned(cell: bytes) -> _Zoned:
    text = cell.decode()
    place = max(text.find("+"), text.find("-"))
    match = _OFFSET.fullmatch(text[place:])
    if match is None:
        raise ValueError("not a time with a zone")
    size = int(match[2]) * 3600 + int(match[3] or 0) * 60 + int(match[4] or 0)
    return _read(cell[:place]), size if match[1] == "-" else -size


def _input(context: Context, text: str) -> int:
    word = text.strip(BLANKS)
    match = _WRITTEN.fullmatch(word)
    if match is None:
        if _WORD.fullmatch(word):
            raise failing("time")
        raise Undecided("a form of time")
    try:
        return _micros(match)
    except ValueError:
        raise Undecided("a form of time") from None  # a leap second, or an error


CODECS = {
    1083: Codec(_read, _input, lambda context, micros: time_text(micros)),
    1266: Codec(_read_zoned, None, lambda context, zoned: time_text(zoned[0]) + offset_text(-zoned[1])),
}


def _zoned_key(zoned: _Zoned) -> tuple[int, int]:
    micros, behind = zoned
    return micros + behind * SECOND, behind


def _later(micros: int, span: Span) -> int:
    _moderate(span)
    return (micros + span[2]) % DAY


def _earlier(micros: int, span: Span) -> int:
    _moderate(span)
    return (micros - span[2]) % DAY


def _moderate(span: Span) -> None:
    finite(span)
    if abs(span[2]) > 2**62:
        raise Undecided("an extreme interval")


def _of_interval(span: Span) -> int:
    finite(span)
    return span[2] % DAY


def time_of_day(hour: int, minute: int, second: float) -> int:
    """The microseconds of a time. Raises Failed when there is none such."""
    if not (0 <= hour <= 24 and 0 <= minute <= 59 and 0 <= second <= 60):  # NaN is in no range
        raise Failed("time field value out of range")
    micros = hour * HOUR + minute * MINUTE + round(second * 1e6)
    if micros > DAY:
        raise Failed("time field value out of range")
    return micros


def _of_timestamp(micros: int) -> int | None:
    return micros % DAY if is_finite_timestamp(micros) else None


def _of_timestamptz(context: Context, utc: int) -> int | None:
    return local_of(zone_of(context), utc) % DAY if is_finite_timestamp(utc) else None


def _zoned_of_timestamptz(context: Context, utc: int) -> _Zoned | None:
    if not is_finite_timestamp(utc):
        return None
    local = local_of(zone_of(context), utc)
    return local % DAY, (utc - local) // SECOND


def _precise(micros: int, digits: int) -> int:
    """Rounded to so many digits of a second."""
    if not 0 <= digits <= 6:
        raise Undecided("a precision that no column has")
    unit: int = 10 ** (6 - digits)
    return (micros + unit // 2) // unit * unit


TABLE: Table = {
    **comparisons("time_{}", TIME),
    **comparisons("timetz_{}", TIMETZ, keys=(_zoned_key, _zoned_key)),
    f"time_larger({TIME}, {TIME})": Builtin(max),
    f"time_smaller({TIME}, {TIME})": Builtin(min),
    f"time_pl_interval({TIME}, interval)": Builtin(_later),
    f"time_mi_interval({TIME}, interval)": Builtin(_earlier),
    f"interval_pl_time(interval, {TIME})": Builtin(lambda span, micros: _later(micros, span)),
    f"time_mi_time({TIME}, {TIME})": Builtin(lambda one, two: (0, 0, one - two)),
    f"interval({TIME})": Builtin(lambda micros: (0, 0, micros)),
    "time(interval)": Builtin(_of_interval),
    f"time({TIMETZ})": Builtin(lambda zoned: zoned[0]),
    "time(timestamp without time zone)": Builtin(_of_timestamp),
    "time(timestamp with time zone)": Builtin(_of_timestamptz, contextual=True),
    "timetz(timestamp with time zone)": Builtin(_zoned_of_timestamptz, contextual=True),
    f"time({TIME}, integer)": Builtin(_precise),
    f"timetz({TIMETZ}, integer)": Builtin(lambda zoned, digits: (_precise(zoned[0], digits), zoned[1])),
    "make_time(hour integer, min integer, sec double precision)": Builtin(time_of_day),
}
