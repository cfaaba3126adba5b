"""Equality by hashing: cells, written text and Python values of one type meet in one space."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Hashable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.values import Equality, TypeInfo, Types

BOOL, NAME, INT8, INT2, INT4, TEXT, OID, FLOAT4, FLOAT8 = 16, 19, 20, 21, 23, 25, 26, 700, 701
BPCHAR, VARCHAR, DATE, TIMESTAMP, TIMESTAMPTZ, NUMERIC, UUID_OID = 1042, 1043, 1082, 1114, 1184, 1700, 2950
MOOD, LEVEL = 50000, 50001
COMPARABLE = [BOOL, NAME, INT8, INT2, INT4, TEXT, OID, FLOAT4, FLOAT8, BPCHAR, VARCHAR, DATE, TIMESTAMP, TIMESTAMPTZ]
COMPARABLE += [NUMERIC, UUID_OID, MOOD, LEVEL]

TYPES = Types()
TYPES.add([TypeInfo(MOOD, "public", "mood", "e"), TypeInfo(LEVEL, "public", "level", "d", base=INT2)])


def equality(oid: int) -> Equality:
    found = TYPES.equality(oid)
    assert found is not None
    return found


def of_cell(oid: int, cell: bytes) -> Hashable:
    read = equality(oid).from_cell
    return cell if read is None else read(cell)


def of_text(oid: int, text: str) -> Hashable:
    return equality(oid).from_text(text)


def of_python(oid: int, value: object) -> Hashable:
    return equality(oid).from_python(value)


def same(left: Hashable, right: Hashable) -> bool:
    """Equal as keys of a dict are."""
    return right in {left: None}


@pytest.mark.parametrize(
    ("oid", "text", "cell"),
    [
        *[(BOOL, text, b"t") for text in ("t", "tr", "TRUE", " True\n", "y", "ye", "yes", "on", "1")],
        *[(BOOL, text, b"f") for text in ("f", "fal", "FALSE", "n", "no", "of", "off", "0")],
        (INT4, "007", b"7"),
        (INT4, "-0", b"0"),
        (INT4, "-2147483648", b"-2147483648"),
        (INT8, "0" * 30 + "9223372036854775807", b"9223372036854775807"),
        (LEVEL, "3", b"3"),
        (OID, "4294967295", b"4294967295"),
        (UUID_OID, "8FAC1234-0000-4000-8000-00000000000A", b"8fac1234-0000-4000-8000-00000000000a"),
        (UUID_OID, "8fac123400004000800000000000000a", b"8fac1234-0000-4000-8000-00000000000a"),
        (UUID_OID, "8fac-1234-0000-4000-8000-0000-0000-000a", b"8fac1234-0000-4000-8000-00000000000a"),
        (TEXT, "", b""),
        (TEXT, " ☃ ", " ☃ ".encode()),
        (NAME, "ü" * 40, ("ü" * 31).encode()),
        (BPCHAR, "ab  ", b"ab "),
        (BPCHAR, "", b"   "),
        (MOOD, "glad", b"glad"),
        (NUMERIC, "1.0", b"1.00"),
        (NUMERIC, " 1e2 ", b"100.0"),
        (NUMERIC, "-0", b"0.00"),
        (NUMERIC, "nan", b"NaN"),
        (NUMERIC, "-INF", b"-Infinity"),
        (NUMERIC, "+infinity", b"Infinity"),
        (NUMERIC, "1" * 40 + ".10", ("1" * 40 + ".1").encode()),
        (FLOAT8, "0", b"-0"),
        (FLOAT8, "NAN", b"NaN"),
        (FLOAT8, "0.1000000000000000055511151231257827", b"0.1"),
        (FLOAT4, "0.100000001490116119384765625", b"0.1"),
        (FLOAT4, "16777217", b"1.6777216e+07"),
        (FLOAT4, "1e-45", b"1e-45"),
        (FLOAT4, "0e99999999999999999999", b"0"),
        (DATE, "2024-02-29", b"2024-02-29"),
        (DATE, " Infinity ", b"infinity"),
        (TIMESTAMP, "2024-01-02", b"2024-01-02 00:00:00"),
        (TIMESTAMP, "2024-01-02 03:04:05.600", b"2024-01-02 03:04:05.6"),
        (TIMESTAMP, "2024-01-02T03:04:05Z", b"2024-01-02 03:04:05"),
        (TIMESTAMP, "2024-01-02 03:04:05+05", b"2024-01-02 03:04:05"),
        (TIMESTAMPTZ, "2024-01-02T03:04:05.6Z", b"2024-01-02 03:04:05.6+00"),
        (TIMESTAMPTZ, "2024-01-02 03:04:05+05:30", b"2024-01-01 21:34:05+00"),
        (TIMESTAMPTZ, "2024-01-02 03:04:05.000010 -0800", b"2024-01-02 11:04:05.00001+00"),
        (TIMESTAMPTZ, "1900-01-01 00:00:00+00:19:32", b"1899-12-31 23:40:28+00"),
        (TIMESTAMPTZ, "infinity", b"infinity"),
    ],
)
def test_written_text_meets_the_cell(oid: int, text: str, cell: bytes) -> None:
    assert same(of_text(oid, text), of_cell(oid, cell))


REFUSED = {
    BOOL: ["", "o", "tru e", "truee", "2", "ja", "\uff54"],
    INT2: ["32768", "-32769"],
    INT4: ["", " ", "x", "1.0", "1e3", "0x10", "1_000", "\u0661\u0662", "--1", "2147483648", "9" * 5000],
    INT8: ["9223372036854775808"],
    LEVEL: ["32768"],
    OID: ["-1", "4294967296", "010", "0x1"],
    UUID_OID: [
        *("", "x", "urn:uuid:8fac1234-0000-4000-8000-00000000000a", "8f-ac1234000040008000000000000000a"),
        *("{8fac1234-0000-4000-8000-00000000000a", " 8fac1234-0000-4000-8000-00000000000a"),
        "8fac1234-0000-4000-8000-00000000000a}",
    ],
    NUMERIC: ["", "1_0", "\u0661", "1e", "0x10", "+nan", "sNaN", "1,5", "1e131072", "1e-16384", "1e" + "9" * 30],
    FLOAT8: ["", "1_0", "0x1p3", "1e400", "1e-400", "x", "infinit"],
    FLOAT4: ["3.5e38", "1e-50", "1e400", "1e-400"],
    TEXT: ["a\0b", "\ud800"],
    DATE: [
        *("", "20240102", "2024-1-2", "2024-02-30", "2024-W01-1", "now", "today", "inf", "0000-01-01", "01/02/2024"),
        *("2024-01-02 03:04:05", "\u0662\u0660\u0662\u0664-01-02", "12345-01-01", "0044-03-15 BC"),
    ],
    TIMESTAMP: [
        *("", "2024-01-02 24:00:00", "2024-01-02 03:04:60", "2024-01-02 03:04:05.1234567", "now", "2024-01-02T"),
        *("2024-01-02 03", "2024-01-02+00", "2024-01-02 03:04:05 PM"),
    ],
    TIMESTAMPTZ: [
        *("2024-01-02 03:04:05", "2024-01-02", "2024-01-02 03:04:05+16", "2024-01-02 03:04:05 UTC"),
        *("0001-01-01 00:00:00+05", "9999-12-31 23:00:00-05", "2024-01-02 03:04:05+05:60"),
    ],
}


@pytest.mark.parametrize(("oid", "text"), [(oid, text) for oid, texts in REFUSED.items() for text in texts])
def test_text_that_is_not_of_the_type_is_refused(oid: int, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        of_text(oid, text)
    message = str(caught.value)
    assert repr(text)[:80] in message
    assert len(message) < 260


@pytest.mark.parametrize(
    ("oid", "value", "cell"),
    [
        (BOOL, True, b"t"),
        (INT2, -7, b"-7"),
        (INT8, 2**63 - 1, b"9223372036854775807"),
        (UUID_OID, UUID("8fac1234-0000-4000-8000-00000000000a"), b"8fac1234-0000-4000-8000-00000000000a"),
        (UUID_OID, "8FAC1234-0000-4000-8000-00000000000A", b"8fac1234-0000-4000-8000-00000000000a"),
        (TEXT, "ü", "ü".encode()),
        (BPCHAR, "ab", b"ab  "),
        (NAME, "x" * 70, b"x" * 63),
        (MOOD, "glad", b"glad"),
        (NUMERIC, Decimal("1.0"), b"1.00"),
        (NUMERIC, 100, b"100.00"),
        (NUMERIC, Decimal("NaN"), b"NaN"),
        (NUMERIC, Decimal("sNaN"), b"NaN"),
        (NUMERIC, Decimal("-Infinity"), b"-Infinity"),
        (FLOAT8, 0.1, b"0.1"),
        (FLOAT8, 3, b"3"),
        (FLOAT8, -0.0, b"0"),
        (FLOAT8, math.nan, b"NaN"),
        (FLOAT4, 0.1, b"0.1"),
        (FLOAT4, 0.10000000149011612, b"0.1"),
        (FLOAT4, 16777217, b"1.6777216e+07"),
        (FLOAT4, -math.inf, b"-Infinity"),
        (FLOAT4, math.nan, b"NaN"),
        (DATE, date(44, 3, 15), b"0044-03-15"),
        (DATE, "0044-03-15 BC", b"0044-03-15 BC"),
        (DATE, "infinity", b"infinity"),
        (TIMESTAMP, datetime(2024, 1, 2, 3, 4, 5, 600000), b"2024-01-02 03:04:05.6"),
        (TIMESTAMPTZ, datetime(2024, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=5))), b"2024-01-01 22:04:00+00"),
        (TIMESTAMPTZ, "12345-01-01 00:00:00+00", b"12345-01-01 00:00:00+00"),
    ],
)
def test_python_values_meet_the_cell(oid: int, value: object, cell: bytes) -> None:
    assert same(of_python(oid, value), of_cell(oid, cell))


@pytest.mark.parametrize(
    ("oid", "value", "expected", "given"),
    [
        (BOOL, 1, "a bool", "int"),
        (INT4, True, "an int", "bool"),
        (INT4, "7", "an int", "str"),
        (UUID_OID, 7, "a UUID", "int"),
        (TEXT, b"x", "a str", "bytes"),
        (NUMERIC, 1.5, "a Decimal or an int", "float"),
        (FLOAT8, Decimal("1.5"), "a float or an int", "Decimal"),
        (DATE, datetime(2024, 1, 2), "a date", "datetime"),
        (DATE, "2024-01-02", "a date", "str"),
        (TIMESTAMP, date(2024, 1, 2), "a datetime without time zone", "date"),
        (TIMESTAMP, datetime(2024, 1, 2, tzinfo=UTC), "a datetime without time zone", "datetime"),
        (TIMESTAMPTZ, datetime(2024, 1, 2), "a datetime with time zone", "datetime"),
    ],
)
def test_python_values_of_another_type_are_refused(oid: int, value: object, expected: str, given: str) -> None:
    with pytest.raises(TypeError, match=f"expected {expected}.*, got .* of type {given}"):
        of_python(oid, value)


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        *((INT2, 40000), (OID, -1), (INT8, 10**4000), (UUID_OID, "x"), (TEXT, "\0"), (NUMERIC, Decimal("1e131072"))),
        *((FLOAT4, 1e39), (FLOAT4, 1e-50), (FLOAT8, 10**400)),
        (TIMESTAMPTZ, datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))),
    ],
)
def test_python_values_that_the_type_cannot_hold_are_refused(oid: int, value: object) -> None:
    with pytest.raises(ValueError):
        of_python(oid, value)


@pytest.mark.parametrize("oid", [17, 18, 114, 3802, 1007, 1083, 1186, 869, 3904, 60000])
def test_types_without_equality(oid: int) -> None:
    assert TYPES.equality(oid) is None


def test_equality_of_users_types() -> None:
    types = Types()
    types.add([TypeInfo(1, "public", "citext", "b"), TypeInfo(2, "public", "_mood", "b", element=MOOD)])
    types.add([TypeInfo(3, "public", "pair", "c"), TypeInfo(4, "public", "tags", "d", base=1009)])
    assert [types.equality(oid) for oid in (1, 2, 3, 4)] == [None] * 4


@pytest.mark.parametrize("oid", COMPARABLE)
def test_malformed_cells_raise_only_value_errors(oid: int) -> None:
    for cell in (b"", b"\xff", b"x", b"1e9999999999999999999", b"9" * 6000):
        try:
            of_cell(oid, cell)
        except ValueError:
            continue


# What the server prints, for properties over whole types. Each is its output function in Python.


def float8_cell(value: float) -> bytes:
    special = {math.inf: "Infinity", -math.inf: "-Infinity"}
    return b"NaN" if math.isnan(value) else special.get(value, repr(value)).encode()


def timestamp_cell(value: datetime) -> bytes:
    text = value.replace(tzinfo=None).strftime("%m-%d %H:%M:%S") + f".{value.microsecond:06}"
    return f"{value.year:04}-{text}".rstrip("0").rstrip(".").encode()


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers(value: int) -> None:
    cell = str(value).encode()
    assert of_text(INT8, f" {value} ") == of_python(INT8, value) == of_cell(INT8, cell) == cell


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_texts(value: str) -> None:
    assert of_text(TEXT, value) == of_python(TEXT, value) == of_cell(TEXT, value.encode())
    assert of_text(BPCHAR, value) == of_cell(BPCHAR, value.encode() + b"  ") == of_python(BPCHAR, value + " ")


@given(st.uuids(), st.booleans())
def test_uuids(value: UUID, braces: bool) -> None:
    text = f"{{{value}}}" if braces else value.hex.upper()
    assert of_text(UUID_OID, text) == of_python(UUID_OID, value) == of_cell(UUID_OID, str(value).encode())


@given(st.decimals(-(10**30), 10**30), st.integers(0, 5))
def test_numerics(value: Decimal, zeros: int) -> None:
    text = format(value, "f")
    cell = (text + "0" * zeros if "." in text else text).encode()
    assert same(of_text(NUMERIC, text), of_cell(NUMERIC, cell))
    assert same(of_python(NUMERIC, value), of_cell(NUMERIC, cell))


@given(st.floats())
def test_doubles(value: float) -> None:
    cell = float8_cell(value)
    assert same(of_text(FLOAT8, cell.decode()), of_cell(FLOAT8, cell))
    assert same(of_python(FLOAT8, value), of_cell(FLOAT8, cell))


@given(st.floats(width=32))
def test_reals(value: float) -> None:
    cell = float8_cell(float(f"{value:.9g}"))  # nine digits name one real
    assert same(of_python(FLOAT4, value), of_cell(FLOAT4, cell))
    assert same(of_text(FLOAT4, repr(value)), of_cell(FLOAT4, cell))


@given(st.integers(1, 0x7F7FFFFE), st.sampled_from([-1, 0, 1]))
def test_reals_are_rounded_once(bits: int, side: int) -> None:
    """Just beside the middle between two reals, rounding to double first would go the wrong way."""
    low, high = (struct.unpack("<f", struct.pack("<I", number))[0] for number in (bits, bits + 1))
    with localcontext(prec=1000):
        beside = (Decimal(low) + Decimal(high)) / 2 + side * Decimal("1e-200")
    upwards = side > 0 or (side == 0 and bits % 2 == 1)
    assert of_text(FLOAT4, format(beside, "f")) == (high if upwards else low)


@given(st.dates())
def test_dates(value: date) -> None:
    cell = f"{value.year:04}-{value.month:02}-{value.day:02}".encode()
    assert of_text(DATE, cell.decode()) == of_python(DATE, value) == of_cell(DATE, cell)


@given(st.datetimes())
def test_timestamps(value: datetime) -> None:
    cell = timestamp_cell(value)
    assert of_text(TIMESTAMP, value.isoformat()) == of_python(TIMESTAMP, value) == of_cell(TIMESTAMP, cell)


OFFSETS = st.builds(lambda minutes: timezone(timedelta(minutes=minutes)), st.integers(-959, 959))


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=OFFSETS))
def test_timestamps_with_time_zone(value: datetime) -> None:
    cell = timestamp_cell(value.astimezone(UTC)) + b"+00"
    assert of_text(TIMESTAMPTZ, value.isoformat()) == of_python(TIMESTAMPTZ, value) == of_cell(TIMESTAMPTZ, cell)


@pytest.mark.parametrize(
    ("oid", "cells"),
    [
        (BOOL, [b"t", b"f"]),
        (INT4, [b"-7"]),
        (FLOAT4, [b"0.1", b"NaN", b"-0", b"1.6777216e+07", b"3.4028235e+38", b"1e-45"]),
        (FLOAT8, [b"0.1", b"NaN", b"1e+100", b"-Infinity"]),
        (NUMERIC, [b"1.50", b"NaN", b"-Infinity"]),
        (DATE, [b"2024-01-02", b"infinity", b"0044-03-15 BC", b"12345-01-01"]),
        (TIMESTAMP, [b"2024-01-02 03:04:05.6", b"-infinity", b"0044-03-15 00:00:00 BC"]),
        (TIMESTAMPTZ, [b"2024-01-02 03:04:05.6+00", b"infinity", b"12345-01-01 00:00:00.1+00"]),
        (UUID_OID, [b"8fac1234-0000-4000-8000-00000000000a"]),
        (BPCHAR, [b"ab  "]),
        (MOOD, [b"glad"]),
    ],
)
def test_what_a_decoder_gives_finds_its_cell(oid: int, cells: list[bytes]) -> None:
    for cell in cells:
        assert same(of_python(oid, TYPES.decoder(oid)(cell)), of_cell(oid, cell))


def test_hashables_do_not_depend_on_the_limit_of_digits() -> None:
    limit = sys.get_int_max_str_digits()
    assert limit < 5000
    assert same(of_text(NUMERIC, "1" * 5000), of_cell(NUMERIC, b"1" * 5000 + b".0"))
    assert same(of_python(NUMERIC, 10**5000), of_cell(NUMERIC, b"1" + b"0" * 5000))
    with pytest.raises(ValueError, match="a very large number is out of range for bigint"):
        of_python(INT8, 10**5000)
