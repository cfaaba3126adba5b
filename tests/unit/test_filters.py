"""Filters as subscribers write them become predicates, or one clear sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import SubscriptionError
from cdc.filters import compile_filter
from cdc.predicate import FALSE, NULL, TRUE, UNKNOWN
from cdc.relation import Column, Relation
from cdc.tuples import UNCHANGED, Cell
from cdc.values import TypeInfo, Types

MOOD = 50000
TYPES = Types()
TYPES.add([TypeInfo(MOOD, "public", "mood", "e")])

COLUMNS = {
    "id": 23,
    "name": 25,
    "Owner Id": 2950,
    "depth": 1700,
    "code": 1042,
    "mood": MOOD,
    "data": 3802,
    "a=b": 23,
    'say "x"': 23,
    "odd": 60000,
    "flag": 16,
    "seen": 1184,
    "day": 1082,
    "small": 700,
    "wide": 701,
}
ALL = [name for name in COLUMNS if name.isalpha()]
UUID_TEXT = "8fac1234-0000-4000-8000-00000000000a"


def relation() -> Relation:
    columns = tuple(Column(name, oid, -1, name == "id", TYPES.decoder(oid)) for name, oid in COLUMNS.items())
    return Relation(1, "public", "wells", "d", columns, (0,))


WELLS = relation()


def outcome(text: str, **cells: Cell) -> int:
    """The filter's outcome for a row in which the columns not named are NULL."""
    return compile_filter(text, WELLS, TYPES).test([cells.get(name) for name in COLUMNS])


@pytest.mark.parametrize(
    ("text", "column", "cell", "other"),
    [
        ("id=eq.33", "id", b"33", b"34"),
        ("id=eq. 033", "id", b"33", b"3"),
        ('id=eq."33"', "id", b"33", b"34"),
        ("name=eq.", "name", b"", b" "),
        ('name=eq.""', "name", b"", b'""'),
        ("name=eq.a.b=eq.c", "name", b"a.b=eq.c", b"a"),
        ("name=eq.a,b", "name", b"a,b", b"a"),
        ("name=eq. x ", "name", b" x ", b"x"),
        ("name=eq.null", "name", b"null", b"x"),
        ('name=eq.a"b', "name", b'a"b', b"a"),
        (r'name=eq."a \"b\" \\"', "name", b'a "b" \\', b"a"),
        (r"name=eq.a\b", "name", rb"a\b", b"ab"),
        ("name=eq.zwei\nZeilen", "name", b"zwei\nZeilen", b"zwei"),
        ('"name"=eq.x', "name", b"x", b"y"),
        (f"Owner Id=eq.{UUID_TEXT.upper()}", "Owner Id", UUID_TEXT.encode(), UUID_TEXT.replace("a", "b").encode()),
        (f'"Owner Id"=eq.{UUID_TEXT}', "Owner Id", UUID_TEXT.encode(), b"x"),
        ("depth=eq.1.5", "depth", b"1.500", b"1.51"),
        ("depth=eq.NaN", "depth", b"NaN", b"0"),
        ("code=eq.ab", "code", b"ab   ", b"b    "),
        ("mood=eq.glad", "mood", b"glad", b"sad"),
        ('"a=b"=eq.1', "a=b", b"1", b"2"),
        (r'"say \"x\""=eq.1', 'say "x"', b"1", b"2"),
    ],
)
def test_filters(text: str, column: str, cell: bytes, other: bytes) -> None:
    assert outcome(text, **{column: cell}) == TRUE
    assert outcome(text, **{column: other}) == FALSE


@pytest.mark.parametrize("text", ["id=eq.33", "depth=eq.1", "code=eq.x"])
def test_null_and_unchanged(text: str) -> None:
    column = text.split("=")[0]
    assert outcome(text, **{column: None}) == NULL
    assert outcome(text, **{column: UNCHANGED}) == UNKNOWN


def test_a_cell_that_cannot_be_read_is_unknown() -> None:
    assert outcome("depth=eq.1", depth=b"one") == UNKNOWN


def test_columns() -> None:
    assert compile_filter("depth=eq.1", WELLS, TYPES).columns == frozenset({3})


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["empty", "column=eq.value"]),
        ("  ", ["empty"]),
        ("id", ["'id' is not a filter", "column=eq.value"]),
        ("id=33", ["'id=33' is not a filter", "column=eq.value"]),
        ("id=eq", ["is not a filter"]),
        ("depth=5.3", ["is not a filter"]),
        ("=eq.1", ["is not a filter"]),
        ('"id=eq.1', ["is not a filter"]),
        ("id=neq.1", ["operator 'neq'", "eq only"]),
        ("id=not.eq.1", ["operator 'not'"]),
        ("id=in.(1,2)", ["operator 'in'"]),
        ("id=EQ.1", ["operator 'EQ'"]),
        ("id=eq(any).{1}", ["operator 'eq(any)'"]),
        ("nam=eq.x", ["'nam'", "public.wells", "id, name, Owner Id, depth"]),
        ("Id=eq.1", ["'Id'", "id, name"]),
        ("id =eq.1", ["'id '"]),
        ("id=eq.x", ["'id'", "integer", "'x'", "public.wells"]),
        ("id=eq.99999999999", ["'id'", "integer", "'99999999999'"]),
        ("id=eq.", ["'id'", "integer", "''"]),
        ("Owner Id=eq.me", ["'Owner Id'", "uuid", "'me'"]),
        ("data=eq.{}", ["'data'", "jsonb", "another column"]),
        ("odd=eq.1", ["'odd'", "type 60000"]),
        ('name=eq."x', ["quote"]),
        ('name=eq."x"y', ["quote", "backslash"]),
        ('name=eq."', ["quote"]),
        ("name=eq.a\0b", ["'name'", "NUL"]),
    ],
)
def test_errors_are_one_sentence(text: str, parts: list[str]) -> None:
    with pytest.raises(SubscriptionError) as caught:
        compile_filter(text, WELLS, TYPES)
    message = str(caught.value)
    assert [part for part in parts if part not in message] == []
    assert "\n" not in message


@given(st.text())
def test_any_text_is_a_filter_or_a_subscription_error(text: str) -> None:
    for filter_text in (text, f"{text}=eq.1", *(f"{column}=eq.{text}" for column in ALL)):
        try:
            compile_filter(filter_text, WELLS, TYPES)
        except SubscriptionError:
            continue


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_can_be_asked_for_in_quotes(value: str) -> None:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    assert outcome(f'name=eq."{escaped}"', name=value.encode()) == TRUE
