"""Cells become Python objects: every family of types, from the bytes that the server sends."""

from __future__ import annotations

import copy
import pickle
import struct
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import ip_address, ip_interface, ip_network
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.types.range import Range

from cdc.values import BoundedArray, Interval, TypeInfo, Types
from cdc.values.builtin import ARRAYS, SCALARS

BOOL, BYTEA, CHAR, NAME, INT8, INT2, INT4, TEXT, OID = 16, 17, 18, 19, 20, 21, 23, 25, 26
JSON, FLOAT4, FLOAT8, BPCHAR, VARCHAR, DATE, TIME, TIMESTAMP = 114, 700, 701, 1042, 1043, 1082, 1083, 1114
TIMESTAMPTZ, INTERVAL, NUMERIC, UUID_OID, JSONB = 1184, 1186, 1700, 2950, 3802
INT4_ARRAY, TEXT_ARRAY, BOX_ARRAY = 1007, 1009, 1020

TYPES = Types()


def decoded(oid: int, cell: bytes) -> object:
    return TYPES.decoder(oid)(cell)


@pytest.mark.parametrize(
    ("oid", "cell", "value"),
    [
        (BOOL, b"t", True),
        (BOOL, b"f", False),
        (INT2, b"-32768", -32768),
        (INT4, b"12", 12),
        (INT8, b"9223372036854775807", 2**63 - 1),
        (OID, b"4294967295", 2**32 - 1),
        (FLOAT4, b"1.1", 1.1),
        (FLOAT8, b"-1e+100", -1e100),
        (FLOAT8, b"Infinity", float("inf")),
        (FLOAT8, b"-Infinity", float("-inf")),
        (TEXT, "naïve ☃".encode(), "naïve ☃"),
        (TEXT, b"", ""),
        (VARCHAR, b" x ", " x "),
        (NAME, b"wells", "wells"),
        (BPCHAR, b"ab   ", "ab   "),
        (CHAR, b"d", "d"),
        (UUID_OID, b"8fac1234-0000-4000-8000-00000000000a", UUID("8fac1234-0000-4000-8000-00000000000a")),
        (BYTEA, b"\\x00ff7e", b"\x00\xff~"),
        (BYTEA, b"\\x", b""),
        (INTERVAL, b"1 mon 2 days", Interval(1, 2)),
        (INTERVAL, b"-1 years -2 mons +3 days -04:05:06.7", Interval(-14, 3, -14_706_700_000)),
        (INTERVAL, b"infinity", "infinity"),
        (869, b"10.0.0.0/8", ip_interface("10.0.0.0/8")),
        (869, b"10.0.0.1", ip_address("10.0.0.1")),
        (650, b"10.0.0.0/8", ip_network("10.0.0.0/8")),
        (22, b"1 2 3", "1 2 3"),
        (3904, b"[1,10)", Range(1, 10)),
        (CHAR, b"\xc3", "\\303"),
        (790, b"-$1,234.50", "-$1,234.50"),
    ],
)
def test_scalars(oid: int, cell: bytes, value: object) -> None:
    result = decoded(oid, cell)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize("text", ["1.500", "0", "-0.00", "NaN", "Infinity", "-Infinity", "1" * 5000, "0." + "0" * 99])
def test_numeric_keeps_every_digit(text: str) -> None:
    value = decoded(NUMERIC, text.encode())
    assert isinstance(value, Decimal)
    assert format(value, "f") == text


def test_nan_is_a_float() -> None:
    value = decoded(FLOAT8, b"NaN")
    assert isinstance(value, float)
    assert value != value


@pytest.mark.parametrize(
    ("oid", "cell", "value"),
    [
        (DATE, b"2024-02-29", date(2024, 2, 29)),
        (DATE, b"0044-03-15", date(44, 3, 15)),
        (TIME, b"12:34:56.7", time(12, 34, 56, 700000)),
        (TIME, b"00:00:00", time(0)),
        (TIMESTAMP, b"2024-01-02 03:04:05.000006", datetime(2024, 1, 2, 3, 4, 5, 6)),
        (TIMESTAMPTZ, b"2024-01-02 03:04:05.6+00", datetime(2024, 1, 2, 3, 4, 5, 600000, tzinfo=UTC)),
        (TIMESTAMPTZ, b"2024-01-02 03:04:05+05:30", datetime(2024, 1, 1, 21, 34, 5, tzinfo=UTC)),
    ],
)
def test_times(oid: int, cell: bytes, value: object) -> None:
    result = decoded(oid, cell)
    assert result == value
    assert type(result) is type(value)


def test_the_longest_interval() -> None:
    """Since version 17 it is infinity; before, it was an interval, which only its text says."""
    longest = struct.pack(">qii", 2**63 - 1, 2**31 - 1, 2**31 - 1)
    assert TYPES.binary_decoder(1186)(longest) == "infinity"
    text = b"178956970 years 7 mons 2147483647 days 2562047788:00:54.775807"
    assert TYPES.decoder(1186)(text) == Interval(2**31 - 1, 2**31 - 1, 2**63 - 1)


