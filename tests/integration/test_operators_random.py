"""Random values of scalar types: compared, read and moved between time zones here and by the server."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc.operators import Context, builtin
from tests.operator_grid import Grid, quoted

SERVER = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ZONES = ["America/New_York", "Europe/Dublin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Sao_Paulo"]
ZONES += ["Pacific/Apia", "Europe/Moscow", "UTC"]

moments = st.datetimes().map(str)
COMPARED = {
    "smallint": ("int2", st.integers(-(2**15), 2**15 - 1).map(str)),
    "bigint": ("int8", st.integers(-(2**63), 2**63 - 1).map(str)),
    "real": ("float4", st.floats(width=32).map(repr)),
    "double precision": ("float8", st.floats().map(repr)),
    "numeric": ("numeric_", st.one_of(st.decimals(-100, 100, places=2).map(str), st.floats(0, 1e30).map(str))),
    "uuid": ("uuid_", st.uuids().map(str)),
    "date": ("date_", st.dates().map(str)),
    "timestamp without time zone": ("timestamp_", moments),
    "timestamp with time zone": (
        "timestamptz_",
        st.tuples(moments, st.sampled_from(["+00", "-05", "+05:30"])).map("".join),
    ),
    "time without time zone": ("time_", st.times().map(str)),
    "time with time zone": (
        "timetz_",
        st.tuples(st.times().map(str), st.sampled_from(["+00", "-05", "+05:30"])).map("".join),
    ),
    "interval": (
        "interval_",
        st.tuples(*(st.integers(-size, size) for size in (50, 900, 90_000))).map(
            lambda parts: "{} mons {} days {} seconds".format(*parts)
        ),
    ),
    "inet": (
        "network_",
        st.one_of(
            st.tuples(st.ip_addresses(v=4).map(str), st.integers(0, 32)).map(lambda parts: "{}/{}".format(*parts)),
            st.tuples(st.ip_addresses(v=6).map(str), st.integers(0, 128)).map(lambda parts: "{}/{}".format(*parts)),
        ),
    ),
    "bytea": ("bytea", st.binary(max_size=4).map(lambda value: "\\x" + value.hex())),
    "bit varying": ("varbit", st.text("01", max_size=12)),
}
ALPHABETS = {
    "boolean": "tTrRuUeEfFaAlLsSyYnNoO01 ",
    "integer": "0123456789+- \tx_a",
    "numeric": "0123456789+-.eE nafity",
    "double precision": "0123456789+-.eE nafity",
    "uuid": "0a-{}",
    "date": "0123-: 4",
    "timestamp with time zone": "0123-:. T+Z",
    "interval": "1234 daysmonh:-+.",
    "time without time zone": "0123456:. ",
    "inet": "012:./a",
    "bytea": "\\x01 a",
    "bit varying": "01bx2",
    "pg_lsn": "0fF/ 1",
}


@pytest.fixture
def plain(database: str) -> Iterator[Grid]:
    """A server without edge values."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield Grid(connection, {}, "America/New_York")


@pytest.mark.parametrize("name", COMPARED)
def test_random_values_compare_as_on_the_server(plain: Grid, name: str) -> None:
    stem, values = COMPARED[name]
    reader = plain.datums.reader(plain.oid(name))
    assert reader is not None
    words = {"eq": "=", "lt": "<", "ge": ">="}
    calls = {word: builtin(f"{stem}{word}({name}, {name})") for word in words}

    @SERVER
    @given(st.lists(values, min_size=2, max_size=5))
    def compare(texts: list[str]) -> None:
        typed = ", ".join(f"({quoted(text, name)})" for text in texts)
        plain.connection.execute("SET timezone = 'UTC'")
        rows = plain.connection.execute(
            f"WITH v(x) AS (VALUES {typed}) "
            "SELECT format('%s', a.x), format('%s', b.x), a.x = b.x, a.x < b.x, a.x >= b.x FROM v a, v b"
        ).fetchall()
        for left, right, *theirs in rows:
            pair = reader(left.encode()), reader(right.encode())
            ours = [found is not None and found.call(*pair) for found in calls.values()]
            assert ours == theirs, (left, right)

    compare()


@pytest.mark.parametrize("name", ALPHABETS)
def test_random_texts_are_read_as_on_the_server(plain: Grid, name: str) -> None:
    plain.now()

    @SERVER
    @given(st.lists(st.text(ALPHABETS[name], max_size=14), min_size=10, max_size=40))
    def read(texts: list[str]) -> None:
        wrong, _ = plain.misread(name, texts)
        assert not wrong

    read()


@pytest.mark.parametrize("zone", ZONES)
def test_clocks_change_as_on_the_server(plain: Grid, zone: str) -> None:
    """Local time to UTC and back, for hours around the changes of the clocks and at random."""
    chance = random.Random(zone)
    start = datetime(1970, 1, 1)
    texts = [str(start + timedelta(minutes=15 * chance.randrange(70 * 365 * 96))) for _ in range(3000)]
    texts += [
        str(change + timedelta(minutes=15 * step)) for change in changes(ZoneInfo(zone)) for step in range(-9, 10)
    ]
    plain.connection.execute("SELECT set_config('timezone', %s, false)", (zone,))
    context = Context(zone=ZoneInfo(zone))
    to_utc, to_local = (plain.datums.input(1184), plain.datums.output(1184))
    assert to_utc is not None
    assert to_local is not None
    query = "SELECT t, t::timestamptz::text FROM unnest(%s::text[]) t"
    differing = [
        (text, theirs)
        for text, theirs in plain.connection.execute(query, (texts,))
        if to_local(context, to_utc(context, text)) != theirs
    ]
    assert not differing


def changes(zone: ZoneInfo) -> list[datetime]:
    """Local times near which the offset changes, of days between 1900 and 2090."""
    days = [datetime(1900, 1, 1) + timedelta(days=number) for number in range(190 * 365)]
    return [
        before
        for before, after in pairwise(days)
        if before.replace(tzinfo=zone).utcoffset() != after.replace(tzinfo=zone).utcoffset()
        for before in [before + timedelta(hours=hour) for hour in (0, 4, 8, 12, 16, 20, 24)]
    ]
