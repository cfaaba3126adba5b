"""extract and date_part: the fields of a date, a time, a timestamp or an interval.

Pure: no I/O. A field is a pair of digits and a scale, exactly as `extract` gives it since version 14; `date_part` gives
the same as double precision. The manual: "Functions and Operators", EXTRACT, date_part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TypeAlias

from cdc.operators.builtins import Builtin, Table
from cdc.operators.calendar import DAY, HOUR, MINUTE, SECOND, civil, days_of, is_finite_date, is_finite_timestamp
from cdc.operators.context import Context, Failed, Undecided
from cdc.operators.dates import DATE, TIMESTAMP, TIMESTAMPTZ
from cdc.operators.interval_texts import Span
from cdc.operators.intervals import finite
from cdc.operators.moments import timestamp_of_date
from cdc.operators.times import TIME, TIMETZ
from cdc.operators.zones import local_of, zone_of

__all__ = ["TABLE", "cut", "unit_of"]

_Field: TypeAlias = tuple[int, int]
_UNIX = days_of(1970, 1, 1)
_UNIX_MICROS = _UNIX * DAY

_NAMES = {
    name: unit
    for unit, plural in (
        ("microsecond", "microseconds"),
        ("millisecond", "milliseconds"),
        ("second", "seconds"),
        ("minute", "minutes"),
        ("hour", "hours"),
        ("day", "days"),
        ("week", "weeks"),
        ("month", "months"),
        ("quarter", "quarter"),
        ("year", "years"),
        ("decade", "decades"),
        ("century", "centuries"),
        ("millennium", "millennia"),
        ("dow", "dow"),
        ("isodow", "isodow"),
        ("doy", "doy"),
        ("isoyear", "isoyear"),
        ("epoch", "epoch"),
        ("timezone", "timezone"),
        ("timezone_hour", "timezone_hour"),
        ("timezone_minute", "timezone_minute"),
    )
    for name in (unit, plural)
}


def unit_of(text: str) -> str:
    """The unit of a name, in any case. Raises Undecided for names that only the server knows, if it does."""
    unit = _NAMES.get(text.lower()) if text.isascii() else None
    if unit is None:
        raise Undecided("a unit of time that is not known here")
    return unit


def cut(number: int, size: int) -> int:
    """The quotient, towards zero."""
    return number // size if number >= 0 else -(-number // size)


def _from_one(year: int, size: int) -> int:
    """Which century or millennium a year is in; there is none with the number zero."""
    return (year + size - 1) // size if year > 0 else -((size - 1 - (year - 1)) // size)


def _decade(year: int) -> int:
    return year // 10 if year >= 0 else -((8 - (year - 1)) // 10)


def _years(year: int) -> Mapping[str, int]:
    return {
        "year": year if year > 0 else year - 1,
        "decade": _decade(year),
        "century": _from_one(year, 100),
        "millennium": _from_one(year, 1000),
    }


def _week(days: int) -> tuple[int, int]:
    """Year and week by ISO 8601; the year before 1 is 0."""
    thursday = days - _weekday(days) + 3
    year = civil(thursday)[0]
    return year, (thursday - days_of(year, 1, 1)) // 7 + 1


def _weekday(days: int) -> int:
    """From Monday, which is 0."""
    return (days + 5) % 7


def _of_day(unit: str, days: int) -> int | None:
    """A field of a day, None when it is a field of something else."""
    year, month, day = civil(days)
    if unit in ("isoyear", "week"):
        iso_year, week = _week(days)
        return week if unit == "week" else iso_year if iso_year > 0 else iso_year - 1
    others = {
        "day": day,
        "month": month,
        "quarter": (month - 1) // 3 + 1,
        "dow": (_weekday(days) + 1) % 7,
        "isodow": _weekday(days) + 1,
        "doy": days - days_of(year, 1, 1) + 1,
    }
    return others[unit] if unit in others else _years(year).get(unit)


def _of_time(unit: str, micros: int) -> _Field | None:
    """A field of a time of day, or of the time of an interval, None when it is a field of something else."""
    hours, rest = cut(micros, HOUR), micros - cut(micros, HOUR) * HOUR
    minutes = cut(rest, MINUTE)
    seconds = rest - minutes * MINUTE
    fields = {
        "microsecond": (seconds, 0),
        "millisecond": (seconds, 3),
        "second": (seconds, 6),
        "minute": (minutes, 0),
        "hour": (hours, 0),
    }
    return fields.get(unit)


_RISING = frozenset({"year", "decade", "century", "millennium", "isoyear", "epoch"})
_INFINITIES = {True: Decimal("Infinity"), False: Decimal("-Infinity")}
_ZONES = frozenset({"timezone", "timezone_hour", "timezone_minute"})


def _unsupported() -> Failed:
    return Failed("a unit that the type does not have")


def _infinite(unit: str, is_positive: bool) -> Decimal | None:
    """A field of an infinite date or timestamp: infinite if it grows with time, else NULL."""
    if unit in _ZONES:
        raise Undecided("the zone of an infinite time")
    return _INFINITIES[is_positive] if unit in _RISING else None


def _whole(number: int) -> _Field:
    return number, 0


def _date_field(unit: str, days: int) -> _Field | Decimal | None:
    if unit in _ZONES or _of_time(unit, 0) is not None:
        raise _unsupported()
    if not is_finite_date(days):
        return _infinite(unit, days > 0)
    if unit == "epoch":
        return _whole((days - _UNIX) * 86_400)
    found = _of_day(unit, days)
    assert found is not None
    return _whole(found)


def _epoch(micros: int) -> _Field:
    if micros - _UNIX_MICROS >= 2**63 - 1:
        raise Undecided("an epoch at the end of time")  # the server's own computation is not exact there
    return micros - _UNIX_MICROS, 6


def _timestamp_field(unit: str, local: int) -> _Field | Decimal | None:
    if not is_finite_timestamp(local):
        return _infinite(unit, local > 0)
    if unit in _ZONES:
        raise _unsupported()
    if unit == "epoch":
        return _epoch(local)
    days, micros = divmod(local, DAY)
    found = _of_day(unit, days)
    return _of_time(unit, micros) if found is None else _whole(found)


def _zoned_field(context: Context, unit: str, utc: int) -> _Field | Decimal | None:
    if not is_finite_timestamp(utc):
        return _infinite(unit, utc > 0)
    if unit == "epoch":
        return _epoch(utc)
    local = local_of(zone_of(context), utc)
    if unit not in _ZONES:
        return _timestamp_field(unit, local)
    return _whole(_zone_field(unit, (local - utc) // SECOND))


def _zone_field(unit: str, seconds: int) -> int:
    fields = {
        "timezone": seconds,
        "timezone_hour": cut(seconds, 3600),
        "timezone_minute": cut(seconds - cut(seconds, 3600) * 3600, 60),
    }
    return fields[unit]


def _time_field(unit: str, micros: int) -> _Field:
    if unit == "epoch":
        return micros, 6
    found = _of_time(unit, micros)
    if found is None:
        raise _unsupported()
    return found


def _timetz_field(unit: str, zoned: tuple[int, int]) -> _Field:
    micros, behind = zoned
    if unit in _ZONES:
        return _whole(_zone_field(unit, -behind))
    return (micros + behind * SECOND, 6) if unit == "epoch" else _time_field(unit, micros)


def _interval_field(unit: str, span: Span) -> _Field:
    finite(span)
    months, days, micros = span
    if unit == "epoch":
        quarters = (365 * 4 + 1) * cut(months, 12) + 4 * 30 * (months - cut(months, 12) * 12) + 4 * days
        return quarters * (86_400 // 4) * SECOND + micros, 6
    years = cut(months, 12)
    rest = months - years * 12
    if unit == "quarter" and months < 0:
        raise Undecided("a quarter of a negative interval")  # versions differ
    if unit == "week":
        raise Undecided("a week of an interval")  # versions differ
    fields = {
        "day": days,
        "month": rest,
        "quarter": rest // 3 + 1,
        "year": years,
        "decade": cut(years, 10),
        "century": cut(years, 100),
        "millennium": cut(years, 1000),
    }
    found = _whole(fields[unit]) if unit in fields else _of_time(unit, micros)
    if found is None:
        raise _unsupported()
    return found


def _numeric(field: _Field | Decimal | None) -> Decimal | None:
    return Decimal(field[0]).scaleb(-field[1]) if isinstance(field, tuple) else field


def _double(unit: str, field: _Field | Decimal | None) -> float | None:
    """In double precision, added up in the server's order, as the last digit depends on it."""
    if not isinstance(field, tuple):
        return None if field is None else float(field)
    digits, scale = field
    if unit in ("second", "millisecond"):
        whole = cut(digits, SECOND)
        return whole * 10.0 ** (6 - scale) + (digits - whole * SECOND) / 10.0**scale
    return digits / 10.0**scale


