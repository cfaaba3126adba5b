"""Positions that the user keeps with his own data: changes up to them are not delivered, and what is lost is said."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdc
from cdc.testing import Sandbox
from tests.harness import Running, until
from tests.integration.test_delivery import confirmed
from tests.integration.test_lanes import Gate
from tests.proxy import Proxy


def handled(kind: str, dsn: str, db: psycopg.Connection, **options: Any) -> list:
    with Running(kind, dsn, **options) as running:
        running.caught_up(db)
        return running.events


def keys(events: list) -> list:
    return [event.key for event in events]


@pytest.mark.parametrize("form", [str, lambda position: position], ids=["text", "position"])
def test_changes_up_to_start_after_are_not_delivered(kind: str, database: str, db: psycopg.Connection, form) -> None:
    """What cdc saved is behind: the process died after the user's commit and before the save."""
    with Running(kind, database) as running:
        running.caught_up(db)
        db.execute("SELECT pg_copy_logical_replication_slot('ingest', 'behind', false, 'pgoutput')")
        db.execute("INSERT INTO cdc.slots SELECT 'behind', system_id, timeline, epoch FROM cdc.slots")
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        db.execute("INSERT INTO wells VALUES (4)")
        running.caught_up(db)
    position = running.events[1].position
    assert keys(handled(kind, database, db, slot="behind", start_after=form(position))) == [3, 4]
    assert handled(kind, database, db, slot="behind", start_after=form(running.events[3].position)) == []


def test_the_users_position_decides_and_not_what_is_saved(kind: str, database: str, db: psycopg.Connection) -> None:
    """Older than what is saved, while the server still has it: the changes come again."""
    with Running(kind, database) as running:
        running.caught_up(db)
        db.execute("SELECT pg_copy_logical_replication_slot('ingest', 'behind', false, 'pgoutput')")
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        running.caught_up(db)
    one, _, three = (event.position for event in running.events)
    db.execute(
        "INSERT INTO cdc.slots SELECT 'behind', system_id, timeline, epoch, commit_lsn, 3, flush_lsn FROM cdc.slots"
    )
    assert one < three
    assert keys(handled(kind, database, db, slot="behind", start_after=one)) == [2, 3]


def test_what_is_saved_follows_the_users_position(kind: str, database: str, db: psycopg.Connection) -> None:
    """Else the next connection would go on from where a former process was, and skip what comes again."""
    with Running(kind, database) as running:
        running.caught_up(db)
        db.execute("SELECT pg_copy_logical_replication_slot('ingest', 'behind', false, 'pgoutput')")
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        running.caught_up(db)
        until(running.is_saved)
    db.execute(
        "INSERT INTO cdc.slots SELECT 'behind', system_id, timeline, epoch, commit_lsn, 3, flush_lsn FROM cdc.slots"
    )

    places = []

    def look(event: cdc.Event) -> None:
        places.append(db.execute("SELECT commit_lsn::text, ordinal FROM cdc.slots WHERE slot = 'behind'").fetchone())

    one = running.events[0].position
    options = {"slot": "behind", "start_after": one}
    with Running(kind, database, lambda running: running.on("wells", look), **options) as running:
        running.caught_up(db)
    assert places[0] == (str(one.commit_lsn), 1) and len(places) == 2


def test_a_position_that_the_server_has_passed_is_a_gap(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database, start_after=None) as running:
        for number in (1, 2, 3):
            db.execute("INSERT INTO wells VALUES (%s)", (number,))
        running.caught_up(db)
    one, two, three = (event.position for event in running.events)
    for start_after in (None, one, two):
        with pytest.raises(cdc.GapError, match=f"handlers have finished up to {three}") as caught:
            handled(kind, database, db, start_after=start_after)
        assert caught.value.gap.kind is cdc.GapKind.POSITION_PASSED
        assert caught.value.gap.last == (start_after or three)
        assert caught.value.gap.tables == ("public.wells",)
    assert handled(kind, database, db, start_after=three) == []


