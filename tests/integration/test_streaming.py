"""Transactions that the server sends while they run: spooled, delivered at their commit, dropped at their abort."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import Running, until

MANY = 3000
FILL = "INSERT INTO wells SELECT n, repeat('x', 100) FROM generate_series(%s::int, %s::int) n"
STREAMING = ["on", "parallel"]


@pytest.fixture(autouse=True)
def small_work_mem(database: str) -> None:
    """The least that the server may have: everything larger is streamed."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'")


@pytest.fixture(params=STREAMING)
def streaming(request: pytest.FixtureRequest, db: psycopg.Connection) -> str:
    """Both ways; before 16 there is one, and the other says so."""
    asked = str(request.param)
    if asked == "parallel" and db.info.server_version < 160000:
        with (
            pytest.raises(cdc.ConfigurationError, match="needs PostgreSQL 16"),
            cdc.Consumer(db.info.dsn + f" password={db.info.password}", slot="old", streaming="parallel"),
        ):
            pass
        return "on"
    return asked


def streamed(running: Running) -> int:
    """How many open transactions have begun to arrive."""
    session = running.consumer._loop.link.session
    return 0 if session is None or session.stream is None else len(session.stream._holding._streamed)


def places(events: list[Any]) -> list[tuple[int, int, str, Any]]:
    """What identifies each event in any run of the same WAL."""
    return [(e.position.commit_lsn, e.position.ordinal, e.event_type, e.to_dict()["new"]) for e in events]


def spooled(running: Running) -> Any:
    return running.consumer._loop.link.session._spool


def work(db: psycopg.Connection) -> None:
    """Large and small, with sub-transactions that are aborted, a truncate, messages, and updates."""
    with db.transaction():
        db.execute(FILL, (1, MANY))
        with db.transaction(force_rollback=True):
            db.execute(FILL, (10_001, 10_000 + MANY))
        db.execute("SELECT pg_logical_emit_message(true, 'a', 'b')")
        with db.transaction():
            db.execute("UPDATE wells SET name = 'y' || name WHERE id % 2 = 0")
            with db.transaction(force_rollback=True):
                db.execute("DELETE FROM wells WHERE id < 2000")
    db.execute("INSERT INTO wells VALUES (0, 'small')")
    with db.transaction(force_rollback=True):
        db.execute(FILL, (20_001, 20_000 + MANY))
    with db.transaction():
        db.execute("TRUNCATE wells")
        db.execute(FILL, (30_001, 30_000 + MANY))


def test_streaming_changes_nothing_for_handlers(
    kind: str, database: str, db: psycopg.Connection, streaming: str
) -> None:
    """The same WAL with and without: the same events at the same positions, aborted parts never."""
    on, off = ("with_streaming", streaming), ("without", "off")
    for slot, _ in (on, off):
        with Running(kind, database, slot=slot):
            pass
    work(db)
    received = []
    for slot, option in (on, off):
        with Running(kind, database, slot=slot, streaming=option, spool_memory=200_000) as running:
            running.caught_up(db, timeout=60)
            received.append(places(running.events))
            written = spooled(running).written
            assert (written > 1 << 20) == (option != "off")
            assert spooled(running).in_memory == 0
    assert received[0] == received[1]
    assert len(received[0]) == MANY + MANY // 2 + 1 + 1 + MANY


def test_nothing_is_delivered_before_the_commit(
    kind: str, database: str, db: psycopg.Connection, streaming: str
) -> None:
    """Two open transactions between small ones: each is delivered at its commit, in the order of the commits."""
    with Running(kind, database, streaming=streaming) as running:
        with psycopg.connect(database) as one, psycopg.connect(database) as two:
            one.execute(FILL, (1, MANY))
            two.execute(FILL, (10_001, 10_000 + MANY))
            one.execute(FILL, (MANY + 1, 2 * MANY))
            db.execute("INSERT INTO wells VALUES (0)")
            running.caught_up(db)
            until(lambda: streamed(running) >= 2)
            assert [event.key for event in running.events] == [0]
            assert spooled(running).in_memory > 0
            two.commit()
            db.execute("INSERT INTO wells VALUES (-1)")
            running.caught_up(db)
            assert [event.key for event in running.events[1:]] == [*range(10_001, 10_001 + MANY), -1]
            one.commit()
        running.caught_up(db)
        assert [event.key for event in running.events[MANY + 2 :]] == list(range(1, 2 * MANY + 1))
        assert {event.xid for event in running.events[MANY + 2 :]} == {running.events[-1].xid}


def test_a_rollback_gives_back_the_room(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database, spool_memory=100_000) as running:
        with psycopg.connect(database) as other:
            other.execute(FILL, (1, MANY))
            until(lambda: spooled(running).written > 0)
            other.rollback()
        db.execute("INSERT INTO wells VALUES (0)")
        running.caught_up(db)
        until(lambda: not spooled(running)._open)
        assert [event.key for event in running.events] == [0]


