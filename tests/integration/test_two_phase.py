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


def test_a_prepared_transaction_without_a_change_is_no_gap_after_a_restart(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """Its commit comes again, without its prepare, because another one is still open."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    db.execute("CREATE TABLE unpublished (id int)")
    with Running(kind, database, **options(db)) as running:
        prepare(database, f"{name} empty", "INSERT INTO unpublished VALUES (1)")
        prepare(database, f"{name} open", "INSERT INTO wells VALUES (1)")
        db.execute(f"COMMIT PREPARED '{name} empty'")
        running.caught_up(db)
    with Running(kind, database, **options(db)) as running:
        db.execute(f"COMMIT PREPARED '{name} open'")
        running.caught_up(db)
        assert [event.key for event in running.events if isinstance(event, cdc.Insert)] == [1]


def test_overlapping_prepared_transactions_without_a_state(kind: str, database: str, db: psycopg.Connection) -> None:
    """Nothing is remembered, so that nothing can be missed."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with Running(kind, database, state=None, **options(db)) as running:
        prepare(database, f"{name} one", "INSERT INTO wells VALUES (1)")
        prepare(database, f"{name} two", "INSERT INTO wells VALUES (2)")
        db.execute(f"COMMIT PREPARED '{name} one'")
        running.caught_up(db)
    with Running(kind, database, state=None, **options(db)) as running:
        db.execute(f"COMMIT PREPARED '{name} two'")
        running.caught_up(db)
        assert [event.key for event in running.events if isinstance(event, cdc.Insert)] == [2]


def test_other_publications_while_a_prepared_transaction_is_open(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """Only the last transaction comes again: its ordinals mean nothing with other publications."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    db.execute("CREATE TABLE other (id int PRIMARY KEY); CREATE PUBLICATION other FOR TABLE other")
    with Running(kind, database, **options(db)) as running:
        prepare(database, f"{name} one", "INSERT INTO wells VALUES (1)")
        prepare(database, f"{name} two", "INSERT INTO wells VALUES (2)")
        db.execute(f"COMMIT PREPARED '{name} one'")
        db.execute("INSERT INTO wells VALUES (3)")
        running.caught_up(db)
    with Running(kind, database, publication=["wells", "other"], **options(db)) as running:
        running.caught_up(db)
        keys = [event.key for event in running.events if isinstance(event, cdc.Insert)]
        assert keys == [key for (_, key) in told(db, ("INSERT", 3)) if db.info.server_version >= 150000]


def test_a_rollback_whose_handler_raises_is_told_again(kind: str, database: str, db: psycopg.Connection) -> None:
    if db.info.server_version < 150000:
        return  # nobody is told
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]

    def handler(event: Any) -> None:
        if event.rolled_back:
            raise ValueError

    with Running(kind, database, lambda running: running.on("wells", handler), two_phase=True) as running:
        prepare(database, f"{name} h", "INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        db.execute(f"ROLLBACK PREPARED '{name} h'")
        with pytest.raises(cdc.HandlerError, match="comes again"):
            running.caught_up(db)
        with pytest.raises(cdc.HandlerError):
            running.do(running.consumer.stop)
    for expected in ([(f"{name} h", True)], []):
        with Running(kind, database, two_phase=True) as running:
            running.caught_up(db)
            assert [each for each in seen(running) if each[1]] == expected


def test_a_rollback_while_nobody_reads_is_told(kind: str, database: str, db: psycopg.Connection) -> None:
    if db.info.server_version < 150000:
        return
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with Running(kind, database, two_phase=True) as running:
        prepare(database, f"{name} i", "INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        assert seen(running) == [(f"{name} i", False)]
    db.execute(f"ROLLBACK PREPARED '{name} i'")
    with Running(kind, database, two_phase=True) as running:
        running.caught_up(db)
        assert seen(running)[-1] == (f"{name} i", True)


def test_a_prepared_truncate_is_told(kind: str, database: str, db: psycopg.Connection) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with Running(kind, database, **options(db)) as running:
        prepare(database, f"{name} j", "TRUNCATE wells")
        running.caught_up(db)
        assert seen(running) == told(db, (f"{name} j", False))


def test_without_the_option_nobody_is_told(kind: str, database: str, db: psycopg.Connection) -> None:
    """A slot that was made with it sends prepared transactions all the same."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with Running(kind, database, **options(db)):
        pass
    with Running(kind, database) as running:
        prepare(database, f"{name} k", "INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        assert running.events == []
        db.execute(f"COMMIT PREPARED '{name} k'")
        running.caught_up(db)
        assert seen(running) == [("INSERT", 1)]


def test_other_columns_are_published_while_a_transaction_is_prepared(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """Its rows are read and judged by the columns with which they were sent."""
    if db.info.server_version < 150000:
        return  # no column lists
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    db.execute("CREATE PUBLICATION part FOR TABLE wells (id, notes) WITH (publish = 'insert')")
    insert = "INSERT INTO wells (id, name, notes) VALUES (%s, '%s', '%s')"
    received: list[Any] = []

    def subscribe(running: Running) -> None:
        running.on("wells", received.append, operations=["insert"], filter="notes=eq.yes")

    with Running(kind, database, subscribe, publication="part", two_phase=True) as running:
        db.execute(insert % (0, "no", "yes"))
        prepare(database, f"{name} l", insert % (1, "yes", "no"), insert % (2, "no", "yes"))
        running.caught_up(db)
        db.execute("ALTER PUBLICATION part SET TABLE wells (id, name, notes)")
        db.execute(insert % (3, "no", "yes"))
        running.caught_up(db)
        db.execute(f"COMMIT PREPARED '{name} l'")
        db.execute(insert % (4, "yes", "yes"))
        running.caught_up(db)
    assert [event.key for event in received] == [0, 3, 2, 4]
    assert [set(event.new) for event in received[2:]] == [{"id", "notes"}, {"id", "name", "notes"}]


def test_a_prepared_alter_table_holds_up_nobody_else(kind: str, database: str, db: psycopg.Connection) -> None:
    """Rights on a locked table cannot be read: those that are known count, and the other tables go on."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    db.execute("CREATE TABLE other (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE other")
    db.execute("ALTER TABLE wells ENABLE ROW LEVEL SECURITY; ALTER TABLE wells REPLICA IDENTITY FULL")
    db.execute("CREATE POLICY one ON wells TO authenticated USING (id = 1); GRANT SELECT ON wells TO authenticated")

    def subscribe(running: Running) -> None:
        running.on("wells", running.events.append, subject=cdc.Subject("authenticated"))
        running.on("other", running.events.append)

    with Running(kind, database, subscribe, **options(db)) as running:
        prepare(database, f"{name} m", "ALTER TABLE wells ADD COLUMN more int", "INSERT INTO wells VALUES (1), (2)")
        db.execute("INSERT INTO other VALUES (7)")
        running.caught_up(db)
        assert [event.key for event in running.events if isinstance(event, cdc.Insert)] == [7]
        db.execute(f"COMMIT PREPARED '{name} m'")
        running.caught_up(db)
        assert [event.key for event in running.events if isinstance(event, cdc.Insert)] == [7, 1]


def test_a_start_that_meets_a_prepared_alter_table_says_so(
    kind: str, database: str, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    monkeypatch.setattr("cdc.session._LOCK_PATIENCE", 0.2)
    with Running(kind, database):
        pass  # the slot is made, which would wait for the transaction
    prepare(database, f"{name} n", "ALTER TABLE wells ADD COLUMN more int")
    if db.info.server_version < 160000:
        with Running(kind, database) as running:  # these versions read the publication without the table's lock
            running.caught_up(db)
        return
    with pytest.raises(cdc.ConnectionFailed, match="a published table is locked"), Running(kind, database):
        pass
