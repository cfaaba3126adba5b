"""What a cache takes and gives besides a plain fetch: keys by functions, other tables, put, wraps, one's own writes."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import cdc
from cdc.caching.cache import Cache
from cdc.caching.fence import Fence, Snapshot
from tests.harness import Running, until


def name_of(connection: psycopg.Connection, key: int) -> str | None:
    row = connection.execute("SELECT name FROM wells WHERE id = %s", (key,)).fetchone()
    return None if row is None else row[0]


class Cached:
    """A running consumer with one cache; `fetch` counts the loads."""

    def __init__(self, running: Running, cache: Any) -> None:
        self.running, self.cache, self.loads = running, cache, 0

    @property
    def core(self) -> Cache:
        return getattr(self.cache, "_cache", self.cache)  # type: ignore[no-any-return]

    def fetch(self, key: Any, load: Callable[..., Any] = name_of, **options: Any) -> Any:
        def counted(connection: psycopg.Connection, key: Any) -> Any:
            self.loads += 1
            return load(connection, key)

        return self.running.do(self.cache.fetch, key, counted, **options)

    def put(self, key: Any, value: Any, snapshot: Any) -> bool:
        return bool(self.running.do(self.cache.put, key, value, snapshot))

    def sees_clearly(self) -> None:
        until(lambda: not self.core.is_blind and not self.core.has_tombstones)


@contextmanager
def cached(kind: str, dsn: str, db: psycopg.Connection, table: str = "wells", **options: Any) -> Iterator[Cached]:
    made: list[Any] = []

    def prepare(running: Running) -> None:
        made.append(running.consumer.cache(table, **({"ttl": 300, "by": "id"} | options)))
        running.on(table, running.events.append)

    with Running(kind, dsn, prepare) as running:
        running.caught_up(db)
        until(lambda: made[0].is_live)
        yield Cached(running, made[0])


# Keys by a function of the row.


def first_letter(row: Any) -> str | None:
    return None if row["name"] is None else row["name"][0]


def ids(connection: psycopg.Connection, letter: str) -> list[int]:
    rows = connection.execute("SELECT id FROM wells WHERE left(name, 1) = %s ORDER BY id", (letter,))
    return [row[0] for row in rows]


def test_a_function_of_the_row_gives_the_key(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL; INSERT INTO wells VALUES (1, 'a1'), (2, 'b2'), (3, NULL)")
    with cached(kind, database, db, by=first_letter) as it:
        assert [it.fetch("a", ids), it.fetch("b", ids), it.fetch("c", ids)] == [[1], [2], []]
        db.execute("UPDATE wells SET name = 'c1' WHERE id = 1; UPDATE wells SET depth = 5 WHERE id = 3")
        it.running.caught_up(db)
        assert [it.fetch("a", ids), it.fetch("b", ids), it.fetch("c", ids), it.loads] == [[], [2], [1], 5]


@pytest.mark.parametrize("reads", ["[]", "get", "in", "dict", "text"])
def test_a_function_that_reads_what_was_not_sent_clears_all(reads: str, database: str, db: psycopg.Connection) -> None:
    """Under DEFAULT the old name of an update or a delete is not sent; a default in its place would be a wrong key."""

    def by(row: Any) -> Any:
        if reads == "get":
            return (row.get("name") or "-")[0]
        if reads == "in":
            return row["name"][0] if "name" in row else "-"
        if reads == "dict":
            return (dict(row).get("name") or "-")[0]
        return (row.text("name") if reads == "text" else row["name"])[0]

    db.execute("INSERT INTO wells VALUES (1, 'a1'), (2, 'b2')")
    with cached("blocking", database, db, by=by) as it:
        assert [it.fetch("a", ids), it.fetch("b", ids)] == [[1], [2]]
        db.execute("UPDATE wells SET name = 'c1' WHERE id = 1")
        it.running.caught_up(db)
        assert [it.fetch("a", ids), it.fetch("b", ids), it.fetch("c", ids), it.loads] == [[], [2], [1], 5]
        db.execute("DELETE FROM wells WHERE id = 2")
        it.running.caught_up(db)
        assert [it.fetch("b", ids), it.fetch("c", ids)] == [[], [1]]
        assert it.core.problem is None


def test_a_function_that_reads_the_identity_only_clears_its_own_key(database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'a'), (11, 'b'), (2, 'c')")
    with cached("blocking", database, db, by=lambda row: row["id"] % 10) as it:
        assert [it.fetch(1), it.fetch(2)] == ["a", "c"]
        db.execute("UPDATE wells SET name = 'z' WHERE id = 11; DELETE FROM wells WHERE id = 11")
        it.running.caught_up(db)
        assert [it.fetch(2), it.loads, it.fetch(1), it.loads] == ["c", 2, "a", 3]


def test_a_function_that_raises_clears_all_and_is_told_of(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'a'), (2, 'b')")
    with cached(kind, database, db, by=lambda row: 1 // (row["id"] - 9)) as it:
        assert [it.fetch(1), it.fetch(2)] == ["a", "b"]
        db.execute("INSERT INTO wells VALUES (9, 'nine')")
        it.running.caught_up(db)
        assert len(it.cache) == 0
        assert "ZeroDivisionError" in " ".join(it.running.consumer.health().notes)


# None, and what is not kept.


def test_no_such_row_is_kept_until_it_is_inserted(kind: str, database: str, db: psycopg.Connection) -> None:
    with cached(kind, database, db) as it:
        assert [it.fetch(7), it.fetch(7), it.loads] == [None, None, 1]
        db.execute("INSERT INTO wells VALUES (7, 'seven')")
        it.running.caught_up(db)
        assert [it.fetch(7), it.loads] == ["seven", 2]


def test_none_may_live_shorter_and_some_values_not_at_all(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    with cached(kind, database, db, negative_ttl=0) as it:
        assert [it.fetch(1), it.fetch(1), it.loads] == ["one", "one", 1]
        assert [it.fetch(7), it.fetch(7), it.loads] == [None, None, 3]
        refuse = lambda connection, key: cdc.Uncached("busy")  # noqa: E731
        assert [it.fetch(8, refuse), it.fetch(8, refuse), it.loads] == ["busy", "busy", 5]


# Other tables.


JOIN = "SELECT w.name || ' of ' || p.name FROM wells w JOIN projects p ON p.id = w.project_id WHERE w.id = %s"
NORTH, SOUTH = "8fac0a3e-8a52-4c41-9ddb-2d6d6d3a1b11", "8fac0a3e-8a52-4c41-9ddb-2d6d6d3a1b12"


@pytest.fixture
def projects(db: psycopg.Connection) -> psycopg.Connection:
    db.execute("CREATE TABLE projects (id uuid PRIMARY KEY, name text); ALTER PUBLICATION wells ADD TABLE projects")
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL")
    db.execute("INSERT INTO projects VALUES (%s, 'North'), (%s, 'South')", (NORTH, SOUTH))
    db.execute("INSERT INTO wells VALUES (1, 'one', %s), (2, 'two', %s)", (NORTH, SOUTH))
    return db


def joined(connection: psycopg.Connection, key: int) -> str | None:
    row = connection.execute(JOIN, (key,)).fetchone()
    return None if row is None else row[0]


def test_a_change_of_a_table_that_it_depends_on_clears_all(
    kind: str, database: str, projects: psycopg.Connection
) -> None:
    with cached(kind, database, projects, depends=("wells", "projects")) as it:
        assert [it.fetch(1, joined), it.fetch(2, joined)] == ["one of North", "two of South"]
        projects.execute("UPDATE wells SET name = 'uno' WHERE id = 1")
        it.running.caught_up(projects)
        assert [it.fetch(1, joined), it.fetch(2, joined), it.loads] == ["uno of North", "two of South", 3]
        projects.execute("UPDATE projects SET name = 'Nord' WHERE id = %s", (NORTH,))
        it.running.caught_up(projects)
        assert [it.fetch(1, joined), it.fetch(2, joined), it.loads] == ["uno of Nord", "two of South", 5]
        projects.execute("TRUNCATE projects")
        it.running.caught_up(projects)
        assert it.fetch(1, joined) is None


def test_another_table_can_clear_by_key(kind: str, database: str, projects: psycopg.Connection) -> None:
    count = (
        "SELECT p.name, count(w.id)::int FROM projects p LEFT JOIN wells w ON p.id = w.project_id "
        "WHERE p.id = %s GROUP BY 1"
    )

    def listing(connection: psycopg.Connection, key: str) -> Any:
        return connection.execute(count, (key,)).fetchone()

    for by in ("id", lambda row: str(row["id"])):
        with cached(kind, database, projects, by="project_id", depends={"projects": by}) as it:
            before = it.fetch(NORTH, listing), it.fetch(SOUTH, listing)
            projects.execute("UPDATE projects SET name = name || '!' WHERE id = %s", (NORTH,))
            it.running.caught_up(projects)
            assert it.fetch(NORTH, listing) == (before[0][0] + "!", 1)
            assert [it.fetch(SOUTH, listing), it.loads] == [before[1], 3]


def test_what_it_depends_on_is_refused_like_its_own_table(database: str, projects: psycopg.Connection) -> None:
    projects.execute("CREATE TABLE elsewhere (id text PRIMARY KEY)")
    with cdc.Consumer(database, slot=None) as consumer:
        with pytest.raises(cdc.SubscriptionError, match="elsewhere is not in publication"):
            consumer.cache("wells", ttl=1, by="id", depends="elsewhere")
        assert consumer.subscriptions == [], "nothing is left of a cache that was refused"
        with pytest.raises(cdc.SubscriptionError, match=r"\(name\) is no key of the cache of wells"):
            consumer.cache("wells", ttl=1, by="id", depends={"projects": "name"})
        for depends in (5, ["projects", ""], {"wells": "id"}):
            with pytest.raises(cdc.ConfigurationError, match="depends names"):
                consumer.cache("wells", ttl=1, by="id", depends=depends)  # type: ignore[arg-type]


# Values from elsewhere.


def reading(connection: psycopg.Connection) -> str:
    """Begin a transaction; the text of its snapshot."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    return str((connection.execute("SELECT pg_current_snapshot()::text").fetchone() or ("",))[0])


