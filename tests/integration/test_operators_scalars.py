"""Functions of scalar types, each against the server with every combination of edge values."""

# ruff: noqa: E501 # lists of literals

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from cdc.operators import tables
from tests.operator_grid import Grid

SETUP = "CREATE TYPE mood AS ENUM ('sad', 'glad', 'Sehr froh'); ALTER TYPE mood ADD VALUE 'ok' BEFORE 'glad'"


def listed(literals: str) -> list[str]:
    """The literals between the bars."""
    return literals.split("|")


LITERALS = {
    "boolean": ["t", "f"],
    "smallint": listed("0|1|-1|2|7|-7|100|32767|-32768|181|15|16"),
    "integer": listed("0|1|-1|2|7|-7|12|31|32|33|63|64|65536|46341|2147483647|-2147483648|32768|-32769|655366|196612"),
    "bigint": listed(
        "0|1|-1|2|7|-7|3037000500|4294967296|2147483648|9223372036854775807|-9223372036854775808|9007199254740993|16777217"
    ),
    "oid": listed("0|1|7|2147483648|4294967295"),
    "real": listed(
        "0|-0|1|-1|0.1|-0.1|1.5|2.5|-2.5|3|0.333|16777216|1e10|3.4e38|-3.4e38|1e-38|1e-45|NaN|Infinity|-Infinity|123456.7|999999.5|0.00001234"
    ),
    "double precision": listed(
        "0|-0|1|-1|0.1|-0.1|0.5|1.5|2.5|-2.5|3|0.333|32767.5|-32768.5|2147483647.5|9007199254740993|9.3e18|1e10|1e15|1.7e308|-1.7e308|"
        "1e-300|5e-324|1e39|1e-46|NaN|Infinity|-Infinity|0.1000000014901161|123456789.123456789"
    ),
    "numeric": listed(
        "0|0.0|1|1.0|1.00|-1|2|3|-7|0.1|0.10|0.5|1.5|2.5|-2.5|-0.05|9999|10000|10001|99999999.99|1e20|123456789012345678901.5|1e-20|"
        "32767.5|2147483647.4|9223372036854775807.5|NaN|Infinity|-Infinity|7.000001|0.00012345"
    ),
    "uuid": listed(
        "00000000-0000-0000-0000-000000000000|8fac1234-0000-4000-8000-00000000000a|8fac1234-0000-4000-8000-00000000000b|"
        "ffffffff-ffff-ffff-ffff-ffffffffffff"
    ),
    "mood": ["sad", "glad", "ok", "Sehr froh"],
    "date": listed(
        "2000-01-01|2024-02-29|2024-03-10|2024-11-03|1999-12-31|0001-01-01|0001-01-01 BC|4713-11-24 BC|9999-12-31|12024-01-01|"
        "5874897-12-31|294276-12-31|infinity|-infinity|1883-11-18|1901-12-14|2100-07-04"
    ),
    "timestamp without time zone": listed(
        "2000-01-01 00:00|2024-02-29 12:34:56.789|2024-03-10 02:30|2024-11-03 01:30|2024-11-03 00:00|1999-12-31 23:59:59.999999|"
        "0001-01-01 00:00|0044-03-15 12:00 BC|4713-11-24 00:00 BC|294276-12-31 23:59:59.999999|infinity|-infinity|"
        "1883-11-18 12:00:00|2100-07-04 01:00|2024-01-31 05:06:07.123456|2024-03-10 00:00"
    ),
    "timestamp with time zone": listed(
        "2000-01-01 00:00+00|2024-02-29 12:34:56.789+00|2024-03-10 06:59:59+00|2024-03-10 07:00+00|2024-11-03 05:30+00|"
        "2024-11-03 06:30+00|2024-11-03 04:00+00|0001-01-01 00:00+00|0044-03-15 12:00+00 BC|4713-11-24 00:00+00 BC|"
        "294276-12-31 23:59:59.999999+00|infinity|-infinity|1883-11-18 17:00:00+00|2100-07-04 01:00+00|2024-01-31 05:06:07.123456+00"
    ),
    "time without time zone": listed("00:00|00:00:01|04:05:06.7|12:00|23:59:59.999999|24:00:00|23:30"),
    "time with time zone": listed(
        "00:00+00|00:00-05|04:05:06.7+05:30|05:05:06.7+06:30|23:59:59.999999-12|24:00:00+00|05:00+00|12:00+00:19:32"
    ),
    "interval": listed(
        "0|1 day|24:00:00|1 mon|30 days|29 days 24:00:00|1 year|12 mons|-1 mon|-1 day +25:00:00|1 mon -1 day|00:00:00.000001|"
        "-00:00:00.5|1 year 2 mons 3 days 04:05:06.789|-1 year -2 mons +3 days -04:05:06.789|178000000 years|-2147483648 days|35 days 49:00:00|"
        "-35 days -49:00:00|05:30|-08:00|13 mons -400 days 100:00:00|2147483647 days 2562047788:00:54.775807|100 years"
    ),
    "text": listed(
        "microseconds|milliseconds|second|minute|hour|day|week|month|quarter|year|decade|century|millennium|dow|isodow|doy|isoyear|epoch|"
        "timezone|timezone_hour|timezone_minute|DAY|Months|hours|Europe/Berlin|America/Sao_Paulo|Asia/Kathmandu|UTC|"
    ),
}


SINCE: dict[str, int] = {
    f"{name}(timestamp with time zone, interval{more})": 16
    for name in ("date_add", "date_subtract")
    for more in ("", ", text")
}
"""Functions that older versions do not have."""


READING_CLOCKS = {"statement_timestamp()", "clock_timestamp()"}
"""They are the time of the commit here, as now() is."""


@pytest.fixture
def grid(database: str) -> Iterator[Grid]:
    """Called in New York, where clocks change."""
    with psycopg.connect(database) as connection:
        connection.execute(SETUP)
        yield Grid(connection, LITERALS, "America/New_York")


def test_functions_agree_with_the_server(grid: Grid) -> None:
    """Result or error of every function that is evaluated here, for every combination of edge values."""
    decided = 0
    grid.now()
    for signature, builtin in tables.TABLE.items():
        if signature in READING_CLOCKS:
            continue
        wrong, count = grid.disagreements(signature, builtin)
        assert not wrong, wrong[:10]
        decided += count
    assert decided > 50_000


def test_every_function_exists(grid: Grid) -> None:
    """On the versions from which it is known."""
    missing = {signature for signature in tables.TABLE if grid.find(signature) is None}
    assert missing == {signature for signature, since in SINCE.items() if grid.version < since}
