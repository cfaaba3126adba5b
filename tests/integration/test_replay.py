"""Recorded streams: a replay delivers, without a server, exactly what was delivered live."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdc
from cdc.recording import Batch, Conversation, End, Recording
from cdc.testing import Sandbox, replay
from tests.harness import QUICK, Running, until
from tests.proxy import Proxy
from tests.replayed import Recorded, printed, replayed, replayed_async

FILL = "INSERT INTO wells SELECT n, repeat('x', 100) FROM generate_series(%s::int, %s::int) n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stream.cdc"


def work(db: psycopg.Connection) -> None:
    """A little of everything."""
    db.execute("INSERT INTO wells VALUES (1, 'North', NULL, 12.50, repeat('n', 9000)), (2, 'South', NULL, NULL, NULL)")
    db.execute("UPDATE wells SET depth = 13 WHERE id = 1")
    db.execute("UPDATE wells SET id = 7 WHERE id = 2")
    db.execute("DELETE FROM wells WHERE id = 7")
    with db.transaction():
        db.execute("INSERT INTO wells (id) SELECT generate_series(100, 140)")
        db.execute("DELETE FROM wells WHERE id > 120")
    db.execute("TRUNCATE wells RESTART IDENTITY")


def conversations(path: Path) -> list[Conversation]:
    return Recording(path).conversations()


def keys(path: Path) -> list[Any]:
    return [event.key for event in replay(path).events("wells")]


def test_a_replay_delivers_the_same_events(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    with Recorded(path, kind, database) as running:
        work(db)
        running.caught_up(db)
    live = running.printed
    assert len(live) == 5 + 41 + 20 + 1 and live[0][1] != live[1][1]
    assert replayed(path) == live
    assert asyncio.run(replayed_async(path)) == live
    assert [printed(event) for event in replay(path).events("wells")] == live


def test_streamed_transactions(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    db.execute(f"ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'")
    with Recorded(path, kind, database) as running:
        with db.transaction():
            db.execute(FILL, (1, 2000))
            with db.transaction(force_rollback=True):
                db.execute(FILL, (5001, 7000))
            db.execute("DELETE FROM wells WHERE id % 3 = 0")
        with db.transaction(force_rollback=True):
            db.execute(FILL, (8001, 9900))
        db.execute("UPDATE wells SET name = 'y' WHERE id < 3")
        running.caught_up(db)
    assert len(running.events) == 2000 + 666 + 2
    kinds = {frame[25:26] for record in Recording(path) if isinstance(record, Batch) for frame in record.frames}
    assert {b"S", b"E", b"c", b"A"} <= kinds  # it was streamed
    assert replayed(path) == running.printed


def test_a_reconnect_in_the_middle(
    kind: str, server: Sandbox, database: str, db: psycopg.Connection, path: Path
) -> None:
    with (
        Proxy(server.port) as proxy,
        Recorded(path, kind, psycopg.conninfo.make_conninfo(database, host="127.0.0.1", port=proxy.port)) as running,
    ):
        for number in range(60):
            db.execute("INSERT INTO wells VALUES (%s)", (number,))
            if number in (20, 40):
                running.caught_up(db)
                proxy.cut()
        running.caught_up(db)
    assert [event.key for event in running.events] == list(range(60))
    found = conversations(path)
    assert len(found) == 3 and len({each.run for each in found}) == 1
    assert found[0].skip is None and found[1].skip is not None
    reasons = [record.reason for record in Recording(path) if isinstance(record, End)]
    assert reasons[:2] == ["the connection was lost"] * 2
    assert replayed(path) == running.printed


def test_a_gap_of_a_temporary_slot(
    kind: str, server: Sandbox, database: str, db: psycopg.Connection, path: Path
) -> None:
    dsn = psycopg.conninfo.make_conninfo(database, host="127.0.0.1")
    with Proxy(server.port) as proxy:
        dsn = psycopg.conninfo.make_conninfo(dsn, port=proxy.port)
        with Recorded(path, kind, dsn, slot=None) as running:
            db.execute("INSERT INTO wells VALUES (1)")
            running.caught_up(db)
            proxy.cut()
            until(lambda: len(running.events) == 2)
            db.execute("INSERT INTO wells VALUES (2)")
            running.caught_up(db)
    assert [type(event) for event in running.events] == [cdc.Insert, cdc.Gap, cdc.Insert]
    assert replayed(path) == running.printed


def test_ddl_in_the_middle(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    with Recorded(path, kind, database) as running:
        for statement in (
            "INSERT INTO wells (id, name) VALUES (1, '7')",
            "CREATE TYPE mood AS ENUM ('sad', 'ok'); ALTER TABLE wells ADD COLUMN mood mood DEFAULT 'ok'",
            "INSERT INTO wells (id) VALUES (2)",
            "ALTER TABLE wells ALTER name TYPE int USING name::int, DROP COLUMN depth",
            "UPDATE wells SET name = 8 WHERE id = 1",
            "ALTER TABLE wells REPLICA IDENTITY FULL",
            "UPDATE wells SET name = 9, mood = 'sad' WHERE id = 1",
        ):
            db.execute(statement)
            running.caught_up(db)
    live = running.printed
    assert [each[0] for each in live].count("SchemaChange") == 3
    # What the catalog says by now is something else.
    db.execute("ALTER TABLE wells DROP CONSTRAINT wells_pkey; ALTER TABLE wells DROP COLUMN mood; DROP TYPE mood")
    assert replayed(path) == live


def test_keys_under_identity_full_are_those_of_the_catalog(
    kind: str, database: str, db: psycopg.Connection, path: Path
) -> None:
    db.execute("CREATE TABLE pairs (note text, a int, b text, PRIMARY KEY (b, a)); CREATE TABLE loose (n int)")
    db.execute("ALTER TABLE pairs REPLICA IDENTITY FULL; ALTER TABLE loose REPLICA IDENTITY FULL")
    db.execute("ALTER PUBLICATION wells ADD TABLE pairs, loose")

    def subscribe(running: Running) -> None:
        for table in ("pairs", "loose"):
            running.on(table, running.events.append)

    with Recorded(path, kind, database, subscribe) as running:
        db.execute("INSERT INTO pairs VALUES ('x', 1, 'b')")
        db.execute("UPDATE pairs SET a = 2")
        db.execute("INSERT INTO loose VALUES (5)")
        db.execute("DELETE FROM loose")
        running.caught_up(db)
    assert [event.key for event in running.events] == [(1, "b"), (2, "b"), None, None]
    assert replayed(path, "pairs", "loose") == running.printed


TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE point3 AS (x int, y numeric, mood mood);
CREATE DOMAIN metres AS numeric(9, 2) CHECK (VALUE >= 0);
CREATE TYPE span AS RANGE (subtype = numeric);
CREATE TABLE shapes (id int PRIMARY KEY, mood mood, moods mood[], corner point3, corners point3[], deep metres,
    span span, at timestamptz, doc jsonb, tags text[], raw bytea);
ALTER PUBLICATION wells ADD TABLE shapes
"""
SHAPE = """
INSERT INTO shapes VALUES (1, 'ok', '{sad,ok,NULL}', '(1,2.50,sad)', ARRAY['(1,2,ok)'::point3], 12.30, '[1.5,2)',
    '2024-02-29 12:00+00', '{"a": [1, 2]}', '[0:1]={a,NULL}', '\\xdeadbeef')
"""


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_types_of_users(kind: str, database: str, db: psycopg.Connection, path: Path, binary: bool) -> None:
    db.execute(TYPES)
    prepare = lambda running: running.on("shapes", running.events.append)  # noqa: E731
    with Recorded(path, kind, database, prepare, binary=binary) as running:
        db.execute(SHAPE)
        db.execute("UPDATE shapes SET corner = NULL, mood = 'sad'")
        running.caught_up(db)
    live = running.printed
    assert (running.events[0].new["corner"]["mood"], running.events[1].new["mood"]) == ("sad", "sad")
    db.execute("DROP TABLE shapes; DROP TYPE point3; DROP TYPE mood; DROP DOMAIN metres; DROP TYPE span")
    assert replayed(path, "shapes") == live