@pytest.fixture
def other(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def test_a_value_can_be_put(kind: str, database: str, db: psycopg.Connection, other: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    with cached(kind, database, db) as it:
        it.sees_clearly()
        snapshot = reading(other)
        assert it.put(1, name_of(other, 1), snapshot)
        assert [it.fetch(1), it.loads] == ["one", 0]
        db.execute("UPDATE wells SET name = 'uno'")
        it.running.caught_up(db)
        assert not it.put(1, name_of(other, 1), snapshot), "a change has overtaken it"
        it.sees_clearly()
        assert not it.put(1, name_of(other, 1), snapshot), "also when that is visible to everybody"
        assert it.put(2, None, snapshot), "another key has not changed"
        assert [it.fetch(1), it.loads] == ["uno", 1]
        it.cache.invalidate(2)
        assert not it.put(2, None, snapshot), "it was read before somebody said that it is wrong"
        it.sees_clearly()
        other.execute("COMMIT")
        assert it.put(2, None, reading(other))


def test_an_old_snapshot_is_refused_when_changes_were_forgotten(
    database: str, db: psycopg.Connection, other: psycopg.Connection
) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    with cached("blocking", database, db) as it:
        it.sees_clearly()
        snapshot = reading(other)
        old = name_of(other, 1)
        db.execute("UPDATE wells SET name = 'uno'")
        for number in range(3):
            db.execute(
                "INSERT INTO wells SELECT generate_series(%s::int, %s)", (10 + number * 5000, 5009 + number * 5000)
            )
            it.running.caught_up(db)
            it.sees_clearly()
        assert not it.put(1, old, snapshot)
        assert it.core._fence._shown.size + it.core._fence._shown_before.size < 11_000, "what is remembered is bounded"
        other.execute("COMMIT")
        assert it.put(1, "uno", reading(other))


def test_what_is_no_snapshot_and_what_cannot_be_known_is_refused(database: str, db: psycopg.Connection) -> None:
    with cdc.Consumer(database, slot=None) as consumer:
        cache = consumer.cache("wells", ttl=300, by="id")
        assert not cache.put(1, "one", "10:20:10,14"), "it is not live"
        for wrong in ("now", 5, None):
            with pytest.raises(cdc.ConfigurationError, match="the snapshot is the text of pg_current_snapshot"):
                cache.put(1, "one", wrong)  # type: ignore[arg-type]


def test_snapshots_are_compared_by_what_they_see() -> None:
    of = Snapshot.parse
    assert of("10:20:10,14").covers(of("10:20:10,14,15"))
    assert not of("10:20:10,14").covers(of("10:20:14"))
    assert not of("10:20:10").covers(of("10:21:10,20"))
    assert of("10:21:10,20").covers(of("10:20:10")), "what has begun since was not seen before either"
    standby = of("10:20:")
    assert (standby.certain.sees(9), standby.certain.sees(10)) == (True, False)
    fence = Fence()
    assert not fence.admits(1, of("9:9:"))
    fence.seen(of("9:9:"))
    assert not fence.admits(1, of("9:9:")), "the first look may have begun before"
    fence.seen(of("10:10:"))
    assert fence.admits(1, of("10:10:")) and not fence.admits(1, of("9:9:"))
    fence.change(1, 10)
    assert not fence.admits(1, of("10:10:")) and fence.admits(2, of("10:10:"))
    fence.seen(of("11:11:"))
    assert not fence.admits(1, of("10:10:")) and fence.admits(1, of("11:11:"))


# One's own writes.


def test_a_fetch_after_a_write_sees_it(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, '0')")
    with cached(kind, database, db) as it:
        for number in range(1, 100):
            db.execute("UPDATE wells SET name = %s", (str(number),))
            lsn = cdc.current_lsn(db)
            assert it.fetch(1, after=lsn if number % 2 else str(lsn)) == str(number)
        with pytest.raises(cdc.ConfigurationError, match="after is what cdc.current_lsn"):
            it.fetch(1, after="soon")


def test_a_write_is_seen_without_the_stream(database: str, db: psycopg.Connection) -> None:
    """Nothing is received; a load that began behind the write is proof enough, and is not repeated for the same LSN."""
    db.execute("INSERT INTO wells VALUES (1, 'old')")
    with cdc.Consumer(database, slot=None) as consumer:
        cache = consumer.cache("wells", ttl=300, by="id")
        assert cache.fetch(1, name_of) == "old"
        db.execute("UPDATE wells SET name = 'new'")
        assert cache.fetch(1, name_of) == "old", "younger than the polling interval"
        lsn = cdc.current_lsn(db)
        assert [cache.fetch(1, name_of, after=lsn) for _ in range(3)] == ["new"] * 3
        assert cache.counters.loads == 2


def test_a_commit_that_may_come_into_view_is_waited_for(database: str, db: psycopg.Connection) -> None:
    """Somebody still runs who may have been written before the LSN, and nothing is received."""
    db.execute("INSERT INTO wells VALUES (1, 'old')")
    with psycopg.connect(database) as writer, cdc.Consumer(database, slot=None) as consumer:
        cache = consumer.cache("wells", ttl=300, by="id", patience=0.3)
        writer.execute("UPDATE wells SET name = 'new'")
        lsn = cdc.current_lsn(db)
        with pytest.raises(cdc.NotYetVisible, match="a transaction that ran when that was written"):
            cache.fetch(1, name_of, after=lsn)
        writer.commit()
        assert cache.fetch(1, name_of, after=lsn) == "new"
        with pytest.raises(cdc.NotYetVisible, match="the server's WAL has not come to"):
            cache.fetch(1, name_of, after=cdc.Lsn(lsn + (1 << 40)))


# Functions.


def test_a_function_is_wrapped(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    with cached(kind, database, db) as it:
        calls = []

        @it.cache.wraps
        def well(connection: psycopg.Connection, id: int, /) -> str | None:
            """A well's name."""
            calls.append(id)
            return name_of(connection, id)

        do = it.running.do
        assert [do(well, 1), do(well, 1), calls] == ["one", "one", [1]]
        assert (well.__doc__, well.__name__, well.__wrapped__(db, 1)) == ("A well's name.", "well", "one")
        assert str(inspect.signature(well)) == "(id: 'int', /) -> 'str | None'"
        well.invalidate(1)
        assert do(well, 1) == "one" and len(calls) == 3
        db.execute("UPDATE wells SET name = 'uno'")
        assert do(well.after, cdc.current_lsn(db), 1) == "uno"
        with pytest.raises(cdc.ConfigurationError, match="wraps .*well already"):
            it.cache.wraps(name_of)


def test_a_whole_cache_wraps_several_functions(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one'), (2, 'two')")
    with cached(kind, database, db, by=None) as it:

        @it.cache.wraps
        def count(connection: psycopg.Connection) -> int:
            return connection.execute("SELECT FROM wells").rowcount

        @it.cache.wraps
        def names(connection: psycopg.Connection, above: int, below: int = 10) -> list[str]:
            rows = connection.execute("SELECT name FROM wells WHERE id > %s AND id < %s ORDER BY id", (above, below))
            return [row[0] for row in rows]

        do = it.running.do
        assert [do(count), do(names, 0), do(names, 1), do(names, above=0, below=10)] == [
            2,
            ["one", "two"],
            ["two"],
            ["one", "two"],
        ]
        assert it.cache.counters.loads == 3
        db.execute("DELETE FROM wells")
        it.running.caught_up(db)
        assert [do(count), do(names, 0)] == [0, []]


def test_what_cannot_be_a_load_is_refused(database: str, db: psycopg.Connection) -> None:
    async def later(connection: Any, key: Any) -> None: ...

    def pieces(connection: Any, key: Any) -> Iterator[int]:
        yield 1

    consumer = cdc.Consumer(database, slot=None)
    by_id = consumer.cache("wells", ttl=1, by="id")
    whole = consumer.cache("wells", ttl=1)
    for load, match in ((later, "is a coroutine function: use AsyncConsumer"), (pieces, "is a generator")):
        with pytest.raises(cdc.ConfigurationError, match=match):
            whole.fetch(1, load)
        with pytest.raises(cdc.ConfigurationError, match=match):
            by_id.wraps(load)
    for function, match in (
        (5, "wraps takes a function"),
        (lambda *rest: 1, "a load takes a connection first"),
        (lambda connection: 1, "takes no key"),
    ):
        with pytest.raises(cdc.ConfigurationError, match=match):
            by_id.wraps(function)  # type: ignore[arg-type]


def test_coroutine_functions_load_in_their_own_task(database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    with cached("asyncio", database, db) as it:
        threads = set()

        async def name(connection: psycopg.AsyncConnection, key: int) -> str | None:
            threads.add(threading.current_thread().name)
            row = await (await connection.execute("SELECT name FROM wells WHERE id = %s", (key,))).fetchone()
            return None if row is None else row[0]

        async def writes(connection: psycopg.AsyncConnection, key: int) -> None:
            await connection.execute("DELETE FROM wells")

        async def several() -> list[Any]:
            return await asyncio.gather(*(it.cache.fetch(1, name) for _ in range(8)))

        do = it.running.do
        assert do(several) == ["one"] * 8
        assert it.cache.counters.loads == 1
        for number in range(50):
            db.execute("UPDATE wells SET name = %s", (str(number),))
            assert do(it.cache.fetch, 1, name, after=cdc.current_lsn(db)) == str(number)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            do(it.cache.fetch, 2, writes)
        wrapped = it.cache.wraps(name)
        assert do(wrapped, 1) == "49"
        assert threads == {it.running._thread.name}
