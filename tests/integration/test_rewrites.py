"""DDL that changes rows without a change of each: the table cdc.rewrites, and what caches do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import REWRITES, Running, until


@pytest.fixture
def noted(db: psycopg.Connection) -> psycopg.Connection:
    """The connection of `db`, with the table cdc.rewrites and its triggers."""
    db.execute(REWRITES.encode())
    return db


@contextmanager
def cached(kind: str, dsn: str, db: psycopg.Connection) -> Iterator[tuple[Running, Any, dict[int, str]]]:
    """A consumer with a cache and a mapping of the user's, both of wells by id."""
    mapping: dict[int, str] = {}
    made: list[Any] = []

    def prepare(running: Running) -> None:
        made.append(running.consumer.cache("wells", ttl=300, by="id"))
        running.consumer.invalidate(mapping, "wells", key="id")

    with Running(kind, dsn, prepare) as running:
        until(lambda: made[0].is_live)
        running.caught_up(db)
        yield running, made[0], mapping


def row_of(connection: psycopg.Connection, key: int) -> Any:
    return connection.execute("SELECT to_jsonb(wells) - 'id' FROM wells WHERE id = %s", (key,)).fetchone()


REWRITING = {
    "a volatile default": "ALTER TABLE wells ADD luck float8 DEFAULT random()",
    "a constant default": "ALTER TABLE wells ADD status text DEFAULT 'new'",
    "another type": "ALTER TABLE wells ALTER depth TYPE text USING depth || ' m'",
    "the same type": "ALTER TABLE wells ALTER name TYPE text USING upper(name)",
    "no column": "ALTER TABLE wells DROP notes",
    "another name": "ALTER TABLE wells RENAME name TO title",
}


@pytest.mark.parametrize("statement", REWRITING.values(), ids=REWRITING)
def test_a_rewrite_clears_although_no_row_changes(
    kind: str, database: str, noted: psycopg.Connection, statement: str
) -> None:
    noted.execute("INSERT INTO wells VALUES (1, 'a', NULL, 2)")
    with cached(kind, database, noted) as (running, cache, mapping):
        before = running.do(cache.fetch, 1, row_of)
        mapping[1] = "old"
        noted.execute(statement.encode())
        running.caught_up(noted)
        assert (len(cache), mapping) == (0, {})
        assert running.do(cache.fetch, 1, row_of) == row_of(noted, 1) != before


@pytest.mark.parametrize("statement", list(REWRITING.values())[:4], ids=list(REWRITING)[:4])
def test_without_the_trigger_it_goes_unnoticed(
    kind: str, database: str, db: psycopg.Connection, statement: str
) -> None:
    """That is what the table is for, and `health()` says so."""
    db.execute("INSERT INTO wells VALUES (1, 'a', NULL, 2)")
    with cached(kind, database, db) as (running, cache, mapping):
        running.do(cache.fetch, 1, row_of)
        mapping[1] = "old"
        db.execute(statement.encode())
        running.caught_up(db)
        assert running.do(cache.fetch, 1, row_of) != row_of(db, 1) and mapping
        until(lambda: "there is no table cdc.rewrites" in " ".join(running.consumer.health().notes))
        db.execute("INSERT INTO wells (id) VALUES (2)")
        running.caught_up(db)
        assert mapping == {} or "upper" in statement


def test_the_cache_is_cleared_at_its_place(database: str, noted: psycopg.Connection) -> None:
    """Behind the changes before it, and before those behind it; other tables' caches are left alone."""
    noted.execute("CREATE TABLE projects (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE projects")
    seen: list[tuple[int, int]] = []
    with cdc.Consumer(database, slot="ingest") as consumer:
        wells = consumer.cache("wells", ttl=300)
        projects = consumer.cache("projects", ttl=300)
        kept: dict[str, int] = {}
        consumer.invalidate(kept, "projects", key="id")

        @consumer.on("projects")
        def note(event: cdc.Event) -> None:
            seen.append((len(wells), len(kept)))

        consumer.start()
        until(lambda: wells.is_live and projects.is_live)
        consumer.wait_for(cdc.current_lsn(noted))
        wells.fetch("all", lambda connection, key: 1)
        kept["all"] = 1
        with noted.transaction():
            noted.execute("INSERT INTO projects VALUES (1)")
            noted.execute("ALTER TABLE wells ALTER name TYPE text USING upper(name)")
            noted.execute("INSERT INTO projects VALUES (2)")
        consumer.wait_for(cdc.current_lsn(noted))
        assert seen == [(1, 1), (0, 1)] and len(projects) == 0
        projects.fetch("all", lambda connection, key: 1)
        noted.execute("ALTER TABLE wells ADD status text DEFAULT 'x'")
        consumer.wait_for(cdc.current_lsn(noted))
        assert (len(projects), kept) == (1, {"all": 1})


