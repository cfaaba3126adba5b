"""Several worker processes, each with a consumer and a cache of its own, and workers that share a Redis."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import psycopg
import pytest
import redis

import cdc
from cdc.sinks import RedisCache, RedisInvalidate
from cdc.testing import Sandbox
from tests.harness import until

WORKERS = 3


def name_of(connection: psycopg.Connection, key: int) -> str | None:
    row = connection.execute("SELECT name FROM wells WHERE id = %s", (key,)).fetchone()
    return None if row is None else row[0]


def work(dsn: str, pipe: Connection) -> None:
    """A worker: answers with the name of the well it is asked for, and with what its cache has done."""
    with cdc.Consumer(dsn, slot=None) as consumer:
        names = consumer.cache("wells", ttl=300, by="id")
        consumer.start()
        until(lambda: names.is_live)
        pipe.send("live")
        while (key := pipe.recv()) is not None:
            pipe.send((names.fetch(key, name_of), names.counters.hits, names.counters.invalidations))


def work_on_redis(dsn: str, url: str, pipe: Connection) -> None:
    """A worker that reads Redis, and keeps a small cache of its own that the channel clears."""
    cache = RedisCache(url, "well:{id}", ttl=300, tombstone_ttl=0.2)
    with psycopg.connect(dsn, autocommit=True) as db, redis.Redis.from_url(url).pubsub() as heard:
        heard.subscribe("gone")
        assert heard.get_message(timeout=20) is not None
        local: dict[str, Any] = {}
        pipe.send("live")
        while (key := pipe.recv()) is not None:
            while (message := heard.get_message()) is not None:
                said = json.loads(message["data"])
                for gone in said.get("keys", list(local)):
                    local.pop(gone, None)
            if f"well:{key}" not in local:
                local[f"well:{key}"] = cache.fetch(lambda key=key: name_of(db, key), id=key)
            pipe.send(local[f"well:{key}"])


@contextmanager
def workers(target: Any, *arguments: Any) -> Iterator[list[Connection]]:
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(WORKERS):
        ours, theirs = context.Pipe()
        process = context.Process(target=target, args=(*arguments, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        for pipe in pipes:
            assert pipe.poll(60) and pipe.recv() == "live"
        yield pipes
        for pipe in pipes:
            pipe.send(None)
        for process in processes:
            process.join(20)
        assert [process.exitcode for process in processes] == [0] * WORKERS
    finally:
        for process in processes:
            process.kill()


def ask(pipe: Connection, key: int) -> Any:
    pipe.send(key)
    assert pipe.poll(20)
    return pipe.recv()


def test_every_worker_hears_of_a_change(database: str, db: psycopg.Connection, server: Sandbox) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'old'), (2, 'same')")
    slots = "SELECT count(*) FROM pg_replication_slots WHERE temporary AND database = current_database()"
    with workers(work, database) as pipes:
        assert db.execute(slots).fetchone() == (WORKERS,)
        for pipe in pipes:
            assert [ask(pipe, key)[0] for key in (1, 2, 1, 2)] == ["old", "same"] * 2
        db.execute("UPDATE wells SET name = 'new' WHERE id = 1")
        for pipe in pipes:
            until(lambda pipe=pipe: ask(pipe, 1)[0] == "new")
            name, hits, invalidations = ask(pipe, 2)
            assert (name, invalidations) == ("same", 1) and hits >= 3
    until(lambda: db.execute(slots).fetchone() == (0,))


def test_workers_share_a_redis_that_one_consumer_keeps_clear(
    database: str, db: psycopg.Connection, redis_url: str
) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'old')")
    sink = RedisInvalidate(redis_url, "well:{id}", publish="gone", tombstone_ttl=0.2)
    with cdc.Consumer(database, slot="ingest") as consumer, workers(work_on_redis, database, redis_url) as pipes:
        consumer.subscribe("wells", sink)
        consumer.start()
        until(lambda: consumer.health().status is cdc.Status.LIVE)
        assert [ask(pipe, 1) for pipe in pipes] == ["old"] * WORKERS
        db.execute("UPDATE wells SET name = 'new'")
        consumer.wait_for(cdc.current_lsn(db))
        for pipe in pipes:
            until(lambda pipe=pipe: ask(pipe, 1) == "new")
    sink.close()


def test_a_forked_worker_is_told_to_make_its_own(database: str, db: psycopg.Connection) -> None:
    with cdc.Consumer(database, slot=None) as consumer:
        cache = consumer.cache("wells", ttl=300, by="id")
        consumer.start()
        until(lambda: cache.is_live)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                consumer.invalidate({}, "wells")
            except cdc.ConfigurationError as error:
                os.write(write, str(error).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as said:
            assert "belongs to the process that made it: make one in each child" in said.read()
        os.waitpid(child, 0)
        with pytest.raises(ChildProcessError):
            os.waitpid(child, 0)
        assert cache.fetch(1, name_of) is None
