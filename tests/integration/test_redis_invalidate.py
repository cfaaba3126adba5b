"""The sink `redis-invalidate` and the cache that respects its marks, against a real Redis server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

import cdc
from cdc.sinks import RedisCache, RedisInvalidate
from cdc.sinks.key_template import KeyTemplate
from tests.harness import Running, until
from tests.integration.test_daemon import Process
from tests.redis_server import RedisServer

FULL = "ALTER TABLE wells REPLICA IDENTITY FULL"


@pytest.fixture
def keys(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def begun(running: Running, db: psycopg.Connection) -> None:
    """Wait until the sink was told that it begins."""
    until(lambda: running.consumer.health().status is cdc.Status.LIVE)
    running.caught_up(db)
    until(lambda: not any(each.queued for each in running.consumer.subscriptions))


@contextmanager
def deleting(
    kind: str, dsn: str, db: psycopg.Connection, url: str, *templates: str, terms: Any = None, **options: Any
) -> Iterator[Running]:
    sink = RedisInvalidate(url, *templates, **options)

    def prepare(running: Running) -> None:
        running.on("wells", running.events.append)
        running.consumer.on("wells", **(terms or {}))(sink)

    try:
        with Running(kind, dsn, prepare) as running:
            begun(running, db)
            yield running
    finally:
        sink.close()


def after(running: Running, db: psycopg.Connection, keys: redis.Redis, statement: str, *full: str) -> set[str]:
    """The keys of these that are gone after a statement."""
    for key in full:
        keys.set(key, "value")
    db.execute(statement.encode())
    running.caught_up(db)
    return {key for key in full if not keys.exists(key)}


@pytest.mark.parametrize("terms", [{}, {"queue": 10}, {"batch": 5}, {"transaction": True}], ids=str)
def test_keys_of_changed_rows_are_deleted(
    kind: str, database: str, db: psycopg.Connection, keys: redis.Redis, redis_url: str, terms: Any
) -> None:
    full = ("well:1", "well:2", "well:3", "other:1")
    with deleting(kind, database, db, redis_url, "well:{id}", terms=terms) as running:
        assert after(running, db, keys, "INSERT INTO wells VALUES (1)", *full) == {"well:1"}
        assert after(running, db, keys, "UPDATE wells SET name = 'x' WHERE id = 1", *full) == {"well:1"}
        assert after(running, db, keys, "UPDATE wells SET id = 2", *full) == {"well:1", "well:2"}
        assert after(running, db, keys, "DELETE FROM wells", *full) == {"well:2"}
        both = "INSERT INTO wells SELECT generate_series(1, 2)"
        assert after(running, db, keys, both, *full) == {"well:1", "well:2"}
        assert after(running, db, keys, "TRUNCATE wells", *full) == {"well:1", "well:2", "well:3"}


def test_several_templates_name_the_old_and_the_new_row(
    kind: str, database: str, db: psycopg.Connection, keys: redis.Redis, redis_url: str
) -> None:
    db.execute(FULL)
    db.execute("INSERT INTO wells VALUES (1, 'a'), (2, NULL)")
    full = ("well:1", "well:2", "named:a", "named:b", "named:", "list:a/1", "list:b/1", "list:a/2")
    templates = ("well:{id}", "named:{name}", "list:{name}/{id}")
    with deleting(kind, database, db, redis_url, *templates) as running:
        gone = after(running, db, keys, "UPDATE wells SET name = 'b' WHERE id = 1", *full)
        assert gone == {"well:1", "named:a", "named:b", "list:a/1", "list:b/1"}
        gone = after(running, db, keys, "DELETE FROM wells WHERE id = 2", *full)
        assert gone == {"well:2", "named:"}


@pytest.mark.parametrize("name", ["ü *?[a]\\", "a:b{c}d", "\n\t\r\n", "'\";--", "*"])
def test_values_with_odd_characters(
    database: str, db: psycopg.Connection, keys: redis.Redis, redis_url: str, name: str
) -> None:
    db.execute(FULL)
    with deleting("blocking", database, db, redis_url, "a[*]{{}}:{name}") as running:
        mine, others = f"a[*]{{}}:{name}", ("a[*]{}:x", "ab{}:x", "a[*]{}")
        for key in (mine, *others):
            keys.set(key, "value")
        db.execute("INSERT INTO wells VALUES (1, %s)", (name,))
        running.caught_up(db)
        assert not keys.exists(mine)
        assert keys.exists(*others) == 3
        db.execute("TRUNCATE wells")
        running.caught_up(db)
        assert keys.keys() and set(keys.keys()) == {"ab{}:x", "a[*]{}"}


def test_what_was_there_before_the_beginning_goes(
    kind: str, database: str, db: psycopg.Connection, keys: redis.Redis, redis_url: str
) -> None:
    keys.mset({f"well:{number}": "old" for number in range(2500)} | {"other:1": "kept"})
    with deleting(kind, database, db, redis_url, "well:{id}"):
        assert keys.keys() == ["other:1"]
    keys.set("well:1", "kept")
    with deleting(kind, database, db, redis_url, "well:{id}", clears_at_start=False) as running:
        assert sorted(keys.keys()) == ["other:1", "well:1"]
        assert after(running, db, keys, "INSERT INTO wells VALUES (1)", "well:1") == {"well:1"}


def test_a_gap_and_an_altered_table_delete_everything(
    kind: str, database: str, db: psycopg.Connection, keys: redis.Redis, redis_url: str
) -> None:
    sink = RedisInvalidate(redis_url, "well:{id}")
    with Running(kind, database, lambda running: running.on("wells", sink), slot=None) as running:
        begun(running, db)
        altered = "ALTER TABLE wells ADD status text; INSERT INTO wells VALUES (1)"
        assert after(running, db, keys, altered, "well:1", "well:2") == {"well:1", "well:2"}
        keys.set("well:3", "old")
        db.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database()"
        )
        until(lambda: not keys.exists("well:3"))
    sink.close()


def test_a_column_outside_the_identity_is_refused_or_sweeps(
    database: str, db: psycopg.Connection, keys: redis.Redis, redis_url: str
) -> None:
    consumer = cdc.Consumer(database, slot="ingest")
    consumer.on("wells")(RedisInvalidate(redis_url, "named:{name}"))
    with pytest.raises(cdc.SubscriptionError, match=r'ALTER TABLE "public"."wells" REPLICA IDENTITY FULL'):
        consumer.start()
    db.execute("INSERT INTO wells VALUES (1, 'a')")
    full = ("named:a", "named:b", "named:c")
    with deleting("blocking", database, db, redis_url, "named:{name}", sweeps=True) as running:
        assert after(running, db, keys, "INSERT INTO wells VALUES (2, 'c')", *full) == {"named:c"}
        assert after(running, db, keys, "UPDATE wells SET name = 'b' WHERE id = 1", *full) == set(full)
    db.execute(FULL)
    with deleting("blocking", database, db, redis_url, "named:{name}") as running:
        assert after(running, db, keys, "UPDATE wells SET name = 'a' WHERE id = 1", *full) == {"named:a", "named:b"}
        db.execute("ALTER TABLE wells REPLICA IDENTITY DEFAULT")
        after(running, db, keys, "UPDATE wells SET name = 'z' WHERE id = 2")
        assert after(running, db, keys, "UPDATE wells SET name = 'b' WHERE id = 1", *full) == set(full)


def _hear(heard: Any, said: list[Any]) -> int:
    message = heard.get_message(timeout=1)
    if message is not None:
        said.append(json.loads(message["data"]))
    return len(said)


def test_deletions_are_published(database: str, db: psycopg.Connection, keys: redis.Redis, redis_url: str) -> None:
    with keys.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe("gone")
        with deleting("blocking", database, db, redis_url, "well:{id}", publish="gone") as running:
            keys.set("well:5", "old")
            db.execute("INSERT INTO wells VALUES (5)")
            db.execute("TRUNCATE wells")
            running.caught_up(db)
        said: list[Any] = []
        until(lambda: _hear(heard, said) == 3)
    assert said == [{"all": ["well:{id}"]}, {"keys": ["well:5"]}, {"all": ["well:{id}"]}]


def test_while_redis_is_down_nothing_is_acknowledged(kind: str, database: str, db: psycopg.Connection) -> None:
    """It is tried again as the terms say; what was not deleted comes again in the next life."""
    with RedisServer() as server:
        with deleting(
            kind, database, db, server.url, "well:{id}", terms={"retries": 100, "backoff": cdc.Backoff(0.05, 0.1)}
        ) as running:
            server.kill()
            db.execute("INSERT INTO wells VALUES (1)")
            until(lambda: any("connect" in each for each in running.consumer.health().reasons))
            server.start()
            with server.client() as client:
                client.set("well:2", "kept")
                running.caught_up(db)
                assert client.exists("well:2")
        running = Running(
            kind, database, lambda it: it.on("wells", RedisInvalidate(server.url, "well:{id}", clears_at_start=False))
        )
        with pytest.raises(cdc.HandlerError, match="redis"), running:
            running.caught_up(db)
            server.kill()
            db.execute("INSERT INTO wells VALUES (2)")
            running.caught_up(db)
        server.start()
        with server.client() as client:
            client.set("well:2", "old")
            with deleting(kind, database, db, server.url, "well:{id}", clears_at_start=False):
                assert not client.exists("well:2")


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"filter": "id=eq.1"}, "every row: leave out filter"),
        ({"operations": ["insert"]}, "every operation"),
        ({"on_error": "park"}, "no change kept aside"),
        ({"snapshot": True}, "no rows to begin with"),
        ({"subject": cdc.Subject("authenticated")}, "every row: leave out subject"),
    ],
)
def test_terms_that_would_miss_something_are_refused(redis_url: str, terms: Any, words: str) -> None:
    consumer = cdc.Consumer("", slot="ingest")
    with pytest.raises(cdc.SubscriptionError, match=words):
        consumer.subscribe("wells", RedisInvalidate(redis_url, "well:{id}"), **terms)
    with pytest.raises(cdc.SubscriptionError, match="one table, by its name"):
        consumer.subscribe(["wells", "projects"], RedisInvalidate(redis_url, "well:{id}"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RedisInvalidate("redis://h"), "a key template at least"),
        (lambda: RedisInvalidate("redis://h", "well"), "names no column"),
        (lambda: RedisInvalidate("redis://h", "{id}"), "begins with a column"),
        (lambda: RedisInvalidate("redis://h", "well:{id"), "cannot be read"),
        (lambda: RedisInvalidate("redis://h", "well:{}"), "write columns as {id}"),
        (lambda: RedisInvalidate("redis://h", "well:{id!r}"), "write columns as {id}"),
        (lambda: RedisInvalidate("redis://h", 3), "a key template is text"),
        (lambda: RedisInvalidate("http://secret", "well:{id}"), "the URL cannot be read"),
        (lambda: RedisInvalidate(3, "well:{id}"), "redis is a URL"),
        (lambda: RedisInvalidate("redis://h", "well:{id}", publish=""), "the name of a channel"),
        (lambda: RedisInvalidate("redis://h", "well:{id}", tombstone_ttl=0), "tombstone_ttl is a number of seconds"),
        (lambda: RedisCache("redis://h", "well:{id}", ttl=0, tombstone_ttl=1), "ttl is a number of seconds"),
    ],
)
def test_mistakes_are_named(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(cdc.ConfigurationError, match=words) as caught:
        make()
    assert "secret" not in str(caught.value)


def test_a_pattern_means_every_key_and_no_other() -> None:
    template = KeyTemplate("a*[b]:{id}/{name}")
    assert (template.columns, template.pattern) == (("id", "name"), r"a\*\[b\]:*/*")
    assert template.of({"id": "1", "name": None}) == "a*[b]:1/"


def test_without_redis_py_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "redis.py").write_text("raise ImportError('no redis here')")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\nfrom cdc.sinks import JsonLines, RedisInvalidate\n"
        "RedisInvalidate('redis://h', 'well:{id}')"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert "pip install 'wells-cdc[redis]'" in done.stderr.splitlines()[-1]


# The cache that respects the marks.


def name_of(dsn: str, key: int) -> str | None:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT name FROM wells WHERE id = %s", (key,)).fetchone()
        return None if row is None else row[0]


@pytest.mark.parametrize("marked", [True, False], ids=["marks", "no marks"])
@pytest.mark.parametrize("change", ["UPDATE wells SET name = 'new'", "TRUNCATE wells"])
def test_an_old_value_is_not_put_back(
    database: str, db: psycopg.Connection, keys: redis.Redis, redis_url: str, marked: bool, change: str
) -> None:
    """A reader reads the old row; the change arrives and deletes its key; the reader keeps what he has read.

    Without marks the old value stays: that the test can see.
    """
    db.execute("INSERT INTO wells VALUES (1, 'old')")
    cache = RedisCache(redis_url, "well:{id}", ttl=300, tombstone_ttl=60)
    marks = {"tombstone_ttl": 60.0} if marked else {}
    with deleting("blocking", database, db, redis_url, "well:{id}", clears_at_start=False, **marks) as running:

        def load() -> str | None:
            value = name_of(database, 1)
            db.execute(change.encode())
            running.caught_up(db)
            return value

        assert cache.fetch(load, id=1) == "old"
        now = name_of(database, 1)
        assert (cache.fetch(lambda: now, id=1) == now) is marked
        assert bool(keys.exists("well:1")) is not marked
    assert bool(keys.exists("cdc:tombstone:well:1", "cdc:tombstone:well:{id}")) is marked


def test_a_value_is_kept_and_found(keys: redis.Redis, redis_url: str) -> None:
    cache = RedisCache(redis_url, "well:{id}/{name}", ttl=300, tombstone_ttl=10)
    assert cache.fetch(lambda: {"depth": 3}, id=1, name=None) == {"depth": 3}
    assert cache.fetch(lambda: pytest.fail("loaded again"), id=1, name=None) == {"depth": 3}
    assert keys.keys() == ["well:1/"] and 0 < keys.ttl("well:1/") <= 300
    with pytest.raises(TypeError, match="takes id, name"):
        cache.fetch(lambda: None, id=1)


def test_a_mark_ends_and_a_slow_load_is_not_kept(keys: redis.Redis, redis_url: str) -> None:
    cache = RedisCache(redis_url, "well:{id}", ttl=300, tombstone_ttl=0.2)
    assert cache.fetch(lambda: time.sleep(0.15), id=1) is None  # Longer than half of the marks' life.
    assert keys.keys() == []
    sink = RedisInvalidate(redis_url, "well:{id}", tombstone_ttl=0.2)
    sink.clear()
    until(lambda: cache.fetch(lambda: "kept", id=1) and keys.exists("well:1"))
    sink.close()


@pytest.mark.parametrize("marked", [True, False], ids=["marks", "no marks"])
def test_readers_writers_and_the_sink_under_load(
    database: str, db: psycopg.Connection, keys: redis.Redis, redis_url: str, marked: bool
) -> None:
    """Readers fill while rows change; when everything has arrived, nothing old is left. Without marks something is."""
    db.execute("INSERT INTO wells SELECT n, '0' FROM generate_series(1, 3) AS n")
    marks = {"tombstone_ttl": 2.0} if marked else {}
    cache = RedisCache(redis_url, "well:{id}", ttl=300, tombstone_ttl=2.0)
    over = threading.Event()

    def read() -> None:
        with psycopg.connect(database, autocommit=True) as connection:

            def load(key: int) -> str:
                row = connection.execute("SELECT name FROM wells WHERE id = %s", (key,)).fetchone()
                time.sleep(0.01)
                assert row is not None
                return str(row[0])

            while not over.is_set():
                for key in (1, 2, 3):
                    cache.fetch(lambda key=key: load(key), id=key)  # type: ignore[misc]

    with deleting("blocking", database, db, redis_url, "well:{id}", **marks) as running:
        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        stale = 0
        for number in range(60):
            db.execute("UPDATE wells SET name = %s", (str(number),))
            running.caught_up(db)
            time.sleep(0.03)  # The loads that had begun before are over.
            stale += sum(keys.get(f"well:{key}") not in (None, json.dumps(str(number))) for key in (1, 2, 3))
        over.set()
        for reader in readers:
            reader.join(20)
    assert (stale == 0) is marked


# The daemon.


def test_the_daemon_deletes_keys(
    database: str, db: psycopg.Connection, keys: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    keys.mset({"well:1": "old", "well:2": "old", "other:1": "kept"})
    lines = f'redis = "{redis_url}"\nkeys = ["well:{{id}}"]\nretries = 3\ntombstone_ttl = 9.0\n'
    config = (
        f'dsn = "{database}"\nslot = "daemon"\n[[subscription]]\ntable = "wells"\nsink = "redis-invalidate"\n{lines}'
    )
    (tmp_path / "cdc.toml").write_text(config)
    daemon = Process(tmp_path, "run", "--config", "cdc.toml")
    try:
        daemon.says("daemon.live")
        until(lambda: not keys.exists("well:1", "well:2"))
        keys.mset({"well:1": "old", "well:2": "kept"})
        db.execute("INSERT INTO wells VALUES (1)")
        until(lambda: not keys.exists("well:1"))
        assert keys.exists("well:2", "other:1", "cdc:tombstone:well:1") == 3
        assert daemon.end() == 0, daemon.errors
    finally:
        daemon.popen.kill()
        daemon.popen.wait(20)
        assert daemon.popen.stdout is not None
        daemon.popen.stdout.close()
    assert "wells to redis-invalidate" in daemon.errors and redis_url not in daemon.errors


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('sink = "redis-invalidate"', "lacks redis or keys"),
        ('sink = "out"\nkeys = ["well:{id}"]', "go with sink"),
        ('sink = "redis-invalidate"\nredis = "redis://:s3cret@h"\nkeys = ["{id}"]', "begins with a column"),
        ('sink = "redis-invalidate"\nredis = "ftp://s3cret"\nkeys = ["well:{id}"]', "the URL cannot be read"),
    ],
)
def test_the_daemon_names_mistakes(tmp_path: Path, lines: str, words: str) -> None:
    (tmp_path / "cdc.toml").write_text(f'dsn = ""\nslot = "s"\n[[subscription]]\ntable = "wells"\n{lines}\n')
    daemon = Process(tmp_path, "run", "--config", "cdc.toml")
    assert daemon.finish()[0] == 2
    assert words in daemon.errors and "s3cret" not in daemon.errors
