"""docs/constructs.md is made from the code, and says what is so."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

import cdc
from cdc.rls.tags import HANDLERS
from tests.constructs import EXPRESSIONS, INTERNAL, PAGE, SESSION, page, tag

_NEWEST = 180000

TABLE = """
CREATE TABLE wells (id int PRIMARY KEY, name text, status text, code varchar(5), depth numeric, is_public boolean,
    owner uuid, tags text[], closed_at timestamptz);
ALTER TABLE wells ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON wells TO authenticated;
"""


@pytest.fixture
def db(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLE)
        yield connection


def test_the_page_is_what_the_code_has(db: psycopg.Connection) -> None:
    """An older server lacks some functions; what it has is on the page, too."""
    made, written = page(db), PAGE.read_text()
    if db.info.server_version >= _NEWEST:
        assert made == written, "run `python -m tests.constructs --write`"
    words = set(written.replace(";", " ").replace(",", " ").split())
    assert set(made.replace(";", " ").replace(",", " ").split()) <= words


def test_every_node_tag_is_explained() -> None:
    assert {tag(name) for name in HANDLERS} - INTERNAL == set(EXPRESSIONS)


@pytest.mark.parametrize("example", [example for _, example in [*EXPRESSIONS.values(), *SESSION]])
def test_every_example_can_be_decided(database: str, db: psycopg.Connection, example: str) -> None:
    db.execute(f"CREATE POLICY example ON wells FOR SELECT TO authenticated USING ({example})".encode())
    user = cdc.Subject("authenticated", claims={"sub": "11111111-1111-4111-8111-111111111111"})
    row = {"id": 1, "name": "a", "status": "active", "code": "a", "depth": 7, "is_public": True, "owner": None}
    found = cdc.explain(database, "wells", user, row=row | {"tags": ["a"], "closed_at": "2030-01-01 00:00:00+00"})
    (policy,) = found.policies
    assert policy.unsupported is None and policy.problem is None
    assert policy.outcome in ("true", "false", "null")
    with_key = "INSERT INTO wells VALUES (1, 'a', 'active', 'a', 7, true, NULL, '{a}', '2030-01-01 00:00:00+00')"
    db.execute(with_key.encode())
    found = cdc.explain(database, "wells", user, key=1)
    assert found.server is not None and found.server.agrees is True
