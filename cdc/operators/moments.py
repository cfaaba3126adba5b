"""Arithmetic of date, timestamp and timestamptz, casts between them, and the time of the change.

Pure: no clock: `now()` and its like are the time of the commit that is judged, `clock_timestamp()` too. Months and days
are added to local time, so with a timestamptz they need the session's zone. The manual: "Functions and Operators",
Date/Time Functions and Operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, tzinfo

from cdc.operators.builtins import Builtin, Table
from cdc.operators.calendar import (
    DATE_INFINITIES,
    DAY,
    SECOND,
    TIMESTAMP_INFINITIES,
    civil,
    days_of,
    held_date,
    held_timestamp,
    is_finite_date,
    is_finite_timestamp,
    month_length,
)
from cdc.operators.context import Context, Failed, Undecided
from cdc.operators.dates import DATE, TIMESTAMP, TIMESTAMPTZ
from cdc.operators.interval_texts import Span
from cdc.operators.intervals import finite, held_span, justified_hours
from cdc.operators.times import TIME, TIMETZ, time_of_day
from cdc.operators.zones import local_of, named_zone, utc_of, zone_of

__all__ = ["TABLE", "later", "timestamp_of_date"]

_TO_TIMESTAMP = {
    days: next(micros for micros, other in TIMESTAMP_INFINITIES.items() if other == text)
    for days, text in DATE_INFINITIES.items()
}
_TO_DATE = {micros: days for days, micros in _TO_TIMESTAMP.items()}
_UNIX = days_of(1970, 1, 1) * DAY
_FIRST_SECOND, _LAST_SECOND = -211_813_488_000 - _UNIX // SECOND, 9_223_371_331_200 - _UNIX // SECOND


def timestamp_of_date(days: int) -> int:
    """Midnight. Raises Failed when a timestamp cannot hold it."""
    return held_timestamp(days * DAY) if is_finite_date(days) else _TO_TIMESTAMP[days]


def _date_of_timestamp(micros: int) -> int:
    return micros // DAY if is_finite_timestamp(micros) else _TO_DATE[micros]


def _to_local(context: Context, utc: int) -> int:
    return local_of(zone_of(context), utc) if is_finite_timestamp(utc) else utc


def _to_utc(context: Context, local: int) -> int:
    return utc_of(zone_of(context), local) if is_finite_timestamp(local) else local


def _plus_days(days: int, count: int) -> int:
    return held_date(days + count) if is_finite_date(days) else days


def _days_between(later: int, earlier: int) -> int:
    if not is_finite_date(later) or not is_finite_date(earlier):
        raise Failed("cannot subtract infinite dates")
    return later - earlier


def _at_time(days: int, time: int) -> int:
    return held_timestamp(days * DAY + time) if is_finite_date(days) else _TO_TIMESTAMP[days]


def _made_date(year: int, month: int, day: int) -> int:
    try:
        if year:
            return held_date(days_of(year + (year < 0), month, day))
    except ValueError:
        pass
    raise Failed("date field value out of range")


def _made_timestamp(year: int, month: int, day: int, hour: int, minute: int, second: float) -> int:
    return held_timestamp(_made_date(year, month, day) * DAY + time_of_day(hour, minute, second))


def _plus_months(local: int, months: int) -> int:
    """The same day and time of another month, or its last day."""
    days, time = divmod(local, DAY)
    year, month, day = civil(days)
    years, place = divmod(month - 1 + months, 12)
    year, month = year + years, place + 1
    return days_of(year, month, min(day, month_length(year, month))) * DAY + time


def _plus(zone: tzinfo | Callable[[], tzinfo], micros: int, span: Span, sign: int) -> int:
    """A timestamp and an interval, of which months and days are added to the local time of the zone."""
    finite(span)
    if sign < 0 and (min(span[:2]) == -(2**31) or span[2] == -(2**63)):
        raise Undecided("an extreme interval")
    if not is_finite_timestamp(micros):
        return micros
    months, days, time = (sign * part for part in span)
    if months or days:
        known = zone if isinstance(zone, tzinfo) else zone()
        if months:
            micros = held_timestamp(utc_of(known, _plus_months(local_of(known, micros), months)))
        if days:
            micros = held_timestamp(utc_of(known, local_of(known, micros) + days * DAY))
    return held_timestamp(micros + time)


def later(zone: Callable[[], tzinfo], micros: int, span: Span) -> int:
    """A timestamp and an interval. The zone is asked for when the interval has months or days."""
    return _plus(zone, micros, span, 1)


def _plain(sign: int) -> Callable[[int, Span], int]:
    return lambda micros, span: _plus(UTC, micros, span, sign)


def _zoned(sign: int) -> Callable[[Context, int, Span], int]:
    return lambda context, micros, span: _plus(lambda: zone_of(context), micros, span, sign)


def _of_date(sign: int) -> Callable[[int, Span], int]:
    return lambda days, span: _plus(UTC, timestamp_of_date(days), span, sign)


def _named(sign: int) -> Callable[[int, Span, str], int]:
    return lambda micros, span, name: _plus(named_zone(name), micros, span, sign)


def _between(later: int, earlier: int) -> Span:
    if not is_finite_timestamp(later) or not is_finite_timestamp(earlier):
        raise Undecided("the time between infinite timestamps")
    if abs(later - earlier) >= 2**63:
        raise Undecided("an extreme interval")
    return justified_hours((0, 0, later - earlier))


def _age(later: int, earlier: int) -> Span:
    """In years, months, days and time, as calendars and clocks count."""
    if not is_finite_timestamp(later) or not is_finite_timestamp(earlier):
        raise Undecided("the time between infinite timestamps")
    sign = -1 if later < earlier else 1
    (end, end_time), (start, start_time) = (divmod(micros, DAY) for micros in (later, earlier))
    (year, month, day), (other_year, other_month, other_day) = civil(end), civil(start)
    months = sign * ((year - other_year) * 12 + month - other_month)
    days, time = sign * (day - other_day), sign * (end_time - start_time)
    if time < 0:
        days, time = days - 1, time + DAY
    length = month_length(year, month) if sign < 0 else month_length(other_year, other_month)
    while days < 0:
        months, days = months - 1, days + length
    return held_span(sign * months, sign * days, sign * time)


def _zoned_age(context: Context, later: int, earlier: int) -> Span:
    if not is_finite_timestamp(later) or not is_finite_timestamp(earlier):
        raise Undecided("the time between infinite timestamps")
    zone = zone_of(context)
    return _age(local_of(zone, later), local_of(zone, earlier))


def _today(context: Context) -> int:
    """Midnight, of the session's zone, before the moment."""
    return local_of(zone_of(context), context.moment.microseconds) // DAY * DAY