_OF_TYPES: dict[str, Callable[..., _Field | Decimal | None]] = {
    DATE: _date_field,
    TIMESTAMP: _timestamp_field,
    TIME: _time_field,
    TIMETZ: _timetz_field,
    "interval": _interval_field,
}


def _extract(field: Callable[..., _Field | Decimal | None]) -> Builtin:
    return Builtin(lambda name, value: _numeric(field(unit_of(name), value)))


def _date_part(field: Callable[..., _Field | Decimal | None]) -> Builtin:
    def date_part(name: str, value: object) -> float | None:
        unit = unit_of(name)
        return _double(unit, field(unit, value))

    return Builtin(date_part)


def _part_of_date(name: str, days: int) -> float | None:
    unit = unit_of(name)
    return _double(unit, _timestamp_field(unit, timestamp_of_date(days)))


def _part_of_timestamptz(context: Context, name: str, utc: int) -> float | None:
    unit = unit_of(name)
    return _double(unit, _zoned_field(context, unit, utc))


def _part_of_timetz(name: str, zoned: tuple[int, int]) -> float | None:
    unit = unit_of(name)
    return zoned[0] / 1e6 + zoned[1] if unit == "epoch" else _double(unit, _timetz_field(unit, zoned))


def _part_of_interval(name: str, span: Span) -> float | None:
    unit, field = unit_of(name), _interval_field(unit_of(name), span)
    if unit != "epoch":
        return _double(unit, field)
    months, days, micros = span
    years = cut(months, 12)
    return micros / 1e6 + 365.25 * 86_400 * years + 30.0 * 86_400 * (months - years * 12) + 86_400.0 * days


TABLE: Table = {
    **{f"extract(text, {kind})": _extract(field) for kind, field in _OF_TYPES.items()},
    **{f"date_part(text, {kind})": _date_part(_OF_TYPES[kind]) for kind in (TIMESTAMP, TIME)},
    f"date_part(text, {TIMETZ})": Builtin(_part_of_timetz),
    "date_part(text, interval)": Builtin(_part_of_interval),
    f"date_part(text, {DATE})": Builtin(_part_of_date),
    f"extract(text, {TIMESTAMPTZ})": Builtin(
        lambda context, name, at: _numeric(_zoned_field(context, unit_of(name), at)), contextual=True
    ),
    f"date_part(text, {TIMESTAMPTZ})": Builtin(_part_of_timestamptz, contextual=True),
}
