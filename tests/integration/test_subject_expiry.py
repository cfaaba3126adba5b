"""The end of a subject's time: nothing is handed out behind it, the handler hears of it, others go on."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import Running, until
from tests.integration.test_subject_renewal import POLICY, WAYS, flat

ONE = "11111111-1111-4111-8111-111111111111"


def user(seconds: float | None = None, leeway: float = 0.0, **more: Any) -> cdc.Subject:
    claims = {"sub": ONE, "project_id": ONE} | more
    return cdc.Subject(
        "authenticated", claims | ({} if seconds is None else {"exp": time.time() + seconds}), leeway=leeway
    )


def insert(db: psycopg.Connection, number: int) -> None:
    db.execute("INSERT INTO wells VALUES (%s, 'a', %s)", (number, ONE))


def told(events: list[Any]) -> list[Any]:
    return [event.kind.value if isinstance(event, cdc.Gap) else event.key for event in flat(events)]


@pytest.mark.parametrize("way", WAYS)
def test_exp_closes_the_subscription_and_says_why(kind: str, way: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    seen: list[Any] = []
    other: list[Any] = []
    with Running(kind, database, lambda running: None) as running:
        subscription = running.subscribe("wells", seen.append, subject=user(1.5), **WAYS[way])
        beside = running.subscribe("wells", other.append, subject=user(), **WAYS[way])
        insert(db, 1)
        running.caught_up(db)
        assert not subscription.closed and subscription.closed_reason is None
        until(lambda: subscription.closed)
        until(lambda: told(seen) == [1, "subject expired"])
        insert(db, 2)
        running.caught_up(db)
        assert told(seen) == [1, "subject expired"]
        assert told(other) == [1, 2] and not beside.closed
        gap = flat(seen)[1]
        assert gap.reason == subscription.closed_reason and gap.reason.startswith("the subject expired at 2")
        assert gap.position is None and gap.previous == flat(seen)[0].position
        assert running.consumer.subscriptions == [beside]
        assert running.consumer.health().colour is cdc.Colour.GREEN
        with pytest.raises(cdc.SubscriptionError, match="is closed: subscribe anew"):
            subscription.update_subject(user())
        with pytest.raises(cdc.SubscriptionError, match="the subject expired at .*: take a renewed token"):
            running.subscribe("wells", seen.append, subject=user(-1))
        until(running.is_saved)


def test_it_closes_without_a_change_and_before_one(kind: str, database: str, db: psycopg.Connection) -> None:
    """The loop sleeps longer than the subject is valid; what comes behind that is not shown."""
    db.execute(POLICY)
    seen: list[Any] = []
    with Running(kind, database, rights_interval=30, prepare=lambda running: None) as running:
        made = user(0.7)
        subscription = running.subscribe("wells", seen.append, subject=made)
        assert made.expires is not None
        until(lambda: subscription.closed)
        assert time.time() >= made.expires
        insert(db, 1)
        running.caught_up(db)
    assert told(seen) == ["subject expired"]


def test_a_renewed_subject_and_leeway_go_on(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    seen: list[Any] = []
    late: list[Any] = []
    with Running(kind, database, lambda running: None) as running:
        first = user(1.2)
        subscription = running.subscribe("wells", seen.append, subject=first)
        lenient = running.subscribe("wells", late.append, subject=user(-5, leeway=3600))
        subscription.update_subject(user(3600))
        assert first.expires is not None
        until(lambda: time.time() > (first.expires or 0) + 0.3)
        insert(db, 1)
        running.caught_up(db)
        assert told(seen) == told(late) == [1] and not subscription.closed and not lenient.closed
        subscription.update_subject(user())
        until(lambda: subscription.expires is None)
        subscription.update_subject(user(0.3))
        until(lambda: subscription.closed)
    assert told(seen) == [1, "subject expired"]


def test_what_waits_in_a_lane_is_not_handed_over_behind_exp(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    seen: list[Any] = []
    free = threading.Event()
    busy = threading.Event()

    def slow(event: Any) -> None:
        seen.append(event)
        busy.set()
        if kind == "blocking":
            free.wait(20)

    async def slow_too(event: Any) -> None:
        import asyncio

        slow(event)
        while not free.is_set():
            await asyncio.sleep(0.01)

    with Running(kind, database, lambda running: None) as running:
        handler: Any = slow if kind == "blocking" else slow_too
        subscription = running.subscribe("wells", handler, subject=user(1.5), queue=10)
        for number in range(5):
            insert(db, number)
        assert busy.wait(20)
        until(lambda: subscription.closed)
        free.set()
        until(lambda: len(seen) == 2)
        running.caught_up(db)
        assert told(seen) == [0, "subject expired"]
        until(running.is_saved)


def test_a_lane_sees_it_though_the_loop_is_away(kind: str, database: str, db: psycopg.Connection) -> None:
    """While the consumer has no connection, its queues still hand over what they have."""
    db.execute(POLICY)
    seen: list[Any] = []
    free = threading.Event()

    def slow(event: Any) -> None:
        seen.append(event)
        free.wait(20)

    async def slow_too(event: Any) -> None:
        import asyncio

        seen.append(event)
        while not free.is_set():
            await asyncio.sleep(0.01)

    backoff = cdc.Backoff(first=2.0, longest=2.0)
    with Running(kind, database, lambda running: None, backoff=backoff) as running:
        made = user(1.0)
        running.subscribe("wells", slow if kind == "blocking" else slow_too, subject=made, queue=10)
        for number in range(3):
            insert(db, number)
        until(lambda: len(seen) == 1)
        db.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database()"
        )
        until(lambda: running.consumer.health().reconnects == 1)
        until(lambda: time.time() > (made.expires or 0))
        free.set()
        until(lambda: len(seen) == 2)
        assert told(seen) == [0, "subject expired"]


def test_an_iteration_ends_behind_the_gap(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    seen: list[Any] = []
    with Running(kind, database, lambda running: None) as running:
        if kind == "blocking":
            with running.consumer.events("wells", subject=user(1.5)) as events:
                insert(db, 1)
                seen += list(events)
        else:

            async def read() -> None:
                async with running.consumer.events("wells", subject=user(1.5)) as events:
                    insert(db, 1)
                    async for event in events:
                        seen.append(event)

            running.do(read)
        running.caught_up(db)
    assert told(seen) == [1, "subject expired"]


def test_a_family_expires_as_one(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    db.execute("CREATE TABLE logs (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE logs")
    db.execute("GRANT SELECT ON logs TO authenticated")
    seen: list[Any] = []
    with Running(kind, database, lambda running: None) as running:
        subscription = running.subscribe("*", seen.append, subject=user(1.0))
        insert(db, 1)
        until(lambda: subscription.closed)
        db.execute("INSERT INTO logs VALUES (1)")
        insert(db, 2)
        running.caught_up(db)
    assert told(seen)[-1] == "subject expired" and 2 not in told(seen)


def test_three_subscribers_and_one_whose_claims_raise(kind: str, database: str, db: psycopg.Connection) -> None:
    """Neither an invalid uuid nor claims of another type concern anybody else; the reason is there at subscribe."""
    db.execute(POLICY)
    seen: dict[str, list[Any]] = {"good": [], "wrong": [], "odd": [], "big": []}
    with Running(kind, database, lambda running: None) as running:
        wrong = running.subscribe("wells", seen["wrong"].append, subject=user(project_id="no uuid"))
        odd = running.subscribe("wells", seen["odd"].append, subject=user(project_id=[{"a": 1}]))
        good = running.subscribe("wells", seen["good"].append, subject=user())
        began = time.process_time()
        big = running.subscribe("wells", seen["big"].append, subject=user(notes=["x" * 100] * 10_000))
        assert time.process_time() - began < 2
        for denied in (wrong, odd):
            assert denied.denied is not None and 'policy "own" cannot be evaluated for this subject' in denied.denied
            assert "no uuid" not in denied.denied
        assert good.denied is None and big.denied is None
        insert(db, 1)
        running.caught_up(db)
        assert told(seen["good"]) == told(seen["big"]) == [1] and seen["wrong"] == seen["odd"] == []
        wrong.update_subject(user())
        until(lambda: wrong.denied is None)
        insert(db, 2)
        running.caught_up(db)
    assert told(seen["wrong"]) == ["rights", 2] and told(seen["good"]) == [1, 2]
