"""A renewed subject: in force from one transaction to the next, without losing or doubling an event."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import Running, until

ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
POLICY = """
ALTER TABLE wells ENABLE ROW LEVEL SECURITY;
ALTER TABLE wells REPLICA IDENTITY FULL;
GRANT SELECT ON wells TO anon, authenticated;
CREATE POLICY own ON wells FOR SELECT TO authenticated USING (project_id = (auth.jwt() ->> 'project_id')::uuid);
CREATE POLICY public ON wells FOR SELECT TO anon USING (name = 'public');
"""


def user(project: str, role: str = "authenticated", **more: Any) -> cdc.Subject:
    return cdc.Subject(role, claims={"sub": project, "project_id": project} | more)


def flat(events: list[Any]) -> list[Any]:
    """Single events, out of lists and transactions as well."""
    found: list[Any] = []
    for event in events:
        if isinstance(event, list):
            found += event
        elif isinstance(event, cdc.CommittedTransaction):
            found += event.events
        else:
            found.append(event)
    return found


def told(events: list[Any]) -> list[Any]:
    return [event.kind.value if isinstance(event, cdc.Gap) else event.key for event in flat(events)]


def renewed(subscription: cdc.Subscription, subject: cdc.Subject) -> None:
    subscription.update_subject(subject)
    until(lambda: subscription.subject == subject)


WAYS: dict[str, dict[str, Any]] = {
    "at once": {},
    "queue": {"queue": 100},
    "batch": {"batch": 10, "linger": 0.01},
    "queue of batches": {"queue": 100, "batch": 10, "linger": 0.01},
    "transactions": {"transaction": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_other_claims_show_other_rows_behind_a_gap(kind: str, way: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    seen: list[Any] = []
    other: list[Any] = []
    with Running(kind, database, lambda running: None) as running:
        subscription = running.subscribe("wells", seen.append, subject=user(ONE), **WAYS[way])
        beside = running.subscribe("wells", other.append, subject=user(ONE), **WAYS[way])
        db.execute(f"INSERT INTO wells VALUES (1, 'a', '{ONE}'), (2, 'b', '{TWO}')")
        running.caught_up(db)
        renewed(subscription, user(TWO))
        db.execute(f"INSERT INTO wells VALUES (3, 'a', '{ONE}'), (4, 'b', '{TWO}')")
        running.caught_up(db)
        assert told(seen) == [1, "rights", 4]
        assert told(other) == [1, 3] and beside.subject == user(ONE)
        gap = flat(seen)[1]
        assert gap.reason.startswith("rights") and gap.tables == ("public.wells",) and not gap.resync
        assert gap.previous == flat(seen)[0].position
        assert flat(seen)[2].previous == flat(seen)[0].position
        assert running.consumer.health().colour is cdc.Colour.GREEN
        renewed(subscription, user(ONE))
        db.execute("DELETE FROM wells")
        running.caught_up(db)
    assert told(seen) == [1, "rights", 4, "rights", 1, 3]
    assert told(other) == [1, 3, 1, 3]


def test_equal_in_effect_is_not_told(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    seen: list[Any] = []
    with Running(kind, database, lambda running: None) as running:
        subscription = running.subscribe("wells", seen.append, subject=user(ONE, exp=time.time() + 1000))
        for number in range(3):
            renewed(subscription, user(ONE, exp=time.time() + 2000 + number, jti=str(number)))
            db.execute("INSERT INTO wells VALUES (%s, 'a', %s)", (number, ONE))
            running.caught_up(db)
    assert told(seen) == [0, 1, 2]


def test_another_role_and_its_columns(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    db.execute("CREATE ROLE narrow NOLOGIN; GRANT SELECT (id, name, project_id) ON wells TO narrow")
    db.execute("CREATE POLICY narrow ON wells FOR SELECT TO narrow USING (true)")
    seen: list[Any] = []
    try:
        with Running(kind, database, lambda running: None) as running:
            subscription = running.subscribe("wells", seen.append, subject=user(ONE))
            db.execute(f"INSERT INTO wells VALUES (1, 'public', '{ONE}', 5)")
            running.caught_up(db)
            for role, number in (("anon", 2), ("narrow", 3), ("service_role", 4), ("authenticated", 5)):
                renewed(subscription, user(ONE, role))
                assert (subscription.denied is None) == (role != "service_role")
                db.execute(f"INSERT INTO wells VALUES ({number}, 'public', '{ONE}', 5)")
                running.caught_up(db)
        assert told(seen) == [1, "rights", 2, "rights", 3, "rights", "rights", 5]
        assert ["depth" in event.new for event in seen if isinstance(event, cdc.Insert)] == [True, True, False, True]
    finally:
        db.execute("DROP OWNED BY narrow; DROP ROLE narrow")


def test_what_is_refused_leaves_the_old_subject(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    db.execute("CREATE ROLE undecidable NOLOGIN; GRANT SELECT ON wells TO undecidable, service_role")
    db.execute("GRANT SELECT (id) ON wells TO undecidable")
    db.execute("CREATE POLICY odd ON wells FOR SELECT TO undecidable USING (EXISTS (SELECT FROM pg_class))")
    seen: list[Any] = []
    try:
        with Running(kind, database, lambda running: None) as running:
            subscription = running.subscribe("wells", seen.append, subject=user(ONE))
            trusted = running.subscribe("wells", lambda event: None)
            for subject, match in (
                (user(ONE, "nobody_at_all"), 'role "nobody_at_all" does not exist'),
                (user(ONE, "undecidable"), "has policies that cdc cannot decide"),
                (user(ONE, exp=5), "the subject expired at 1970-01-01T00:00:05.00:00: take a renewed token"),
                (None, "update_subject takes a cdc.Subject, not NoneType"),
                ("eyJhbGciOi.secret.token", "update_subject takes a cdc.Subject, not str"),
            ):
                with pytest.raises(cdc.SubscriptionError, match=match) as caught:
                    running.do(subscription.update_subject, subject)
                assert "secret" not in str(caught.value)
            with pytest.raises(cdc.SubscriptionError, match="has no subject of its own to renew"):
                trusted.update_subject(user(ONE))
            assert subscription.subject == user(ONE)
            db.execute(f"INSERT INTO wells VALUES (1, 'a', '{ONE}'), (2, 'b', '{TWO}')")
            running.caught_up(db)
            assert told(seen) == [1]
            subscription.close()
            with pytest.raises(cdc.SubscriptionError, match="is closed: subscribe anew"):
                subscription.update_subject(user(TWO))
        assert subscription.closed_reason is None
    finally:
        db.execute("DROP OWNED BY undecidable; DROP ROLE undecidable")


@pytest.mark.parametrize("way", ["at once", "queue"])
def test_a_handler_may_renew_its_own_subject(kind: str, way: str, database: str, db: psycopg.Connection) -> None:
    """In the middle of a transaction: the rest of it is still judged by the old one."""
    db.execute(POLICY)
    seen: list[Any] = []

    def handler(event: Any) -> None:
        seen.append(event)
        if isinstance(event, cdc.Insert) and event.key == 1:
            subscription.update_subject(user(TWO))

    with Running(kind, database, lambda running: None) as running:
        subscription = running.subscribe("wells", handler, subject=user(ONE), **WAYS[way])
        rows = ", ".join(f"({number}, 'a', '{(ONE, TWO)[number % 2 == 0]}')" for number in range(1, 11))
        db.execute(f"INSERT INTO wells VALUES {rows}")
        until(lambda: subscription.subject == user(TWO))
        db.execute(f"INSERT INTO wells VALUES (11, 'a', '{ONE}'), (12, 'a', '{TWO}')")
        running.caught_up(db)
    assert told(seen) == [1, 3, 5, 7, 9, "rights", 12]


@pytest.mark.parametrize("way", ["at once", "queue", "transactions"])
def test_renewed_again_and_again_while_it_streams(kind: str, way: str, database: str, db: psycopg.Connection) -> None:
    """Each transaction is seen by one subject as a whole, none twice, and by the right side of each gap."""
    db.execute(POLICY)
    seen: list[Any] = []
    with Running(kind, database, lambda running: None) as running:
        subscription = running.subscribe("wells", seen.append, subject=user(ONE), **WAYS[way])
        over = threading.Event()

        def renew() -> None:
            turn = 0
            while not over.is_set():
                turn += 1
                subscription.update_subject(user((ONE, TWO)[turn % 2]))
                time.sleep(0.01)

        thread = threading.Thread(target=renew)
        thread.start()
        try:
            for number in range(0, 400, 4):
                db.execute(
                    f"INSERT INTO wells VALUES ({number}, 'a', '{ONE}'), ({number + 1}, 'a', '{TWO}'), "
                    f"({number + 2}, 'a', '{ONE}'), ({number + 3}, 'a', '{TWO}')"
                )
                time.sleep(0.02)
        finally:
            over.set()
            thread.join()
        running.caught_up(db)
    events = flat(seen)
    keys = [event.key for event in events if isinstance(event, cdc.Insert)]
    assert len(keys) == len(set(keys)) == 200 and keys == sorted(keys)
    projects = {number // 4: {str(event.new["project_id"]) for event in events
                              if isinstance(event, cdc.Insert) and event.key // 4 == number // 4}
                for number in range(0, 400, 4)}  # fmt: skip
    assert all(len(found) == 1 for found in projects.values())
    sides: list[set[str]] = [set()]
    for event in events:
        if isinstance(event, cdc.Gap):
            sides.append(set())
        else:
            sides[-1].add(str(event.new["project_id"]))
    assert all(len(side) <= 1 for side in sides) and len(sides) > 5


def test_a_family_is_renewed_as_one(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    db.execute("CREATE TABLE logs (id int PRIMARY KEY, note text); ALTER PUBLICATION wells ADD TABLE logs")
    db.execute("GRANT SELECT ON logs TO authenticated")
    seen: list[Any] = []
    with Running(kind, database, lambda running: None) as running:
        subscription = running.subscribe("*", seen.append, subject=user(ONE))
        assert isinstance(subscription, cdc.Family)
        db.execute(f"INSERT INTO wells VALUES (1, 'a', '{ONE}'); INSERT INTO logs VALUES (10)")
        running.caught_up(db)
        renewed(subscription, user(TWO))
        db.execute(f"INSERT INTO wells VALUES (2, 'a', '{ONE}'), (3, 'b', '{TWO}'); INSERT INTO logs VALUES (11)")
        running.caught_up(db)
        assert told(seen) == [1, 10, "rights", 3, 11]
        assert seen[2].tables == ("public.wells",), "logs looks the same"
        assert all(member.subject == user(TWO) for member in subscription.members.values())
        with pytest.raises(cdc.SubscriptionError, match="has no subject of its own to renew"):
            next(iter(subscription.members.values())).update_subject(user(ONE))
        renewed(subscription, user(TWO, "anon"))
        db.execute(f"INSERT INTO wells VALUES (4, 'public', '{ONE}'), (5, 'b', '{TWO}'); INSERT INTO logs VALUES (12)")
        running.caught_up(db)
    assert told(seen) == [1, 10, "rights", 3, 11, "rights", 4]
    assert seen[5].tables == ("public.logs", "public.wells")


def test_a_snapshot_is_read_anew_as_the_renewed_one(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    db.execute(f"INSERT INTO wells VALUES (1, 'a', '{ONE}'), (2, 'b', '{TWO}')")
    seen: list[Any] = []
    rows: dict[Any, Any] = {}

    def handler(event: Any) -> None:
        seen.append(event)
        event.apply(rows)

    with Running(kind, database, lambda running: None) as running:
        subscription = running.subscribe("wells", handler, subject=user(ONE), snapshot=True)
        running.do(running.consumer.wait_for_snapshot, subscription)
        assert set(rows) == {1}
        renewed(subscription, user(TWO))
        until(lambda: set(rows) == {2})
    gap = next(event for event in seen if isinstance(event, cdc.Gap))
    assert gap.resync and gap.kind is cdc.GapKind.RIGHTS


def test_before_it_is_open_and_after_a_lost_connection(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    seen: list[Any] = []

    def prepare(running: Running) -> None:
        running.on("wells", seen.append, subject=user(ONE))
        running.consumer.subscriptions[0].update_subject(user(TWO))

    with Running(kind, database, prepare) as running:
        subscription = running.consumer.subscriptions[0]
        db.execute(f"INSERT INTO wells VALUES (1, 'a', '{ONE}'), (2, 'b', '{TWO}')")
        running.caught_up(db)
        assert told(seen) == [2]
        reconnects = running.consumer.health().reconnects
        db.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database()"
        )
        until(lambda: running.consumer.health().reconnects > reconnects)
        until(lambda: running.consumer.health().status is cdc.health.Status.LIVE)
        renewed(subscription, user(ONE))
        db.execute(f"INSERT INTO wells VALUES (3, 'a', '{ONE}'), (4, 'b', '{TWO}')")
        running.caught_up(db)
    assert told(seen) == [2, "rights", 3]
    with pytest.raises(cdc.ConnectionFailed, match="the consumer is stopped: .* cannot be renewed"):
        subscription.update_subject(user(TWO))


def test_a_connection_that_is_lost_in_a_transaction(kind: str, database: str, db: psycopg.Connection) -> None:
    """Renewed in its midst, while the connection goes: the rest of it comes as the old subject, nothing twice."""
    db.execute(POLICY)
    seen: list[Any] = []
    killed = threading.Event()

    def handler(event: Any) -> None:
        seen.append(event)
        if isinstance(event, cdc.Insert) and event.key == 41 and not killed.is_set():
            killed.set()
            subscription.update_subject(user(TWO))
            with psycopg.connect(database, autocommit=True) as other:
                other.execute(
                    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
                    "WHERE database = current_database()"
                )

    with Running(kind, database, lambda running: None) as running:
        subscription = running.subscribe("wells", handler, subject=user(ONE))
        db.execute(
            "INSERT INTO wells SELECT n, 'a', CASE WHEN mod(n, 2) = 1 THEN %s ELSE %s END::uuid, 0, repeat('x', 2000) "
            "FROM generate_series(1, 8000) n",
            (ONE, TWO),
        )
        until(lambda: subscription.subject == user(TWO), timeout=60)
        db.execute(f"INSERT INTO wells VALUES (10001, 'a', '{ONE}'), (10002, 'a', '{TWO}')")
        running.caught_up(db, timeout=60)
        assert running.consumer.health().reconnects == 1
    assert told(seen) == [*range(1, 8000, 2), "rights", 10002]