def test_timestamptz_is_in_utc() -> None:
    for cell in (b"2024-01-02 03:04:05+00", b"2024-01-02 03:04:05-07"):
        value = decoded(TIMESTAMPTZ, cell)
        assert isinstance(value, datetime)
        assert value.utcoffset() == timedelta(0)
        assert value.tzinfo is UTC


@pytest.mark.parametrize(
    ("oid", "text"),
    [
        (DATE, "infinity"),
        (DATE, "-infinity"),
        (DATE, "0044-03-15 BC"),
        (DATE, "10000-01-01"),
        (TIME, "24:00:00"),
        (TIMESTAMP, "infinity"),
        (TIMESTAMP, "4713-01-01 00:00:00 BC"),
        (TIMESTAMP, "294276-12-31 23:59:59.999999"),
        (TIMESTAMPTZ, "-infinity"),
        (TIMESTAMPTZ, "0044-03-15 12:00:00.5+00 BC"),
        (TIMESTAMPTZ, "12345-01-01 00:00:00+00"),
        (TIMESTAMPTZ, "0001-01-01 00:00:00+05"),
    ],
)
def test_what_python_cannot_hold_stays_text(oid: int, text: str) -> None:
    assert decoded(oid, text.encode()) == text


@pytest.mark.parametrize(
    ("oid", "cell", "value"),
    [
        (INT4_ARRAY, b"{}", []),
        (INT4_ARRAY, b"{1,NULL,-3}", [1, None, -3]),
        (INT4_ARRAY, b"{{1,2},{3,NULL}}", [[1, 2], [3, None]]),
        (INT4_ARRAY, b"[0:1]={1,2}", [1, 2]),
        (INT4_ARRAY, b"[1:1][-2:-1][3:4]={{{1,2},{3,4}}}", [[[1, 2], [3, 4]]]),
        (TEXT_ARRAY, b'{a,"b c","NULL","",NULL}', ["a", "b c", "NULL", "", None]),
        (TEXT_ARRAY, b'{"\\"q\\\\","x,y","{z}"}', ['"q\\', "x,y", "{z}"]),
        (TEXT_ARRAY, '{☃,"ü\n"}'.encode(), ["☃", "ü\n"]),
        (1231, b"{1.50,NaN}", [Decimal("1.50"), None]),
        (1182, b"{2024-01-02,infinity}", [date(2024, 1, 2), "infinity"]),
        (1001, b'{"\\\\x00ff"}', [b"\x00\xff"]),
        (3807, b'{"{\\"a\\": [1]}",1}', [{"a": [1]}, 1]),
        (BOX_ARRAY, b"{(1,1),(0,0);(2,2),(1,1)}", ["(1,1),(0,0)", "(2,2),(1,1)"]),
    ],
)
def test_arrays(oid: int, cell: bytes, value: list[object]) -> None:
    result = decoded(oid, cell)
    if oid == 1231:  # NaN equals nothing
        assert isinstance(result, list)
        assert (result[0], result[1].is_nan()) == (value[0], True)
    else:
        assert result == value


@pytest.mark.parametrize(
    ("cell", "values", "bounds"),
    [
        (b"[0:1]={1,2}", [1, 2], (0,)),
        (b"[1:1][-2:-1][3:4]={{{1,2},{3,4}}}", [[[1, 2], [3, 4]]], (1, -2, 3)),
        (b"[-2147483648:-2147483648]={NULL}", [None], (-(2**31),)),
    ],
)
def test_bounds_of_arrays(cell: bytes, values: list[object], bounds: tuple[int, ...]) -> None:
    result = decoded(INT4_ARRAY, cell)
    assert isinstance(result, BoundedArray)
    assert (result, result.lower_bounds) == (values, bounds)
    assert repr(result) == f"BoundedArray({values!r}, lower_bounds={bounds!r})"
    for copied in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert (copied, copied.lower_bounds) == (values, bounds)
    assert type(decoded(INT4_ARRAY, b"[1:2]={1,2}")) is list


def written(items: list[object]) -> str:
    """An array as the server could print it, with every str in quotes."""
    parts = []
    for item in items:
        if isinstance(item, list):
            parts.append(written(item))
        elif item is None:
            parts.append("NULL")
        else:
            parts.append('"' + str(item).replace("\\", "\\\\").replace('"', '\\"') + '"')
    return "{" + ",".join(parts) + "}"


@given(st.lists(st.one_of(st.none(), st.text(), st.lists(st.one_of(st.none(), st.text())))))
def test_any_text_survives_an_array(items: list[object]) -> None:
    try:
        cell = written(items).encode()
    except UnicodeEncodeError:
        return
    assert decoded(TEXT_ARRAY, cell) == items


MALFORMED = [
    *(b"", b"\xff", b"x", b"{", b"}", b"{1", b"{1}}", b"{1,,2}", b"{,}", b'{"a}', b"{1}x", b"[0:1]", b"[", b"1.5.5"),
    b"\\xg",
]


