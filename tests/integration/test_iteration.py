"""Iteration: an event is finished when the next one is asked for; the loop starts and ends with the consumer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import QUICK, Running, until
from tests.integration.test_delivery import confirmed
from tests.integration.test_lanes import TERMINATE, keys


class Loop:
    """A `for` loop over a consumer's events, of either kind, that goes on step by step."""

    def __init__(self, running: Running, **options: Any) -> None:
        self.running = running

        def make() -> Any:
            return running.consumer.events("wells", **options)

        self.events = running.do(make)

    def next(self) -> Any:
        """The next event; None at the end."""
        if self.running.kind == "blocking":
            return next(self.events, None)

        async def ask() -> Any:
            return await anext(self.events, None)

        return asyncio.run_coroutine_threadsafe(ask(), self.running._loop).result(30)


def nothing(running: Running) -> None:
    """No subscription before the start."""


def later(seconds: float, function: Callable[[], Any]) -> None:
    threading.Timer(seconds, function).start()


def test_the_events_come_in_order_and_the_first_one_starts_the_consumer(database: str, db: psycopg.Connection) -> None:
    seen = []
    with cdc.Consumer(database, slot="ingest", backoff=QUICK) as consumer:
        events = consumer.events("wells", operations=["insert"])
        db.execute("INSERT INTO wells SELECT generate_series(1, 5)")
        for event in events:
            seen.append(event.key)
            if event.key == 5:
                break
    assert seen == [1, 2, 3, 4, 5]


def test_the_same_with_async_for(database: str, db: psycopg.Connection) -> None:
    async def main() -> list[int]:
        seen = []
        async with cdc.AsyncConsumer(database, slot="ingest", backoff=QUICK) as consumer:
            events = consumer.events("wells")
            db.execute("INSERT INTO wells SELECT generate_series(1, 5)")
            async for event in events:
                seen.append(event.key)
                if event.key == 5:
                    break
        return seen

    assert asyncio.run(main()) == [1, 2, 3, 4, 5]


def test_an_event_is_finished_when_the_next_one_is_asked_for(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database, nothing) as running:
        loop = Loop(running)
        db.execute("INSERT INTO wells VALUES (1)")
        first = cdc.current_lsn(db)
        db.execute("INSERT INTO wells VALUES (2)")
        assert loop.next().key == 1
        with pytest.raises(TimeoutError, match="not finished in 'events of wells': [12] events"):
            running.do(running.consumer.wait_for, first, timeout=0.3)
        assert confirmed(db) < first
        assert loop.next().key == 2
        running.do(running.consumer.wait_for, first)
        loop.events.finish()
        running.caught_up(db)
    with Running(kind, database) as again:
        again.caught_up(db)
    assert again.events == []


def test_what_was_left_by_break_comes_again(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database, nothing) as running:
        loop = Loop(running)
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        assert [loop.next().key, loop.next().key] == [1, 2]
    loops: list[Loop] = []
    with Running(kind, database, lambda running: loops.append(Loop(running))) as again:
        loop = loops[0]
        assert [loop.next().key, loop.next().key] == [2, 3]
        loop.events.close()
        assert loop.next() is None
        until(lambda: "was left before its last event" in " ".join(again.consumer.health().reasons))
        db.execute("INSERT INTO wells VALUES (4)")
        with pytest.raises(TimeoutError):
            again.do(again.consumer.wait_for, cdc.current_lsn(db), timeout=0.3)
    with Running(kind, database) as last:
        last.caught_up(db)
    assert keys(last.events) == [3, 4]


def test_an_iteration_that_nobody_holds_ends(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database, nothing) as running:
        loop = Loop(running)
        assert len(running.consumer.subscriptions) == 1
        del loop
        until(lambda: not running.consumer.subscriptions)
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)


def test_a_stop_ends_the_loop(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database, nothing) as running:
        loop = Loop(running)
        later(0.3, lambda: running.do(running.consumer.stop))
        assert loop.next() is None
        assert loop.next() is None


