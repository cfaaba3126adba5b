"""Cells in binary form become what the same value's text becomes, and any bytes give a value or a ValueError."""

from __future__ import annotations

import struct
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal, FloatOperation, Inexact, Rounded, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.jsonable import jsonable
from cdc.values import TypeInfo, Types
from cdc.values.builtin import ARRAYS, SCALARS
from cdc.values.floats import double_text

# OID, the text and the binary form of one value, as a server printed them
CELLS = [
    (16, "t", "01"),
    (16, "f", "00"),
    (17, "\\x00ff7e", "00ff7e"),
    (18, "d", "64"),
    (18, "\\303", "c3"),
    (19, "wells", "77656c6c73"),
    (20, "-2", "fffffffffffffffe"),
    (21, "7", "0007"),
    (22, "1 -2", "000000010000000000000015000000020000000000000002000100000002fffe"),
    (23, "2147483647", "7fffffff"),
    (24, "int4in", "0000002a"),
    (25, "naïve ☃", "6e61c3af766520e29883"),
    (25, "", ""),
    (26, "4294967295", "ffffffff"),
    (27, "(7,1)", "000000070001"),
    (28, "7", "00000007"),
    (29, "7", "00000007"),
    (30, "1 2", "00000001000000000000001a000000020000000000000004000000010000000400000002"),
    (114, '{"a": [1.5, 1e400]}', "7b2261223a205b312e352c2031653430305d7d"),
    (142, "<a/>", "3c612f3e"),
    (600, "(1,0.1)", "3ff00000000000003fb999999999999a"),
    (601, "[(1,2),(3,4)]", "3ff0000000000000400000000000000040080000000000004010000000000000"),
    (602, "((0,0),(1,1))", "0100000002000000000000000000000000000000003ff00000000000003ff0000000000000"),
    (602, "[(0,0)]", "000000000100000000000000000000000000000000"),
    (603, "(1,1),(0,0)", "3ff00000000000003ff000000000000000000000000000000000000000000000"),
    (604, "((0,0),(1,1))", "00000002000000000000000000000000000000003ff00000000000003ff0000000000000"),
    (628, "{1,-1,0}", "3ff0000000000000bff00000000000000000000000000000"),
    (650, "10.0.0.0/8", "020801040a000000"),
    (650, "2001:db8::/32", "0320011020010db8000000000000000000000000"),
    (700, "0.1", "3dcccccd"),
    (700, "1e-45", "00000001"),
    (700, "NaN", "7fc00000"),
    (701, "0.1", "3fb999999999999a"),
    (701, "-Infinity", "fff0000000000000"),
    (718, "<(1,2),3>", "3ff000000000000040000000000000004008000000000000"),
    (774, "08:00:2b:ff:fe:01:02:03", "08002bfffe010203"),
    (790, "$12.50", "00000000000004e2"),
    (829, "08:00:2b:01:02:03", "08002b010203"),
    (869, "10.0.0.1", "022000040a000001"),
    (869, "::1/64", "0340001000000000000000000000000000000001"),
    (1042, "ab  ", "61622020"),
    (1043, "x", "78"),
    (1082, "2024-02-29", "00002279"),
    (1082, "0044-03-15 BC", "fff49d7b"),
    (1082, "infinity", "7fffffff"),
    (1083, "12:34:56.7", "0000000a8be4ca60"),
    (1083, "24:00:00", "000000141dd76000"),
    (1114, "2024-01-02 03:04:05.6", "0002b0ec851f1b00"),
    (1114, "10000-01-01 00:00:00", "0380e70b913b8000"),
    (1184, "2024-01-02 03:04:05+00", "0002b0ec8515f340"),
    (1184, "-infinity", "8000000000000000"),
    (1186, "1 year 2 mons 3 days 04:05:06.7", "000000036c966ee0000000030000000e"),
    (1186, "-1 days +00:00:01", "00000000000f4240ffffffff00000000"),
    (1266, "12:00:00-05:30", "0000000a0eebb00000004d58"),
    (1266, "24:00:00+00", "000000141dd7600000000000"),
    (1560, "101", "00000003a0"),
    (1562, "000000001", "000000090080"),
    (1700, "-12345.6700", "0003000140000004000109291a2c"),
    (1700, "0.00001", "0001fffe0000000503e8"),
    (1700, "NaN", "00000000c0000000"),
    (1790, "c", "63"),
    (2202, "int4in(cstring)", "0000002a"),
    (2203, "||/", "00000255"),
    (2204, "-(integer,integer)", "0000022b"),
    (2205, "pg_class", "000004eb"),
    (2206, "integer", "00000017"),
    (2950, "8fac1234-0000-4000-8000-00000000000a", "8fac123400004000800000000000000a"),
    (2970, "10:20:10,14", "00000002000000000000000a0000000000000014000000000000000a000000000000000e"),
    (3220, "16/B374D848", "00000016b374d848"),
    (3614, "'a':1A,3 'b''c'", "0000000261000002c0010003622763000000"),
    (3615, "'a':*B & !( 'b' | 'c' <2> 'd' )", "00000008020202010203020400020100006400010000630001000062000104016100"),
    (3734, "english", "00003058"),
    (3769, "simple", "00000eb5"),
    (3802, '{"a": 1}', "017b2261223a20317d"),
    (4072, '$."a"', "01242e226122"),
    (4089, "pg_catalog", "0000000b"),
    (4096, "postgres", "0000000a"),
    (4191, '"C"', "000003b6"),
    (5038, "10:20:10,14", "00000002000000000000000a0000000000000014000000000000000a000000000000000e"),
    (5069, "7", "0000000000000007"),
    (3904, "[1,5)", "0200000004000000010000000400000005"),
    (3904, "empty", "01"),
    (4451, "{[1,2),[5,)}", "0000000200000011020000000400000001000000040000000200000009120000000400000005"),
    (4451, "{}", "00000000"),
    (3906, "(,1.5]", "0c0000000c000200000000000100011388"),
    (4532, "{[1.0,2.0]}", "000000010000001d060000000a000100000000000100010000000a00010000000000010002"),
    (3908, '["2024-01-01 00:00:00",)', "12000000080002b0d5d4e94000"),
    (4533, '{(,"2024-01-01 00:00:00")}', "000000010000000d08000000080002b0d5d4e94000"),
    (3910, '["2024-01-01 00:00:00+00",infinity]', "06000000080002b0d5d4e94000000000087fffffffffffffff"),
    (4534, "{(,)}", "000000010000000118"),
    (3912, "[2024-01-01,2024-02-01)", "02000000040000223e000000040000225d"),
    (4535, "{[2024-01-01,2024-01-02)}", "000000010000001102000000040000223e000000040000223f"),
    (3926, "[1,2)", "02000000080000000000000001000000080000000000000002"),
    (4536, "{[1,2)}", "000000010000001902000000080000000000000001000000080000000000000002"),
]
NUMBERED = {790, 24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191}
"""money and the types that name an object: in binary form they are a number."""

