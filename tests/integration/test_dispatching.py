"""What views see of changes, row by row of the table of verdicts; and what it costs to have many of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import Running, until

ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
TABLE = """
CREATE TABLE notes (id int PRIMARY KEY, owner uuid NOT NULL, secret text, body text);
CREATE UNIQUE INDEX by_owner ON notes (id, owner);
ALTER TABLE notes ALTER body SET STORAGE EXTERNAL;
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
ALTER PUBLICATION wells ADD TABLE notes;
GRANT SELECT (id, owner, body) ON notes TO authenticated;
CREATE POLICY own ON notes FOR SELECT TO authenticated USING (owner = auth.uid());
"""
IDENTITIES = {"default": "DEFAULT", "full": "FULL", "index": "USING INDEX by_owner"}


def user(owner: str) -> cdc.Subject:
    return cdc.Subject("authenticated", claims={"sub": owner})


def told(events: list[Any]) -> list[tuple[Any, ...]]:
    """Class, effect, id in the key and in the old key, and whether there are an old and a new row."""
    return [
        (type(each).__name__, each.effect.value, first(each.key), first(each.old_key), bool(each.old), bool(each.new))
        for each in events
    ]


def first(key: Any) -> Any:
    return key[0] if isinstance(key, tuple) else key


SCRIPT = [
    f"INSERT INTO notes VALUES (1, '{ONE}', 's', repeat('x', 9000)), (2, '{TWO}', 's', 'y')",
    "UPDATE notes SET secret = 't'",  # STAY for the one, nothing for the other; the long body is not sent
    f"UPDATE notes SET owner = '{ONE}' WHERE id = 2",  # ENTER
    "UPDATE notes SET id = id + 10 WHERE id = 1",  # STAY with another key
    f"UPDATE notes SET owner = '{TWO}' WHERE id = 2",  # LEAVE
    f"UPDATE notes SET id = 12, owner = '{ONE}' WHERE id = 2",  # ENTER with another key
    f"UPDATE notes SET id = 2, owner = '{TWO}' WHERE id = 12",  # LEAVE with another key
    "DELETE FROM notes",
]
EXACT = [
    ("Insert", "ENTER", 1, None, False, True),
    ("Update", "STAY", 1, 1, True, True),
    ("Update", "ENTER", 2, 2, False, True),
    ("Update", "STAY", 11, 1, True, True),
    ("Update", "LEAVE", 2, 2, True, False),
    ("Update", "ENTER", 12, 12, False, True),
    ("Update", "LEAVE", 12, 12, True, False),
    ("Delete", "LEAVE", 11, 11, True, False),
]
INDEX = [
    # An old row comes only when what identifies it changed, or the row was deleted.
    ("Update", "STAY", 1, 1, False, True) if row[:3] == ("Update", "STAY", 1) else row
    for row in EXACT
]
# Without the old owner each row that may be seen enters, again and again, and what left is not told.
DEFAULT = [
    ("Insert", "ENTER", 1, None, False, True),
    ("Update", "ENTER", 1, 1, False, True),
    ("Update", "ENTER", 2, 2, False, True),
    ("Update", "ENTER", 11, 11, False, True),
    ("Update", "ENTER", 12, 12, False, True),
]
EXPECTED = {"full": (EXACT, 0), "index": (INDEX, 0), "default": (DEFAULT, 5)}
"""Events, and how many changes cannot be decided: an update of the other's row, two that left, two deletes."""


def subscribers(means: str, running: Running, seen: list[Any]) -> cdc.Subscription:
    options: dict[str, Any] = {"accept_undecided": True}
    if means in ("policy", "both"):
        options["subject"] = user(ONE)
    if means in ("filter", "both"):
        options["filter"] = f"owner=eq.{ONE}"
    return running.subscribe("notes", seen.append, **options)


