"""What becomes of a store when its table is altered, replaced, renamed or dropped, and when changes are missing."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

import cdc
from cdc import filling
from tests.harness import until
from tests.integration.test_snapshot import table
from tests.integration.test_store import Stores, plain


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "CHUNK_ROWS", 20)
    monkeypatch.setattr(filling, "_SLICE", 7)


ROWS = "INSERT INTO wells SELECT n, 'w' || n FROM generate_series(1, 50) n"


def effects(told: list[cdc.StoreChange]) -> list[tuple[Any, str]]:
    return [(each.key, each.effect.value) for each in told]


CHANGES = {
    "dropped": "ALTER TABLE wells DROP notes",
    "added": "ALTER TABLE wells ADD colour text DEFAULT 'red'",
    "another type": "ALTER TABLE wells ALTER depth TYPE text USING 'deep'",
    "renamed": "ALTER TABLE wells RENAME name TO called",
    "type of the key": "ALTER TABLE wells ALTER id TYPE numeric",
    "another key": "UPDATE wells SET depth = id; ALTER TABLE wells DROP CONSTRAINT wells_pkey, "
    "ADD PRIMARY KEY (id, depth)",
    "dropped and added": "BEGIN; ALTER TABLE wells DROP notes; ALTER TABLE wells ADD notes int DEFAULT 7; "
    "DELETE FROM wells WHERE id = 3; COMMIT",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_table_that_is_altered(kind: str, database: str, db: psycopg.Connection, change: str) -> None:
    """With a change of a row behind it or without one; readers see the old rows until the new ones are there."""
    db.execute(ROWS)
    key = "id, depth" if change == "another key" else "id"
    with Stores(kind, database) as it:
        index = it.store.index("depth")
        it.live()
        db.execute(CHANGES[change])
        until(lambda: it.store.is_live and plain(it.store) == table(db, key))
        db.execute("UPDATE wells SET id = id + 1000 WHERE id = 7")
        it.settled(db)
        until(lambda: plain(it.store) == table(db, key))
        assert sum(map(len, index.values())) == len(it.store) >= 49


def test_a_table_that_is_made_anew(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROWS)
    with Stores(kind, database, on_gap="deliver") as it:
        it.live()
        it.told.clear()
        with db.transaction():
            db.execute(
                "DROP TABLE wells; CREATE TABLE wells (id int PRIMARY KEY, name text, project_id uuid, depth numeric, "
                "notes text); INSERT INTO wells VALUES (1, 'w1'), (2, 'other'); ALTER PUBLICATION wells ADD TABLE wells"
            )
        until(lambda: it.store.is_live and plain(it.store) == table(db))
        assert set(effects(it.told)) == {(n, "LEAVE") for n in range(3, 51)} | {(2, "STAY")}
        db.execute("INSERT INTO wells VALUES (3)")
        it.settled(db)
        until(lambda: plain(it.store) == table(db))


@pytest.mark.parametrize("change", ["DROP TABLE wells", "ALTER TABLE wells RENAME TO holes"])
def test_a_table_that_is_gone(kind: str, database: str, db: psycopg.Connection, change: str) -> None:
    db.execute(ROWS)
    it = Stores(kind, database)
    with pytest.raises(cdc.SubscriptionError, match="table public.wells is not published any more"), it:
        it.live()
        db.execute(change)
        until(lambda: it.store.status.startswith("stopped: table public.wells"))
        assert not it.store.is_live


def test_changes_that_are_missing(kind: str, database: str, db: psycopg.Connection) -> None:
    """A temporary slot goes with its connection: the table is read again, and only what differs is told."""
    db.execute(ROWS)
    with Stores(kind, database, slot=None) as it:
        index = it.store.index("name")
        it.live()
        it.told.clear()
        db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'walsender'"
        )
        db.execute("DELETE FROM wells WHERE id = 1; UPDATE wells SET name = 'new' WHERE id = 2")
        db.execute("INSERT INTO wells VALUES (60)")
        until(lambda: it.store.is_live and plain(it.store) == table(db))
        assert sorted(effects(it.told)) == [(1, "LEAVE"), (2, "STAY"), (60, "ENTER")]
        assert it.running.consumer.health().reconnects == 1
        assert index["new"][0]["id"] == 2 and index["w1"] == ()


def test_a_slot_made_anew(kind: str, database: str, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old rows stay readable, as of their position, until the new ones are there."""
    db.execute(ROWS)
    go, read = threading.Event(), filling.LineReader.read

    def waiting(*arguments: Any) -> Any:
        go.wait(20)
        return read(*arguments)

    with Stores(kind, database, on_gap="deliver") as it:
        it.live()
        position = it.store.position
        monkeypatch.setattr(filling.LineReader, "read", waiting)
        drop_slot(db)
        until(lambda: it.store.status.startswith("filled anew"))
        db.execute("DELETE FROM wells WHERE id = 3")
        it.running.caught_up(db)
        assert 3 in it.store and len(it.store) == 50 and not it.store.is_live
        assert it.store.position == position and it.told[-1].effect == "ENTER"
        go.set()
        until(lambda: it.store.is_live and plain(it.store) == table(db))
        assert effects(it.told)[50:] == [(3, "LEAVE")]


def drop_slot(db: psycopg.Connection) -> None:
    """Drop the slot of a consumer that goes on to use it."""

    def dropped() -> bool:
        db.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'ingest' AND active"
        )
        try:
            db.execute("SELECT pg_drop_replication_slot('ingest')")
        except psycopg.errors.ObjectInUse:
            return False
        return True

    until(dropped)