def test_prepared_transactions(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    options = {"two_phase": db.info.server_version >= 150000}
    with Recorded(path, kind, database, **options) as running:
        for gid, end in (("one", "COMMIT"), ("two", "ROLLBACK")):
            db.execute("BEGIN; INSERT INTO wells SELECT generate_series(1, 5)")
            db.execute(f"PREPARE TRANSACTION '{gid}'")
            db.execute(f"{end} PREPARED '{gid}'")
            db.execute("DELETE FROM wells")
        running.caught_up(db)
    assert len(running.events) >= 6
    assert replayed(path) == running.printed


def test_a_filter_judges_as_it_did(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL")
    prepare = lambda running: running.on("wells", running.events.append, filter="name=eq.North")  # noqa: E731
    with Recorded(path, kind, database, prepare) as running:
        work(db)
        db.execute("INSERT INTO wells VALUES (1, 'North')")
        db.execute("UPDATE wells SET name = 'South'")
        db.execute("UPDATE wells SET name = 'North'")
        running.caught_up(db)
    assert [event.effect for event in running.events if isinstance(event, cdc.Update)] == ["STAY", "LEAVE", "ENTER"]
    assert replayed(path, filter="name=eq.North") == running.printed
    assert len(replayed(path)) > len(running.events)


def test_registered_decoders_are_to_be_registered_again(
    kind: str, database: str, db: psycopg.Connection, path: Path
) -> None:
    def subscribe(running: Running) -> None:
        running.consumer.register_type("numeric", float)
        running.on("wells", running.events.append)

    with Recorded(path, kind, database, subscribe) as running:
        db.execute("INSERT INTO wells (id, depth) VALUES (1, 2.5)")
        running.caught_up(db)
    assert replayed(path, prepare=lambda again: again.register_type("numeric", float)) == running.printed
    without = replay(path)
    assert "a decoder was registered for numeric" in without.notes[0]
    assert [type(event.new["depth"]) for event in without.events("wells")] == [Decimal]


def test_a_consumer_that_is_stopped_in_a_batch_is_replayed_up_to_there(
    kind: str, database: str, db: psycopg.Connection, path: Path
) -> None:
    def stop_at_7(running: Running) -> None:
        def handle(event: Any) -> Any:
            running.events.append(event)
            return running.consumer.stop() if len(running.events) == 7 else None

        running.on("wells", handle)

    with Running(kind, database):  # makes the slot
        pass
    db.execute("INSERT INTO wells (id) SELECT generate_series(1, 5)")
    db.execute("INSERT INTO wells (id) SELECT generate_series(6, 20)")
    with Recorded(path, kind, database, stop_at_7) as running:
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
    assert [event.key for event in running.events] == [1, 2, 3, 4, 5, 6, 7]
    assert replayed(path) == running.printed
    # The next run continues the file, and has the rest.
    with Recorded(path, kind, database) as more:
        more.caught_up(db)
    assert [event.key for event in more.events] == list(range(8, 21))
    assert more.events[0].previous is None
    assert replayed(path) == running.printed + more.printed


def test_what_a_handler_did_not_survive_is_recorded(
    kind: str, database: str, db: psycopg.Connection, path: Path
) -> None:
    def refuse(event: Any) -> None:
        if event.key == 3:
            raise ValueError("well 3")

    with pytest.raises(cdc.HandlerError), Recorded(path, kind, database, lambda r: r.on("wells", refuse)) as running:
        db.execute("INSERT INTO wells (id) SELECT generate_series(1, 5)")
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
    again = replay(path)
    again.on("wells")(refuse)
    with pytest.raises(cdc.HandlerError, match="well 3"):
        again.run()
    assert keys(path) == [1, 2, 3, 4, 5]


PROGRAM = """
import sys, cdc
consumer = cdc.Consumer(sys.argv[1], slot="ingest")
consumer.record(sys.argv[2])
consumer.subscribe("wells", lambda event: print(event.key, flush=True))
consumer.run()
"""


def test_a_killed_process_leaves_what_it_was_given(database: str, db: psycopg.Connection, path: Path) -> None:
    with Running("blocking", database):
        pass
    command = [sys.executable, "-c", PROGRAM, database, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for number in range(20):
            db.execute("INSERT INTO wells (id) VALUES (%s)", (number,))
            assert process.stdout.readline() == f"{number}\n"
        os.kill(process.pid, signal.SIGKILL)
    assert keys(path) == list(range(20))
    # As if it had been killed while it wrote.
    os.truncate(path, path.stat().st_size - 3)
    again = replay(path)
    seen = [event.key for event in again.events("wells")]
    assert seen == list(range(len(seen))) and len(seen) >= 18
    assert any("no whole record" in note for note in again.notes)
    with Running("blocking", database, backoff=QUICK) as more, more.consumer.record(path):
        db.execute("INSERT INTO wells (id) VALUES (20)")
        more.caught_up(db)
    assert Recording(path).note is None
    assert keys(path)[len(seen) :][-1:] == [20]


# Beginning and ending.


def test_recording_begins_and_ends_while_it_runs(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    db.execute("CREATE TYPE mood AS ENUM ('sad', 'ok'); ALTER TABLE wells ADD mood mood")
    with Running(kind, database) as running:
        db.execute("INSERT INTO wells (id, mood) VALUES (1, 'ok')")
        running.caught_up(db)
        with running.consumer.record(path) as recorder:
            until(lambda: recorder.has_begun)
            db.execute("INSERT INTO wells (id, mood) VALUES (2, 'sad'), (3, NULL)")
            running.caught_up(db)
            with pytest.raises(cdc.ConfigurationError, match="is recorded to .* already"):
                running.consumer.record(path.with_name("other"))
        db.execute("INSERT INTO wells (id) VALUES (4)")
        running.caught_up(db)
        assert running.consumer.health().colour is cdc.Colour.GREEN
    assert recorder.frames > 0 and not recorder.is_open
    first, second = replayed(path)
    live = [printed(event) for event in running.events[1:3]]
    assert second == live[1]
    # It is the first one for those who begin there; the rest is the same.
    assert first[4] is None and first[:4] + first[5:] == live[0][:4] + live[0][5:]
    assert conversations(path)[0].relations[0].types[0].name == "mood"


def test_recording_waits_until_no_transaction_is_open(
    kind: str, database: str, db: psycopg.Connection, path: Path
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    db.execute(f"ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'")
    with Running(kind, database) as running:
        streaming = lambda: running.consumer._loop.session.stream._holding._streamed  # noqa: E731
        with psycopg.connect(database) as other:
            other.execute(FILL, (1, 2000))
            until(streaming)
            recorder = running.consumer.record(path)
            db.execute("INSERT INTO wells VALUES (9001)")
            running.caught_up(db)
            assert not recorder.has_begun
            other.commit()
        until(lambda: recorder.has_begun)
        db.execute("INSERT INTO wells VALUES (9002)")
        running.caught_up(db)
    assert keys(path) == [9002]
