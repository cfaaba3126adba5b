"""Prepared transactions: told when they are prepared, delivered when they commit, never lost in between."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import Running, until

FILL = "INSERT INTO wells SELECT n, repeat('x', 100) FROM generate_series(1, %s) n"


def prepare(dsn: str, gid: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("BEGIN")
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PREPARE TRANSACTION '{gid}'")


def end_all(db: psycopg.Connection) -> None:
    for (gid,) in db.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()").fetchall():
        db.execute(f"ROLLBACK PREPARED '{gid}'")


@pytest.fixture(autouse=True)
def two_phase(database: str, db: psycopg.Connection) -> Any:
    """Below 15 the option is refused, and such transactions come when they commit."""
    if db.info.server_version < 150000:
        with (
            pytest.raises(cdc.ConfigurationError, match="two_phase=True needs PostgreSQL 15"),
            cdc.Consumer(database, slot="old", two_phase=True),
        ):
            pass
    yield
    end_all(db)


def options(db: psycopg.Connection) -> dict[str, Any]:
    return {"two_phase": db.info.server_version >= 150000}


def seen(running: Running) -> list[Any]:
    return [
        (event.gid, event.rolled_back) if isinstance(event, cdc.Prepared) else (event.event_type, event.key)
        for event in running.events
    ]


def told(db: psycopg.Connection, *what: Any) -> list[Any]:
    """What is expected; before 15 nobody is told of prepared transactions."""
    modern = db.info.server_version >= 150000
    return [each for each in what if modern or not isinstance(each[1], bool)]


def test_changes_come_when_it_commits(kind: str, database: str, db: psycopg.Connection) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with Running(kind, database, **options(db)) as running:
        prepare(database, f"{name} a", "INSERT INTO wells VALUES (1)", "INSERT INTO wells VALUES (2)")
        db.execute("INSERT INTO wells VALUES (3)")
        running.caught_up(db)
        before = told(db, (f"{name} a", False), ("INSERT", 3))
        assert seen(running) == before
        db.execute(f"COMMIT PREPARED '{name} a'")
        db.execute("INSERT INTO wells VALUES (4)")
        running.caught_up(db)
        assert seen(running) == [*before, ("INSERT", 1), ("INSERT", 2), ("INSERT", 4)]
    one, two, four = running.events[-3:]
    assert one.position < two.position < four.position and two.previous == one.position
    assert running.events[-4].position < one.position


def test_a_rollback_is_told_and_nothing_else(kind: str, database: str, db: psycopg.Connection) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with Running(kind, database, **options(db)) as running:
        prepare(database, f"{name} b", "INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        db.execute(f"ROLLBACK PREPARED '{name} b'")
        running.caught_up(db)
        assert seen(running) == told(db, (f"{name} b", False), (f"{name} b", True))
        lsn = cdc.current_lsn(db)
        db.execute("INSERT INTO wells VALUES (9)")
        running.caught_up(db)
        until(lambda: running.consumer.health().confirmed_lsn >= lsn)


@pytest.mark.parametrize("large", [False, True], ids=["small", "streamed"])
def test_a_restart_between_prepare_and_commit_loses_and_repeats_nothing(
    kind: str, database: str, db: psycopg.Connection, large: bool
) -> None:
    """The server sends a prepared transaction once, so what it needs is not confirmed before it has ended."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    db.execute(f"ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'")
    count = 3000 if large else 2
    with Running(kind, database, **options(db)) as running:
        prepare(database, f"{name} c", FILL % count)
        db.execute("INSERT INTO wells VALUES (-1)")
        running.caught_up(db)
        assert seen(running) == told(db, (f"{name} c", False), ("INSERT", -1))
    with Running(kind, database, **options(db)) as running:
        db.execute("INSERT INTO wells VALUES (-2)")
        running.caught_up(db)
        assert seen(running) == told(db, (f"{name} c", False), ("INSERT", -2))
        db.execute(f"COMMIT PREPARED '{name} c'")
        running.caught_up(db, timeout=60)
        keys = [event.key for event in running.events if isinstance(event, cdc.Insert)]
        assert keys == [-2, *range(1, count + 1)]
        lsn = cdc.current_lsn(db)
        db.execute("INSERT INTO wells VALUES (-3)")
        running.caught_up(db)
        until(lambda: running.consumer.health().confirmed_lsn >= lsn)
    with Running(kind, database, **options(db)) as running:
        running.caught_up(db)
        assert seen(running) == []


def test_a_lost_connection_while_it_is_delivered(kind: str, database: str, db: psycopg.Connection) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    keys: list[int] = []

    def handler(event: Any) -> None:
        if isinstance(event, cdc.Insert):
            keys.append(event.key)
            if len(keys) == 500:
                db.execute(
                    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'ingest'"
                )

    with Running(kind, database, lambda running: running.on("wells", handler), **options(db)) as running:
        prepare(database, f"{name} d", FILL % 1000)
        running.caught_up(db)
        db.execute(f"COMMIT PREPARED '{name} d'")
        running.caught_up(db, timeout=60)
    assert keys == list(range(1, 1001))


def test_a_slot_takes_two_phase_up_later(kind: str, database: str, db: psycopg.Connection) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with Running(kind, database):
        pass
    prepare(database, f"{name} e", "INSERT INTO wells VALUES (1)")
    with Running(kind, database, **options(db)) as running:
        running.caught_up(db)
        db.execute(f"COMMIT PREPARED '{name} e'")
        running.caught_up(db)
        assert [event.key for event in running.events if isinstance(event, cdc.Insert)] == [1]


def test_a_transaction_that_was_confirmed_while_prepared_is_a_gap(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """Somebody else advanced the slot over the prepare: its changes do not come, and that is said."""
    if db.info.server_version < 150000:
        return  # there is no such state: the changes come with the commit
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with Running(kind, database, **options(db)):
        pass
    prepare(database, f"{name} f", "INSERT INTO wells VALUES (1)")
    db.execute("SELECT pg_replication_slot_advance('ingest', pg_current_wal_lsn())")
    with Running(kind, database, on_gap="deliver", **options(db)) as running:
        db.execute(f"COMMIT PREPARED '{name} f'")
        running.caught_up(db)
        reasons = [event.reason for event in running.events if isinstance(event, cdc.Gap)]
    assert "advanced by somebody else" in reasons[0]
    assert f"prepared as '{name} f'" in reasons[1]


def test_subjects_and_filters_are_not_told(database: str, db: psycopg.Connection) -> None:
    """Whoever may not see every change learns nothing from a name."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    filtered: list[Any] = []

    def subscribe(running: Running) -> None:
        running.on("wells", running.events.append)
        running.on("wells", filtered.append, filter="id=eq.1")

    with Running("blocking", database, subscribe, **options(db)) as running:
        prepare(database, f"{name} g", "INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        assert len(running.events) == len(told(db, ("", False))) and filtered == []
        db.execute(f"COMMIT PREPARED '{name} g'")
        running.caught_up(db)
    assert [event.key for event in filtered] == [1]