def _zoned_age_now(context: Context, earlier: int) -> Span:
    return _zoned_age(context, utc_of(zone_of(context), _today(context)), earlier)


def _precise(micros: int, digits: int) -> int:
    """Rounded to so many digits of a second, halves away from 2000."""
    if not is_finite_timestamp(micros):
        return micros
    if not 0 <= digits <= 6:
        raise Undecided("a precision that no column has")
    unit: int = 10 ** (6 - digits)
    size = (abs(micros) + unit // 2) // unit * unit
    try:
        return held_timestamp(-size if micros < 0 else size)
    except Failed:
        raise Undecided("a timestamp rounded at the end of time") from None


def _of_unix(seconds: float) -> int:
    if seconds != seconds:
        raise Failed("timestamp cannot be NaN")
    if math.isinf(seconds):
        return _TO_TIMESTAMP[next(days for days in DATE_INFINITIES if (days < 0) == (seconds < 0))]
    if not _FIRST_SECOND <= seconds < _LAST_SECOND:
        raise Failed("timestamp out of range")
    return held_timestamp(round((seconds + _UNIX / SECOND) * 1e6))


def _offset(span: Span) -> int:
    """The offset to UTC that an interval says, in whole seconds."""
    finite(span)
    months, days, micros = span
    if months or days:
        raise Failed("interval time zone must not include months or days")
    seconds = abs(micros) // SECOND
    return (-seconds if micros < 0 else seconds) * SECOND


def _at_offset(sign: int) -> Callable[[Span, int], int]:
    def moved(span: Span, micros: int) -> int:
        if not is_finite_timestamp(micros):
            return micros
        return held_timestamp(micros + sign * _offset(span))

    return moved


def _now(context: Context) -> int:
    return context.moment.microseconds


_MADE = "(year integer, month integer, mday integer, hour integer, min integer, sec double precision)"


def _contextual(call: Callable[..., object], *, timed: bool = False) -> Builtin:
    return Builtin(call, contextual=True, timed=timed)


TABLE: Table = {
    f"date_pli({DATE}, integer)": Builtin(_plus_days),
    f"date_mii({DATE}, integer)": Builtin(lambda days, count: _plus_days(days, -count)),
    f"integer_pl_date(integer, {DATE})": Builtin(lambda count, days: _plus_days(days, count)),
    f"date_mi({DATE}, {DATE})": Builtin(_days_between),
    f"date_pl_interval({DATE}, interval)": Builtin(_of_date(1)),
    f"date_mi_interval({DATE}, interval)": Builtin(_of_date(-1)),
    f"interval_pl_date(interval, {DATE})": Builtin(lambda span, days: _of_date(1)(days, span)),
    f"timestamp_pl_interval({TIMESTAMP}, interval)": Builtin(_plain(1)),
    f"timestamp_mi_interval({TIMESTAMP}, interval)": Builtin(_plain(-1)),
    f"interval_pl_timestamp(interval, {TIMESTAMP})": Builtin(lambda span, micros: _plain(1)(micros, span)),
    f"timestamptz_pl_interval({TIMESTAMPTZ}, interval)": _contextual(_zoned(1)),
    f"timestamptz_mi_interval({TIMESTAMPTZ}, interval)": _contextual(_zoned(-1)),
    f"interval_pl_timestamptz(interval, {TIMESTAMPTZ})": _contextual(
        lambda context, span, at: _zoned(1)(context, at, span)
    ),
    f"date_add({TIMESTAMPTZ}, interval)": _contextual(_zoned(1)),
    f"date_subtract({TIMESTAMPTZ}, interval)": _contextual(_zoned(-1)),
    f"date_add({TIMESTAMPTZ}, interval, text)": Builtin(_named(1)),
    f"date_subtract({TIMESTAMPTZ}, interval, text)": Builtin(_named(-1)),
    f"timestamp_mi({TIMESTAMP}, {TIMESTAMP})": Builtin(_between),
    f"timestamptz_mi({TIMESTAMPTZ}, {TIMESTAMPTZ})": Builtin(_between),
    f"age({TIMESTAMP}, {TIMESTAMP})": Builtin(_age),
    f"age({TIMESTAMPTZ}, {TIMESTAMPTZ})": _contextual(_zoned_age),
    f"age({TIMESTAMP})": _contextual(lambda context, earlier: _age(_today(context), earlier), timed=True),
    f"age({TIMESTAMPTZ})": _contextual(_zoned_age_now, timed=True),
    f"date({TIMESTAMP})": Builtin(_date_of_timestamp),
    f"date({TIMESTAMPTZ})": _contextual(lambda context, at: _date_of_timestamp(_to_local(context, at))),
    f"timestamp({DATE})": Builtin(timestamp_of_date),
    **{f"{name}({TIMESTAMPTZ})": _contextual(_to_local) for name in ("timestamp", "timezone")},
    f"timestamptz({DATE})": _contextual(lambda context, days: _to_utc(context, timestamp_of_date(days))),
    **{f"{name}({TIMESTAMP})": _contextual(_to_utc) for name in ("timestamptz", "timezone")},
    f"timestamptz({DATE}, {TIME})": _contextual(lambda context, days, time: _to_utc(context, _at_time(days, time))),
    f"timedate_pl({TIME}, {DATE})": Builtin(lambda time, days: _at_time(days, time)),
    f"timestamp({TIMESTAMP}, integer)": Builtin(_precise),
    f"timestamptz({TIMESTAMPTZ}, integer)": Builtin(_precise),
    **{f"{name}({DATE}, {TIME})": Builtin(_at_time) for name in ("datetime_pl", "timestamp")},
    **{
        f"{name}({DATE}, {TIMETZ})": Builtin(
            lambda days, zoned: (
                held_timestamp(days * DAY + zoned[0] + zoned[1] * SECOND)
                if is_finite_date(days)
                else _TO_TIMESTAMP[days]
            )
        )
        for name in ("datetimetz_pl", "timestamptz")
    },
    f"timezone(text, {TIMESTAMPTZ})": Builtin(lambda name, at: local_of(named_zone(name), at)),
    f"timezone(text, {TIMESTAMP})": Builtin(lambda name, at: utc_of(named_zone(name), at)),
    f"timezone(interval, {TIMESTAMPTZ})": Builtin(_at_offset(1)),
    f"timezone(interval, {TIMESTAMP})": Builtin(_at_offset(-1)),
    "make_date(year integer, month integer, day integer)": Builtin(_made_date),
    f"make_timestamp{_MADE}": Builtin(_made_timestamp),
    f"make_timestamptz{_MADE}": _contextual(lambda context, *parts: utc_of(zone_of(context), _made_timestamp(*parts))),
    "to_timestamp(double precision)": Builtin(_of_unix),
    **{
        f"{name}()": _contextual(_now, timed=True)
        for name in ("now", "transaction_timestamp", "statement_timestamp", "clock_timestamp")
    },
}
