"""Regular expressions, held against the server."""

from __future__ import annotations

import psycopg
import pytest

from cdc.operators import Collation, Context, regexes, similar
from cdc.operators.regexes import translate
from tests.grids import Grid

SURE = r"""
a ^a a$ ^a$ ^$ $^ a|b ^(a|b)+$ a| (|a)b () a* a+b? ^a{2}$ a{0} ^a{0,2}$ a{2,} (ab){1,2}$ . ^.$ ^..$ [abc] [^abc]
^[^abc]*$ [a-c] ^[a-zA-Z\s]+$ []a] [^]a] [a-] [-a] [a\]b] [\d] [[:alpha:]] ^[[:alnum:]_]+$ [[:upper:]] [[:lower:]]
[[:space:]] [[:digit:]-] \d \w+ \s \D ^\W$ \S \. \\ \n a.b (a*)*b (a+)+$ (a|aa)+$ (?:ab)+ a*?b a+? a??b a{1,2}? é [à-ÿ]
^É 😀 ^[😀-😂] [[:blank:]] [[:xdigit:]]+$ x^ $x (^a|b$) (^)a ^(hello|world) World$ ,\s[a-z] ^[^@]+@[^@]+$ @example\.com$
İ K [j-l] [^j-l] [X-c] (a?){3} ((a|b){2,3}c?)* ^(?:(?:a|b)*)$ [^\n]b [\n\\] [a\-c] \- \/ ] } a} \_ [_-] [^-a]
[$^.*+?(){}|]
""".split()  # noqa: SIM905  # patterns are easier to read so
OTHERS = r"""
* a** ( ) (a [ [a a{2,1} a{256} \ a\ [b-a] ^* (?=a) (?!a) (a)\1 \y \ma [[.a.]] [[=a=]] (?i)a ***=a ***:a [[:foo:]] a{,2}
a{x [a-c-e] \Aa \Z \x41 [[:<:]]a a+* a{2}{3} (?#c)a [\D] [a-\d] [[:digit:]-z] \é [
""".split()  # noqa: SIM905  # patterns are easier to read so
TEXTS = [
    *("", "a", "A", "b", "ab", "aab", "aabb", "B", "\n", "a\n", "a\nb", "\\", ".", "]", "-", "_", "5", "é", "É", "à"),
    *("e\u0301", "😀", "hello World, x2Y", "İ", "\u0131", "K", "\u212a", "k", "\u017f", "x@example.com", "\u0661"),
    *("\u00a0", "\u2003", "ß", "a" * 60, " ", "{", "a{x", "\t", "}", "ac", "bcabc", "$", "^"),
]


@pytest.fixture
def connection(database: str):
    with psycopg.connect(database, autocommit=True) as made:
        yield made


def grid(connection: psycopg.Connection, **options: object) -> Grid:
    pools = {"text": TEXTS, "character": TEXTS, "name": TEXTS}
    patterns = ["", *SURE, *OTHERS]
    own = {
        signature: [[None, *TEXTS], [None, *patterns]] if "text, text" in signature else [["a", "É "], patterns]
        for signature in regexes.TABLE
    }
    return Grid(connection, pools, own=own, limit=8000, **options)  # type: ignore[arg-type]


def test_regular_expressions_are_the_servers(connection: psycopg.Connection) -> None:
    grid(connection).check(regexes.TABLE)


def test_what_is_decided_of_patterns_under_a_linguistic_collation_is_the_servers(
    connection: psycopg.Connection,
) -> None:
    context = Context(collation=Collation.LINGUISTIC, plain_case=True)
    collations = ['"C.utf8"', "pg_unicode_fast"]
    for collation in collations if connection.info.server_version >= 180000 else collations[:1]:
        grid(connection, context=context, collation=f"COLLATE {collation}").check(regexes.TABLE)


@pytest.mark.parametrize("pattern", SURE)
def test_a_pattern_that_is_sure_is_understood(pattern: str) -> None:
    assert translate(pattern) is not None and translate(pattern, ignores_case=True) is not None


@pytest.mark.parametrize("pattern", OTHERS)
def test_a_pattern_that_is_not_sure_is_refused_before_any_text(pattern: str) -> None:
    assert translate(pattern) is None


def test_similar_to_becomes_the_servers_regular_expression(connection: psycopg.Connection) -> None:
    patterns = [
        "",
        "a%",
        "_",
        "(a|b)*",
        "[a-c]+",
        "[^a]%",
        "a.b^c$",
        "\\%",
        "a\\",
        "\\d",
        "a\\\\b",
        "#%a##",
        "[[:alpha:]]",
        "[]a]",
    ]
    patterns += ['a\\"b\\"c', "é😀_", "[a", "[\\d]", "a{2,3}", "[#a]", "[^^]"]
    own = {
        "similar_to_escape(text)": [[None, *patterns]],
        "similar_to_escape(text, text)": [[None, *patterns], [None, "", "#", "\\", "ab", "é"]],
    }
    Grid(connection, {}, own=own).check(similar.TABLE)