def test_what_is_finished_is_confirmed_while_a_large_transaction_is_open(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """The server sends an open transaction again, so it does not hold up the rest."""
    with Running(kind, database) as running, psycopg.connect(database) as other:
        other.execute(FILL, (1, MANY))
        until(lambda: streamed(running) >= 1)
        db.execute("INSERT INTO wells VALUES (0)")
        running.caught_up(db)
        commit_lsn = running.events[0].position.commit_lsn
        until(lambda: running.consumer.health().confirmed_lsn > commit_lsn)
        other.commit()
        running.caught_up(db)
        assert len(running.events) == MANY + 1


@pytest.mark.parametrize("ended", ["while it runs", "while it is delivered"])
def test_a_lost_connection_loses_and_repeats_nothing(
    kind: str, database: str, db: psycopg.Connection, ended: str
) -> None:
    keys: list[int] = []

    def cut() -> None:
        db.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'ingest'")

    def handler(event: Any) -> None:
        keys.append(event.key)
        if ended == "while it is delivered" and len(keys) == 1000:
            cut()

    with Running(kind, database, lambda running: running.on("wells", handler)) as running:
        with psycopg.connect(database) as other:
            other.execute(FILL, (1, MANY))
            until(lambda: streamed(running) >= 1)
            if ended == "while it runs":
                cut()
                until(lambda: running.consumer.health().reconnects == 1)
            other.execute(FILL, (MANY + 1, MANY + 10))
            other.commit()
        running.caught_up(db, timeout=60)
    assert keys == list(range(1, MANY + 11))


def test_a_stop_inside_a_large_transaction_goes_on_behind_the_last_change(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    keys: list[int] = []

    def until_thousand(event: Any) -> None:
        keys.append(event.key)
        if len(keys) == 1000:
            running.consumer.stop() if kind == "blocking" else setattr(running.consumer._loop.link, "is_stopping", True)

    with Running(kind, database, lambda each: each.on("wells", until_thousand)) as running:
        with psycopg.connect(database) as other:
            other.execute(FILL, (1, MANY))
        until(lambda: len(keys) == 1000)
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
    with Running(kind, database) as running:
        running.caught_up(db, timeout=60)
        assert [*keys, *(event.key for event in running.events)] == list(range(1, MANY + 1))


def test_relations_of_a_streamed_transaction_hold_for_it(kind: str, database: str, db: psycopg.Connection) -> None:
    """It changes the table, and its rows before, behind and in others' transactions are read as they were written."""
    db.execute("CREATE TABLE other (id int PRIMARY KEY, a text); ALTER PUBLICATION wells ADD TABLE other")
    with Running(
        kind, database, lambda running: [running.on(t, running.events.append) for t in ("wells", "other")]
    ) as (running):
        db.execute("INSERT INTO other VALUES (1, 'one')")
        with psycopg.connect(database) as large:
            large.execute(FILL, (1, MANY))
            large.execute("ALTER TABLE other ADD COLUMN b int DEFAULT 7, DROP COLUMN a")
            large.execute("INSERT INTO other (id) VALUES (2)")
            large.execute(FILL, (MANY + 1, 2 * MANY))
            until(lambda: streamed(running) >= 1)
            db.execute("INSERT INTO wells VALUES (0)")
            running.caught_up(db)
        db.execute("INSERT INTO other (id) VALUES (3)")
        running.caught_up(db, timeout=60)
    others = [event for event in running.events if event.table == "other"]
    assert [(type(event).__name__, event.to_dict()["new"]) for event in others] == [
        ("Insert", {"id": 1, "a": "one"}),
        ("SchemaChange", None),
        ("Insert", {"id": 2, "b": 7}),
        ("Insert", {"id": 3, "b": 7}),
    ]


FULL_DISK = """
import resource, signal, sys, cdc
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
with cdc.Consumer(sys.argv[1], slot="ingest", spool_memory=50_000, spool_folder=sys.argv[2]) as consumer:
    consumer.subscribe("wells", lambda event: print(event.key, flush=True))
    consumer.run()
"""


def test_a_full_disk_is_a_clear_error_and_loses_nothing(database: str, db: psycopg.Connection, tmp_path: Path) -> None:
    with Running("blocking", database):
        pass
    db.execute("INSERT INTO wells VALUES (0)")
    with psycopg.connect(database) as other:
        other.execute(FILL, (1, MANY))
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, database, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1 and ended.stdout == "0\n"
    assert f"a large transaction cannot be spooled to {tmp_path}: File too large. Make room" in ended.stderr
    assert os.listdir(tmp_path) == []
    with Running("blocking", database) as running:
        running.caught_up(db, timeout=60)
    assert [event.key for event in running.events] == list(range(1, MANY + 1))


def test_a_cache_hears_of_a_large_transaction_at_its_commit(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (5, 'old')")

    def load(connection: psycopg.Connection, key: int) -> Any:
        return connection.execute("SELECT name FROM wells WHERE id = %s", (key,)).fetchone()

    with Running(kind, database) as running:
        cache = running.consumer.cache("wells", ttl=60, by="id")
        running.caught_up(db)
        with psycopg.connect(database) as other:
            other.execute(FILL, (1000, 1000 + MANY))
            other.execute("UPDATE wells SET name = 'new' WHERE id = 5")
            until(lambda: streamed(running) >= 1)
            assert running.do(cache.fetch, 5, load) == ("old",)
        running.caught_up(db, timeout=60)
        assert running.do(cache.fetch, 5, load) == ("new",)
