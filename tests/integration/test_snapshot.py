"""Snapshots: the rows that a table has, merged with its changes while both go on."""

from __future__ import annotations

import random
import threading
from typing import Any

import psycopg
import pytest

import cdc
from cdc import snapshotting
from tests.harness import Running


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshotting, "CHUNK_ROWS", 20)


class Kept:
    """A handler that keeps the table by key, and everything that it was told."""

    def __init__(self) -> None:
        self.rows: dict[Any, cdc.Row] = {}
        self.events: list[Any] = []

    def __call__(self, event: Any) -> None:
        self.events.append(event)
        event.apply(self.rows)

    @property
    def reads(self) -> list[cdc.Read]:
        return [event for event in self.events if isinstance(event, cdc.Read)]

    def table(self) -> dict[Any, dict[str, Any]]:
        return {key: dict(row) for key, row in self.rows.items()}


def table(db: psycopg.Connection, key: str = "id", name: str = "wells") -> dict[Any, dict[str, Any]]:
    cursor = db.execute(f"SELECT * FROM {name}")
    names = [column.name for column in cursor.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    keys = key.split(", ")
    return {row[key] if len(keys) == 1 else tuple(row[each] for each in keys): row for row in rows}


def follow(running: Running, kept: Any, name: str = "wells", **options: Any) -> cdc.Subscription:
    return running.subscribe(name, kept, snapshot=True, **options)


def complete(running: Running, subscription: cdc.Subscription, timeout: float = 60) -> None:
    running.do(running.consumer.wait_for_snapshot, subscription, timeout=timeout)


def nothing(running: Running) -> None:
    """A consumer whose subscriptions come later."""


def test_rows_that_were_there(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells SELECT n, 'well ' || n, NULL, n / 4.0, NULL FROM generate_series(1, 105) n")
    kept = Kept()
    with Running(kind, database, nothing) as running:
        subscription = follow(running, kept)
        complete(running, subscription)
        assert kept.table() == table(db)
        assert [event.key for event in kept.reads] == list(range(1, 106))
        assert (subscription.snapshot.rows, subscription.snapshot.chunks) == (105, 6)
        assert subscription.snapshot.done
        db.execute("UPDATE wells SET name = 'new' WHERE id = 3")
        running.caught_up(db)
        assert kept.table() == table(db)
    positions = [event.position for event in kept.events]
    assert positions == sorted(set(positions))
    assert [event.previous for event in kept.events] == [None, *positions[:-1]]


class Writer(threading.Thread):
    """Changes rows at random until it is stopped; each version of a key is higher than the one before."""

    def __init__(self, dsn: str, seed: int, keys: int = 300) -> None:
        super().__init__(daemon=True)
        self._dsn, self._keys = dsn, keys
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self.failure: BaseException | None = None

    def __enter__(self) -> Writer:
        self.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stopping.set()
        self.join(30)
        assert self.failure is None

    def run(self) -> None:
        try:
            with psycopg.connect(self._dsn, autocommit=True) as db:
                while not self._stopping.is_set():
                    self._write(db)
        except BaseException as error:
            self.failure = error

    def _write(self, db: psycopg.Connection) -> None:
        one, other = self._random.randint(1, self._keys), self._random.randint(1, self._keys)
        what = self._random.random()
        if what < 0.3:
            db.execute(
                "INSERT INTO wells VALUES (%s, nextval('versions'), repeat('x', 10)) ON CONFLICT (id) DO NOTHING",
                (one,),
            )
        elif what < 0.6:
            db.execute("UPDATE wells SET version = nextval('versions') WHERE id = %s", (one,))
        elif what < 0.75:
            db.execute("DELETE FROM wells WHERE id = %s", (one,))
        elif what < 0.9:
            db.execute(
                "UPDATE wells SET id = %s, version = nextval('versions') WHERE id = %s "
                "AND NOT EXISTS (SELECT FROM wells WHERE id = %s)",
                (other, one, other),
            )
        elif what < 0.95:
            with db.transaction():
                db.execute("UPDATE wells SET version = nextval('versions') WHERE id BETWEEN %s AND %s", (one, one + 20))
                with db.transaction():
                    db.execute("DELETE FROM wells WHERE id = %s", (other,))
        elif what < 0.97:
            with db.transaction():
                db.execute("TRUNCATE wells")
                db.execute(
                    "INSERT INTO wells SELECT n, nextval('versions'), %s FROM generate_series(1, %s, 2) n",
                    (big(self._random), self._keys),
                )
        else:
            db.execute("UPDATE wells SET notes = %s WHERE id = %s", (big(self._random), one))


def big(source: random.Random) -> str:
    """A text that is kept apart from its row, so that updates of others do not send it."""
    return "".join(chr(source.randrange(33, 2000)) for _ in range(3000))


class Watching(Kept):
    """Also finds a value that goes back."""

    def __init__(self) -> None:
        super().__init__()
        self.back: list[Any] = []
        self.newest: dict[Any, int] = {}

    def __call__(self, event: Any) -> None:
        new = getattr(event, "new", None)
        if new is not None:
            if new["version"] < self.newest.get(event.key, 0):
                self.back.append(event)
            self.newest[event.key] = new["version"]
        super().__call__(event)


VERSIONED = """
DROP TABLE wells; CREATE SEQUENCE versions;
CREATE TABLE wells (id int PRIMARY KEY, version bigint, notes text);
ALTER TABLE wells ALTER notes SET STORAGE EXTERNAL;
ALTER PUBLICATION wells ADD TABLE wells;
INSERT INTO wells SELECT n, nextval('versions'), repeat('long', 1000) FROM generate_series(1, 300) n;
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_writer_at_work(kind: str, database: str, db: psycopg.Connection, seed: int) -> None:
    db.execute(VERSIONED)
    kept = Watching()
    with Running(kind, database, nothing) as running:
        with Writer(database, seed):
            for _ in range(3):
                kept = Watching()
                subscription = follow(running, kept)
                complete(running, subscription)
                running.caught_up(db)
                subscription.close()
            kept = Watching()
            subscription = follow(running, kept)
            complete(running, subscription)
        running.caught_up(db)
    assert kept.table() == table(db)
    assert not kept.back
    assert kept.reads
