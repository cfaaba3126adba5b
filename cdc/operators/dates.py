"""date, timestamp and timestamptz: their texts and comparisons, also with one another.

Pure: no I/O, no clock. A timestamptz is compared with the others as of the session's zone, to which they belong.
The manual: "Data Types", Date/Time Types.
"""

from __future__ import annotations

from collections.abc import Callable

from cdc.operators.builtins import Builtin, Table
from cdc.operators.calendar import DAY, day_key, is_finite_date, is_finite_timestamp, timestamp_key
from cdc.operators.codec import Codec
from cdc.operators.context import Context
from cdc.operators.orders import comparisons
from cdc.operators.time_texts import (
    date_input,
    date_text,
    read_date,
    read_timestamp,
    timestamp_input,
    timestamp_text,
    timestamptz_input,
    timestamptz_text,
)
from cdc.operators.zones import unheld_utc_of, zone_of

__all__ = ["CODECS", "DATE", "TABLE", "TIMESTAMP", "TIMESTAMPTZ"]

DATE, TIMESTAMP, TIMESTAMPTZ = "date", "timestamp without time zone", "timestamp with time zone"

CODECS = {
    1082: Codec(read_date, date_input, date_text),
    1114: Codec(read_timestamp, timestamp_input, timestamp_text),
    1184: Codec(read_timestamp, timestamptz_input, timestamptz_text),
}

_Key = Callable[[Context, int], int | float]


def _date_key(context: Context, days: int) -> int | float:
    return unheld_utc_of(zone_of(context), days * DAY) if is_finite_date(days) else day_key(days)


def _local_key(context: Context, local: int) -> int | float:
    return unheld_utc_of(zone_of(context), local) if is_finite_timestamp(local) else timestamp_key(local)


def _utc_key(context: Context, utc: int) -> int | float:
    return timestamp_key(utc)


def _zoned(name: str, left: str, right: str, keys: tuple[_Key, _Key]) -> dict[str, Builtin]:
    """The six comparisons of types one of which is timestamptz."""
    plain = comparisons(name, left, right)
    return {signature: Builtin(_compared(found.call, *keys), contextual=True) for signature, found in plain.items()}


def _compared(compare: Callable[..., object], left: _Key, right: _Key) -> Callable[[Context, int, int], object]:
    return lambda context, one, two: compare(left(context, one), right(context, two))


TABLE: Table = {
    **comparisons("date_{}", DATE, equality=True),
    **comparisons("timestamp_{}", TIMESTAMP, equality=True),
    **comparisons("timestamptz_{}", TIMESTAMPTZ, equality=True),
    **comparisons("date_{}_timestamp", DATE, TIMESTAMP, keys=(day_key, timestamp_key)),
    **comparisons("timestamp_{}_date", TIMESTAMP, DATE, keys=(timestamp_key, day_key)),
    **_zoned("date_{}_timestamptz", DATE, TIMESTAMPTZ, (_date_key, _utc_key)),
    **_zoned("timestamptz_{}_date", TIMESTAMPTZ, DATE, (_utc_key, _date_key)),
    **_zoned("timestamp_{}_timestamptz", TIMESTAMP, TIMESTAMPTZ, (_local_key, _utc_key)),
    **_zoned("timestamptz_{}_timestamp", TIMESTAMPTZ, TIMESTAMP, (_utc_key, _local_key)),
    **{
        f"{name}({kind}, {kind})": Builtin(choose)
        for kind, stem in ((DATE, "date"), (TIMESTAMP, "timestamp"), (TIMESTAMPTZ, "timestamptz"))
        for name, choose in ((f"{stem}_larger", max), (f"{stem}_smaller", min))
    },
    f"isfinite({DATE})": Builtin(is_finite_date),
    f"isfinite({TIMESTAMP})": Builtin(is_finite_timestamp),
    f"isfinite({TIMESTAMPTZ})": Builtin(is_finite_timestamp),
}