@pytest.mark.parametrize("cell", [*MALFORMED, b"{" * 2000, b"{" * 7 + b"}" * 7, b"1e9999999999999999999999"])
def test_malformed_cells_raise_only_value_errors(cell: bytes) -> None:
    for oid in [*SCALARS, *ARRAYS]:
        with suppress(ValueError):
            decoded(oid, cell)


@pytest.mark.parametrize("cell", MALFORMED)
def test_malformed_arrays_are_refused(cell: bytes) -> None:
    with pytest.raises(ValueError):
        decoded(INT4_ARRAY, cell)


@pytest.mark.parametrize(
    ("oid", "cell"),
    [
        (BOOL, b"true"),
        (BYTEA, b"abc"),
        (BYTEA, b"\\x0"),
        (NUMERIC, b"one"),
        (TEXT, b"\xff"),
        (DATE, b"01/02/2024"),
        (TIME, b"12:34:56+00"),
        (TIMESTAMP, b"2024-01-02 03:04:05+00"),
        (TIMESTAMPTZ, b"2024-01-02 03:04:05"),
        (TIMESTAMPTZ, b"2024-13-02 03:04:05+00"),
        (UUID_OID, b"8fac"),
        (JSONB, b"{"),
        (INT4_ARRAY, b"{" * 7 + b"}" * 7),
    ],
)
def test_cells_of_another_form_are_refused(oid: int, cell: bytes) -> None:
    with pytest.raises(ValueError):
        decoded(oid, cell)


@given(st.binary(max_size=40), st.sampled_from(sorted([*SCALARS, *ARRAYS])))
def test_any_bytes_raise_only_value_errors(cell: bytes, oid: int) -> None:
    with suppress(ValueError):
        decoded(oid, cell)


MOOD, MOODS, YEAR, YEARS, NAMES, PAIR, HIDDEN, VECTOR = range(50000, 50008)
INFOS = [
    TypeInfo(MOOD, "public", "mood", "e"),
    TypeInfo(MOODS, "public", "_mood", "b", element=MOOD),
    TypeInfo(YEAR, "shop", "year", "d", base=INT4),
    TypeInfo(YEARS, "shop", "_year", "b", element=YEAR),
    TypeInfo(NAMES, "Shop", "Names", "d", base=TEXT_ARRAY),
    TypeInfo(PAIR, "public", "pair", "c", attributes=(("x", INT4), ("y", TEXT))),
    TypeInfo(VECTOR, "public", "_vector", "b", element=PAIR, delimiter="|"),
]


@pytest.fixture
def types() -> Types:
    types = Types()
    types.add(INFOS)
    return types


def test_users_types(types: Types) -> None:
    assert types.decoder(MOOD)(b"glad") == "glad"
    assert types.decoder(MOODS)(b"{glad,NULL}") == ["glad", None]
    assert types.decoder(YEAR)(b"2024") == 2024
    assert types.decoder(YEARS)(b"{2024,2025}") == [2024, 2025]
    assert types.decoder(NAMES)(b"{a,b}") == ["a", "b"]
    assert types.decoder(PAIR)(b"(1,x)") == {"x": 1, "y": "x"}
    assert types.decoder(VECTOR)(b'{"(1,2)"|"(3,4)"}') == [{"x": 1, "y": "2"}, {"x": 3, "y": "4"}]


def test_missing_follows_domains_and_arrays() -> None:
    types = Types()
    assert types.missing([INT4, TEXT_ARRAY, MOODS]) == {MOODS}
    types.add([TypeInfo(MOODS, "public", "_mood", "b", element=MOOD)])
    assert types.missing([INT4, MOODS]) == {MOOD}
    types.add([TypeInfo(MOOD, "public", "mood", "e"), TypeInfo(YEAR, "public", "year", "d", base=HIDDEN)])
    assert types.missing([MOODS, YEAR]) == {HIDDEN}
    assert types.missing([MOODS, PAIR]) == {PAIR}
    assert types.missing([]) == frozenset()


def test_newer_information_replaces_older(types: Types) -> None:
    assert types.decoder(YEAR)(b"7") == 7
    types.add([TypeInfo(YEAR, "shop", "year", "d", base=TEXT)])
    assert types.decoder(YEAR)(b"7") == "7"
    assert types.decoder(YEARS)(b"{7}") == ["7"]
    types.add([TypeInfo(INT4, "public", "int4", "d", base=TEXT)])
    assert types.decoder(INT4)(b"7") == 7
    assert types.decoder(MOOD)(b"glad") == "glad"


@pytest.mark.parametrize(
    ("oid", "name"),
    [
        (INT8, "bigint"),
        (TIMESTAMPTZ, "timestamp with time zone"),
        (CHAR, '"char"'),
        (TEXT_ARRAY, "text[]"),
        (MOOD, "mood"),
        (MOODS, "mood[]"),
        (YEAR, "shop.year"),
        (YEARS, "shop.year[]"),
        (NAMES, '"Shop"."Names"'),
        (HIDDEN, f"type {HIDDEN}"),
    ],
)
def test_names(types: Types, oid: int, name: str) -> None:
    assert types.name(oid) == name
