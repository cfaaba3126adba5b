"""Functions of scalar types, each against the server with every combination of edge values."""

# ruff: noqa: E501 # lists of literals

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import psycopg
import pytest

from cdc.operators import (
    Builtin,
    addresses,
    bits,
    booleans,
    dates,
    enums,
    fields,
    floats,
    integers,
    internals,
    intervals,
    moments,
    numerics,
    periods,
    times,
    truncation,
    uuids,
)
from tests.operator_grid import Grid

SETUP = "CREATE TYPE mood AS ENUM ('sad', 'glad', 'Sehr froh'); ALTER TYPE mood ADD VALUE 'ok' BEFORE 'glad'"


def listed(literals: str) -> list[str]:
    """The literals between the bars."""
    return literals.split("|")


LITERALS = {
    "boolean": ["t", "f"],
    "smallint": listed("0|1|-1|2|7|-7|100|32767|-32768|181|15|16"),
    "integer": listed(
        "0|1|-1|2|7|-7|12|31|32|33|63|64|65536|46341|2147483647|-2147483648|32768|-32769|655366|196612|2147418115|2147483640"
    ),
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
    "inet": listed(
        "10.0.0.1|10.0.0.1/8|10.0.0.0/8|10.0.0.0/24|10.1.0.0/16|0.0.0.0/0|255.255.255.255|192.168.1.5/24|192.168.1.200/25|::1|::/0|2001:db8::/32|"
        "2001:db8::1|2001:db8::1/64|::ffff:10.0.0.1|::10.0.0.1|fe80::1:0:0:1|1:0:0:2:0:0:0:3|::1:0|::ffff|ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    ),
    "cidr": listed("10.0.0.0/8|10.0.0.0/24|0.0.0.0/0|10.0.0.1/32|2001:db8::/32|::/0|::1/128|192.168.1.128/25"),
    "macaddr": listed("08:00:2b:01:02:03|08-00-2B-01-02-04|00:00:00:00:00:00|ff:ff:ff:ff:ff:ff"),
    "macaddr8": listed("08:00:2b:01:02:03:04:05|08:00:2B:FF:FE:01:02:03|00:00:00:00:00:00:00:00"),
    "bytea": listed(r"|\x00|\x0001|\xff|\xff00|abc|a\\b\000c|\x616263").copy(),
    "bit varying": listed("|0|1|00|01|10|11|1000000|10000000|100000001|0111111111|X1F"),
    "bit": listed("|0|1|00|01|10|11|1000000|10000000|100000001|0111111111"),
    "money": listed("0|1|-1|12.50|1234567.89|-92233720368547758.08"),
    "pg_lsn": listed("0/0|0/1|16/B374D848|FFFFFFFF/FFFFFFFF|1/0"),
    "xid": listed("0|1|3|4294967295|2147483648"),
    "xid8": listed("0|1|4294967296|4294967295"),
    "tid": listed("(0,0)|(0,1)|(1,0)|(4294967295,65535)|(2,3)"),
    "text": listed(
        "microseconds|milliseconds|second|minute|hour|day|week|month|quarter|year|decade|century|millennium|dow|isodow|doy|isoyear|epoch|"
        "timezone|timezone_hour|timezone_minute|DAY|Months|hours|Europe/Berlin|America/Sao_Paulo|Asia/Kathmandu|UTC|"
    ),
}


SINCE: dict[str, int] = {
    f"{name}(timestamp with time zone, interval{more})": 16
    for name in ("date_add", "date_subtract")
    for more in ("", ", text")
} | {f"timezone(timestamp {zone} time zone)": 17 for zone in ("with", "without")}
"""Functions that older versions do not have."""


FAMILIES = [addresses, bits, booleans, dates, enums, fields, floats, integers, internals, intervals, moments]
FAMILIES += [numerics, periods, times, truncation, uuids]
TABLE: dict[str, Builtin] = {signature: found for family in FAMILIES for signature, found in family.TABLE.items()}

READING_CLOCKS = {"statement_timestamp()", "clock_timestamp()"}
"""They are the time of the commit here, as now() is."""


@pytest.fixture
def grid(database: str) -> Iterator[Grid]:
    """Called in New York, where clocks change."""
    with psycopg.connect(database) as connection:
        connection.execute(SETUP)
        connection.commit()
        yield Grid(connection, LITERALS, "America/New_York")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__.rpartition(".")[2])
