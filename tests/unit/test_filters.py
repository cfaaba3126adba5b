"""Filters as subscribers write them become predicates, or one clear sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import SubscriptionError
from cdc.filters import OPERATORS, compile_filter
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
        ('name=eq."a,b"', "name", b"a,b", b"a"),
        ("name=eq.a(b)", "name", b"a(b)", b"a"),
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


@pytest.mark.parametrize(
    ("text", "column", "yes", "no"),
    [
        ("id=neq.33", "id", [b"34"], [b"33"]),
        ("id=not.neq.33", "id", [b"33"], [b"34"]),
        ("id=not.eq.33", "id", [b"34"], [b"33"]),
        ("id=in.(1,2,-3)", "id", [b"1", b"2", b"-3"], [b"3"]),
        ("id=in.(7)", "id", [b"7"], [b"3"]),
        ("id=in.( 7, 8 )", "id", [b"7", b"8"], [b"3"]),
        ("id=not.in.(1,2)", "id", [b"3"], [b"1", b"2"]),
        (f"id=in.({','.join(map(str, range(100)))})", "id", [b"0", b"99"], [b"100"]),
        (
            'name=in.(a,b c,"c,d","e)","\\"","\\\\",, x )',
            "name",
            [b"a", b"b c", b"c,d", b"e)", b'"', b"\\", b"", b" x "],
            [b"c"],
        ),
        ('name=in.("")', "name", [b""], [b'""']),
        ('name=in.("a", "b" )', "name", [b"a", b"b"], [b" b", b'"b"']),
        ("name=in.(null)", "name", [b"null"], [b"a"]),
        ("depth=in.(1.0,NaN)", "depth", [b"1", b"1.00", b"NaN"], [b"2"]),
        ("code=in.(a,b)", "code", [b"a  ", b"b"], [b"ab"]),
        ("depth=neq.1", "depth", [b"2"], [b"1.0"]),
        ("flag=is.true", "flag", [b"t"], [b"f", None]),
        ("flag=is.FALSE", "flag", [b"f"], [b"t", None]),
        ("flag=not.is.true", "flag", [b"f", None], [b"t"]),
        ("flag=is.unknown", "flag", [None], [b"t", b"f"]),
        ("flag=not.is.unknown", "flag", [b"t", b"f"], [None]),
        ("name=is.null", "name", [None], [b"", b"null"]),
        ("name=is.Not_Null", "name", [b"", b"null"], [None]),
        ("name=not.is.null", "name", [b""], [None]),
        ("name=not.is.not_null", "name", [None], [b""]),
        ("odd=is.null", "odd", [None], [b""]),
        ("name=isdistinct.a", "name", [b"b", b"", None], [b"a"]),
        ("name=not.isdistinct.a", "name", [b"a"], [b"b", b"", None]),
        ("depth=isdistinct.1", "depth", [b"2", None], [b"1.000"]),
        ("name=eq.a,id=is.null", "name", [b"a"], [b"b"]),
        ("id=is.null,name=eq.a", "name", [b"a"], [b"b"]),
        ('name=neq."a,b",name=in.(c,"a,b"),name=not.is.null', "name", [b"c"], [b"a,b", b"a"]),
    ],
)
def test_operators(text: str, column: str, yes: list[Cell], no: list[Cell]) -> None:
    assert [outcome(text, **{column: cell}) for cell in yes] == [TRUE] * len(yes)
    assert [outcome(text, **{column: cell}) for cell in no] == [FALSE] * len(no)


@pytest.mark.parametrize("text", ["neq.1", "not.eq.1", "in.(1,2)", "not.in.(1)", "not.in.(1,2)", "not.neq.1"])
def test_null_matches_neither_an_operator_nor_its_negation(text: str) -> None:
    for column in ("id", "depth", "code"):
        assert outcome(f"{column}={text}") == NULL
        assert outcome(f"{column}={text}", **{column: UNCHANGED}) == UNKNOWN


@pytest.mark.parametrize("text", ["is.null", "is.not_null", "is.true", "not.is.unknown", "isdistinct.true"])
def test_what_knows_null_is_never_null(text: str) -> None:
    assert outcome(f"flag={text}") in (TRUE, FALSE)
    assert outcome(f"flag={text}", flag=UNCHANGED) == TRUE | FALSE


def test_a_condition_that_is_false_decides_though_another_is_unknown() -> None:
    assert outcome("id=eq.1,name=eq.a", id=b"2", name=UNCHANGED) == FALSE
    assert outcome("name=eq.a,id=eq.1", id=b"2", name=UNCHANGED) == FALSE
    assert outcome("id=eq.1,name=eq.a", id=b"1", name=UNCHANGED) == UNKNOWN
    assert outcome("id=eq.1,name=eq.a", id=b"1") == NULL


def values(text: str) -> set[object] | None:
    """What an index would look for."""
    cover = compile_filter(text, WELLS, TYPES).cover
    return None if cover is None else {value for _, value in cover}


def test_equality_tells_an_index_what_to_look_for() -> None:
    assert values("id=eq.1") == {b"1"}
    assert values("id=in.(1,2)") == {b"1", b"2"}
    assert values("id=in.(1,01)") == {b"1"}
    assert values("name=neq.a,id=in.(1,2)") == {b"1", b"2"}
    assert values("id=in.(1,2),name=eq.a") == {b"a"}, "the fewest"
    assert values("flag=is.true") == {b"t"}
    assert values("flag=not.isdistinct.true") == {b"t"}
    for text in ("id=neq.1", "id=not.eq.1", "flag=not.is.true", "id=is.null", "id=isdistinct.1", "id=not.in.(1)"):
        assert values(text) is None, text


def test_equal_filters_have_equal_keys() -> None:
    def key(text: str) -> object:
        return compile_filter(text, WELLS, TYPES).key

    for same in (
        ["id=eq.1", "id=eq. 01", '"id"=eq."1"', "id=in.(1)", "id=in.(1,1)"],
        ["id=in.(1,2)", "id=in.(2,1)", "id=in.(2,1,2)"],
        ["id=neq.1", "id=not.eq.1"],
        ["id=is.null", "id=is.NULL", "id=not.is.not_null"],
        ["id=eq.1,name=is.null", 'id=eq.1,"name"=is.null'],
    ):
        assert len({key(text) for text in same}) == 1, same
    texts = ["id=eq.1", "id=eq.2", "id=neq.1", "name=eq.1", "id=in.(1,2)", "id=isdistinct.1", "id=not.isdistinct.1"]
    texts += ["id=is.null", "id=is.not_null", "flag=is.true", "flag=is.false", "flag=is.unknown"]
    assert len({key(text) for text in texts}) == len(texts)
    assert None not in {key(text) for text in texts}


def test_columns() -> None:
    assert compile_filter("depth=eq.1,id=eq.1,depth=neq.2", WELLS, TYPES).columns == frozenset({0, 3})
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
        ("id=ne.1", ["operator 'ne'", "did you mean neq?", "isdistinct"]),
        ("id=not.1", ["operator 'not'", "not.eq.value"]),
        ("id=not.not.eq.1", ["operator 'not'"]),
        ("id=not.1.5", ["operator 'not'"]),
        ("id=EQ.1", ["operator 'EQ'", "did you mean eq?"]),
        ("id=eq(any).{1}", ["operator 'eq(any)'", "column=in.(a,b)"]),
        ("id=cs.{1}", ["operator 'cs'", "contains", "in the handler"]),
        ("id=xyz.{1}", ["operator 'xyz'", "There are eq, neq"]),
        ("or=(id.eq.1,id.eq.2)", ["and(…) or or(…)", "column=in.(a,b)"]),
        ("id=eq.1,and=(id.eq.1)", ["and(…) or or(…)"]),
        ("not.or=(id.eq.1)", ["and(…) or or(…)"]),
        ("or(id.eq.1,id.eq.2)", ["and(…) or or(…)"]),
        ("name=eq.a,b", ["'b' in 'name=eq.a,b'", 'column=eq."a,b"']),
        ("name=eq.a,b=c", ["'b=c' is not a filter"]),
        ("id=eq.1,", ["'' in 'id=eq.1,'", "a comma begins the next one"]),
        (",id=eq.1", ["is not a filter"]),
        ("id=eq.1,,id=eq.1", ["is not a filter"]),
        ("id=eq.1, id=eq.1", ["the column ' id'"]),
        ("id=eq.1,nam=eq.1", ["the column 'nam'"]),
        ("id=in.1,2", ["no list behind in", "column=in.(a,b)"]),
        ("id=in.(1,2", ["no list behind in"]),
        ("id=in.(1,2)3", ["no list behind in"]),
        ("id=in.", ["no list behind in"]),
        ("id=in.(", ["no list behind in"]),
        ('name=in.("a"b)', ["no list behind in"]),
        ('name=in.("a)', ["no list behind in"]),
        ("name=in.(a(b),c)", ["no list behind in", "a parenthesis"]),
        ("id=in.()", ["has no value", "column=in.(a,b)"]),
        ("id=in.(1,,2)", ["'id'", "''"]),
        (f"id=in.({','.join(map(str, range(101)))})", ["101 values", "at most 100"]),
        (",".join(["id=eq.1"] * 101), ["101 conditions", "at most 100"]),
        ("id=is.1", ["nothing is '1'", "is.not_null", "id=eq.value"]),
        ("id=is.not.null", ["nothing is 'not.null'"]),
        ("id=is.true", ["column 'id' of public.wells is of type integer", "only a boolean is.true", "is.null"]),
        ("id=not.is.unknown", ["only a boolean is.unknown"]),
        ("id=isdistinct.null", ["'id'", "integer", "'null'"]),
        ("id=like.1%", ["like compares texts", "'id' of public.wells", "integer"]),
        ("mood=match.a", ["match compares texts", "mood"]),
        ("name=lt.a", ["order of texts", "'name=lt.a'", 'COLLATE "C"']),
        ("data=lt.{}", ["'data'", "jsonb", "another column"]),
        ("odd=is.true", ["type 60000"]),
        ("nam=eq.x", ["'nam'", "public.wells", "id, name, Owner Id, depth"]),
        ("Id=eq.1", ["'Id'", "id, name"]),
        ("id =eq.1", ["'id '"]),
        ("id=eq.x", ["'id'", "integer", "'x'", "public.wells"]),
        ("id=eq.99999999999", ["'id'", "integer", "'99999999999'"]),
        ("id=eq.", ["'id'", "integer", "''"]),
        ("Owner Id=eq.me", ["'Owner Id'", "uuid", "'me'"]),
        ("data=eq.{", ["'data'", "jsonb", "does not fit"]),
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
    compared = (f"{column}={operator}.{text}" for column in ALL for operator in OPERATORS)
    for filter_text in (text, f"{text}=eq.1", f"name=in.({text})", f"name=in.(a,{text}", *compared):
        try:
            compile_filter(filter_text, WELLS, TYPES)
        except SubscriptionError:
            continue


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_can_be_asked_for_in_quotes(value: str) -> None:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    assert outcome(f'name=eq."{escaped}"', name=value.encode()) == TRUE
    assert outcome(f'id=is.null,name=in.(a,"{escaped}"),id=is.null', name=value.encode()) == TRUE


@given(st.lists(st.text('abn,."\\()=', max_size=6), max_size=8))
def test_any_pieces_are_a_filter_or_a_subscription_error(pieces: list[str]) -> None:
    for text in ("".join(pieces), "name=in.(" + ",".join(pieces) + ")", "name=eq." + ",name=eq.".join(pieces)):
        try:
            compile_filter(text, WELLS, TYPES)
        except SubscriptionError as error:
            assert "\n" not in str(error)
