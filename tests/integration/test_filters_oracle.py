"""The oracle of filters: what a filter says of a row, the server says of the SQL that PostgREST would make of it."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from cdc.catalog import collations
from cdc.connection import connect
from cdc.errors import SubscriptionError
from cdc.filters import OPERATORS, Collations, compile_filter
from cdc.predicate import FALSE, NULL, TRUE, UNKNOWN
from cdc.sample import Described, described
from cdc.tuples import UNCHANGED, Cell

U1, U2 = "8fac1234-0000-4000-8000-00000000000a", "00000000-0000-0000-0000-000000000000"
TEXTS = [
    "",
    " ",
    "a",
    "A",
    "ab",
    "Ab ",
    "a%",
    "a_b",
    "a\\b",
    'say "x"',
    "a,b",
    "(c)",
    "é",
    "É",
    "ß",
    "🐘",
    "z\n",
    "null",
    "%",
    "*",
]
DATES = ["2020-01-02", "0001-01-01", "9999-12-31", "infinity", "-infinity", "1999-12-31"]
STAMPS = [
    "2020-01-02 03:04:05.678901",
    "2020-01-02",
    "infinity",
    "-infinity",
    "1999-12-31 23:59:59.999999",
    "9999-12-31 23:59:59",
]
ZONED = [f"{each}+00" if "inf" not in each else each for each in STAMPS] + ["2020-01-02 05:04:05.678901+02"]
INTS = ["0", "1", "-1", "5", "32767", "-32768"]

VALUES: dict[str, tuple[str, list[str]]] = {
    "flag": ("boolean", ["t", "false", "yes", "0"]),
    "sm": ("smallint", INTS),
    "n": ("int", [*INTS, "2147483647", "-2147483648"]),
    "big": ("bigint", [*INTS, "9223372036854775807", "-9223372036854775808"]),
    "o": ("oid", ["0", "1", "4294967295"]),
    "f4": ("real", ["0", "-0", "1.5", "0.1", "NaN", "Infinity", "-Infinity", "3.4e38", "1e-40"]),
    "f8": ("double precision", ["0", "-0", "1.5", "0.1", "NaN", "Infinity", "-Infinity", "1.7e308", "5e-324"]),
    "num": ("numeric", ["0", "1.50", "1.5", "-1e-20", "1e30", "NaN", "Infinity", "-Infinity", "0.000"]),
    "t": ("text", TEXTS),
    "v": ("varchar(12)", TEXTS),
    "c": ("char(5)", [each for each in TEXTS if len(each) <= 5]),
    "nm": ("name", [each for each in TEXTS if each != "🐘"] + ["x" * 70]),
    "u": ("uuid", [U1, U2, U1.upper(), f"{{{U1}}}"]),
    "d": ("date", DATES),
    "ts": ("timestamp", STAMPS),
    "tz": ("timestamptz", ZONED),
    "tm": ("time", ["00:00", "23:59:59.999999", "24:00", "12:00:01"]),
    "tt": ("timetz", ["00:00+00", "12:00+02", "10:00+00", "24:00-05"]),
    "iv": ("interval", ["1 day", "24 hours", "1 mon", "30 days", "-1 sec", "0"]),
    "b": ("bytea", ["\\x", "\\x00", "\\xff01", "\\x00ff"]),
    "m": ("mood", ["sad", "ok", "glad"]),
    "j": ("jsonb", ["{}", "[1]", "null", '{"a": 1.0}', '{"a": 1}', '"x"']),
    "js": ("json", ["{}", "[1]"]),
    "ns": ("int[]", ["{}", "{1}", "{1,NULL}", "{2,1}"]),
    "words": ("text[]", ["{}", "{a,NULL}", '{"b c",é}', "{{a},{b}}", "[0:1]={a,b}"]),
    "moods": ("mood[]", ["{}", "{sad}", "{glad,sad}"]),
    "ip": ("inet", ["10.0.0.1", "10.0.0.0/8", "::1"]),
    "bits": ("bit(3)", ["101", "000"]),
    "cash": ("money", ["1.50", "-2"]),
    "dn": ("whole", INTS),
    "dt": ("word", TEXTS),
    "dm": ("feeling", ["sad", "glad"]),
}
PATTERNS = [
    "", "%", "*", "a%", "%b", "_", "__", "a\\%", "a\\_b", "%\\\\%", "a*", "É", "é%", "\\", "a\\", "^a", "b$", "[a-c]+",
    "a|b", "^.$", "(", "a{2}", "\\d", "[[:alpha:]]", "(?i)a", ".*", "^$",
]  # fmt: skip
WRONG = [
    "x",
    "",
    "1,5",
    "99999999999999999999",
    "2020-13-01",
    "{",
    "tru e",
    "today",
    "2020-01-01 10:00",
    "0099-01-01 BC",
    "é",
]

REFUSED_BY_CHOICE = "|".join(
    [
        "which a filter cannot compare",
        "is of type bytea",
        "which only the server can read",
        "for which a filter has no",
        "has no offset",
        "years 0001 to 9999",
        "outside the years 1 to 9999",
        "is another time whenever it is read",
        "pattern that cannot be decided",
        "write YYYY-MM-DD",
        "is not a uuid",
        "is not a number",
    ]
)
"""What Python refuses though the server would take it."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A table with rows, and what is known of it."""

    connection: psycopg.Connection
    table: Described
    collations: Collations
    rows: list[tuple[Cell, ...]]

    def said(self, condition: str) -> list[bool | None]:
        """What the server says of each row."""
        query = f"SELECT ({condition}) FROM things ORDER BY id"
        return [said for (said,) in self.connection.execute(query.encode()).fetchall()]


