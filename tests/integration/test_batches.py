"""Lists, bursts and whole transactions: what handlers get, when, and what is acknowledged."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import Running, until
from tests.integration.test_lanes import TERMINATE, Gate, keys, skip_some

BOTH = pytest.mark.parametrize("queue", [None, 1000], ids=["on the loop", "in a queue"])


def all_keys(lists: list[Any]) -> list[int]:
    return [event.key for events in lists for event in events]


@BOTH
def test_a_batch_is_full_or_has_lingered(kind: str, queue: int | None, database: str, db: psycopg.Connection) -> None:
    lists: list[Any] = []

    def prepare(running: Running) -> None:
        running.on("wells", lists.append, batch=10, linger=0.3, queue=queue)

    with Running(kind, database, prepare) as running:
        db.execute("INSERT INTO wells SELECT generate_series(1, 25)")
        running.caught_up(db)
        assert [len(events) for events in lists] == [10, 10, 5]
        db.execute("INSERT INTO wells VALUES (26)")
        db.execute("INSERT INTO wells VALUES (27)")
        running.caught_up(db)
    assert all(isinstance(events, list) for events in lists)
    assert all_keys(lists) == list(range(1, 28))


@BOTH
def test_a_burst_is_one_call(kind: str, queue: int | None, database: str, db: psycopg.Connection) -> None:
    lists: list[Any] = []

    def prepare(running: Running) -> None:
        running.on("wells", lists.append, debounce=1.0, queue=queue)

    with Running(kind, database, prepare) as running:
        for number in range(1, 21):
            db.execute("INSERT INTO wells VALUES (%s)", (number,))
        running.caught_up(db)
    assert len(lists) == 1
    assert all_keys(lists) == list(range(1, 21))


def test_a_burst_that_does_not_end_is_delivered_too(kind: str, database: str, db: psycopg.Connection) -> None:
    lists: list[Any] = []
    with Running(kind, database, lambda running: running.on("wells", lists.append, debounce=0.2)) as running:
        number, deadline = 0, time.monotonic() + 20
        while not lists:
            number += 1
            db.execute("INSERT INTO wells VALUES (%s)", (number,))
            assert time.monotonic() < deadline, "waited in vain"
        running.caught_up(db)
    assert all_keys(lists) == list(range(1, number + 1))


@BOTH
def test_nothing_of_a_list_is_acknowledged_before_its_handler_returned(
    kind: str, queue: int | None, database: str, db: psycopg.Connection
) -> None:
    lists: list[Any] = []

    def fails_later(events: list[Any]) -> None:
        if len(lists) == 1:
            raise ValueError("no room")
        lists.append(events)

    def prepare(running: Running) -> None:
        running.on("wells", fails_later, batch=4, linger=5, queue=queue)

    with Running(kind, database, prepare) as running:
        db.execute("INSERT INTO wells SELECT generate_series(1, 10)")
        with pytest.raises(cdc.HandlerError, match="no room"):
            running.caught_up(db)
        with pytest.raises(cdc.HandlerError):
            running.do(running.consumer.stop)
    assert all_keys(lists) == [1, 2, 3, 4]
    with Running(kind, database) as again:
        again.caught_up(db)
    assert keys(again.events) == [5, 6, 7, 8, 9, 10]


def test_what_still_gathers_at_a_stop_comes_again(kind: str, database: str, db: psycopg.Connection) -> None:
    direct: list[Any] = []

    def prepare(running: Running) -> None:
        running.on("wells", running.events.append, debounce=60.0)
        running.on("wells", direct.append)

    with Running(kind, database, prepare) as running:
        db.execute("INSERT INTO wells VALUES (1), (2)")
        until(lambda: len(direct) == 2)
    assert running.events == []
    with Running(kind, database) as again:
        again.caught_up(db)
    assert keys(again.events) == [1, 2]


def test_lists_go_out_when_the_connection_is_lost(kind: str, database: str, db: psycopg.Connection) -> None:
    lists: list[Any] = []
    direct: list[Any] = []

    def prepare(running: Running) -> None:
        running.on("wells", lists.append, debounce=60.0)
        running.on("wells", direct.append)

    with Running(kind, database, prepare) as running:
        db.execute("INSERT INTO wells VALUES (1), (2)")
        until(lambda: len(direct) == 2)
        assert not lists
        until(lambda: db.execute(TERMINATE).fetchone())
        until(lambda: lists)
        running.caught_up(db)
    assert all_keys(lists) == [1, 2] == keys(direct)


@BOTH
def test_a_transaction_comes_whole(kind: str, queue: int | None, database: str, db: psycopg.Connection) -> None:
    got: list[Any] = []

    def prepare(running: Running) -> None:
        running.on("wells", got.append, transaction=True, queue=queue)

    with Running(kind, database, prepare) as running:
        with db.transaction():
            db.execute("INSERT INTO wells VALUES (1), (2)")
            db.execute("UPDATE wells SET name = 'x' WHERE id = 1")
        db.execute("DELETE FROM wells WHERE id = 2")
        with db.transaction():
            db.execute("INSERT INTO wells VALUES (3)")
            db.execute("ALTER TABLE wells ADD COLUMN more int")
            db.execute("INSERT INTO wells VALUES (4)")
        db.execute("TRUNCATE wells")
        running.caught_up(db)
    assert [[type(event).__name__ for event in each] for each in got] == [
        ["Insert", "Insert", "Update"],
        ["Delete"],
        ["Insert", "SchemaChange", "Insert"],
        ["Truncate"],
    ]
    assert all(isinstance(each, cdc.CommittedTransaction) for each in got)
    first, second = got[:2]
    assert first.xid == first.events[0].xid and first.commit_time == first.events[0].commit_time
    assert (first.previous, first.position.ordinal, len(first)) == (None, 3, 3)
    assert second.previous == first.position
    assert '"eventType": "DELETE"' in second.to_json()


@BOTH
def test_a_large_transaction_is_larger_than_its_queue(
    kind: str, queue: int | None, database: str, db: psycopg.Connection
) -> None:
    """It is streamed while it runs, too."""
    got: list[Any] = []

    def prepare(running: Running) -> None:
        running.on("wells", got.append, transaction=True, queue=queue and 50)

    db.execute("SET logical_decoding_work_mem = '64kB'")
    with Running(kind, database, prepare) as running:
        db.execute("INSERT INTO wells SELECT n, repeat('x', 100) FROM generate_series(1, 5000) n")
        db.execute("INSERT INTO wells VALUES (5001)")
        running.caught_up(db)
    assert [len(each) for each in got] == [5000, 1]
    assert all_keys(got) == list(range(1, 5002))


def test_a_transaction_stays_whole_over_a_lost_connection(kind: str, database: str, db: psycopg.Connection) -> None:
    """A full queue beside it stops the stream in the middle of it, where the connection is lost."""
    got: list[Any] = []
    gate = Gate(kind)

    def prepare(running: Running) -> None:
        running.on("wells", got.append, transaction=True)
        running.on("wells", gate.handler, queue=5)

    with Running(kind, database, prepare) as running:
        db.execute("INSERT INTO wells SELECT generate_series(1, 100)")
        db.execute("INSERT INTO wells VALUES (101)")
        until(lambda: running.consumer._loop.lanes.stalled)
        until(lambda: db.execute(TERMINATE).fetchone())
        until(lambda: running.consumer.health().reconnects == 1)
        gate.let(2)
        time.sleep(1)  # Streaming again, with nothing to hand out yet.
        assert got == []
        gate.open()
        running.caught_up(db)
    assert [len(each) for each in got] == [100, 1]
    assert keys(gate.left) == list(range(1, 102)) == all_keys(got)


def test_a_transaction_comes_again_as_a_whole_when_a_queue_was_stopped_within_it(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    gate = Gate(kind)
    wholes: list[Any] = []

    def prepare(running: Running) -> None:
        running.on("wells", gate.handler, queue=100)
        running.on("wells", wholes.append, transaction=True)

    with Running(kind, database, prepare):
        db.execute("INSERT INTO wells SELECT generate_series(1, 5)")
        db.execute("INSERT INTO wells SELECT generate_series(6, 7)")
        gate.let(2)
        until(lambda: len(gate.entered) == 3 and len(wholes) == 2)
        threading.Timer(0.5, gate.let).start()
    assert keys(gate.left) == [1, 2, 3]
    gate.open()
    with Running(kind, database, prepare) as again:
        again.caught_up(db)
    assert [keys(list(each)) for each in wholes] == [[1, 2, 3, 4, 5], [6, 7]] * 2
    assert keys(gate.left) in ([1, 2, 3, 1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7])


def test_a_prepared_transaction_is_confirmed_when_its_queue_has_finished(
    kind: str, database: str, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server sends its changes once, when it is prepared, so even a crash behind its commit must find them."""
    monkeypatch.setattr("cdc.lanes._GRACE", 0.3)
    two_phase = db.info.server_version >= 150000
    for transaction in (True, False):
        gate = Gate(kind)

        def prepare(running: Running, gate: Gate = gate, transaction: bool = transaction) -> None:
            running.on("wells", gate.handler, transaction=transaction, queue=10)

        key = 10 if transaction else 20
        with Running(kind, database, prepare, two_phase=two_phase):
            with db.transaction():
                db.execute("INSERT INTO wells VALUES (%s), (%s)", (key, key + 1))
                db.execute("PREPARE TRANSACTION 'one'")
            gate.let(1 if two_phase else 0)  # What tells that it was prepared.
            until(lambda gate=gate: len(gate.entered) == (1 if two_phase else 0))
            db.execute("COMMIT PREPARED 'one'")
            until(lambda gate=gate: len(gate.entered) == (2 if two_phase else 1))
            time.sleep(1.5)  # Longer than a save.
        gate.open()
        with Running(kind, database, two_phase=two_phase) as again:
            again.caught_up(db)
        changes = [event for event in again.events if isinstance(event, cdc.Insert)]
        assert keys(changes) == [key, key + 1]


def test_a_gap_between_transactions_comes_by_itself(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database):
        pass
    skip_some(db)
    got: list[Any] = []

    def prepare(running: Running) -> None:
        running.on("wells", got.append, transaction=True)

    with Running(kind, database, prepare, on_gap="deliver") as running:
        db.execute("INSERT INTO wells VALUES (1), (2)")
        running.caught_up(db)
    assert [type(each).__name__ for each in got] == ["Gap", "CommittedTransaction"]
    assert all_keys(got[1:]) == [1, 2]
