"""Stores: a table in memory, kept in step with the stream."""

from __future__ import annotations

import random
import threading
from typing import Any

import psycopg
import pytest

import cdc
from cdc import filling
from tests.harness import Running
from tests.integration.test_snapshot import VERSIONED, Writer, table


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "CHUNK_ROWS", 20)
    monkeypatch.setattr(filling, "_SLICE", 7)
    monkeypatch.setattr(filling, "_AGAIN", 5)


def live(running: Running, store: cdc.Store, timeout: float = 30) -> None:
    running.do(store.wait_live, timeout=timeout)


def plain(store: Any) -> dict[Any, dict[str, Any]]:
    return {key: dict(row) for key, row in store.items()}


class Stores:
    """Runs a consumer with one store of wells."""

    def __init__(self, kind: str, dsn: str, *, late: bool = False, **options: Any) -> None:
        names = ("filter", "subject", "model", "name")
        self.asked = {name: options.pop(name) for name in names if name in options}
        self.table = options.pop("table", "wells")
        self.late = late
        self.store: Any = None
        self.told: list[cdc.StoreChange] = []
        self.running = Running(kind, dsn, self._prepare, **options)

    def _prepare(self, running: Running) -> None:
        if not self.late:
            self._make()

    def _make(self) -> None:
        self.store = self.running.consumer.store(self.table, **self.asked)
        self.store.on_change(self.told.append)

    def __enter__(self) -> Stores:
        self.running.__enter__()
        if self.late:
            self._make()
        return self

    def __exit__(self, *error: Any) -> None:
        self.running.__exit__(*error)

    def live(self) -> None:
        live(self.running, self.store)

    def settled(self, db: psycopg.Connection) -> None:
        self.running.caught_up(db)
        self.live()


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("slot", ["ingest", None], ids=["named", "temporary"])
def test_a_table_in_memory(kind: str, database: str, db: psycopg.Connection, late: bool, slot: str | None) -> None:
    db.execute("INSERT INTO wells SELECT n, 'well ' || n, NULL, n / 4.0, NULL FROM generate_series(1, 105) n")
    with Stores(kind, database, late=late, slot=slot) as it:
        it.live()
        assert it.store[33]["name"] == "well 33" and 106 not in it.store and len(it.store) == 105
        assert plain(it.store) == table(db)
        assert sorted(it.store) == sorted(it.store.keys()) == list(range(1, 106))
        assert {(each.key, each.effect, each.old, each.position) for each in it.told} == {
            (n, cdc.Effect.ENTER, None, None) for n in range(1, 106)
        }
        it.told.clear()
        db.execute("UPDATE wells SET name = 'new' WHERE id = 3; UPDATE wells SET id = 300 WHERE id = 4")
        db.execute("DELETE FROM wells WHERE id = 5; INSERT INTO wells VALUES (400)")
        it.running.caught_up(db)
        assert plain(it.store) == table(db)
        assert [(each.key, each.effect.value) for each in it.told] == [
            (3, "STAY"), (4, "LEAVE"), (300, "ENTER"), (5, "LEAVE"), (400, "ENTER"),
        ]  # fmt: skip
        assert it.told[0].old["name"] == "well 3" and it.told[0].new["name"] == "new"
        assert it.store.position == it.told[-1].position
        db.execute("TRUNCATE wells")
        it.running.caught_up(db)
        assert len(it.store) == 0 and len(it.told) == 5 + 105
        assert it.store.is_live and it.store.status == "live"


@pytest.mark.parametrize("seed", range(2))
def test_a_random_writer_and_restarts_of_the_walsender(
    kind: str, database: str, db: psycopg.Connection, seed: int
) -> None:
    db.execute(VERSIONED)
    source = random.Random(seed)
    with Stores(kind, database) as it, Stores(kind, database, slot="other", filter="version=gt.400") as part:
        kept: dict[Any, Any] = {}

        def keep(change: cdc.StoreChange) -> None:
            assert (kept.pop(change.key, None) is None) == (change.effect == "ENTER")
            if change.new is not None:
                kept[change.key] = dict(change.new)

        part.store.on_change(keep)
        with Writer(database, seed):
            for _ in range(6):
                threading.Event().wait(source.random() * 0.4)
                db.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND backend_type = 'walsender'"
                )
        it.settled(db)
        part.settled(db)
        assert plain(it.store) == table(db)
        shown = {key: row for key, row in table(db).items() if row["version"] > 400}
        assert plain(part.store) == shown == kept
