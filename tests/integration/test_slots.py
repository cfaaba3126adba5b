"""The slot's life: created, remembered, busy, dropped, advanced by somebody else."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

import cdc
from cdc.testing import Sandbox
from tests.harness import SETUP, Running, until


def run_once(kind: str, dsn: str, db: psycopg.Connection, **options: object) -> list:
    with Running(kind, dsn, **options) as running:
        running.caught_up(db)
        return running.events


def test_a_dropped_slot_is_a_gap(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
    last = running.events[-1].position
    db.execute("SELECT pg_drop_replication_slot('ingest')")
    with pytest.raises(cdc.GapError, match="somebody dropped it.*cdc drop --slot ingest") as caught:
        run_once(kind, database, db)
    assert caught.value.gap.last == last
    assert db.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = 'ingest'").fetchone() is None
    (gap,) = run_once(kind, database, db, on_gap="deliver")
    assert isinstance(gap, cdc.Gap) and gap.last == last
    assert run_once(kind, database, db) == []


def test_a_slot_created_again_is_a_gap(kind: str, database: str, db: psycopg.Connection) -> None:
    run_once(kind, database, db)
    db.execute("SELECT pg_drop_replication_slot('ingest')")
    db.execute("INSERT INTO wells VALUES (1)")
    db.execute("SELECT pg_create_logical_replication_slot('ingest', 'pgoutput')")
    with pytest.raises(cdc.GapError, match="advanced by somebody else"):
        run_once(kind, database, db)


def test_an_advanced_slot_is_a_gap(kind: str, database: str, db: psycopg.Connection) -> None:
    run_once(kind, database, db)
    db.execute("INSERT INTO wells VALUES (1)")
    db.execute("SELECT pg_replication_slot_advance('ingest', pg_current_wal_flush_lsn())")
    with pytest.raises(cdc.GapError, match="advanced by somebody else"):
        run_once(kind, database, db)


def test_a_slot_of_unknown_past_is_a_gap(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("SELECT pg_create_logical_replication_slot('ingest', 'pgoutput')")
    db.execute("INSERT INTO wells VALUES (1)")
    with pytest.raises(cdc.GapError, match="unknown past"):
        run_once(kind, database, db)
    gap, insert = run_once(kind, database, db, on_gap="deliver")
    assert isinstance(gap, cdc.Gap) and insert.key == 1
    assert run_once(kind, database, db, state=None, slot="ingest") == []


def test_a_crash_while_the_slot_was_created_is_no_gap(kind: str, database: str, db: psycopg.Connection) -> None:
    """The intent is saved before the slot is made; both a missing and a finished slot go with it."""
    identity = "SELECT system_identifier::text FROM pg_control_system()"
    (system,) = db.execute(identity).fetchone() or ()
    insert = "INSERT INTO cdc.slots (slot, system_id, timeline, epoch) VALUES ('ingest', %s, 1, 'half')"
    db.execute(insert, (system,))
    assert run_once(kind, database, db) == []
    db.execute("DELETE FROM cdc.slots")
    db.execute("SELECT pg_drop_replication_slot('ingest')")
    db.execute(insert, (system,))
    db.execute("SELECT pg_create_logical_replication_slot('ingest', 'pgoutput')")
    db.execute("INSERT INTO wells VALUES (1)")
    assert [event.key for event in run_once(kind, database, db)] == [1]


def test_another_system_or_timeline_is_a_gap(kind: str, database: str, db: psycopg.Connection) -> None:
    run_once(kind, database, db)
    db.execute("UPDATE cdc.slots SET timeline = timeline + 1")
    with pytest.raises(cdc.GapError, match="another server or timeline"):
        run_once(kind, database, db)


def test_a_lost_slot_is_a_gap(kind: str) -> None:
    """The server removes WAL that the slot still needs, as max_slot_wal_keep_size tells it to."""
    settings = {"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    with Sandbox(settings=settings) as server, psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(SETUP)
        db.execute("CREATE TABLE wells (id int PRIMARY KEY); CREATE PUBLICATION wells FOR TABLE wells")
        run_once(kind, server.dsn, db)
        lost = "SELECT wal_status FROM pg_replication_slots"

        def fill() -> bool:
            db.execute(
                "CREATE TABLE fill AS SELECT n, repeat('x', 500) FROM generate_series(1, 40000) n; DROP TABLE fill"
            )
            db.execute("SELECT pg_switch_wal()")
            db.execute("CHECKPOINT")
            return db.execute(lost).fetchone() == ("lost",)

        until(fill, timeout=60)
        with pytest.raises(cdc.GapError, match="max_slot_wal_keep_size"):
            run_once(kind, server.dsn, db)
        (gap,) = run_once(kind, server.dsn, db, on_gap="deliver")
        assert isinstance(gap, cdc.Gap)


def test_a_busy_slot(kind: str, database: str, db: psycopg.Connection) -> None:
    with (
        Running(kind, database),
        pytest.raises(cdc.SlotError, match="'ingest' is in use by process .* one consumer a slot"),
    ):
        run_once(kind, database, db)


def test_a_slot_of_another_database(kind: str, server: Sandbox, database: str, db: psycopg.Connection) -> None:
    other = server.create_database()
    with psycopg.connect(other, autocommit=True) as elsewhere:
        elsewhere.execute("SELECT pg_create_logical_replication_slot('elsewhere', 'pgoutput')")
        try:
            with pytest.raises(cdc.SlotError, match="'elsewhere' belongs to database"):
                run_once(kind, database, db, slot="elsewhere")
        finally:
            elsewhere.execute("SELECT pg_drop_replication_slot('elsewhere')")


def test_a_physical_slot_cannot_be_read(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("SELECT pg_create_physical_replication_slot('standby')")
    try:
        with pytest.raises(cdc.SlotError, match="'standby' is a physical slot"):
            run_once(kind, database, db, slot="standby")
    finally:
        db.execute("SELECT pg_drop_replication_slot('standby')")


def test_a_slot_of_another_plugin_cannot_be_read(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("SELECT pg_create_logical_replication_slot('ingest', 'test_decoding')")
    where = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'ingest'"
    before = db.execute(where).fetchone()
    db.execute("INSERT INTO wells VALUES (1)")
    for on_gap in ("stop", "deliver"):
        with pytest.raises(cdc.SlotError, match="'ingest' is a test_decoding slot, which cdc cannot read"):
            run_once(kind, database, db, on_gap=on_gap)
    assert db.execute(where).fetchone() == before


def test_no_slot_left_on_the_server(kind: str) -> None:
    with Sandbox(settings={"max_replication_slots": 1}) as server, psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(
            "CREATE TABLE wells (id int); CREATE PUBLICATION wells FOR TABLE wells;"
            "SELECT pg_create_physical_replication_slot('only')"
        )
        with pytest.raises(cdc.SlotError, match="all replication slots .* max_replication_slots"):
            run_once(kind, server.dsn, db, slot=None)


def test_the_position_can_be_kept_in_a_file(kind: str, database: str, db: psycopg.Connection, tmp_path: Path) -> None:
    path = tmp_path / "position.json"
    db.execute("DROP SCHEMA cdc CASCADE")
    with Running(kind, database, state=path) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
    assert str(running.events[0].position) in path.read_text()
    assert run_once(kind, database, db, state=path) == []
    path.write_text("{}")
    with pytest.raises(cdc.ConfigurationError, match="is not a position file of cdc"):
        run_once(kind, database, db, state=path)


def test_a_server_behind_what_is_remembered_repeats_nothing(kind: str, database: str, db: psycopg.Connection) -> None:
    """After a crash the server may have forgotten the last confirmation; the saved position filters."""
    with Running(kind, database) as running:
        running.caught_up(db)
        db.execute("SELECT pg_copy_logical_replication_slot('ingest', 'behind', false, 'pgoutput')")
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        running.caught_up(db)
    db.execute(
        "INSERT INTO cdc.slots SELECT 'behind', system_id, timeline, epoch, commit_lsn, 2, "
        "(SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'behind') FROM cdc.slots"
    )
    events = run_once(kind, database, db, slot="behind")
    assert [(event.key, event.position.ordinal) for event in events] == [(3, 3)]
