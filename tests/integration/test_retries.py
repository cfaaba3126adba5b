"""A handler that raises is given the same event again; the stream waits, stays in order, and can be stopped."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import Running, until

SHORT = cdc.Backoff(first=0.02, longest=0.05)


class Flaky:
    """Raises the first `failures` times that it is given an event of key `at`, and keeps all that it is given."""

    def __init__(self, failures: int, at: int = 2) -> None:
        self.given: list[Any] = []
        self.taken: list[int] = []
        self._left, self._at = failures, at

    def __call__(self, event: Any) -> None:
        self.given.append(event)
        if event.key == self._at and self._left > 0:
            self._left -= 1
            raise ValueError("no room")
        self.taken.append(event.key)


def running(kind: str, database: str, handler: Any, **options: Any) -> Running:
    return Running(kind, database, lambda it: it.on("wells", handler, **options))


def test_a_handler_is_given_the_same_event_again_and_order_stays(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    flaky = Flaky(3)
    with running(kind, database, flaky, retries=3, backoff=SHORT) as it:
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        it.caught_up(db)
        assert it.consumer.health().colour is cdc.Colour.GREEN
    assert flaky.taken == [1, 2, 3]
    assert [event.key for event in flaky.given] == [1, 2, 2, 2, 2, 3]
    assert len({id(event) for event in flaky.given[1:5]}) == 1
    assert flaky.given[-1].previous == flaky.given[1].position


def test_a_coroutine_is_tried_again(database: str, db: psycopg.Connection) -> None:
    flaky = Flaky(2)

    async def handler(event: Any) -> None:
        await asyncio.sleep(0)
        flaky(event)

    with running("asyncio", database, handler, retries=2, backoff=SHORT) as it:
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        it.caught_up(db)
    assert flaky.taken == [1, 2, 3]


def test_the_last_attempt_ends_the_consumer_and_the_change_comes_again(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    flaky = Flaky(4)
    with running(kind, database, flaky, retries=3, backoff=SHORT) as it:
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        with pytest.raises(cdc.HandlerError, match=r"ValueError at the last of 4 attempts: no room.*comes again"):
            it.caught_up(db)
        with pytest.raises(cdc.HandlerError):
            it.do(it.consumer.stop)
    assert [event.key for event in flaky.given] == [1, 2, 2, 2, 2]
    with running(kind, database, flaky) as it:
        it.caught_up(db)
    assert flaky.taken == [1, 2, 3]


def test_health_tells_of_attempts_and_a_stop_ends_the_pause_at_once(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    flaky = Flaky(1)
    with running(kind, database, flaky, retries=5, backoff=cdc.Backoff(first=600, longest=600)) as it:
        db.execute("INSERT INTO wells VALUES (1), (2)")
        until(lambda: any("attempt 1 of 6" in reason for reason in it.consumer.health().reasons))
        health = it.consumer.health()
        assert health.colour is cdc.Colour.YELLOW
        assert any("failed on <Insert public.wells" in reason for reason in health.reasons)
        with pytest.raises(TimeoutError, match=r"attempt 1 of 6: ValueError: no room"):
            it.caught_up(db, timeout=0.2)
        it.do(it.consumer.stop)
    with Running(kind, database) as again:
        again.caught_up(db)
    assert [event.key for event in again.events] == [2]


def test_the_connection_stays_while_attempts_are_made(kind: str, database: str, db: psycopg.Connection) -> None:
    """wal_sender_timeout is 4 s here."""
    flaky = Flaky(2)
    with running(kind, database, flaky, retries=2, backoff=cdc.Backoff(first=5, longest=5, jitter=0)) as it:
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        it.caught_up(db, timeout=30)
        assert it.consumer.health().reconnects == 0
    assert flaky.taken == [1, 2, 3]


def test_others_see_each_event_once(kind: str, database: str, db: psycopg.Connection) -> None:
    flaky = Flaky(2)
    seen: list[int] = []

    def both(it: Running) -> None:
        it.on("wells", lambda event: seen.append(event.key))
        it.on("wells", flaky, retries=2, backoff=SHORT)

    with Running(kind, database, both) as it:
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        it.caught_up(db)
    assert seen == flaky.taken == [1, 2, 3]


def test_a_subscription_that_is_closed_is_not_tried_again(kind: str, database: str, db: psycopg.Connection) -> None:
    flaky = Flaky(1)
    with Running(kind, database, lambda it: None) as it:
        backoff = cdc.Backoff(first=600, longest=600)
        subscription = it.subscribe("wells", flaky, retries=1, backoff=backoff)
        db.execute("INSERT INTO wells VALUES (2)")
        until(lambda: flaky.given and it.consumer.health().colour is cdc.Colour.YELLOW)
        subscription.close()
        it.caught_up(db)
    assert len(flaky.given) == 1


def test_what_does_not_come_again_is_not_said_to(kind: str, database: str, db: psycopg.Connection) -> None:
    def fails(event: Any) -> None:
        if isinstance(event, cdc.SchemaChange):
            raise ValueError("a column that nobody knows")

    with running(kind, database, fails) as it:
        db.execute("INSERT INTO wells VALUES (1)")
        it.caught_up(db)
        db.execute("ALTER TABLE wells ADD COLUMN more int")
        db.execute("INSERT INTO wells VALUES (2)")
        with pytest.raises(cdc.HandlerError, match=r"<SchemaChange public.wells .*> is not told again") as caught:
            it.caught_up(db)
        assert "comes again" not in str(caught.value)
        with pytest.raises(cdc.HandlerError):
            it.do(it.consumer.stop)


class Halt(BaseException):
    """No Exception, as KeyboardInterrupt and SystemExit are none."""


@pytest.mark.parametrize("terms", [{}, {"retries": 3}, {"on_error": "park", "retries": 3}], ids=str)
def test_a_base_exception_ends_the_consumer_before_the_change(
    kind: str, database: str, db: psycopg.Connection, terms: dict[str, Any]
) -> None:
    given = []

    def handler(event: Any) -> None:
        given.append(event.key)
        if event.key == 2:
            raise Halt

    with running(kind, database, handler, **terms) as it:
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        until(lambda: it.consumer.health().status is cdc.Status.STOPPED)
        with pytest.raises(Halt):
            it.do(it.consumer.stop)
    assert given == [1, 2]
    with Running(kind, database) as again:
        again.caught_up(db)
    assert [event.key for event in again.events] == [2, 3]


def test_an_interrupt_in_a_handler_ends_run(database: str, db: psycopg.Connection) -> None:
    consumer = cdc.Consumer(database, slot="ingest")

    @consumer.on("wells", retries=3)
    def handler(event: Any) -> None:
        raise KeyboardInterrupt

    with consumer:
        db.execute("INSERT INTO wells VALUES (1)")
        with pytest.raises(KeyboardInterrupt):
            consumer.run()
    with Running("blocking", database) as again:
        again.caught_up(db)
    assert [event.key for event in again.events] == [1]


@pytest.mark.parametrize("awaits", [True, False], ids=["coroutine", "plain"])
def test_a_handlers_own_cancellation_is_a_failure_of_the_handler(
    database: str, db: psycopg.Connection, awaits: bool
) -> None:
    async def coroutine(event: Any) -> None:
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task

    def plain(event: Any) -> None:
        raise asyncio.CancelledError

    with running("asyncio", database, coroutine if awaits else plain, retries=1, backoff=SHORT) as it:
        db.execute("INSERT INTO wells VALUES (1)")
        with pytest.raises(cdc.HandlerError, match="CancelledError at the last of 2 attempts"):
            it.caught_up(db)
        with pytest.raises(cdc.HandlerError):
            it.do(it.consumer.stop)


def test_a_cancellation_of_the_consumers_task_is_none_of_the_handlers(database: str, db: psycopg.Connection) -> None:
    given: list[int] = []

    async def main() -> None:
        consumer = cdc.AsyncConsumer(database, slot="ingest")

        async def handler(event: Any) -> None:
            given.append(event.key)
            await asyncio.sleep(60)

        consumer.on("wells", retries=5, on_error="park", backoff=SHORT)(handler)
        task = asyncio.ensure_future(consumer.run())
        while not given:
            db.execute("INSERT INTO wells VALUES (1)") if consumer.health().slot and not given else None
            await asyncio.sleep(0.2)
            if not given:
                db.execute("DELETE FROM wells")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(main(), 60))
    assert len(given) == 1


def test_health_tells_of_a_handler_that_does_not_return(kind: str, database: str, db: psycopg.Connection) -> None:
    released = threading.Event()

    def stuck(event: Any) -> None:
        released.wait(60)

    with running(kind, database, stuck) as it:
        db.execute("INSERT INTO wells VALUES (1)")
        lsn = cdc.current_lsn(db)
        try:
            pattern = "stuck has been at work on <Insert public.wells"
            until(lambda: any(pattern in reason for reason in it.consumer.health().reasons))
            assert it.consumer.health().colour is cdc.Colour.YELLOW
            if kind == "blocking":  # A handler that blocks the event loop's thread keeps everybody there waiting.
                with pytest.raises(TimeoutError, match=pattern):
                    it.consumer.wait_for(lsn, timeout=0.1)
        finally:
            released.set()
        it.caught_up(db)
        assert it.consumer.health().colour is cdc.Colour.GREEN


def test_health_tells_of_a_coroutine_that_does_not_return(database: str, db: psycopg.Connection) -> None:
    released = threading.Event()

    async def stuck(event: Any) -> None:
        while not released.is_set():
            await asyncio.sleep(0.01)

    with running("asyncio", database, stuck) as it:
        db.execute("INSERT INTO wells VALUES (1)")
        pattern = "stuck has been at work on <Insert public.wells"
        until(lambda: any(pattern in reason for reason in it.consumer.health().reasons))
        with pytest.raises(TimeoutError, match=pattern):
            it.caught_up(db, timeout=0.1)
        released.set()
        it.caught_up(db)


def test_a_quiet_handler_is_not_at_work(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as it:
        db.execute("INSERT INTO wells VALUES (1)")
        it.caught_up(db)
        it.consumer.health()
        time.sleep(6)
        assert it.consumer.health().reasons == ()


def test_a_queue_makes_no_attempt_when_another_handler_has_ended_the_consumer(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """And its pause does not hold up the end."""
    tried: list[Any] = []

    def never(event: Any) -> None:
        tried.append(event)
        raise ValueError("no room")

    def ends(event: Any) -> None:
        until(lambda: tried)
        raise ValueError("it ends")

    async def ends_later(event: Any) -> None:
        await asyncio.to_thread(ends, event)

    def prepare(running: Running) -> None:
        running.on("wells", never, queue=10, retries=5, backoff=cdc.Backoff(first=3.0, longest=3.0))
        running.on("wells", ends if kind == "blocking" else ends_later)

    with Running(kind, database, prepare) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        with pytest.raises(cdc.HandlerError, match="it ends"):
            running.do(running.consumer.wait_for, "F/0", 60)
        with pytest.raises(cdc.HandlerError, match="it ends"):
            running.do(running.consumer.stop)
    assert len(tried) == 1


def test_what_a_temporary_slot_had_is_not_said_to_come_again(kind: str, database: str, db: psycopg.Connection) -> None:
    def refuse(event: Any) -> None:
        raise ValueError("no room")

    with (
        pytest.raises(cdc.HandlerError, match="does not come again, as its temporary slot goes"),
        Running(kind, database, lambda it: it.on("wells", refuse), slot=None) as running,
    ):
        db.execute("INSERT INTO wells VALUES (1)")
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