def test_a_command_never_fails(kind: str, database: str, noted: psycopg.Connection) -> None:
    """What cannot be found out is noted as any table, which clears everything."""
    with cached(kind, database, noted) as (running, cache, mapping):
        mapping[1] = "old"
        running.do(cache.fetch, 1, row_of)
        noted.execute("ALTER FUNCTION cdc.published_tables() RENAME TO gone")
        noted.execute("ALTER TABLE wells ADD status text DEFAULT 'x'")
        assert noted.execute('SELECT "table", command FROM cdc.rewrites').fetchall() == [(None, "ALTER TABLE")]
        running.caught_up(noted)
        assert (len(cache), mapping) == (0, {})
        noted.execute("DROP TABLE cdc.shapes; ALTER TABLE wells ADD more text DEFAULT 'x'; DROP TABLE cdc.rewrites")
        noted.execute("ALTER TABLE wells ADD most text DEFAULT 'x'")


def test_health_says_what_is_missing(database: str, noted: psycopg.Connection) -> None:
    def notes(consumer: cdc.Consumer) -> str:
        return " ".join(consumer.health().notes)

    with cdc.Consumer(database, slot="ingest", rights_interval=0.1) as consumer:
        consumer.start()
        until(lambda: consumer.health().status is cdc.Status.LIVE)
        assert "rewrites" not in notes(consumer)
        consumer.cache("wells", ttl=300)
        for breaks, mends, words in (
            (
                "ALTER EVENT TRIGGER cdc_rewrites DISABLE",
                "ALTER EVENT TRIGGER cdc_rewrites ENABLE",
                "event triggers of",
            ),
            (
                "ALTER PUBLICATION wells DROP TABLE cdc.rewrites",
                "ALTER PUBLICATION wells ADD TABLE cdc.rewrites",
                "is not published",
            ),
        ):
            noted.execute(breaks.encode())
            until(lambda words=words: words in notes(consumer))
            noted.execute(mends.encode())
            until(lambda: "rewrites" not in notes(consumer))


@pytest.mark.parametrize("statement", list(REWRITING.values())[:4], ids=list(REWRITING)[:4])
def test_a_store_is_filled_anew(kind: str, database: str, noted: psycopg.Connection, statement: str) -> None:
    """And tells of what differs, though nothing of that came in the stream."""
    noted.execute("INSERT INTO wells VALUES (1, 'a', NULL, 2), (2, 'B', NULL, 2)")
    told: list[Any] = []

    def shown(store: Any) -> list[Any]:
        return [dict(store[key]) for key in sorted(store)]

    def in_the_table() -> list[Any]:
        with noted.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            return cursor.execute("SELECT * FROM wells ORDER BY id").fetchall()

    with Running(kind, database, lambda running: None) as running:
        store = running.do(running.consumer.store, "wells")
        running.do(store.wait_live)
        store.on_change(told.append)
        assert shown(store) == in_the_table()
        noted.execute(statement.encode())
        until(lambda: shown(store) == in_the_table())
        until(lambda: told)
        assert {change.key for change in told} == ({1} if "upper" in statement else {1, 2})


def test_a_table_that_took_the_name_is_meant_at_once(kind: str, database: str, noted: psycopg.Connection) -> None:
    """Its OID is another one, and nothing has told the consumer of that but the rewrites."""
    with cached(kind, database, noted) as (running, cache, mapping):
        running.do(cache.fetch, 1, row_of)
        mapping[1] = "old"
        with noted.transaction():
            noted.execute("CREATE TABLE other (LIKE wells INCLUDING ALL); ALTER TABLE wells RENAME TO former")
            noted.execute("ALTER TABLE other RENAME TO wells; ALTER PUBLICATION wells ADD TABLE wells")
        running.caught_up(noted)
        assert (len(cache), mapping) == (0, {})
        mapping[1] = "old"
        noted.execute("ALTER TABLE wells ALTER name TYPE text USING upper(name)")
        running.caught_up(noted)
        assert mapping == {}