PAIR, MOOD, SPAN, SPANS, LEAP, LINKED, CITEXT, HSTORE = range(50000, 50008)
INFOS = [
    TypeInfo(PAIR, "public", "pair", "c", attributes=(("x", 23), ("y", 25), ("r", 3904))),
    TypeInfo(MOOD, "public", "mood", "e"),
    TypeInfo(SPAN, "public", "span", "r", subtype=701),
    TypeInfo(SPANS, "public", "spans", "m", subtype=701),
    TypeInfo(LEAP, "public", "leap", "d", base=21),
    TypeInfo(LINKED, "public", "_pair", "b", element=PAIR),
    TypeInfo(CITEXT, "public", "citext", "b", sends_text=True),
    TypeInfo(HSTORE, "public", "hstore", "b"),
]
USERS = [
    (PAIR, '(7,"a ""b""","[1,5)")', "0000000300000017000000040000000700000019000000056120226222"
     "00000f40000000110200000004000000010000000400000005"),
    (PAIR, "(,,)", "0000000300000017ffffffff00000019ffffffff00000f40ffffffff"),
    (MOOD, "Sehr froh", "536568722066726f68"),
    (SPAN, "[0.1,)", "12000000083fb999999999999a"),
    (SPANS, "{(,)}", "000000010000000118"),
    (LEAP, "7", "0007"),
    (LINKED, '{"(,,)",NULL}', "00000001000000010000c350000000020000000100000" "01c"
     "0000000300000017ffffffff00000019ffffffff00000f40ffffffffffffffff"),
    (CITEXT, "MiXed", "4d69586564"),
]  # fmt: skip
FORMS = [(oid, text.encode(), bytes.fromhex(binary)) for oid, text, binary in [*CELLS, *USERS]]


def known() -> Types:
    types = Types()
    types.add(INFOS)
    return types


TYPES = known()
EVERY_OID = sorted([*SCALARS, *ARRAYS, *(info.oid for info in INFOS), 99999])


def same(left: object, right: object) -> bool:
    return type(left) is type(right) and repr(left) == repr(right)