@pytest.fixture
def ground(database: str) -> Iterator[Ground]:
    chosen = random.Random(7)
    with connect(database) as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad'); CREATE DOMAIN feeling AS mood")
        connection.execute("CREATE DOMAIN whole AS int CHECK (VALUE < 100000); CREATE DOMAIN word AS text")
        columns = ", ".join(f"{name} {type_name}" for name, (type_name, _) in VALUES.items())
        connection.execute(f"CREATE TABLE things (id int PRIMARY KEY, {columns})".encode())
        insert = f"INSERT INTO things VALUES ({', '.join(['%s'] * (len(VALUES) + 1))})".encode()
        for number in range(60):
            cells = [chosen.choice([None, *pool, *pool]) for _, pool in VALUES.values()]
            connection.execute(insert, [number, *(cell[:63] if cell else cell for cell in cells)])
        row = connection.execute("SELECT 'things'::regclass::oid::int").fetchone()
        assert row is not None
        table = described(connection, row[0], "public", "things")
        result = connection.execute("SELECT * FROM things ORDER BY id").pgresult
        assert result is not None
        rows = [tuple(result.get_value(r, c) for c in range(result.nfields)) for r in range(result.ntuples)]
        yield Ground(connection, table, collations(connection, row[0]), rows)


def literal(value: str) -> str:
    return (
        "'" + value.replace("'", "''") + "'"
        if "\\" not in value
        else "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    )


SIGNS = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "match": "~", "imatch": "~*"}
SIGNS |= {"like": "LIKE", "ilike": "ILIKE", "isdistinct": "IS DISTINCT FROM"}


def translated(column: str, negated: bool, operator: str, values: list[str]) -> str:
    """The condition as PostgREST writes it. A domain over an enum needs a cast for any comparison."""
    column = "dm::mood" if column == "dm" else column
    if operator == "in":
        condition = f"{column} IN ({', '.join(map(literal, values))})"
    elif operator == "is":
        condition = f"{column} IS {values[0].replace('_', ' ')}"
    else:
        value = values[0].replace("*", "%") if operator in ("like", "ilike") else values[0]
        condition = f"{column} {SIGNS[operator]} {literal(value)}"
    return f"NOT ({condition})" if negated else condition


def quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def written(column: str, negated: bool, operator: str, values: list[str], chosen: random.Random) -> str:
    """The condition as a filter."""
    plain = not any(each in value for value in values for each in ',"()') and chosen.random() < 0.5
    texts = values if plain else [quoted(value) for value in values]
    value = f"({','.join(texts)})" if operator == "in" else texts[0]
    if operator == "in" and texts == [""]:
        value = '("")'
    return f"{column}={'not.' if negated else ''}{operator}.{value}"


def drawn(chosen: random.Random) -> tuple[str, bool, str, list[str]]:
    """A column, whether it is negated, an operator and its values."""
    column = chosen.choice(list(VALUES))
    operator = chosen.choice(OPERATORS)
    pool = VALUES[column][1]
    if operator == "is":
        values = [chosen.choice(["null", "not_null", "true", "false", "unknown"])]
    elif operator in ("like", "ilike", "match", "imatch"):
        column = chosen.choice(["t", "v", "c", "nm", "dt", "t", "v", "c", "nm", "dt", column])
        values = [chosen.choice(PATTERNS)]
    elif chosen.random() < 0.1:
        values = [chosen.choice(WRONG)]
    else:
        values = [chosen.choice(pool) for _ in range(chosen.randint(1, 4) if operator == "in" else 1)]
    return column, chosen.random() < 0.3, operator, values