def test_functions_agree_with_the_server(grid: Grid, family: ModuleType) -> None:
    """Result or error of every function that is evaluated here, for combinations of edge values."""
    grid.now()
    for signature, builtin in family.TABLE.items():
        if signature not in READING_CLOCKS:
            wrong, _ = grid.disagreements(signature, builtin)
            assert not wrong, wrong[:10]


def test_every_function_exists(grid: Grid) -> None:
    """On the versions from which it is known."""
    missing = {signature for signature in TABLE if grid.find(signature) is None}
    assert missing == {signature for signature, since in SINCE.items() if grid.version < since}


TEXTS = {
    "boolean": listed("t|T| true |tru|y|YES|on|1|f|fals|no|n|of|off|0|o||2|yess|tRuE|+1|10|\u00a0t"),
    "whole": listed(
        "0|-0|7|007| 7 |+7|-7|32767|32768|-32768|2147483647|2147483648|9223372036854775807|9223372036854775808||x|1.0|1e2|4294967295|"
        "- 7|--7|+|0x1F|0o17|0b11|1_000|1__0|_1|1_|0x|-0x8000|\t7\n|7 8|\u0667|00000000000000000000000000000000000007|-2147483648|"
        "-9223372036854775808|-9223372036854775809|1f|7L"
    ),
    "number": listed(
        "0|-0|7|007| +7 |-7|1e2|100.0|1.00|1.|.5|.|-|e5|1e|1e+|1e5000|1e-5000|NaN|nan|+NaN|-nan|nan(1)|Infinity|-inf|+inf|inf|infinit|"
        "Infinityx|16777217|0.1000000001|1e-7|x||1 2|1,5|0x1p3|0x10|1_000.5|1_0|_1|1e400|1e-400|1e39|1e-46|3.4028236e38|1d5|--1|+-1|"
        "\u0661|1e1_0|123456789012345678901234567890.123456789|1e131071|1e131072|1e-16383|1e-16384|0e5|-0.0|00.10"
    ),
    "uuid": listed(
        "8fac1234-0000-4000-8000-00000000000a|8FAC1234-0000-4000-8000-00000000000A|{8fac123400004000800000000000000a}|"
        "8fac-1234-0000-4000-8000-0000-0000-000A|8fac||{8fac123400004000800000000000000a| 8fac1234-0000-4000-8000-00000000000a|"
        "8fac12340-000-4000-8000-00000000000a|8fac1234-0000-4000-8000-00000000000a-|urn:uuid:8fac1234-0000-4000-8000-00000000000a"
    ),
    "moment": listed(
        "2024-01-02|2024-01-02 03:04|2024-01-02T03:04:00|2024-01-02 03:04:00.000|2024-01-02 03:04:00.5|2024-01-02 03:04Z|"
        "2024-01-02 08:34:00+0530|2024-01-02t03:04:00z|2024-02-30|2024-13-01|2024-01-32|2024-00-01|2024-01-00|2024-01-01 22:04 -05|"
        "2024-01-02 03:23:32+00:19:32|infinity| -Infinity |+infinity|0001-01-01|9999-12-31||2024-01-02 03:04:00.123456|"
        "2024-01-02 03:04:00.1234567|2024-01-02 03:04:00+16|2024-01-02 03:04:00-15:59|2024-01-02 25:00|2024-01-02 24:00:00|"
        "2024-01-02 24:00:01|2024-01-02 23:59:60|2024-01-02 23:59:61|2024-01-02 23:60|0000-01-01 00:00Z|0000-01-01|2024-01-02   03:04|"
        "now|today|Tomorrow|YESTERDAY|epoch|allballs|monday|january|abc|x|20240102|2024-1-2|01/02/2024|Jan 2 2024|2024-01-02 03:04 BC|"
        "0044-03-15 BC|0044-03-15 12:00:00+00 BC|12024-01-02|12024-01-02 03:04:05+00|294276-12-31 23:59:59|294277-01-01|5874897-12-31|"
        "5874898-01-01|4714-11-24 BC|4714-11-23 BC|2024-01-02 03:04:00 Europe/Berlin|2024-01-02 03:04 EST|2024-03-10 02:30|"
        "2024-11-03 01:30|24-01-02|2024.01.02|2024-002|J2451545|now now|2024-01-02 03|2024-01-02 T03:04|2024-01-02  T 03:04|null|none|"
        "99999-01-01|0099-01-01|2024-01-02 03:04:05.|2024-01-02 03:04:05,5|2024-01-02 0304|-2024-01-02|+2024-01-02|invalid|current|UTC|PST|zulu"
    ),
    "interval": listed(
        "1 day|2 days|1 mon|1 month 2 days|1 year 2 mons -3 days +04:05:06.7|04:05:06|-04:05|4:5|1 week|2 weeks 1 day|90 min|90 minutes|"
        "1 hour 30 minutes|1h|1 h|1d|1 d|1day|1 DAY|1 Day 2 Hours|-1 day|1 day ago|@ 1 day|P1D|PT1H|P|1|1.5 days|1.5|1 day 1 day|1 day 04|"
        "|abc|day|infinity|-infinity|ago|today|1 fortnight|1 century|1 decade|100 milliseconds|5 microseconds|1 sec|1 secs|1 hr|1 day -04:05|"
        "1 day 2|1 2|1 day,2 hours|1 year 1 month 1 week 1 day 1 hour 1 minute 1 second|-1 hour 30 minutes|999999999 years|178956970 years|"
        "178956971 years|2147483647 days|3000000000 days|1 day1 hour|1 hour-30 minutes|1-2|+1 day|  1 day  |1 day 00:60|00:00:60|1 month 1 mon|"
        "1 second 00:00:01|5 seconds 100 milliseconds|100000000 hours|9999999:00|1 months|3 Mons|1 quarter|1 y|1 mins|1 day 1:2:3|1 w|5d|7 s|2 centuries|12 ms|3 us"
    ),
    "time": listed(
        "04:05|04:05:06|04:05:06.789|24:00:00|24:00:01|25:00|4:05|4:05 PM|040506|now|allballs|||abc|04:05:06+02|12:60|12:00:60|noon"
    ),
    "inet": listed(
        "10.0.0.1|10.0.0.1/8|10.0.0|10|10.0.0.256|10.0.0.1/33|10.0.0.1/|/8|::1|::1/64|::1/129|::ffff:1.2.3.4|1.2.3.4.5|010.0.0.1|10.0.0.1 | 10.0.0.1|"
        "fe80::1%eth0|g::1||abc|10.0.0.1/255.0.0.0|10.0.0.1/08|2001:DB8::1|1:2:3:4:5:6:7:8|1:2:3:4:5:6:7::|::|10.0.0.0|10.1.0.0/16|10.1/16|:|1::2::3"
    ),
    "macaddr": listed(
        "08:00:2b:01:02:03|08-00-2B-01-02-03|08002b:010203|08002b010203|0800.2b01.0203||xyz|08:00:2b:01:02|8:0:2b:1:2:3| 08:00:2b:01:02:03|gg:00:00:00:00:00"
    ),
    "bytea": listed(r"\x|\x00ff|\xFF|\x0|\x0g|\x 00 ff|\x0 0|abc|\\|\001|\400|\1|a\b|ü||\X00|\\x00|x"),
    "bits": listed("|0|1|0101|b01|B01|x1F|X|Xg|2|01 | 01|b|0b1|ü"),
    "pg_lsn": listed("0/0|16/B374D848|16/b374d848|FFFFFFFF/FFFFFFFF|100000000/0|0|0/|/0|0/0 ||g/0|0x1/0|00000001/1"),
    "xid": listed("0|1|4294967295|01|-1|x||1 | 1|4294967296"),
    "mood": listed("sad|SAD|sad | ok|ok|happy|"),
    "text": listed("|a| a |ü"),
}
"""What people may write, much of it wrong, by a name that several types share."""

INPUTS = {
    "boolean": "boolean",
    **dict.fromkeys(("smallint", "integer", "bigint", "oid"), "whole"),
    **dict.fromkeys(("real", "double precision", "numeric"), "number"),
    "uuid": "uuid",
    **dict.fromkeys(("date", "timestamp without time zone", "timestamp with time zone"), "moment"),
    "interval": "interval",
    "time without time zone": "time",
    **dict.fromkeys(("inet", "cidr"), "inet"),
    **dict.fromkeys(("macaddr", "macaddr8"), "macaddr"),
    "bytea": "bytea",
    **dict.fromkeys(("bit", "bit varying"), "bits"),
    "pg_lsn": "pg_lsn",
    **dict.fromkeys(("xid", "xid8"), "xid"),
    "mood": "mood",
    **dict.fromkeys(("text", "character varying", "name"), "text"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_input_is_read_as_the_server_reads_it(grid: Grid, name: str) -> None:
    """A value that is read is the server's, what fails fails there, too; the rest is undecided, but not all of it."""
    grid.now()
    wrong, decided = grid.misread(name, TEXTS[INPUTS[name]])
    assert not wrong
    assert decided >= 2
