"""Time zones: local time and UTC.

Pure: no clock; a zone that is named by a policy is read from Python's own copy of the time zone data. A local time that
a change of the clocks skips counts as before the change, one that comes twice as after it, as PostgreSQL has it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cdc.operators.calendar import SECOND, held_timestamp, is_finite_timestamp
from cdc.operators.context import Context, Failed, Undecided

__all__ = ["local_of", "named_zone", "offset_at", "unheld_utc_of", "utc_of", "zone_of"]

_EPOCH = datetime(2000, 1, 1)
_CYCLE = 146_097 * 86_400 * SECOND  # 400 years, after which the calendar repeats itself
_FIRST, _LAST = datetime(1, 1, 3), datetime(9999, 12, 29)
_LEAST, _MOST = ((end - _EPOCH) // timedelta(microseconds=1) for end in (_FIRST, _LAST))
_MICROSECOND = timedelta(microseconds=1)
_NAME = re.compile(r"(?!posix/|right/)[A-Z][A-Za-z_-]*(?:/[A-Za-z0-9_+-]+)+")
_UTC = frozenset({"UTC", "Etc/UTC", "GMT", "Etc/GMT"})


def zone_of(context: Context) -> tzinfo:
    """The session's zone. Raises Undecided when it is not known."""
    if context.zone is None:
        raise Undecided("the session's TimeZone is not known")
    return context.zone


@lru_cache(maxsize=500)
def named_zone(name: str) -> tzinfo:
    """The zone of a name such as `Europe/Berlin` or `UTC`.

    Raises Undecided for every other: abbreviations have a table of their own in PostgreSQL, and POSIX forms a grammar.
    """
    if name in _UTC:
        return UTC
    try:
        if _NAME.fullmatch(name):
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise Undecided("a time zone that is not a name like Europe/Berlin")


def _moment(micros: int) -> datetime:
    """The time as Python has it; one beyond its years as one of the same place in another cycle of 400 years."""
    if micros < _LEAST:
        return _FIRST  # before every zone's first change
    if micros > _MOST:
        micros -= -((_MOST - micros) // _CYCLE) * _CYCLE
    return _EPOCH + timedelta(microseconds=micros)


def _micros(offset: timedelta | None) -> int:
    return 0 if offset is None else offset // _MICROSECOND


@lru_cache(maxsize=4000)  # the moment of a change is asked for again and again
def offset_at(zone: tzinfo, utc: int) -> int:
    """Microseconds by which local time is ahead of UTC at a timestamptz."""
    return _micros(_moment(utc).replace(tzinfo=UTC).astimezone(zone).utcoffset())


def local_of(zone: tzinfo, utc: int) -> int:
    """The timestamp, in a zone, of a timestamptz. Raises Undecided at the end of time."""
    if zone is UTC or not is_finite_timestamp(utc):
        return utc
    return _held(utc + offset_at(zone, utc))


def utc_of(zone: tzinfo, local: int) -> int:
    """The timestamptz of a timestamp in a zone. Raises Undecided at the end of time."""
    if zone is UTC or not is_finite_timestamp(local):
        return local
    return _held(unheld_utc_of(zone, local))


def _held(micros: int) -> int:
    """What is out of range in one zone is not in another, and the server does not look everywhere."""
    try:
        return held_timestamp(micros)
    except Failed:
        raise Undecided("a time zone's time at the end of time") from None


def unheld_utc_of(zone: tzinfo, local: int) -> int:
    """As `utc_of`, also where the type ends."""
    return local - _local_offset(zone, local)


@lru_cache(maxsize=4000)
def _local_offset(zone: tzinfo, local: int) -> int:
    """Microseconds by which local time is ahead of UTC at a timestamp of the zone."""
    moment = _moment(local)
    return min(_micros(moment.replace(tzinfo=zone, fold=fold).utcoffset()) for fold in (0, 1))
