"""What may happen to a slot, and to the publication it is read with: each is a gap with its kind, never silence."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest

import cdc
from cdc import GapKind
from cdc.publication import publication_oids
from cdc.testing import Sandbox
from tests.harness import SETUP, Running, until
from tests.proxy import Proxy


def run_once(kind: str, dsn: str, db: psycopg.Connection, **options: Any) -> list:
    with Running(kind, dsn, **options) as running:
        running.caught_up(db)
        return running.events


def through(proxy: Proxy, dsn: str) -> str:
    return psycopg.conninfo.make_conninfo(dsn, host="127.0.0.1", port=proxy.port)


TROUBLES = {
    GapKind.SLOT_DROPPED: "SELECT pg_drop_replication_slot('ingest')",
    GapKind.SLOT_ADVANCED: "SELECT pg_replication_slot_advance('ingest', pg_current_wal_flush_lsn())",
    GapKind.UNKNOWN_PAST: "DELETE FROM cdc.slots",
    GapKind.OTHER_SERVER: "UPDATE cdc.slots SET system_id = '7'",
    GapKind.OTHER_TIMELINE: "UPDATE cdc.slots SET timeline = timeline + 1",
    GapKind.PUBLICATION_REPLACED: "DROP PUBLICATION wells; CREATE PUBLICATION wells FOR TABLE wells",
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_each_trouble_is_a_gap_of_its_kind(kind: str, database: str, db: psycopg.Connection, trouble: GapKind) -> None:
    with Running(kind, database) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
    last = running.events[-1].position
    db.execute("INSERT INTO wells VALUES (2)")
    for statement in TROUBLES[trouble].split(";"):
        db.execute(statement)
    with pytest.raises(cdc.GapError) as caught:
        run_once(kind, database, db)
    gap = caught.value.gap
    assert (gap.kind, gap.tables, gap.position) == (trouble, ("public.wells",), None)
    assert gap.last == (None if trouble is GapKind.UNKNOWN_PAST else last)

    with Running(kind, database, on_gap="deliver") as running:
        db.execute("INSERT INTO wells VALUES (3)")
        running.caught_up(db)
        until(lambda: running.consumer.health().status is cdc.Status.LIVE)
        health = running.consumer.health()
        assert health.colour is cdc.Colour.YELLOW and gap.reason in health.reasons[0]
        running.consumer.gap_mended()
        assert running.consumer.health().colour is cdc.Colour.GREEN
    told = next(event for event in running.events if isinstance(event, cdc.Gap))
    place = running.events.index(told)
    before, changes = running.events[:place], running.events[place + 1 :]
    # What was changed before a publication was dropped is still there from 18 on, and stands before the gap.
    still_there = trouble is GapKind.PUBLICATION_REPLACED and db.info.server_version >= 180000
    assert [each.key for each in before] == ([2] if still_there else [])
    assert told.kind is trouble and told.tables == ("public.wells",)
    assert told.position is not None and told.position < changes[0].position
    assert all(each.position < told.position for each in before)
    assert changes[-1].key == 3
    assert run_once(kind, database, db) == []


def test_a_gap_for_json() -> None:
    position = cdc.Position("k3v9", cdc.Lsn(7), 1)
    gap = cdc.Gap("lost", position, None, GapKind.SLOT_LOST, ("public.wells",), position)
    assert gap.to_dict() == {
        "reason": "lost",
        "last": "k3v9:0/7:1",
        "previous": None,
        "kind": "slot lost",
        "tables": ["public.wells"],
        "position": "k3v9:0/7:1",
        "resync": False,
    }
    assert cdc.Gap("lost", position, None).kind is GapKind.OTHER


def test_a_gap_that_no_handler_has_finished_with_comes_again(kind: str, database: str, db: psycopg.Connection) -> None:
    """The slot is made anew, and then the handler fails: the next start must not take the new slot for a good one."""
    run_once(kind, database, db)
    db.execute("SELECT pg_drop_replication_slot('ingest')")

    def fail(event: cdc.Event) -> None:
        raise RuntimeError("no")

    with (
        pytest.raises(cdc.HandlerError, match="Gap"),
        Running(kind, database, lambda running: running.on("wells", fail), on_gap="deliver") as running,
    ):
        running.caught_up(db)
    with pytest.raises(cdc.GapError):
        run_once(kind, database, db)
    (gap,) = run_once(kind, database, db, on_gap="deliver")
    assert isinstance(gap, cdc.Gap)
    assert run_once(kind, database, db) == []


# The publication.


def test_changes_while_a_publication_is_missing_are_a_gap(kind: str, database: str, db: psycopg.Connection) -> None:
    """18 skips them without a word, 17 and older cannot decode them; the consumer gets past them either way."""
    run_once(kind, database, db)
    db.execute("DROP PUBLICATION wells")
    db.execute("INSERT INTO wells VALUES (1)")
    db.execute("CREATE PUBLICATION wells FOR TABLE wells")
    with pytest.raises(cdc.GapError, match="'wells' was dropped and made again"):
        run_once(kind, database, db)
    with Running(kind, database, on_gap="deliver") as running:
        db.execute("INSERT INTO wells VALUES (2)")
        running.caught_up(db)
    gap, *changes = running.events
    assert gap.kind is GapKind.PUBLICATION_REPLACED and [each.key for each in changes] == [2]
    db.execute("INSERT INTO wells VALUES (3)")
    assert [each.key for each in run_once(kind, database, db)] == [3]


def test_a_publication_made_again_while_it_is_streamed(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database, on_gap="deliver") as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        with db.transaction():
            db.execute("DROP PUBLICATION wells")
            db.execute("INSERT INTO wells VALUES (7)")  # Up to 17 the server stops here.
            db.execute("CREATE PUBLICATION wells FOR TABLE wells")
        until(lambda: len(running.events) >= 2)
        db.execute("INSERT INTO wells VALUES (2)")
        running.caught_up(db)
    one, gap, two = running.events  # The slot is the same: what was delivered does not come again.
    assert gap.kind is GapKind.PUBLICATION_REPLACED and gap.last == gap.previous == one.position
    assert two.key == 2 and one.position <= gap.position < two.position


def test_a_publication_made_again_repeats_nothing(kind: str, database: str, db: psycopg.Connection) -> None:
    """Also what could not be confirmed, as a prepared transaction holds that up (15 and later)."""
    prepared = db.info.server_version >= 150000
    with Running(kind, database, two_phase=prepared) as running:
        if prepared:
            with psycopg.connect(database) as other:
                other.execute("INSERT INTO wells VALUES (7)")
                other.execute("PREPARE TRANSACTION 'gap'")
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
    try:
        db.execute("DROP PUBLICATION wells; CREATE PUBLICATION wells FOR TABLE wells")
        with Running(kind, database, two_phase=prepared, on_gap="deliver") as again:
            db.execute("INSERT INTO wells VALUES (2)")
            again.caught_up(db)
    finally:
        if prepared:
            db.execute("ROLLBACK PREPARED 'gap'")
    (one,) = [event for event in running.events if isinstance(event, cdc.Insert)]
    gap, two = [event for event in again.events if not isinstance(event, cdc.Prepared)]
    assert (one.key, two.key) == (1, 2) and one.position == gap.last < two.position


def test_a_publication_that_is_missing_when_the_slot_is_opened(database: str, db: psycopg.Connection) -> None:
    """It was there a moment before. Without its OID nobody would notice that it is made again."""
    assert [name for name, _ in publication_oids(db, ["wells"])] == ["wells"]
    with pytest.raises(cdc.ConfigurationError, match="publication 'geology' does not exist"):
        publication_oids(db, ["wells", "geology"])


def test_a_publication_made_again_ends_a_consumer_that_stops_at_gaps(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    running = Running(kind, database, state=None)
    with pytest.raises(cdc.GapError, match="was dropped and made again"), running:
        running.caught_up(db)
        db.execute("DROP PUBLICATION wells; CREATE PUBLICATION wells FOR TABLE wells")
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
        health = running.consumer.health()
        assert health.colour is cdc.Colour.RED
        assert any("dropped and made again" in reason for reason in health.reasons)


def test_a_publication_made_again_while_the_network_is_gone(
    kind: str, server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    with Proxy(server.port) as proxy, Running(kind, through(proxy, database), on_gap="deliver") as running:
        running.caught_up(db)
        proxy.refuse()
        proxy.cut()
        until(lambda: running.consumer.health().status is cdc.Status.CONNECTING)
        db.execute("DROP PUBLICATION wells")
        db.execute("INSERT INTO wells VALUES (1)")
        db.execute("CREATE PUBLICATION wells FOR TABLE wells")
        proxy.refuse(False)
        until(lambda: running.events)
        db.execute("INSERT INTO wells VALUES (2)")
        running.caught_up(db)
    gap, two = running.events
    assert gap.kind is GapKind.PUBLICATION_REPLACED and two.key == 2


def test_one_of_several_publications_made_again(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE TABLE projects (id int PRIMARY KEY); CREATE PUBLICATION geology FOR TABLE projects")
    both = ["wells", "geology"]
    run_once(kind, database, db, publication=both)
    assert run_once(kind, database, db, publication="wells") == []
    assert run_once(kind, database, db, publication=both[::-1]) == []
    db.execute("DROP PUBLICATION geology; CREATE PUBLICATION geology FOR TABLE projects")
    with pytest.raises(cdc.GapError, match="publication 'geology' was dropped") as caught:
        run_once(kind, database, db, publication=both)
    assert caught.value.gap.tables == ("public.projects", "public.wells")


def test_a_table_of_an_older_version_is_upgraded_by_setup(kind: str, database: str, db: psycopg.Connection) -> None:
    run_once(kind, database, db)
    db.execute("ALTER TABLE cdc.slots DROP COLUMN publication_oids")
    with pytest.raises(cdc.ConfigurationError, match=r"cdc\.slots is of an older version of cdc: run `cdc setup"):
        run_once(kind, database, db)
    db.execute(SETUP)
    db.execute("INSERT INTO wells VALUES (1)")
    assert [event.key for event in run_once(kind, database, db)] == [1]


# Others at the slot.


def test_another_consumer_that_read_the_slot_meanwhile_is_a_gap(
    kind: str, server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    """What it has handled went past the handlers and caches of this process."""
    with Proxy(server.port) as proxy, Running(kind, through(proxy, database), on_gap="deliver") as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        until(running.is_saved)
        proxy.refuse()
        proxy.cut()
        until(lambda: running.consumer.health().status is cdc.Status.CONNECTING)
        db.execute("INSERT INTO wells VALUES (2)")
        assert [event.key for event in run_once(kind, database, db)] == [2]
        proxy.refuse(False)
        db.execute("INSERT INTO wells VALUES (3)")
        until(lambda: len(running.events) >= 3)
        running.caught_up(db)
    one, gap, three = running.events
    assert (one.key, three.key) == (1, 3)
    assert gap.kind is GapKind.SLOT_ADVANCED and "another consumer" in gap.reason


def test_a_slot_dropped_while_the_network_is_gone(
    kind: str, server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    with Proxy(server.port) as proxy, Running(kind, through(proxy, database), on_gap="deliver") as running:
        running.caught_up(db)
        proxy.refuse()
        proxy.cut()
        until(lambda: running.consumer.health().status is cdc.Status.CONNECTING)
        until(lambda: not db.execute("SELECT 1 FROM pg_replication_slots WHERE active").fetchone())
        db.execute("SELECT pg_drop_replication_slot('ingest')")
        db.execute("INSERT INTO wells VALUES (1)")
        proxy.refuse(False)
        until(lambda: running.events)
        db.execute("INSERT INTO wells VALUES (2)")
        running.caught_up(db)
    gap, two = running.events
    assert gap.kind is GapKind.SLOT_DROPPED and two.key == 2


# The server gives the slot up.

TIGHT = {"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}


def wells(db: psycopg.Connection) -> None:
    db.execute(SETUP)
    db.execute("CREATE TABLE wells (id int PRIMARY KEY); CREATE PUBLICATION wells FOR TABLE wells")


def fill(db: psycopg.Connection) -> None:
    """Write WAL, and let the server remove what it can."""
    db.execute("CREATE TABLE fill AS SELECT n, repeat('x', 500) FROM generate_series(1, 40000) n; DROP TABLE fill")
    db.execute("SELECT pg_switch_wal()")
    db.execute("CHECKPOINT")


def is_lost(db: psycopg.Connection) -> bool:
    return db.execute("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'ingest'").fetchone() == ("lost",)


@pytest.mark.parametrize("on_gap", ["stop", "deliver"])
def test_a_slot_that_is_lost_while_it_is_read(kind: str, on_gap: str) -> None:
    """A handler holds the consumer up; the server ends the stream and gives up the slot."""
    with Sandbox(settings=TIGHT) as server, psycopg.connect(server.dsn, autocommit=True) as db:
        wells(db)
        seen: list[Any] = []

        def slow(event: Any) -> None:
            seen.append(event)
            if isinstance(event, cdc.Insert) and event.key == 1:
                until(lambda: fill(db) or is_lost(db), timeout=60)

        running = Running(kind, server.dsn, lambda running: running.on("wells", slow), on_gap=on_gap)
        with psycopg.connect(server.dsn, autocommit=True) as other:
            if on_gap == "stop":
                with pytest.raises(cdc.GapError, match="max_slot_wal_keep_size"), running:
                    other.execute("INSERT INTO wells VALUES (1)")
                    until(lambda: running.consumer.health().status is cdc.Status.STOPPED, timeout=80)
                    assert any("the slot is lost" in reason for reason in running.consumer.health().reasons)
                return
            with running:
                other.execute("INSERT INTO wells VALUES (1)")
                until(lambda: len(seen) == 2, timeout=80)
                other.execute("INSERT INTO wells VALUES (2)")
                running.caught_up(other)
        one, gap, two = seen
        assert gap.kind is GapKind.SLOT_LOST and (one.key, two.key) == (1, 2)


def test_an_invalidated_slot_says_why(kind: str) -> None:
    """18 gives up slots that nobody reads for long; before, only the WAL's size decides."""
    with Sandbox(settings=TIGHT) as server, psycopg.connect(server.dsn, autocommit=True) as db:
        wells(db)
        run_once(kind, server.dsn, db)
        kinds, reason = GapKind.SLOT_LOST, "max_slot_wal_keep_size"
        if db.info.server_version >= 180000:
            kinds, reason = GapKind.SLOT_INVALIDATED, "idle_timeout"
            db.execute("ALTER SYSTEM SET max_slot_wal_keep_size = -1")
            db.execute("ALTER SYSTEM SET idle_replication_slot_timeout = '1s'")
            db.execute("SELECT pg_reload_conf()")
            time.sleep(1.5)
        until(lambda: fill(db) or is_lost(db), timeout=60)
        db.execute("ALTER SYSTEM RESET ALL")
        db.execute("SELECT pg_reload_conf()")
        with pytest.raises(cdc.GapError, match=reason) as caught:
            run_once(kind, server.dsn, db)
        assert caught.value.gap.kind is kinds
        (gap,) = run_once(kind, server.dsn, db, on_gap="deliver")
        assert gap.kind is kinds
        assert run_once(kind, server.dsn, db) == []
