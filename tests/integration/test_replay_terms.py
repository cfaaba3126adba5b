"""Replays of consumers with queues, lists, whole transactions, families, messages, attempts and iterations."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdc
from cdc.recording import Recording
from cdc.testing import async_replay, check_recording, check_stream, replay
from tests.harness import Running, until
from tests.integration.test_replay import run_cdc
from tests.replayed import Recorded, printed, replayed

FILL = "INSERT INTO wells (id, notes) SELECT n, repeat('x', 100) FROM generate_series(%s::int, %s::int) n"
EMIT = "SELECT pg_logical_emit_message(%s, 'outbox', %s)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stream.cdc"


def ended(running: Running) -> bool:
    return running.consumer.health().status is cdc.Status.STOPPED


def small_work_mem(db: psycopg.Connection, dsn: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    db.execute(f"ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'")


def whole(transaction: Any) -> Any:
    """All that there is of a whole transaction, or of what stands between two."""
    if not isinstance(transaction, cdc.CommittedTransaction):
        return printed(transaction)
    return [printed(event) for event in transaction.events], transaction.to_json()


def texts(path: Path) -> list[Any]:
    """Rows and messages of a replay, in their order."""
    seen: list[Any] = []
    again = replay(path)
    again.on("wells")(seen.append)
    again.on_message("*")(seen.append)
    again.run()
    return told(seen)


def told(events: list[Any]) -> list[Any]:
    return [event.to_json() if isinstance(event, cdc.Message) else event.key for event in events]


def hearing(running: Running) -> None:
    running.on("wells", running.events.append)
    running.consumer.on_message("*")(running.events.append)


# Queues, lists, whole transactions.


def test_a_queue_has_all_of_it_before_the_replay_ends(
    kind: str, database: str, db: psycopg.Connection, path: Path
) -> None:
    prepare = lambda running: running.on("wells", running.events.append, queue=5)  # noqa: E731
    with Recorded(path, kind, database, prepare) as running:
        db.execute(FILL, (1, 300))
        running.caught_up(db)
    seen: list[Any] = []
    threads: set[str] = set()

    def slow(event: Any) -> None:
        threads.add(threading.current_thread().name)
        threading.Event().wait(0.001)
        seen.append(printed(event))

    again = replay(path)
    again.on("wells", queue=3)(slow)
    again.run()
    assert seen == running.printed and len(seen) == 300
    assert threads != {threading.current_thread().name}
    assert replayed(path) == running.printed  # and whoever has no queue sees the same


def test_a_queue_of_coroutines(database: str, db: psycopg.Connection, path: Path) -> None:
    with Recorded(path, "asyncio", database) as running:
        db.execute(FILL, (1, 100))
        running.caught_up(db)
    seen: list[Any] = []

    async def slow(event: Any) -> None:
        await asyncio.sleep(0.001)
        seen.append(printed(event))

    async def run() -> None:
        again = async_replay(path)
        again.on("wells", queue=3)(slow)
        await again.run()

    asyncio.run(run())
    assert seen == running.printed and len(seen) == 100


@pytest.mark.parametrize("options", [{"batch": 40, "linger": 60.0}, {"debounce": 60.0}], ids=["batch", "debounce"])
@pytest.mark.parametrize("queue", [None, 50], ids=["loop", "queue"])
def test_the_last_list_is_handed_over_at_the_end(
    database: str, db: psycopg.Connection, path: Path, options: Any, queue: int | None
) -> None:
    with Recorded(path, "blocking", database) as running:
        for number in range(0, 90, 10):
            db.execute(FILL, (number, number + 9))
        running.caught_up(db)
    lists: list[list[Any]] = []
    again = replay(path)
    again.on("wells", queue=queue, **options)(lists.append)
    again.run()
    assert [printed(event) for each in lists for event in each] == running.printed
    if queue is None:
        assert [len(each) for each in lists] == ([40, 40, 10] if "batch" in options else [90])
    assert check_stream(lists).is_sound and check_stream(lists).events == 90


def test_whole_transactions(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    small_work_mem(db, database)
    db.execute("CREATE TABLE logs (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE logs")

    def prepare(running: Running) -> None:
        running.consumer.on_transaction("wells", "logs")(running.events.append)

    with Recorded(path, kind, database, prepare) as running:
        with db.transaction():
            db.execute("INSERT INTO wells (id) VALUES (1), (2)")
            db.execute("INSERT INTO logs VALUES (1)")
        with db.transaction():  # streamed
            db.execute(FILL, (10, 2000))
            db.execute("TRUNCATE logs")
        db.execute("DELETE FROM wells WHERE id = 1")
        running.caught_up(db)
    live = [whole(each) for each in running.events]
    assert [len(each.events) for each in running.events] == [3, 1992, 1]

    def again(**options: Any) -> list[Any]:
        seen: list[Any] = []
        replayed = replay(path, **options)
        replayed.on_transaction("wells", "logs")(seen.append)
        replayed.run()
        return seen

    assert [whole(each) for each in again()] == live
    assert check_stream(again()).is_sound
    # A position ends a transaction, too: the last one of the first, and one in the midst of the second.
    assert [whole(each) for each in again(until=running.events[0].position)] == live[:1]
    cut = again(until=running.events[1].events[4].position)
    assert [len(each.events) for each in cut] == [3, 5]


def test_what_a_process_left_unfinished_is_not_mixed_with_the_next(
    kind: str, database: str, db: psycopg.Connection, path: Path
) -> None:
    """It is stopped in the midst of a transaction, which the next process has as a whole."""

    def prepare(running: Running) -> None:
        running.consumer.on_transaction("wells")(running.events.append)
        running.on("wells", lambda event: running.consumer.stop() if event.key == 3 else None)

    with Running(kind, database):
        pass
    db.execute("INSERT INTO wells (id) VALUES (2), (3), (4)")
    with Recorded(path, kind, database, prepare) as running:
        until(lambda: ended(running))
    assert running.events == []
    whole_only = lambda more: more.consumer.on_transaction("wells")(more.events.append)  # noqa: E731
    with Recorded(path, kind, database, whole_only) as more:
        db.execute("INSERT INTO wells (id) VALUES (5)")
        more.caught_up(db)
    assert [[event.key for event in each] for each in more.events] == [[2, 3, 4], [5]]
    seen: list[Any] = []
    again = replay(path)
    again.on_transaction("wells")(seen.append)
    again.run()
    assert [whole(each) for each in seen] == [whole(each) for each in more.events]
    assert check_recording(path).problems == []


def test_a_handler_of_a_queue_that_raises_ends_the_replay(
    kind: str, database: str, db: psycopg.Connection, path: Path
) -> None:
    with Recorded(path, kind, database) as running:
        db.execute(FILL, (1, 20))
        running.caught_up(db)

    def refuse(event: Any) -> None:
        if event.key == 3:
            raise ValueError("well 3")

    again = replay(path)
    again.on("wells", queue=100)(refuse)
    with pytest.raises(cdc.HandlerError, match="well 3"):
        again.run()


# Families.


def test_a_family_has_tables_that_joined_later(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    prepare = lambda running: running.consumer.on("*")(running.events.append)  # noqa: E731
    with Recorded(path, kind, database, prepare) as running:
        db.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
        db.execute("CREATE TABLE sales (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE sales")
        db.execute("INSERT INTO sales VALUES (7)")
        db.execute("UPDATE wells SET id = 2")
        running.caught_up(db)
    assert [(event.table, event.key) for event in running.events] == [("wells", 1), ("sales", 7), ("wells", 2)]
    for tables in (("*",), ("public.*",), ("wells", "sal*")):
        events: list[Any] = []
        again = replay(path)
        again.on(*tables)(events.append)
        again.run()
        assert [printed(event) for event in events] == running.printed
    with pytest.raises(cdc.SubscriptionError, match="no_such_\\* matches no table"):
        again = replay(path)
        again.on("no_such_*")(print)
        again.run()


def test_the_next_process_may_find_another_table(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    with Recorded(path, kind, database) as running:
        db.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
    db.execute("DROP TABLE wells; CREATE TABLE wells (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE wells")
    db.execute("INSERT INTO wells VALUES (2)")
    with Recorded(path, kind, database) as more:
        more.caught_up(db)
    assert [event.key for event in more.events] == [2]
    assert replayed(path) == running.printed + more.printed


# Messages.


def test_messages_are_replayed_among_the_rows(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    with Recorded(path, kind, database, hearing) as running:
        with db.transaction():
            db.execute("INSERT INTO wells (id) VALUES (1)")
            db.execute(EMIT, (True, "one"))
            db.execute("INSERT INTO wells (id) VALUES (2)")
        db.execute(EMIT, (False, "two"))
        db.execute(EMIT, (True, "three"))
        running.caught_up(db)
        until(lambda: len(running.events) == 5)
    assert texts(path) == told(running.events)
    found = check_recording(path)
    assert found.problems == [] and found.events == 5
    assert replay(path).has_messages
    command = run_cdc("replay", path.name, folder=path.parent)
    assert command.stdout.splitlines() == [event.to_json() for event in running.events]
    rows = run_cdc("replay", path.name, "--table", "wells", folder=path.parent)
    assert len(rows.stdout.splitlines()) == 2


def test_messages_of_a_streamed_transaction_that_is_read_again(
    kind: str, database: str, db: psycopg.Connection, path: Path
) -> None:
    small_work_mem(db, database)
    with Recorded(path, kind, database, hearing) as running:
        with db.transaction():
            db.execute(FILL, (1, 2000))
            db.execute(EMIT, (True, "kept"))
            with db.transaction(force_rollback=True):
                db.execute(EMIT, (True, "never"))
                db.execute(FILL, (3000, 5000))
        db.execute("INSERT INTO wells (id) VALUES (9001)")
        running.caught_up(db)
    assert len(running.events) == 2002 and len(Recording(path).conversations()) == 2
    assert texts(path) == told(running.events)
    assert check_recording(path).problems == []


def test_messages_that_were_not_asked_for_cannot_be_had(
    kind: str, database: str, db: psycopg.Connection, path: Path
) -> None:
    with Recorded(path, kind, database) as running:
        db.execute(EMIT, (True, "unheard"))
        db.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
    again = replay(path)
    again.on_message("outbox")(print)
    with pytest.raises(cdc.SubscriptionError, match="the recording has no logical messages"):
        again.run()
    # Another run of it has some: then it can, and is told that there are not all of them.
    with Recorded(path, kind, database, hearing) as more:
        db.execute(EMIT, (True, "heard"))
        more.caught_up(db)
    seen: list[str] = []
    again = replay(path)
    again.on_message("outbox")(lambda message: seen.append(message.text()))
    again.run()
    assert seen == ["heard"]
    assert again.notes == ("logical messages were asked for in 1 of 2 recorded connections",)


@pytest.mark.parametrize("transactional", [True, False])
def test_a_consumer_that_was_stopped_by_a_message(
    kind: str, database: str, db: psycopg.Connection, path: Path, transactional: bool
) -> None:
    """Messages have no position of their own: what was handed out is told by their LSNs."""

    def stop(message: cdc.Message) -> Any:
        running.events.append(message)
        return running.consumer.stop() if message.text() == "stop" else None

    def prepare(running: Running) -> None:
        running.on("wells", running.events.append)
        running.consumer.on_message("*")(stop)

    with Running(kind, database):
        pass
    with db.transaction():
        db.execute("INSERT INTO wells (id) VALUES (1)")
        for text in ("go", "stop", "behind"):
            db.execute(EMIT, (transactional, text))
    db.execute(EMIT, (transactional, "last"))
    running = Recorded(path, kind, database, prepare)
    with running:
        until(lambda: ended(running))
    messages = [event.text() for event in running.events if isinstance(event, cdc.Message)]
    assert messages in (["go", "stop"], ["stop"])  # One between transactions may come before the handler begins.
    assert texts(path) == told(running.events)


# Attempts, iterations, status, gaps.


def test_a_replay_tries_again(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    with Recorded(path, kind, database) as running:
        db.execute(FILL, (1, 3))
        running.caught_up(db)
    tries: list[Any] = []

    def odd(event: Any) -> None:
        tries.append(event.key)
        if event.key == 2 and len(tries) < 4:
            raise ValueError("not yet")

    again = replay(path)
    again.on("wells", retries=3, backoff=cdc.Backoff(0.01, 0.01))(odd)
    again.run()
    assert tries == [1, 2, 2, 2, 3]


def test_iterations_are_those_of_a_consumer(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    with Recorded(path, kind, database) as running:
        db.execute(FILL, (1, 2500))
        db.execute("DELETE FROM wells WHERE id < 10")
        running.caught_up(db)

    async def read() -> list[Any]:
        return [printed(event) async for event in async_replay(path).events("wells")]

    assert [printed(event) for event in replay(path).events("wells")] == running.printed
    assert asyncio.run(read()) == running.printed
    lists = list(replay(path).events("wells", batch=1000, linger=60.0))
    assert [len(each) for each in lists][:2] == [1000, 1000] and sum(map(len, lists)) == len(running.printed)
    transactions = list(replay(path).events("wells", transaction=True))
    assert [len(each) for each in transactions] == [2500, 9]


def test_status_changes_are_told(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    with Recorded(path, kind, database) as running:
        db.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
        db.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'ingest'")
        until(lambda: running.consumer.health().reconnects == 1)
        db.execute("INSERT INTO wells (id) VALUES (2)")
        running.caught_up(db)
    told: list[str] = []
    again = replay(path)
    again.on("wells")(lambda event: told.append(str(event.key)))
    again.on_status(lambda change: told.append(change.status.value))
    again.run()
    assert told == ["CATCHING_UP", "1", "CONNECTING", "CATCHING_UP", "2", "STOPPED"]


def test_a_gap_of_the_slot_is_told_with_all_that_is_known(
    kind: str, database: str, db: psycopg.Connection, path: Path
) -> None:
    with Running(kind, database) as before:
        db.execute("INSERT INTO wells (id) VALUES (1)")
        before.caught_up(db)
    db.execute("SELECT pg_drop_replication_slot('ingest')")
    with Recorded(path, kind, database, on_gap="deliver") as running:
        db.execute("INSERT INTO wells (id) VALUES (2)")
        running.caught_up(db)
    gap = running.events[0]
    assert (gap.kind, gap.tables) == (cdc.GapKind.SLOT_DROPPED, ("public.wells",)) and gap.last and gap.position
    assert replayed(path) == running.printed


def test_rows_of_a_snapshot_are_not_recorded(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    db.execute("INSERT INTO wells (id) VALUES (1), (2)")

    def prepare(running: Running) -> None:
        running.on("wells", running.events.append, snapshot=True)

    with Recorded(path, kind, database, prepare, on_gap="resync") as running:
        until(lambda: len(running.events) == 2)
        db.execute("UPDATE wells SET name = 'North' WHERE id = 1")
        running.caught_up(db)
    assert [type(event) for event in running.events] == [cdc.Read, cdc.Read, cdc.Update]
    events: list[Any] = []
    again = replay(path)
    again.on("wells")(events.append)
    again.run()
    assert [(type(event), event.position) for event in events] == [(cdc.Update, running.events[2].position)]
    assert check_recording(path).problems == [] and check_stream(running.events).is_sound


# What needs a server.


def test_what_needs_a_server_is_refused(database: str, db: psycopg.Connection, path: Path) -> None:
    with Recorded(path, "blocking", database) as running:
        db.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
    again = replay(path)
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: again.subscribe("wells", print, on_error="park"), "no server that could keep parked events"),
        (lambda: again.on_message("x", on_error="park")(print), "no server that could keep parked events"),
        (again.parked, "no server that could keep parked events"),
        (lambda: again.retry_parked("1"), "no server that could keep parked events"),
        (lambda: again.drop_parked("1"), "no server that could keep parked events"),
        (lambda: again.subscribe("wells", print, snapshot=True), "not the rows that a table had"),
        (lambda: again.events("wells", snapshot=True), "not the rows that a table had"),
        (lambda: again.on("wells", subject=cdc.Subject("anon"))(print), "holds no roles, grants and policies"),
        (lambda: replay(path, until="soon"), "until is a cdc.Position"),
        (lambda: replay(path, on_gap="maybe"), "on_gap is 'stop' or 'deliver'"),
        (lambda: replay(path, on_gap="resync"), "no server from which a table could be read anew"),
        (lambda: replay(7), "a recording is the path of a file, not 7"),  # type: ignore[arg-type]
        (lambda: cdc.Consumer(database, slot="never").record(""), "a recording is the path of a file, not ''"),
    ]
    for call, words in refused:
        with pytest.raises(cdc.ConfigurationError, match=words):
            call()