@pytest.mark.parametrize(("oid", "text", "binary"), FORMS)
def test_binary_is_what_text_is(oid: int, text: bytes, binary: bytes) -> None:
    left, right = TYPES.decoder(oid)(text), TYPES.binary_decoder(oid)(binary)
    assert same(left, right) != (oid in NUMBERED), (left, right)
    assert isinstance(right, int) or oid not in NUMBERED


def test_the_users_decimal_context_does_not_matter() -> None:
    numbers = [(oid, *cells) for oid, *cells in FORMS if oid in (700, 1700, 3906)]
    numbers += [(600, b"(2.9876985936393048e+16,1)", struct.pack(">dd", 29876985936393048, 1))]
    numbers += [(114, cell, cell) for cell in (b"[1e400]", b"[1.23456789]", b"[12345678901234567890.123]")]
    expected = [repr(known().decoder(oid)(text)) for oid, text, _ in numbers]
    with localcontext(Context(prec=2, traps=[Inexact, Rounded, FloatOperation])):
        assert [repr(known().decoder(oid)(text)) for oid, text, _ in numbers] == expected
        assert [repr(known().binary_decoder(oid)(binary)) for oid, _, binary in numbers] == expected


def text_array(item: bytes, delimiter: bytes) -> bytes:
    quoted = item.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'[0:1]={"%b"%bNULL}' % (quoted, delimiter)


def binary_array(item: bytes, oid: int) -> bytes:
    head = struct.pack(">iiIii", 1, 1, oid, 2, 0)
    return head + struct.pack(">i", len(item)) + item + struct.pack(">i", -1)


ARRAY_OF = {element: array for array, element in ARRAYS.items()}
ARRAY_FORMS = [
    (ARRAY_OF[oid], text_array(text, SCALARS[oid].delimiter), binary_array(binary, oid))
    for oid, text, binary in FORMS
    if oid in ARRAY_OF
]


@pytest.mark.parametrize(("oid", "text", "binary"), ARRAY_FORMS)
def test_binary_arrays_are_what_text_arrays_are(oid: int, text: bytes, binary: bytes) -> None:
    left, right = TYPES.decoder(oid)(text), TYPES.binary_decoder(oid)(binary)
    assert same(left, right) != (ARRAYS[oid] in NUMBERED), (left, right)


def test_every_builtin_type_has_cells() -> None:
    assert {oid for oid, *_ in CELLS} == set(SCALARS) - {1033, 3642}  # aclitem and gtsvector are never binary


def test_a_form_that_is_not_known_is_bytes() -> None:
    class Cell(bytes):
        pass

    for oid in (HSTORE, 99999):
        value = TYPES.binary_decoder(oid)(Cell(b"\x00\xff"))
        assert (value, type(value)) == (b"\x00\xff", bytes)


MALFORMED = [
    (16, b"\x02"),
    (23, b"\x00"),
    (700, b"\x00"),
    (701, b"\x00" * 9),
    (1007, struct.pack(">iiI", 1, 0, 20)),
    (1007, struct.pack(">iiIii", 1, 0, 23, 2**31 - 1, 1)),
    (1007, struct.pack(">iiIii", 1, 0, 23, -1, 1)),
    (1007, struct.pack(">iiI", 7, 0, 23)),
    (1082, b""),
    (1186, b"\x00" * 15),
    (1560, struct.pack(">i", 9) + b"\x00"),
    (1700, struct.pack(">HhHHH", 1, 0, 0, 0, 10000)),
    (1700, struct.pack(">HhHH", 0, 0, 7, 0)),
    (2950, b"\x00" * 15),
    (3802, b"\x02{}"),
    (3904, b"\x00\xff\xff\xff\xff\x00\x00\x00\x00"),
    (3615, struct.pack(">i", 1) + b"\x02\x01"),
    (869, b"\x02\x21\x00\x04\x00\x00\x00\x00"),
    (650, b"\x02\x08\x01\x04\x0a\x00\x00\x01"),
    (PAIR, struct.pack(">i", 2)),
    (PAIR, struct.pack(">iIi", 3, 25, -1)),
    (PAIR, struct.pack(">iIi", -1, 25, -1)),
]


@pytest.mark.parametrize(("oid", "cell"), MALFORMED)
def test_malformed_cells_are_refused(oid: int, cell: bytes) -> None:
    with pytest.raises(ValueError):
        TYPES.binary_decoder(oid)(cell)


