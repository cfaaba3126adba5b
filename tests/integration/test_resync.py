"""on_gap="resync": after a gap the table's rows follow, and what was kept by key is right again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdc
from cdc import snapshotting
from tests.harness import Running, until
from tests.integration.test_snapshot import VERSIONED, Kept, Writer, table


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshotting, "CHUNK_ROWS", 20)


def run(kind: str, dsn: str, kept: Kept, **options: Any) -> Running:
    def prepare(running: Running) -> None:
        running.consumer.on("wells", name="kept")(kept)

    return Running(kind, dsn, prepare, on_gap="resync", **options)


def complete(running: Running, db: psycopg.Connection) -> None:
    (subscription,) = running.consumer.subscriptions
    until(lambda: subscription.snapshot is not None)
    running.do(running.consumer.wait_for_snapshot, subscription, timeout=60)
    running.caught_up(db)


@pytest.fixture
def kept(kind: str, database: str, db: psycopg.Connection) -> Iterator[Kept]:
    """What was kept of a table before its consumer went away."""
    kept = Kept()
    with run(kind, database, kept) as running:
        db.execute("INSERT INTO wells SELECT n, 'old' FROM generate_series(1, 100) n")
        running.caught_up(db)
        assert not kept.reads, "without a gap nothing is read"
    assert kept.table() == table(db)
    yield kept


@pytest.mark.parametrize("how", ["dropped", "advanced", "another timeline", "untold"])
def test_after_a_gap_the_rows_follow(kind: str, database: str, db: psycopg.Connection, kept: Kept, how: str) -> None:
    """Also those rows are right that were deleted while nobody read."""
    db.execute("DELETE FROM wells WHERE id > 90; UPDATE wells SET name = 'new' WHERE id < 10")
    if how == "another timeline":
        db.execute("UPDATE cdc.slots SET timeline = timeline + 1")
    elif how == "advanced":
        db.execute("SELECT pg_replication_slot_advance('ingest', pg_current_wal_flush_lsn())")
    else:
        db.execute("SELECT pg_drop_replication_slot('ingest')")
    if how == "untold":
        # A process made the slot anew, and was killed before it could tell anybody.
        db.execute("SELECT pg_create_logical_replication_slot('ingest', 'pgoutput')")
        db.execute(
            "UPDATE cdc.slots SET epoch = 'anew', commit_lsn = NULL, ordinal = NULL, flush_lsn = "
            "(SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = slot)"
        )
    kept.events.clear()
    with run(kind, database, kept) as running:
        complete(running, db)
        db.execute("UPDATE wells SET name = 'newest' WHERE id < 5")
        running.caught_up(db)
    gap = kept.events[0]
    assert isinstance(gap, cdc.Gap) and gap.resync and gap.to_dict()["reason"]
    assert kept.table() == table(db) and len(kept.rows) == 90
    kept.events.clear()
    with run(kind, database, kept) as running:
        running.caught_up(db)
    assert not kept.events


def test_the_gap_of_a_temporary_slot(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(VERSIONED)
    kept = Kept()
    with run(kind, database, kept, slot=None) as running, Writer(database, 1):
        until(lambda: kept.events)
        for turn in range(1, 3):
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND "
                "backend_type = 'walsender'"
            )
            until(lambda turn=turn: running.consumer.health().reconnects == turn)
            until(lambda: running.consumer.health().status is cdc.Status.LIVE)
        complete(running, db)
    assert sum(isinstance(event, cdc.Gap) for event in kept.events) >= 2


def test_a_resync_goes_on_after_a_restart(kind: str, database: str, db: psycopg.Connection, kept: Kept) -> None:
    db.execute("SELECT pg_drop_replication_slot('ingest')")
    kept.events.clear()

    class Stop(Exception):
        pass

    def stops(event: Any) -> None:
        kept(event)
        if isinstance(event, cdc.Read) and event.key == 50:
            raise Stop

    def prepare(running: Running) -> None:
        running.consumer.on("wells", name="kept")(stops)

    with pytest.raises(cdc.HandlerError), Running(kind, database, prepare, on_gap="resync") as running:
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
    first = len(kept.reads)
    kept.events.clear()
    with run(kind, database, kept) as running:
        complete(running, db)
    assert kept.table() == table(db)
    assert 50 <= len(kept.reads) + first - 100 + 50 <= 70, "only the chunk that was not finished comes again"
    assert not any(isinstance(event, cdc.Gap) for event in kept.events)


def test_another_table_of_the_name(kind: str, database: str, db: psycopg.Connection, kept: Kept) -> None:
    with run(kind, database, kept) as running:
        db.execute(
            "BEGIN; ALTER TABLE wells RENAME TO former; CREATE TABLE wells (LIKE former INCLUDING ALL);"
            "ALTER PUBLICATION wells SET TABLE wells;"
            "INSERT INTO wells SELECT n, 'other' FROM generate_series(1, 30) n; COMMIT;"
            "UPDATE wells SET name = 'x' WHERE id = 3"
        )
        until(lambda: any(isinstance(event, cdc.Gap) and event.resync for event in kept.events))
        complete(running, db)
    assert kept.table() == table(db)


def test_a_snapshot_begins_anew_behind_a_gap(kind: str, database: str, db: psycopg.Connection, tmp_path: Path) -> None:
    db.execute("INSERT INTO wells SELECT n, 'old' FROM generate_series(1, 50) n")
    kept = Kept()

    def prepare(running: Running) -> None:
        running.consumer.on("wells", snapshot=True)(kept)

    for _ in range(2):
        with Running(kind, database, prepare, on_gap="deliver", state=tmp_path / "position") as running:
            complete(running, db)
        assert kept.table() == table(db)
        db.execute("SELECT pg_drop_replication_slot('ingest'); DELETE FROM wells WHERE id > 40")
    assert kept.events[50].resync


@pytest.mark.parametrize("how", ["committed", "prepared", "rolled back"])
def test_what_was_written_while_nothing_was_published(
    kind: str, database: str, db: psycopg.Connection, kept: Kept, how: str
) -> None:
    """The publication is made again while a transaction runs that wrote before: its changes are never streamed."""
    with psycopg.connect(database) as other, run(kind, database, kept) as running:
        db.execute("DROP PUBLICATION wells")
        other.execute("UPDATE wells SET name = 'in between' WHERE id < 10")
        if how == "prepared":
            other.execute("PREPARE TRANSACTION 'late'")
            other.commit()
        db.execute("CREATE PUBLICATION wells FOR TABLE wells; INSERT INTO wells VALUES (1000, 'behind')")
        until(lambda: any(isinstance(event, cdc.Gap) and event.resync for event in kept.events))
        (subscription,) = running.consumer.subscriptions
        until(lambda: subscription.snapshot is not None and subscription.snapshot.waiting_for is not None)
        if how == "prepared":
            db.execute("COMMIT PREPARED 'late'")
        elif how == "committed":
            other.commit()
        else:
            other.rollback()
        complete(running, db)
    assert kept.table() == table(db)
