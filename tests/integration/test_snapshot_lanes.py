"""Rows of a snapshot for handlers with queues and lists, and for those that park what they cannot take."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

import cdc
from cdc import snapshotting
from tests.harness import Running, until
from tests.integration.test_snapshot import Kept, complete, follow, nothing, table


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshotting, "CHUNK_ROWS", 20)


@pytest.fixture(autouse=True)
def filled(db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells SELECT n FROM generate_series(1, 130) n")


@pytest.mark.parametrize(
    "terms", [{"queue": 5}, {"batch": 7, "linger": 0.01}, {"queue": 50, "batch": 7}, {"debounce": 0.05}], ids=str
)
def test_rows_in_queues_and_lists(kind: str, database: str, db: psycopg.Connection, terms: dict[str, Any]) -> None:
    kept = Kept()

    def takes(events: Any) -> None:
        for event in events if isinstance(events, list) else [events]:
            kept(event)

    with Running(kind, database, nothing) as running:
        subscription = follow(running, takes, **terms)
        db.execute("UPDATE wells SET name = 'new' WHERE id % 2 = 0; DELETE FROM wells WHERE id % 3 = 0")
        complete(running, subscription)
        assert subscription.snapshot.rows == len(kept.reads)
        running.caught_up(db)
        assert kept.table() == table(db)


def test_what_a_queue_has_not_finished_comes_again(kind: str, database: str, db: psycopg.Connection) -> None:
    kept, go = Kept(), threading.Event()

    def slow(event: Any) -> None:
        if isinstance(event, cdc.Read) and event.key == 50:
            go.wait(30)
            raise RuntimeError("killed")
        kept(event)

    def prepare(running: Running) -> None:
        running.consumer.on("wells", snapshot=True, name="queued", queue=1000)(slow)

    with pytest.raises(cdc.HandlerError), Running(kind, database, prepare) as running:
        (subscription,) = running.consumer.subscriptions
        until(lambda: subscription.snapshot.rows == 130)
        assert not subscription.snapshot.done
        until(lambda: db.execute("SELECT bookmark->>'rows' FROM cdc.snapshots").fetchone() == ("40",))
        go.set()
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
    assert sorted(kept.rows) == list(range(1, 50))
    again = Kept()

    def anew(running: Running) -> None:
        running.consumer.on("wells", snapshot=True, name="queued", queue=1000)(again)

    with Running(kind, database, anew) as running:
        complete(running, running.consumer.subscriptions[0])
    assert [event.key for event in again.reads] == list(range(41, 131))


def test_a_row_that_is_parked_can_be_handed_over_again(kind: str, database: str, db: psycopg.Connection) -> None:
    kept, broken = Kept(), [True]

    def fails(event: Any) -> None:
        if event.key == 30 and broken[0]:
            raise RuntimeError("not now")
        kept(event)

    with Running(kind, database, nothing) as running:
        complete(running, follow(running, fails, name="parking", on_error="park"))
        assert len(kept.rows) == 129
        (parked,) = running.do(running.consumer.parked)
        assert parked.operation == "READ"
        broken[0] = False
        running.do(running.consumer.retry_parked, parked.id)
        until(lambda: 30 in kept.rows)
        assert kept.table() == table(db)


def test_several_tables_are_refused(kind: str, database: str) -> None:
    with Running(kind, database, nothing) as running:
        with pytest.raises(cdc.SubscriptionError, match="read one table: subscribe to each of public.* by its name"):
            follow(running, print, "public.*")