def tried(cell: bytes, oid: int) -> None:
    """Decode in both forms; what comes out has a repr and a form in JSON."""
    for decode in (TYPES.decoder(oid), TYPES.binary_decoder(oid)):
        with suppress(ValueError):
            value = decode(cell)
            repr(value)
            jsonable(value)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_raise_only_value_errors(cell: bytes) -> None:
    for oid in EVERY_OID:
        tried(cell, oid)


MARKS = [b'"', b"\\", b"{", b"}", b"(", b"]", b",", b"=", b"-", b"e9"]


@st.composite
def mutated(draw: st.DrawFn) -> tuple[int, bytes]:
    """A cell that a server could send, with some of it changed."""
    oid, *cells = draw(st.sampled_from([*FORMS, *ARRAY_FORMS]))
    cell = draw(st.sampled_from(cells))
    for _ in range(draw(st.integers(1, 4))):
        start, size = draw(st.integers(0, len(cell))), draw(st.integers(0, 4))
        other = draw(
            st.binary(max_size=4) | st.sampled_from([b"\xff" * 4, b"\x7f\xff\xff\xff", b'"', b"\\", b"{", b","])
        )
        cell = cell[:start] + other + cell[start + size :]
    return oid, cell


@settings(max_examples=1500, deadline=None)
@given(mutated())
def test_mutated_cells_raise_only_value_errors(form: tuple[int, bytes]) -> None:
    tried(form[1], form[0])


def test_truncated_cells_raise_only_value_errors() -> None:
    for oid, *cells in [*FORMS, *ARRAY_FORMS]:
        for cell in cells:
            for end in range(len(cell)):
                tried(cell[:end], oid)


@pytest.mark.parametrize("count", [10, 50_000])
def test_long_queries_of_text_search(count: int) -> None:
    """Operators stand before their right and their left operand."""
    word = b"\x01\x00\x00w\x00"
    left = struct.pack(">i", 2 * count + 1) + (b"\x02\x02" + word) * count + word
    right = struct.pack(">i", 2 * count + 1) + b"\x02\x02" * count + word * (count + 1)
    decode = TYPES.binary_decoder(3615)
    assert decode(left) == decode(right) == " & ".join(["'w'"] * (count + 1))


MOMENTS = [0, -1, 1, 86_400_000_000, 252_455_615_999_999_999, 252_455_616_000_000_000]
MOMENTS += [-63_082_281_600_000_000, -63_082_281_600_000_001]


@pytest.mark.parametrize("micros", MOMENTS)
def test_moments(micros: int) -> None:
    value = TYPES.binary_decoder(1114)(struct.pack(">q", micros))
    aware = TYPES.binary_decoder(1184)(struct.pack(">q", micros))
    try:
        expected: object = datetime(2000, 1, 1) + timedelta(microseconds=micros)
    except OverflowError:
        assert value in ("10000-01-01 00:00:00", "0001-12-31 23:59:59.999999 BC")
        assert aware in ("10000-01-01 00:00:00+00", "0001-12-31 23:59:59.999999+00 BC")
        return
    assert value == expected
    assert isinstance(expected, datetime) and aware == expected.replace(tzinfo=UTC)


@given(st.dates())
def test_any_date(day: date) -> None:
    cell = struct.pack(">i", day.toordinal() - date(2000, 1, 1).toordinal())
    assert TYPES.binary_decoder(1082)(cell) == day == TYPES.decoder(1082)(day.isoformat().encode())


@given(st.integers(0, 9999), st.lists(st.integers(0, 9999), max_size=6), st.integers(-8, 8), st.integers(0, 30))
def test_any_numeric(first: int, more: list[int], weight: int, scale: int) -> None:
    groups = [first, *more]
    cell = struct.pack(f">HhHH{len(groups)}H", len(groups), weight, 0, scale, *groups)
    value = TYPES.binary_decoder(1700)(cell)
    exact = sum(Decimal(group).scaleb(4 * (weight - place), None) for place, group in enumerate(groups))
    assert isinstance(value, Decimal) and value.as_tuple().exponent == -scale
    assert abs(value - exact) < Decimal(1).scaleb(-scale)


@given(st.floats(width=32, allow_nan=False))
def test_any_real(number: float) -> None:
    value = TYPES.binary_decoder(700)(struct.pack(">f", number))
    assert isinstance(value, float)
    assert struct.pack(">f", value) == struct.pack(">f", number)
    assert len(repr(value).replace(".", "").split("e")[0].strip("-0")) <= 9


@given(st.floats())
def test_any_double_is_printed_so_that_it_can_be_read(number: float) -> None:
    assert repr(float(double_text(number))) == repr(number)