FILTERS = int(os.environ.get("CDC_FILTERS", "500"))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_filters_say_what_the_server_says(ground: Ground, seed: int) -> None:
    chosen = random.Random(seed)
    compared = unknown = 0
    for _ in range(FILTERS):
        parts = [drawn(chosen) for _ in range(chosen.choice([1, 1, 1, 2]))]
        text = ",".join(written(*part, chosen) for part in parts)
        condition = " AND ".join(f"({translated(*part)})" for part in parts)
        try:
            predicate = compile_filter(text, ground.table.relation, ground.table.types, ground.collations)
        except SubscriptionError as error:
            refused(ground, condition, error)
            continue
        try:
            said = ground.said(condition)
        except psycopg.errors.InvalidTextRepresentation as error:
            assert "invalid input value for enum" in str(error), f"{text} is taken: {error}"
            continue  # A label that is not there equals nothing here: it may be added later.
        except psycopg.Error as error:
            raise AssertionError(f"{text} is taken, and the server raises for {condition}: {error}") from None
        for cells, truth in zip(ground.rows, said, strict=True):
            outcome = predicate.test(cells)
            if outcome == UNKNOWN and any(operator in ("ilike", "match", "imatch") for _, _, operator, _ in parts):
                unknown += 1
                continue
            compared += 1
            assert outcome == {True: TRUE, False: FALSE, None: NULL}[truth], (text, condition, cells, truth)
    assert compared > 20 * FILTERS and unknown < compared / 50


def refused(ground: Ground, condition: str, error: SubscriptionError) -> None:
    """What is refused is what the server refuses, or one of the things that are refused by choice."""
    try:
        ground.said(condition)
    except psycopg.Error:
        return
    assert re.search(REFUSED_BY_CHOICE, str(error)), f"{error}, though the server takes {condition}"


def test_every_type_has_what_the_page_promises(ground: Ground) -> None:
    """docs/filters.md: which columns have which operators."""
    compares = ["eq", "neq", "in", "isdistinct", "lt", "lte", "gt", "gte"]
    others = {"tm", "tt", "iv", "b", "j", "js", "ns", "words", "moods", "ip", "bits", "cash"}
    for column, (_, pool) in VALUES.items():
        if column in others:
            continue
        texts = ["like", "ilike", "match", "imatch"] if column in ("t", "v", "c", "nm", "dt") else []
        for operator in [*compares, *texts]:
            value = f"({quoted(pool[0])})" if operator == "in" else quoted(pool[0])
            compile_filter(f"{column}={operator}.{value}", ground.table.relation, ground.table.types, ground.collations)
    for column in VALUES:
        compile_filter(f"{column}=is.null", ground.table.relation, ground.table.types, ground.collations)


def test_what_was_not_sent_is_unknown(ground: Ground) -> None:
    cells = tuple(UNCHANGED for _ in ground.rows[0])
    chosen = random.Random(4)
    for _ in range(300):
        part = drawn(chosen)
        try:
            predicate = compile_filter(
                written(*part, chosen), ground.table.relation, ground.table.types, ground.collations
            )
        except SubscriptionError:
            continue
        assert predicate.test(cells) in ((TRUE | FALSE) if part[2] in ("is", "isdistinct") else UNKNOWN,)


def test_a_cover_finds_every_row_that_passes(ground: Ground) -> None:
    """An index by the cover's values misses no row for which the filter is true."""
    chosen = random.Random(5)
    covered = 0
    for _ in range(300):
        text = ",".join(written(*drawn(chosen), chosen) for _ in range(chosen.choice([1, 2])))
        try:
            predicate = compile_filter(text, ground.table.relation, ground.table.types, ground.collations)
        except SubscriptionError:
            continue
        if predicate.cover is None:
            continue
        covered += 1
        for cells in ground.rows:
            if predicate.test(cells) == TRUE:
                found = {
                    (probe, value)
                    for probe, value in predicate.cover
                    if hashable(probe.read, cells[probe.column]) == value
                }
                assert found, (text, cells)
    assert covered > 20


def hashable(read: object, cell: Cell) -> object:
    return read(cell) if callable(read) and isinstance(cell, bytes) else cell


def test_order_under_a_collation_that_sorts_by_a_language(ground: Ground) -> None:
    """Not every build has such a collation. Nothing is sorted under this one."""
    connection = ground.connection
    connection.execute('CREATE COLLATION german FROM "C"')
    connection.execute("UPDATE pg_collation SET collcollate = 'de_DE', collctype = 'de_DE' WHERE collname = 'german'")
    connection.execute('CREATE TABLE words (w text COLLATE german, x text COLLATE "C", y varchar, z text[])')
    row = connection.execute("SELECT 'words'::regclass::oid::int").fetchone()
    assert row is not None
    table, known = described(connection, row[0], "public", "words"), collations(connection, row[0])
    for operator in ("lt", "lte", "gt", "gte"):
        with pytest.raises(SubscriptionError, match=rf"'w={operator}\.a' asks for the order of texts.*'w'.*COLLATE .C"):
            compile_filter(f"w={operator}.a", table.relation, table.types, known)
        compile_filter(f"x={operator}.a", table.relation, table.types, known)
        compile_filter(f"y={operator}.a", table.relation, table.types, known)
    for text in ("w=eq.a", "w=neq.a", "w=in.(a,b)", "w=isdistinct.a", "w=like.a%", "w=is.null"):
        compile_filter(text, table.relation, table.types, known)
