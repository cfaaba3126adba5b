"""Functions of texts and patterns, held against the server."""

from __future__ import annotations

import psycopg
import pytest

from cdc.operators import Collation, Context, array_functions, binaries, likes, text_functions, texts
from tests.grids import Grid

LONG = "ab%_\\é" * 1500

TEXTS = [
    "",
    " ",
    "a",
    "A",
    "a ",
    "a  ",
    " a",
    "ab",
    "aB",
    "abc",
    "hello world, Hello",
    "%",
    "_",
    "\\",
    "100%",
    "a\\b",
    "a\nb\n",
    "é",
    "e\u0301",
    "É",
    "ß",
    "I",
    "i",
    "İ",
    "\u0131",
    "日本語",
    "😀",
    "a😀b",
    "\ufffd",
    "ÿ",
    "x" * 63,
    "é" * 40,
    LONG,
]
PATTERNS = [
    "",
    "%",
    "_",
    "%%",
    "a%",
    "%a",
    "%a%",
    "_%",
    "%_",
    "a_",
    "__",
    "%b%_",
    "\\%",
    "\\_",
    "%\\%",
    "\\",
    "a\\",
    "%\\",
    "%a\\",
    "_\\",
    "a\\\\b",
    "\\a",
    "A%",
    "%É",
    "e_",
    "_😀_",
    "%o%o%",
    "%hello",
    "a%\n",
    "%ab%_\\é%\\\\é",
    "i",
    "%_b%\\_\\\\é",
    "日%",
]
POOLS = {
    "text": TEXTS,
    "character": TEXTS,
    "character varying": TEXTS,
    "name": [text for text in TEXTS if len(text.encode()) < 64],
    "bytea": [
        "",
        "\\x00",
        "\\x61",
        "\\x6162",
        "\\x25",
        "\\x5c",
        "\\x5f",
        "\\x61255c",
        "\\xff",
        "\\x6125",
        "\\x2561",
        "\\x5cff",
    ],
    "integer": ["0", "1", "2", "3", "-1", "-2", "5", "2147483647", "-2147483648"],
    "boolean": ["t", "f"],
}


def grid(database: psycopg.Connection, **options: object) -> Grid:
    return Grid(database, POOLS, **options)  # type: ignore[arg-type]


@pytest.fixture
def connection(database: str):
    with psycopg.connect(database, autocommit=True) as made:
        yield made


def test_comparisons_of_texts_are_the_servers(connection: psycopg.Connection) -> None:
    modifiers = [None, "-1", "3", "4", "5", "7", "40"]
    own = {
        f"{name}({kind}, integer, boolean)": [[None, *TEXTS], modifiers, [None, "t", "f"]]
        for name, kind in (("bpchar", "character"), ("varchar", "character varying"))
    }
    grid(connection, own=own, limit=1300).check(texts.TABLE)


def test_like_is_the_servers(connection: psycopg.Connection) -> None:
    pools = {**POOLS, "text": PATTERNS}
    own = {
        signature: [[None, *TEXTS], [None, *PATTERNS]]
        for signature in likes.TABLE
        if signature.endswith("(text, text)") and signature != "like_escape(text, text)"
    }
    own["like_escape(text, text)"] = [[None, *PATTERNS, "ab#%#_##c", "#"], [None, "", "#", "\\", "ab", "é", "%"]]
    Grid(connection, pools, own=own, limit=1300).check(likes.TABLE)


def test_what_is_decided_under_a_linguistic_collation_is_the_servers(connection: psycopg.Connection) -> None:
    collations = ['"C.utf8"']
    if connection.info.server_version >= 180000:
        collations.append("pg_unicode_fast")
    context = Context(collation=Collation.LINGUISTIC, plain_case=True)
    for collation in collations:
        for table in (texts.TABLE, likes.TABLE):
            shares = dict.fromkeys(table, 0.02)
            grid(connection, context=context, collation=f"COLLATE {collation}", shares=shares).check(table)


ARRAY_POOLS = {
    **POOLS,
    "integer[]": ["{}", "{1}", "{2}", "{1,2}", "{2,1}", "{1,1,2}", "{NULL}", "{1,NULL}", "{NULL,1}", "{1,2,3,4,5}",
                  "{{1,2},{3,4}}", "{{1},{2}}", "[0:1]={1,2}", "[2:2]={5}", "{{{1}}}", "[0:0][1:2]={{1,2}}"],
    "text[]": ["{}", "{a}", "{A}", "{a,b}", "{b,a}", "{NULL}", "{a,NULL}", '{""}', '{" ",","}', '{"NULL",null}',
               '{"a\\"b","\\\\"}', "{{a,b},{c,d}}", "{é,😀}", '{"{}"}', "[-1:0]={a,b}", '{"a ",a}'],
    "integer": ["0", "1", "2", "3", "-1", "5"],
    "text": ["", "a", "b", ",", " ", "é", "NULL", "a,b", "a,,b", ",", "*"],
}  # fmt: skip


def test_arrays_are_the_servers(connection: psycopg.Connection) -> None:
    shares = dict.fromkeys(array_functions.TABLE, 0.3)
    Grid(connection, ARRAY_POOLS, shares=shares, limit=500).check(array_functions.TABLE)


PART_POOLS = {
    **POOLS,
    "text": ["", " ", "a", "  a ", "abcabc", "a,b,,c", ",", ",,", "éa😀é", "e\u0301", "xyz", "hello World, x2Y",
    "İß", LONG],
    "character": ["", " ", "a  ", "é", " a b  "],
    "integer": ["0", "1", "2", "3", "-1", "-2", "-7", "9", "65", "200", "55296",
     "128512", "2147483647", "-2147483648"],
    "bytea": ["", "\\x00", "\\x6162", "\\xff00", "\\x" + "ab" * 100],
}  # fmt: skip
ANY = ('concat(VARIADIC "any")', 'concat_ws(text, VARIADIC "any")')


def test_functions_of_texts_are_the_servers(connection: psycopg.Connection) -> None:
    table = {signature: found for signature, found in text_functions.TABLE.items() if signature not in ANY}
    shares = {"repeat(text, integer)": 0.4, "right(text, integer)": 0.9, "lower(text)": 1, "upper(text)": 1}
    Grid(connection, PART_POOLS, limit=1000, shares=shares).check(table)


def test_functions_of_bytes_are_the_servers(connection: psycopg.Connection) -> None:
    forms = ["hex", "HEX", "base64", "escape", "x", ""]
    texts_of_bytes = ["", "00ff", "00F", "zz", "YWI=", "YQ==", "YQ", "Y W I =", "YWJj", "=", "a===", "YWI", "YR=="]
    own = {
        "encode(bytea, text)": [[None, *PART_POOLS["bytea"]], [None, *forms]],
        "decode(text, text)": [[None, *texts_of_bytes], [None, *forms]],
    }
    Grid(connection, PART_POOLS, own=own, shares={"decode(text, text)": 0.3}).check(binaries.TABLE)


def test_concat_of_texts_is_the_servers(connection: psycopg.Connection) -> None:
    values = [None, "", "a", "é", True, False]
    for signature in ANY:
        call = text_functions.TABLE[signature].call
        for first in [None, "", ", "]:
            for second in values:
                for third in values:
                    kinds = ["bool" if isinstance(value, bool) else "text" for value in (second, third)]
                    query = f"SELECT {signature.split('(')[0]}(%s::text, %s::{kinds[0]}, %s::{kinds[1]})"
                    row = connection.execute(query, (first, second, third)).fetchone()  # type: ignore[arg-type]
                    assert row == (call(first, second, third),), (signature, first, second, third)