@pytest.mark.parametrize("identity", IDENTITIES)
@pytest.mark.parametrize("means", ["policy", "filter", "both"])
def test_enter_stay_and_leave_by_the_table(database: str, db: psycopg.Connection, means: str, identity: str) -> None:
    db.execute(TABLE + f"ALTER TABLE notes REPLICA IDENTITY {IDENTITIES[identity]}")
    seen: list[Any] = []
    crowd: list[Any] = []
    with Running("blocking", database, lambda running: running.on("notes", running.events.append)) as running:
        for number in range(20):  # Others whose rows do not come are in the index, too.
            running.subscribe(
                "notes", crowd.append, subject=user(f"33333333-3333-4333-8333-{number:012}"), accept_undecided=True
            )
        subscription = subscribers(means, running, seen)
        for statement in SCRIPT:
            db.execute(statement)
        running.caught_up(db)
        undecided = subscription.undecided
        assert all(
            each.delivered == 0 for each in running.consumer.subscriptions if each.subject not in (None, user(ONE))
        )
    expected, withheld = EXPECTED[identity]
    assert told(seen) == expected
    assert crowd == []
    assert undecided == withheld
    for event in seen:
        hides = means != "filter"
        assert [column.name for column in event.relation.columns].count("secret") == (not hides)
        for row in (event.old, event.new):
            assert row is None or ("secret" in row) <= (not hides)
            assert row is None or str(row["owner"]) == ONE
        assert hides <= ("secret" not in event.to_json())
        if (
            event.new is not None
            and identity != "full"
            and event.event_type == "UPDATE"
            and first(event.key) in (1, 11)
        ):
            assert event.new["body"] is cdc.UNCHANGED


def test_undecided_changes_are_counted_for_all_without_a_visit(database: str, db: psycopg.Connection) -> None:
    """Whoever subscribes later counts from there on, and what was counted stays when he is judged anew."""
    db.execute(TABLE + f"INSERT INTO notes VALUES (1, '{ONE}'), (2, '{TWO}')")
    with Running("blocking", database) as running:
        first = running.subscribe("notes", print, subject=user(ONE), accept_undecided=True)
        db.execute("UPDATE notes SET body = 'a' WHERE id = 2")
        running.caught_up(db)
        second = running.subscribe("notes", print, subject=user(TWO), accept_undecided=True, filter="body=eq.b")
        db.execute("DELETE FROM notes WHERE id = 2")
        running.caught_up(db)
        assert (first.undecided, second.undecided) == (2, 1)
        db.execute("ALTER TABLE notes ADD more int; DELETE FROM notes")
        running.caught_up(db)
        assert (first.undecided, second.undecided) == (3, 2)


