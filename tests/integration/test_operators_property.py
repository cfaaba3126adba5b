"""Patterns, documents and arrays that nobody thought of: whatever is decided of them, the server decides too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc.operators import Collation, Context, Datums, Failed, Undecided, builtin
from cdc.operators.documents import printed
from cdc.values import Types
from tests.grids import ATTEMPT, quoted

CONTEXT = Context(collation=Collation.CODE_POINT)
DATUMS = Datums(Types())
SETTINGS = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
JSONB, INTEGERS, TEXTS = 3802, 1007, 1009

SIGNS = st.text(alphabet="ab%_\\é\n😀", max_size=8)
WORDS = st.text(alphabet="abAé\n_%\\😀1 ", max_size=12)
PIECES = st.sampled_from(
    [
        *("[a-c]", "[^a]", "(a|b)", "a*", "b+?", "\\d", "\\w", "\\s", "{2}", "{1,2}", "{0,}", "(?:", "[[:alpha:]]"),
        *("[]a]", "[^]]", "\\.", "\\\\", "(?i)", "\\y", "(?=", "\\1", "[a-", "[[:digit:]_]", "\\D", "a|"),
        *"ab.^$|()?*+[]{}-\\é😀1\n:",
    ]
)
PATTERNS = st.lists(PIECES, max_size=7).map("".join)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(["", "a", "b", "é", "1", "\n\t\u0001"]),
    st.integers(-3, 3),
    st.sampled_from([1.0, 1.5, -0.0, 1e20]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "bb", "é"]), inner, max_size=3)
    ),
    max_leaves=8,
)
ELEMENTS = st.lists(st.one_of(st.none(), st.integers(-2, 2)), max_size=5)
WRITTEN = st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "A", "null", "{}", 'a"b\\', " ", "é,"])), max_size=4)


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as made:
        made.execute(ATTEMPT)  # type: ignore[arg-type]
        yield made


def asked(
    connection: psycopg.Connection, expression: str, kinds: str, pairs: list[tuple[Any, Any]]
) -> list[str | None]:
    """What the server says of each pair, `!` for an error."""
    left, right = kinds.split(",")
    queries = [
        f"SELECT ({expression})::text FROM (SELECT {quoted(one)}::{left} AS x, {quoted(two)}::{right} AS y OFFSET 0) _"
        for one, two in pairs
    ]
    query = "SELECT pg_temp.attempt(q) FROM unnest(%s::text[]) WITH ORDINALITY _(q, n) ORDER BY n"
    rows = connection.execute(query, (queries,)).fetchall()
    return ["!" if said is not None and said.startswith("!") else said for (said,) in rows]


def said(signature: str, *datums: object) -> str | None:
    """What is said here, `?` when it is not decided."""
    found = builtin(signature)
    assert found is not None
    try:
        result = found.call(*([CONTEXT] if found.contextual else []), *datums)
    except Failed:
        return "!"
    except Undecided:
        return "?"
    return None if result is None else str(result).lower() if isinstance(result, bool) else str(result)


def agree(theirs: list[str | None], ours: list[str | None], cases: list[Any]) -> None:
    for one, two, case in zip(theirs, ours, cases, strict=True):
        assert two in ("?", one), case


@pytest.mark.parametrize(
    ("operator", "signature"), [("LIKE", "textlike(text, text)"), ("ILIKE", "texticlike(text, text)")]
)
def test_like_of_random_patterns(connection: psycopg.Connection, operator: str, signature: str) -> None:
    @SETTINGS
    @given(st.lists(st.tuples(WORDS, SIGNS), min_size=50, max_size=100))
    def holds(pairs: list[tuple[str, str]]) -> None:
        theirs = asked(connection, f"x {operator} y", "text,text", pairs)
        ours = [said(signature, *pair) for pair in pairs]
        assert "?" not in ours
        agree(theirs, ours, pairs)

    holds()


@pytest.mark.parametrize(
    ("operator", "signature"), [("~", "textregexeq(text, text)"), ("~*", "texticregexeq(text, text)")]
)
def test_random_regular_expressions(connection: psycopg.Connection, operator: str, signature: str) -> None:
    decided = 0

    @SETTINGS
    @given(st.lists(st.tuples(WORDS, PATTERNS), min_size=50, max_size=100))
    def holds(pairs: list[tuple[str, str]]) -> None:
        nonlocal decided
        ours = [said(signature, *pair) for pair in pairs]
        decided += sum(each != "?" for each in ours)
        agree(asked(connection, f"x {operator} y", "text,text", pairs), ours, pairs)

    holds()
    assert decided > 500


@pytest.mark.parametrize(
    ("operator", "signature"),
    [("@>", "jsonb_contains(jsonb, jsonb)"), ("=", "jsonb_eq(jsonb, jsonb)"), ("||", "jsonb_concat(jsonb, jsonb)")],
)
def test_random_documents(connection: psycopg.Connection, operator: str, signature: str) -> None:
    take = DATUMS.input(JSONB)
    assert take is not None

    def ours(left: str, right: str) -> str | None:
        found = builtin(signature)
        assert found is not None
        result = found.call(take(CONTEXT, left), take(CONTEXT, right))
        return str(result).lower() if isinstance(result, bool) else printed(result.value)

    @SETTINGS
    @given(st.lists(st.tuples(VALUES, VALUES), min_size=50, max_size=100))
    def holds(values: list[tuple[Any, Any]]) -> None:
        pairs = [(json.dumps(left), json.dumps(right)) for left, right in values]
        pairs += [(left, left) for left, _ in pairs]
        agree(asked(connection, f"x {operator} y", "jsonb,jsonb", pairs), [ours(*pair) for pair in pairs], pairs)

    holds()


@pytest.mark.parametrize("kind", ["int[]", "text[]"])
@pytest.mark.parametrize(
    ("operator", "signature"),
    [
        ("@>", "arraycontains(anyarray, anyarray)"),
        ("<@", "arraycontained(anyarray, anyarray)"),
        ("&&", "arrayoverlap(anyarray, anyarray)"),
        ("=", "array_eq(anyarray, anyarray)"),
        ("<", "array_lt(anyarray, anyarray)"),
        (">=", "array_ge(anyarray, anyarray)"),
    ],
)
def test_random_arrays(connection: psycopg.Connection, kind: str, operator: str, signature: str) -> None:
    oid, strategy = (INTEGERS, ELEMENTS) if kind == "int[]" else (TEXTS, WRITTEN)
    read, take, write = DATUMS.reader(oid), DATUMS.input(oid), DATUMS.output(oid)
    assert read is not None and take is not None and write is not None

    @SETTINGS
    @given(st.lists(st.tuples(strategy, strategy), min_size=50, max_size=100))
    def holds(values: list[tuple[list[Any], list[Any]]]) -> None:
        query = f"SELECT (%s::{kind})::text, (%s::{kind})::text"
        pairs = [connection.execute(query, pair).fetchone() for pair in values[:20]]  # type: ignore[arg-type]
        texts = [(left, right) for left, right in filter(None, pairs)]
        datums = [(read(left.encode()), read(right.encode())) for left, right in texts]
        assert [(take(CONTEXT, left), take(CONTEXT, right)) for left, right in texts] == datums
        assert [(write(CONTEXT, left), write(CONTEXT, right)) for left, right in datums] == texts
        agree(
            asked(connection, f"x {operator} y", f"{kind},{kind}", texts),
            [said(signature, *pair) for pair in datums],
            texts,
        )

    holds()