def test_behind_a_gap_its_position_is_where_the_user_goes_on(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database, start_after=None) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
    old = running.events[0].position
    db.execute("SELECT pg_drop_replication_slot('ingest')")
    db.execute("INSERT INTO wells VALUES (2)")
    (gap,) = handled(kind, database, db, start_after=old, on_gap="deliver")
    assert gap.kind is cdc.GapKind.SLOT_DROPPED and gap.last == old and gap.position.epoch != old.epoch
    db.execute("INSERT INTO wells VALUES (3)")
    with pytest.raises(cdc.GapError, match="start_after is of epoch") as caught:
        handled(kind, database, db, start_after=old)
    assert caught.value.gap.kind is cdc.GapKind.OTHER_EPOCH
    assert keys(handled(kind, database, db, start_after=str(gap.position))) == [3]


def test_none_begins_at_the_slots_start(kind: str, database: str, db: psycopg.Connection) -> None:
    """Handlers have finished nothing yet, so nothing is missing."""
    assert handled(kind, database, db, start_after=None) == []
    db.execute("INSERT INTO wells VALUES (1)")
    assert keys(handled(kind, database, db, start_after=None)) == [1]


def test_a_position_of_a_slot_that_is_not_there_is_a_gap(kind: str, database: str, db: psycopg.Connection) -> None:
    position = cdc.Position("k3v9", cdc.Lsn(7), 1)
    with pytest.raises(cdc.GapError, match="there is no slot, but start_after names a position") as caught:
        handled(kind, database, db, start_after=position)
    assert caught.value.gap.kind is cdc.GapKind.SLOT_DROPPED and caught.value.gap.last == position
    assert db.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = 'ingest'").fetchone() is None


def test_a_position_behind_the_end_of_the_wal_is_a_gap(kind: str, database: str, db: psycopg.Connection) -> None:
    """As when the server's disk was restored, and the user's was not."""
    handled(kind, database, db)
    (epoch,) = db.execute("SELECT epoch FROM cdc.slots").fetchone() or ()
    with pytest.raises(cdc.GapError, match="the server was set back") as caught:
        handled(kind, database, db, start_after=f"{epoch}:FFF/0:1")
    assert caught.value.gap.kind is cdc.GapKind.OTHER_SERVER


def test_changes_that_the_user_does_not_hear_of_are_no_gap(kind: str, database: str, db: psycopg.Connection) -> None:
    """Other tables, caches and rows that a filter leaves out move on behind the last position that he has."""
    db.execute("CREATE TABLE projects (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE projects")

    def prepare(running: Running) -> None:
        running.on("wells", running.events.append, filter="id=eq.1")
        running.consumer.cache("projects", ttl=60)

    with Running(kind, database, prepare, start_after=None) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        db.execute("INSERT INTO wells VALUES (2)")
        db.execute("INSERT INTO projects VALUES (1)")
        running.caught_up(db)
        until(lambda: running.consumer._loop.link.session.saved.position == running.events[-1].position)
    (event,) = running.events
    with Running(kind, database, prepare, start_after=event.position) as running:
        running.caught_up(db)
        assert running.events == []
        db.execute("DELETE FROM wells")
        running.caught_up(db)
    assert keys(running.events) == [1]


