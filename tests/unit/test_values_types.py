"""Types made of types, types that nobody knows, and users' own decoders."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from cdc.tuples import Undecoded
from cdc.values import BoundedArray, Interval, TypeInfo, Types

INT4, TEXT, INT4_ARRAY, NUMERIC, JSONB = 23, 25, 1007, 1700, 3802
MOOD, MOODS, YEAR, PAIR, PAIRS, SPAN, SPANS, HSTORE, CITEXT, NESTED, ODD, EMPTY, ALL, ODDS = range(50000, 50014)
INFOS = [
    TypeInfo(MOOD, "public", "mood", "e"),
    TypeInfo(MOODS, "public", "_mood", "b", element=MOOD),
    TypeInfo(YEAR, "shop", "year", "d", base=INT4),
    TypeInfo(PAIR, "public", "pair", "c", attributes=(("x", YEAR), ("y", MOOD))),
    TypeInfo(PAIRS, "public", "_pair", "b", element=PAIR),
    TypeInfo(SPAN, "public", "span", "r", subtype=YEAR),
    TypeInfo(SPANS, "public", "spans", "m", subtype=YEAR),
    TypeInfo(HSTORE, "extensions", "hstore", "b"),
    TypeInfo(CITEXT, "extensions", "citext", "b", sends_text=True),
    TypeInfo(NESTED, "public", "nested", "c", attributes=(("pairs", PAIRS), ("span", SPAN), ("label", CITEXT))),
    TypeInfo(ODD, "Odd", "Odd.Name", "e"),
    TypeInfo(EMPTY, "public", "nothing", "c"),
    TypeInfo(ALL, "shop", "date", "d", base=TEXT),
    TypeInfo(ODDS, "Odd", "_Odd.Name", "b", element=ODD),
]


def types(**registered: Callable[[str], object]) -> Types:
    return named({name.replace("__", "."): decode for name, decode in registered.items()})


def named(registered: dict[str, Callable[[str], object]]) -> Types:
    made = Types(registered)
    made.add(INFOS)
    return made


def array(oid: int, *items: bytes) -> bytes:
    return struct.pack(">iiIii", 1, 0, oid, len(items), 1) + b"".join(map(item, items))


def item(cell: bytes) -> bytes:
    return struct.pack(">i", len(cell)) + cell


def number(value: int) -> bytes:
    return struct.pack(">i", value)


@pytest.mark.parametrize(
    ("oid", "cell", "value"),
    [
        (PAIR, b"(1,glad)", {"x": 1, "y": "glad"}),
        (PAIR, b"(,)", {"x": None, "y": None}),
        (PAIR, b'(,"")', {"x": None, "y": ""}),
        (PAIR, b'(,"a ""q"" \\\\ (,) \n")', {"x": None, "y": 'a "q" \\ (,) \n'}),
        (PAIRS, b'{"(1,\\"a b\\")",NULL}', [{"x": 1, "y": "a b"}, None]),
        (NESTED, b'("{""(1,)""}","[1,2]",A)', None),
        (EMPTY, b"()", {}),
    ],
)
def test_composites(oid: int, cell: bytes, value: object) -> None:
    if oid == NESTED:
        value = {"pairs": [{"x": 1, "y": None}], "span": Range(1, 2, "[]"), "label": "A"}
    assert types().decoder(oid)(cell) == value


@pytest.mark.parametrize(
    ("oid", "cell"),
    [
        *(
            (PAIR, cell)
            for cell in (b"", b"(", b"(1", b"(1)", b"(1,a,b)", b"(1,a", b"(1,a)x", b"1,a", b'(1,"a)', b"()")
        ),
        *((PAIR, cell) for cell in (b'(1,"a"b)', b'(1,a"b")', b"(1,(a))", b"(x,a)")),
        *((EMPTY, cell) for cell in (b"(1)", b"(,)", b"")),
        *(
            (SPAN, cell)
            for cell in (b"", b"[1,2", b"[1]", b"1,2", b"[1,2]x", b"[1,2,3]", b"[x,2]", b"Empty", b'["1,2]')
        ),
        *(
            (SPANS, cell)
            for cell in (b"", b"{", b"{[1,2]", b"{[1,2],}", b"{,}", b"{[1,2][3,4]}", b"{}x", b"{[1,2]}x", b"{x}")
        ),
    ],
)
def test_malformed_cells_are_refused(oid: int, cell: bytes) -> None:
    with pytest.raises(ValueError):
        types().decoder(oid)(cell)


def test_a_composite_that_was_altered_is_refused() -> None:
    with pytest.raises(ValueError, match="has 3 attributes, its type has 2 in the catalog"):
        types().decoder(PAIR)(b"(1,glad,new)")
    with pytest.raises(ValueError, match="has 3 attributes, its type has 2 in the catalog"):
        types().binary_decoder(PAIR)(number(3))
    with pytest.raises(ValueError, match=f"attribute 'x' has type {TEXT}, and {YEAR} in the catalog"):
        types().binary_decoder(PAIR)(number(2) + number(TEXT) + item(b"1") + number(MOOD) + item(b"glad"))


@pytest.mark.parametrize(
    ("oid", "cell", "value"),
    [
        (3904, b"[1,5)", Range(1, 5)),
        (3904, b"empty", Range(empty=True)),
        (3904, b"(,)", Range(None, None, "()")),
        (3912, b"[2024-01-01,infinity]", Range(date(2024, 1, 1), "infinity", "[]")),
        (3906, b"(1.50,]", Range(Decimal("1.50"), None, "()")),
        (SPAN, b"(1,2]", Range(1, 2, "(]")),
        (4451, b"{}", Multirange()),
        (SPANS, b"{(,2],[5,5],empty}", Multirange([Range(None, 2, "(]"), Range(5, 5, "[]"), Range(empty=True)])),
        (3905, b'[0:1]={"[1,2)",NULL}', BoundedArray([Range(1, 2), None], (0,))),
    ],
)
def test_ranges(oid: int, cell: bytes, value: object) -> None:
    result = types().decoder(oid)(cell)
    assert (repr(result), result) == (repr(value), value)


def test_an_unknown_type_says_so() -> None:
    value = Types().decoder(12345)("ü".encode())
    assert isinstance(value, Undecoded)
    assert (value, value.reason) == ("ü", "type 12345 is not known")
    assert Types().binary_decoder(12345)(b"\xff") == b"\xff"
    known = Types()
    known.add([TypeInfo(7, "public", "_secret", "b", element=12345)])
    assert known.decoder(7)(b"{a,NULL}") == ["a", None]


def test_a_type_without_decoder_is_plain_text() -> None:
    for oid in (HSTORE, CITEXT, MOOD, 3614):
        value = types().decoder(oid)(b"x")
        assert (value, type(value)) == ("x", str)


@pytest.mark.parametrize(
    ("name", "oid"),
    [
        *(("int4", INT4), ("integer", INT4), ("timestamptz", 1184), ("timestamp with time zone", 1184)),
        *(("char", 18), ('"char"', 18), ("bpchar", 1042), ("character", 1042), ("integer[]", INT4_ARRAY)),
        *(("_int4", INT4_ARRAY), ("mood", MOOD), ("public.mood", MOOD), ("mood[]", MOODS), ("_mood", MOODS)),
        *(("shop.year", YEAR), ("shop.date", ALL), ("hstore", HSTORE), ("extensions.hstore", HSTORE), ("pair", PAIR)),
        *(('"Odd"."Odd.Name"', ODD), ("Odd.Odd.Name", ODD), ('"Odd"."Odd.Name"[]', ODDS), ("int4range", 3904)),
    ],
)
def test_names_of_registered_types(name: str, oid: int) -> None:
    assert named({name: lambda text: ("mine", text)}).decoder(oid)(b"7") == ("mine", "7")


@pytest.mark.parametrize(
    ("name", "oid"), [("year", YEAR), ("date", ALL), ("Odd.Name", ODD), ("mood", MOODS), ("MOOD", MOOD)]
)
def test_a_name_means_one_type(name: str, oid: int) -> None:
    def never(text: str) -> object:
        raise AssertionError(text)

    cell = b"{7}" if oid == MOODS else b"7"
    if oid == MOODS:
        with pytest.raises(ValueError, match="the decoder registered for mood"):
            named({name: never}).decoder(oid)(cell)
    else:
        assert str(named({name: never}).decoder(oid)(cell)) == "7"


def test_registered_decoders_apply_inside() -> None:
    made = types(int4=lambda text: f"<{text}>", mood=str.upper)
    assert made.decoder(INT4)(b"7") == "<7>"
    assert made.decoder(INT4_ARRAY)(b"{7,NULL}") == ["<7>", None]
    assert made.decoder(YEAR)(b"7") == "<7>"
    assert made.decoder(3904)(b"[1,2)") == Range("<1>", "<2>")
    assert made.decoder(4451)(b"{[1,2)}") == Multirange([Range("<1>", "<2>")])
    assert made.decoder(SPAN)(b"[1,)") == Range("<1>", None)
    assert made.decoder(PAIRS)(b'{"(1,glad)"}') == [{"x": "<1>", "y": "GLAD"}]
    assert made.decoder(NUMERIC)(b"7") == Decimal(7)
    assert types(shop__year=Interval).decoder(PAIR)(b"(1,glad)") == {"x": Interval("1"), "y": "glad"}  # type: ignore[arg-type, comparison-overlap]


def boom(text: str) -> object:
    raise KeyError(text)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def mute(text: str) -> object:
    raise Mute


def deep(text: str) -> object:
    return deep(text)


@pytest.mark.parametrize(
    ("decode", "said"), [(boom, "KeyError: '7'"), (mute, "Mute"), (deep, "RecursionError"), (len, None)]
)
def test_what_a_users_decoder_raises_is_a_value_error(decode: Any, said: str | None) -> None:
    for name, oid, cell in (("int4", INT4, b"7"), ("int4", INT4_ARRAY, b"{7}"), ("hstore", HSTORE, b"7")):
        made = named({name: decode})
        if said is None:
            assert made.decoder(oid)(cell) in (1, [1])
            continue
        shown = {"int4": "integer", "hstore": "extensions.hstore"}[name]
        with pytest.raises(ValueError, match=f"the decoder registered for {shown} raised {said}"):
            made.decoder(oid)(cell)


def test_registered_decoders_in_binary_form() -> None:
    """They read text, so the binary form must be the text or be printed as the server prints it."""
    made = named(
        dict.fromkeys(["int4", "citext", "mood", "jsonb", "json", "text", "hstore", "pair", "point", "int4range"], repr)
    )
    for oid in (CITEXT, MOOD, TEXT, 114):
        assert made.binary_decoder(oid)(b"Ab") == "'Ab'"
    assert made.binary_decoder(JSONB)(b"\x01[1]") == "'[1]'"
    assert made.binary_decoder(600)(struct.pack(">dd", 1, 0.1)) == "'(1,0.1)'"
    assert made.binary_decoder(MOODS)(array(MOOD, b"glad")) == ["'glad'"]
    for oid, name in ((INT4, "integer"), (HSTORE, "extensions.hstore"), (PAIR, "pair"), (3904, "int4range")):
        with pytest.raises(ValueError, match=f"{name}: the registered decoder reads text; stream without binary"):
            made.binary_decoder(oid)(number(7))
    with pytest.raises(ValueError, match="stream without binary"):
        made.binary_decoder(INT4_ARRAY)(array(INT4, number(7)))
    assert made.binary_decoder(INT4_ARRAY)(array(INT4)) == []


def test_registered_domains_in_binary_form() -> None:
    made = Types({"label": str.upper, "number": str.upper})
    made.add([TypeInfo(1, "public", "label", "d", base=2), TypeInfo(2, "public", "inner", "d", base=TEXT)])
    made.add([TypeInfo(3, "public", "number", "d", base=INT4)])
    assert made.binary_decoder(1)(b"glad") == made.decoder(1)(b"glad") == "GLAD"
    with pytest.raises(ValueError, match="stream without binary"):
        made.binary_decoder(3)(number(7))


def test_registration_is_a_copy() -> None:
    registered: dict[str, Callable[[str], object]] = {}
    made = Types(registered)
    registered["int4"] = repr
    assert made.decoder(INT4)(b"7") == 7


def test_missing_follows_what_types_are_made_of() -> None:
    made = Types()
    made.add(INFOS[-4:] + INFOS[3:7])
    assert made.missing([PAIRS, SPAN, SPANS, EMPTY, ODDS]) == {YEAR, MOOD}
    made.add([TypeInfo(NESTED, "public", "nested", "c", attributes=(("a", HSTORE), ("b", NESTED)))])
    assert made.missing([NESTED]) == {HSTORE}


def test_what_the_catalog_said_at_different_times() -> None:
    """A type that seems to contain itself, or is nested very deep, does no harm."""
    made = Types()
    made.add([TypeInfo(1, "public", "a", "c", attributes=(("b", 2), ("c", 2)))])
    made.add(
        [TypeInfo(2, "public", "b", "c", attributes=(("a", 1), ("b", 3))), TypeInfo(3, "public", "d", "d", base=3)]
    )
    made.add(
        TypeInfo(oid, "public", f"t{oid}", "c", attributes=(("x", oid + 1), ("y", oid + 1))) for oid in range(10, 100)
    )
    for decode in (made.decoder(3), made.decoder(100), made.binary_decoder(3)):
        try:
            decode(b"x")
        except ValueError as error:
            assert "nested more than 32 levels deep, or in itself" in str(error)
    assert made.decoder(1)(b"(,)") == {"b": None, "c": None}
    with pytest.raises(ValueError, match="in itself"):
        made.decoder(1)(b'("(1,)",)')
    cell = b"(,)"
    for _ in range(3):
        cell = b'("' + cell.replace(b"\\", b"\\\\").replace(b'"', b'""') + b'",)'
    assert made.decoder(10)(cell) == {"x": {"x": {"x": {"x": None, "y": None}, "y": None}, "y": None}, "y": None}