def test_a_policy_that_raises_hides_the_row_and_nobody_else_notices(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    db.execute(TABLE.replace("owner = auth.uid()", "10 / (id - 3) > 0") + "ALTER TABLE notes REPLICA IDENTITY FULL")
    seen: list[Any] = []
    with Running(kind, database, lambda running: running.on("notes", running.events.append)) as running:
        subscription = running.subscribe("notes", seen.append, subject=user(ONE))
        db.execute(f"INSERT INTO notes SELECT n, '{ONE}' FROM generate_series(1, 5) n")
        running.caught_up(db)
        assert [event.key for event in seen] == [4, 5]
        assert [event.key for event in running.events] == [1, 2, 3, 4, 5]
        assert (subscription.errors, subscription.undecided) == (1, 0)
        assert subscription.problem is not None and "division by zero" in subscription.problem
        assert any("PostgreSQL would raise an error" in note for note in running.consumer.health().notes)


@pytest.mark.parametrize("root", [True, False])
def test_partitions_are_judged_as_what_they_are_published(database: str, db: psycopg.Connection, root: bool) -> None:
    db.execute(
        "CREATE TABLE parts (id int, owner uuid, PRIMARY KEY (id)) PARTITION BY RANGE (id);"
        "CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE high PARTITION OF parts FOR VALUES FROM (10) TO (20);"
        "ALTER TABLE parts REPLICA IDENTITY FULL; ALTER TABLE low REPLICA IDENTITY FULL;"
        "ALTER TABLE high REPLICA IDENTITY FULL; GRANT SELECT ON parts, low, high TO authenticated;"
        "ALTER TABLE parts ENABLE ROW LEVEL SECURITY; ALTER TABLE low ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY own ON parts TO authenticated USING (owner = auth.uid());"
        "CREATE POLICY none ON low TO authenticated USING (false);"
        f"CREATE PUBLICATION parts FOR TABLE parts WITH (publish_via_partition_root = {root})"
    )
    seen: list[Any] = []
    table = "parts" if root else "low"
    with Running("blocking", database, lambda r: r.on(table, r.events.append), publication="parts") as running:
        running.subscribe(table, seen.append, subject=user(ONE))
        db.execute(f"INSERT INTO parts VALUES (1, '{ONE}'), (2, '{TWO}')")
        db.execute("UPDATE parts SET id = id + 10")  # moves both: a delete and an insert
        running.caught_up(db)
    kinds = [(type(each).__name__, each.key) for each in seen]
    assert kinds == ([("Insert", 1), ("Delete", 1), ("Insert", 11)] if root else [])
    assert len(running.events) == (6 if root else 4)


def test_a_row_that_moves_into_a_publications_filter(database: str, db: psycopg.Connection) -> None:
    """An update may arrive as an insert or a delete."""
    if db.info.server_version < 150000:
        db.execute(TABLE)
        with pytest.raises(psycopg.errors.SyntaxError):
            db.execute("ALTER PUBLICATION wells SET TABLE notes WHERE (body = 'shown')")
        return
    db.execute(
        TABLE + "ALTER TABLE notes REPLICA IDENTITY FULL;CREATE PUBLICATION part FOR TABLE notes WHERE (body = 'shown')"
    )
    seen: list[Any] = []
    with Running("blocking", database, lambda r: r.on("notes", r.events.append), publication="part") as running:
        running.subscribe("notes", seen.append, subject=user(ONE))
        db.execute(f"INSERT INTO notes VALUES (1, '{ONE}', 's', 'hidden'), (2, '{TWO}', 's', 'hidden')")
        for body in ("shown", "hidden"):
            db.execute(f"UPDATE notes SET body = '{body}'")
        running.caught_up(db)
    assert [(type(each).__name__, each.effect.value, each.key) for each in seen] == [
        ("Insert", "ENTER", 1),
        ("Delete", "LEAVE", 1),
    ]


def test_a_policy_on_a_column_that_is_not_published_is_refused(database: str, db: psycopg.Connection) -> None:
    columns = "" if db.info.server_version < 150000 else " (id, body)"
    db.execute(TABLE + f"CREATE PUBLICATION part FOR TABLE notes{columns}")
    with Running("blocking", database, lambda r: r.on("notes", r.events.append), publication="part") as running:
        with pytest.raises(cdc.SubscriptionError, match="owner"):
            running.subscribe("notes", print, subject=user(ONE))


def test_order_of_subscribing_across_groups(database: str, db: psycopg.Connection) -> None:
    """Trusted, filtered and judged subscribers are called in the order in which they subscribed."""
    db.execute(TABLE + "ALTER TABLE notes REPLICA IDENTITY FULL")
    called: list[int] = []
    options: list[dict[str, Any]] = [
        {"subject": user(ONE)},
        {},
        {"filter": f"owner=eq.{ONE}"},
        {"subject": user(TWO)},
        {"subject": user(ONE)},
        {"filter": "body=is.null"},
        {},
        {"subject": user(ONE), "operations": ["insert"]},
    ]

    def caller(number: int) -> Callable[[Any], None]:
        return lambda event: called.append(number)

    with Running("blocking", database) as running:
        made = [running.subscribe("notes", caller(number), **each) for number, each in enumerate(options)]
        db.execute(f"INSERT INTO notes VALUES (1, '{ONE}')")
        running.caught_up(db)
        assert called == [0, 1, 2, 4, 5, 6, 7]
        called.clear()
        made[1].close()
        made[4].close()
        made.append(running.subscribe("notes", caller(8)))
        db.execute("UPDATE notes SET secret = 'x'")
        running.caught_up(db)
        assert called == [0, 2, 5, 6, 8]


def test_many_who_subscribe_at_once_share_what_the_catalog_says(
    database: str, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.execute(TABLE + "ALTER TABLE notes REPLICA IDENTITY FULL")
    asked: list[str] = []
    message = cdc.admission.relation_message

    def counted(*arguments: Any) -> Any:
        asked.append("notes")
        return message(*arguments)

    monkeypatch.setattr(cdc.admission, "relation_message", counted)
    seen: list[Any] = []
    with Running("blocking", database) as running:
        others = [
            running.subscribe("notes", seen.append, subject=user(f"33333333-3333-4333-8333-{n:012}"))
            for n in range(300)
        ]
        mine = running.subscribe("notes", seen.append, subject=user(ONE))
        assert len(asked) < 100
        db.execute(f"INSERT INTO notes VALUES (1, '{ONE}')")
        running.caught_up(db)
        for each in others:
            each.close()
        assert [each for each in running.consumer.subscriptions if each.subject] == [mine]
        db.execute("UPDATE notes SET body = 'b'")
        running.caught_up(db)
    assert [event.key for event in seen] == [1, 1]


def test_what_was_refused_a_moment_ago_is_asked_about_anew(database: str, db: psycopg.Connection) -> None:
    db.execute(TABLE)
    with Running("blocking", database) as running:
        running.subscribe("notes", print)  # What the catalog says is known from here on.
        with pytest.raises(cdc.SubscriptionError, match="REPLICA IDENTITY FULL"):
            running.subscribe("notes", print, subject=user(ONE))
        db.execute("ALTER TABLE notes REPLICA IDENTITY FULL")
        assert running.subscribe("notes", print, subject=user(ONE)).denied is None
        anon = running.subscribe("notes", print, subject=cdc.Subject("anon"))
        assert anon.denied is not None
        db.execute("GRANT SELECT ON notes TO anon; CREATE POLICY all_of_it ON notes TO anon USING (true)")
        assert running.subscribe("notes", print, subject=cdc.Subject("anon")).denied is None
        until(lambda: anon.denied is None)


def test_others_who_come_and_go_disturb_nobody(database: str, db: psycopg.Connection) -> None:
    """Two threads subscribe and close while changes stream; who stays has each of his rows once, linked, in order."""
    db.execute(TABLE + "ALTER TABLE notes REPLICA IDENTITY FULL")
    mine: list[Any] = []
    theirs: list[str] = []
    failures: list[BaseException] = []

    def come_and_go(running: Running, which: int) -> None:
        try:
            for number in range(100):
                owner = (ONE, TWO)[number % 2]
                filter = (None, f"owner=eq.{owner}", "id=gt.0")[number % 3]
                made = running.subscribe(
                    "notes",
                    lambda event, o=owner: theirs.append(f"{o} {event.new['owner']}"),
                    subject=user(owner),
                    filter=filter,
                )
                if number % 5:
                    made.close()
        except BaseException as error:
            failures.append(error)

    with Running("blocking", database, lambda running: running.on("notes", running.events.append)) as running:
        running.subscribe("notes", mine.append, subject=user(ONE))
        threads = [threading.Thread(target=come_and_go, args=(running, which)) for which in range(2)]
        for thread in threads:
            thread.start()
        number = 0
        while any(thread.is_alive() for thread in threads) or number < 50:
            number += 1
            db.execute(f"INSERT INTO notes VALUES ({2 * number}, '{ONE}'), ({2 * number + 1}, '{TWO}')")
        for thread in threads:
            thread.join()
        running.caught_up(db)
    assert not failures
    assert [event.key for event in mine] == [2 * n for n in range(1, number + 1)]
    assert [event.previous for event in mine] == [None, *(event.position for event in mine[:-1])]
    assert [event.previous for event in running.events] == [None, *(event.position for event in running.events[:-1])]
    assert all(line.split()[0] == line.split()[1] for line in theirs)


def test_who_subscribes_right_after_a_change_of_policies_is_checked_by_the_new_ones(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """Answers that are shared for a moment are those of the table as it is."""
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL, ENABLE ROW LEVEL SECURITY; GRANT SELECT ON wells TO anon")
    db.execute("CREATE POLICY p ON wells USING (true)")
    with Running(kind, database, lambda running: None, rights_interval=60) as running:
        for turn in range(5):
            running.subscribe("wells", print, subject=cdc.Subject("anon"))
            db.execute("DROP POLICY p ON wells; CREATE POLICY p ON wells USING (id IN (SELECT 1))")
            with pytest.raises(cdc.SubscriptionError, match="sub-query"):
                running.subscribe("wells", print, subject=cdc.Subject("anon"))
            db.execute(f"DROP POLICY p ON wells; CREATE POLICY p ON wells USING (id > {turn})")  # type: ignore[arg-type]