def test_a_lost_connection_does_not_go_back_behind_start_after(
    kind: str, server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    with Running(kind, database) as running:
        running.caught_up(db)
        db.execute("SELECT pg_copy_logical_replication_slot('ingest', 'behind', false, 'pgoutput')")
        db.execute("INSERT INTO cdc.slots SELECT 'behind', system_id, timeline, epoch FROM cdc.slots")
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        running.caught_up(db)
    position = running.events[2].position
    with Proxy(server.port) as proxy:
        dsn = psycopg.conninfo.make_conninfo(database, host="127.0.0.1", port=proxy.port)
        with Running(kind, dsn, slot="behind", start_after=position) as running:
            for number in (1, 2):
                proxy.cut()
                until(lambda number=number: running.consumer.health().reconnects >= number)
                until(lambda: running.consumer.health().status is cdc.Status.LIVE)
            db.execute("INSERT INTO wells VALUES (4)")
            running.caught_up(db)
    assert keys(running.events) == [4]


@pytest.mark.parametrize("wrong", ["nonsense", "k3v9:0/7", 7, cdc.Lsn(7), b"k3v9:0/7:1", ""])
def test_what_is_no_position_is_refused(wrong: object) -> None:
    with pytest.raises(cdc.ConfigurationError, match=r"start_after is a cdc\.Position"):
        cdc.Consumer("", slot="ingest", start_after=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"slot": None}, {"slot": "ingest", "state": None}])
def test_a_position_needs_a_slot_whose_life_is_remembered(options: Any) -> None:
    with pytest.raises(cdc.ConfigurationError, match="start_after needs a named slot and a state"):
        cdc.Consumer("", start_after=None, **options)


# Effects happen once.

SQLITE = """
    import os, sqlite3, sys, cdc

    store = sqlite3.connect(sys.argv[2], isolation_level=None, check_same_thread=False)
    store.execute("PRAGMA journal_mode = WAL")
    store.execute("CREATE TABLE IF NOT EXISTS effects (well int)")
    store.execute("CREATE TABLE IF NOT EXISTS place (position text)")
    row = store.execute("SELECT position FROM place").fetchone()
    consumer = cdc.Consumer(sys.argv[1], slot="ingest", start_after=row and row[0])

    @consumer.on("wells")
    def keep(event):
        store.execute("BEGIN")
        store.execute("INSERT INTO effects VALUES (?)", (event.key,))
        store.execute("DELETE FROM place")
        store.execute("INSERT INTO place VALUES (?)", (str(event.position),))
        store.execute("COMMIT")

    consumer.run()
"""
POSTGRES = """
    import sys, psycopg, cdc

    store = psycopg.connect(sys.argv[2], autocommit=True)
    row = store.execute("SELECT position FROM place").fetchone()
    consumer = cdc.Consumer(sys.argv[1], slot="ingest", start_after=row and row[0])

    @consumer.on("wells")
    def keep(event):
        with store.transaction():
            store.execute("INSERT INTO effects VALUES (%s)", (event.key,))
            store.execute("DELETE FROM place")
            store.execute("INSERT INTO place VALUES (%s)", (str(event.position),))

    consumer.run()
"""
FORGETFUL = re.sub(r", start_after=row and row\[0\]", "", SQLITE)
"""The same with what cdc saves itself, for which a killed process repeats what it had not saved."""


def killed_and_restarted(program: str, dsn: str, store: str, db: psycopg.Connection, count: Any, path: Path) -> int:
    """Run the program under a writer, kill -9 it three times; the number of wells that were written."""
    path.write_text(textwrap.dedent(program))
    written = 0
    over = threading.Event()

    def write() -> None:
        nonlocal written
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not over.is_set():
                written += 5
                connection.execute("INSERT INTO wells SELECT generate_series(%s::int, %s::int)", (written - 4, written))
                time.sleep(0.01)

    writer = threading.Thread(target=write)
    process = subprocess.Popen([sys.executable, str(path), dsn, store])
    try:
        until(lambda: db.execute("SELECT 1 FROM pg_replication_slots WHERE active").fetchone())
        writer.start()
        for _ in range(3):
            had = count()
            until(lambda had=had: count() > had + 50)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process = subprocess.Popen([sys.executable, str(path), dsn, store])
        over.set()
        writer.join()
        until(lambda: count() >= written, timeout=60)
        until(lambda: settled(count))
    finally:
        over.set()
        process.kill()
        process.wait()
    return written