def test_a_stop_from_within_the_loop_leaves_no_wait(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database, nothing) as running:
        loop = Loop(running)
        db.execute("INSERT INTO wells VALUES (1), (2)")
        assert loop.next().key == 1
        loop.events.finish()
        running.do(running.consumer.stop)
        assert loop.next() is None
    with Running(kind, database) as again:
        again.caught_up(db)
    assert keys(again.events) == [2]


def test_the_loop_raises_what_ended_the_consumer(kind: str, database: str, db: psycopg.Connection) -> None:
    def fails(event: cdc.Event) -> None:
        raise ValueError("no room")

    with Running(kind, database, lambda running: running.on("wells", fails)) as running:
        loop = Loop(running)
        later(0.2, lambda: db.execute("INSERT INTO wells VALUES (1)"))
        with pytest.raises(cdc.HandlerError, match="no room"):
            while loop.next() is not None:
                pass
        with pytest.raises(cdc.HandlerError):
            running.do(running.consumer.stop)


def test_lists_and_a_full_queue(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database, nothing) as running:
        loop = Loop(running, queue=4, batch=3)
        db.execute("INSERT INTO wells SELECT generate_series(1, 9)")
        until(lambda: "is full" in " ".join(running.consumer.health().reasons))
        lists = []
        while sum(map(len, lists)) < 9:
            lists.append(loop.next())
        assert [event.key for events in lists for event in events] == list(range(1, 10))
        assert all(len(events) <= 3 for events in lists)


def test_two_loops_of_one_consumer(database: str, db: psycopg.Connection) -> None:
    seen: dict[str, list[int]] = {"a": [], "b": []}
    with cdc.Consumer(database, slot="ingest", backoff=QUICK) as consumer:
        loops = {name: consumer.events("wells") for name in seen}

        def walk(name: str) -> None:
            for event in loops[name]:
                seen[name].append(event.key)

        walkers = [threading.Thread(target=walk, args=(name,)) for name in seen]
        for walker in walkers:
            walker.start()
        db.execute("INSERT INTO wells SELECT generate_series(1, 20)")
        until(lambda: len(seen["a"]) == len(seen["b"]) == 20)
        consumer.wait_for(cdc.current_lsn(db))
        consumer.stop()
        for walker in walkers:
            walker.join(10)
    assert seen["a"] == seen["b"] == list(range(1, 21))


def test_options_that_an_iteration_cannot_have(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database, nothing) as running:
        for options, said in (
            ({"retries": 3}, "retries is for handlers"),
            ({"on_error": "park"}, "on_error is for handlers"),
            ({"queue": None}, "give one"),
            ({"queue": 0}, "queue is a number of events"),
        ):
            with pytest.raises(cdc.ConfigurationError, match=said):
                Loop(running, **options)


def test_an_iteration_inside_a_handler_is_refused(kind: str, database: str, db: psycopg.Connection) -> None:
    problems: list[str] = []

    def handler(event: cdc.Event) -> None:
        try:
            next(loop.events)
        except cdc.ConfigurationError as error:
            problems.append(str(error))

    async def coroutine(event: cdc.Event) -> None:
        try:
            await anext(loop.events)
        except cdc.ConfigurationError as error:
            problems.append(str(error))

    for queue in (None, 5):
        with Running(kind, database, nothing) as running:
            loop = Loop(running)
            running.subscribe("wells", handler if kind == "blocking" else coroutine, queue=queue)
            db.execute("INSERT INTO wells VALUES (%s)", (queue or 1,))
            until(lambda: problems)
        assert "would wait for itself" in problems.pop()


def test_an_iteration_that_was_left_keeps_nobody_waiting_behind_a_gap(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """Nobody can finish its last event, and a temporary slot has a gap behind each lost connection."""
    with Running(kind, database, slot=None) as running:
        loop = Loop(running)
        db.execute("INSERT INTO wells VALUES (1)")
        assert loop.next().key == 1
        loop.events.close()
        db.execute(TERMINATE)
        until(lambda: [type(event) for event in running.events] == [cdc.Insert, cdc.Gap])
        db.execute("INSERT INTO wells VALUES (2)")
        until(lambda: len(running.events) == 3)