def settled(count: Any) -> bool:
    had = count()
    time.sleep(0.5)
    return bool(count() == had)


@pytest.mark.parametrize(("program", "exactly"), [(SQLITE, True), (FORGETFUL, False)], ids=["start_after", "saved"])
def test_effects_in_sqlite_happen_once(
    database: str, db: psycopg.Connection, tmp_path: Path, program: str, exactly: bool
) -> None:
    """Killed with -9 in the middle, three times. Without start_after effects are repeated, so the test can tell."""
    store = sqlite3.connect(tmp_path / "store")
    store.execute("CREATE TABLE effects (well int)")
    store.commit()

    def count() -> int:
        return int(store.execute("SELECT count(*) FROM effects").fetchone()[0])

    written = killed_and_restarted(program, database, str(tmp_path / "store"), db, count, tmp_path / "program.py")
    effects = [well for (well,) in store.execute("SELECT well FROM effects ORDER BY rowid")]
    assert set(effects) == set(range(1, written + 1)) and written > 150
    assert (effects == sorted(set(effects))) is exactly


def test_effects_in_another_database_happen_once(
    server: Sandbox, database: str, db: psycopg.Connection, tmp_path: Path
) -> None:
    other = server.create_database()
    with psycopg.connect(other, autocommit=True) as store:
        store.execute("CREATE TABLE effects (n serial, well int); CREATE TABLE place (position text)")

        def count() -> int:
            (number,) = store.execute("SELECT count(*) FROM effects").fetchone() or (0,)
            return int(number)

        program = POSTGRES.replace("INSERT INTO effects VALUES", "INSERT INTO effects (well) VALUES")
        written = killed_and_restarted(program, database, other, db, count, tmp_path / "program.py")
        effects = [well for (well,) in store.execute("SELECT well FROM effects ORDER BY n").fetchall()]
    assert effects == list(range(1, written + 1)) and written > 150


def saved(db: psycopg.Connection) -> cdc.Position | None:
    row = db.execute("SELECT epoch, commit_lsn::text, ordinal FROM cdc.slots").fetchone()
    return None if row is None or row[1] is None else cdc.Position(row[0], cdc.Lsn.parse(row[1]), row[2])


def test_the_server_forgets_nothing_behind_the_saved_position_that_a_queue_has_finished(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """Else the user could go back to before it, and nobody would notice what is missing."""
    gate = Gate(kind)

    prepare = lambda running: running.on("wells", gate.handler, queue=10)  # noqa: E731
    with Running(kind, database, prepare, start_after=None) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        db.execute("INSERT INTO wells VALUES (2)")
        gate.let()
        until(lambda: len(gate.entered) == 2)
        first, second = (event.position for event in gate.entered)
        time.sleep(2.5)  # Longer than two saves.
        assert saved(db) == first or confirmed(db) <= first.commit_lsn
        db.execute("INSERT INTO wells VALUES (3)")
        gate.let()
        until(lambda: len(gate.entered) == 3)
        until(lambda: saved(db) == second)
        assert second.commit_lsn < confirmed(db) <= gate.entered[2].position.commit_lsn
        gate.open()
        running.caught_up(db)
    assert saved(db) == gate.left[2].position


def test_the_position_of_a_message_is_the_users_too(kind: str, database: str, db: psycopg.Connection) -> None:
    def prepare(running: Running) -> None:
        running.consumer.on_message("outbox")(running.events.append)

    with Running(kind, database, prepare, start_after=None) as running:
        for text in ("a", "b"):
            db.execute("SELECT pg_logical_emit_message(true, 'outbox', %s)", (text,))
        running.caught_up(db)
    one, two = (event.position for event in running.events)
    assert saved(db) == two
    with (
        pytest.raises(cdc.GapError, match=f"handlers have finished up to {two}"),
        Running(kind, database, prepare, start_after=one),
    ):
        pass
