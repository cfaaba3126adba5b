"""Recorded streams: a replay delivers, without a server, exactly what was delivered live."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdc
from cdc.recording import MAGIC, Batch, Conversation, End, Recording
from cdc.testing import Sandbox, check_recording, check_stream, replay
from tests.harness import QUICK, Running, until
from tests.proxy import Proxy
from tests.replayed import Recorded, changed, printed, replayed, replayed_async

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
    # Whatever had arrived together with it is there, too.
    assert keys(path) in ([1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4, 5])


def test_a_consumer_that_failed_at_the_shape_of_a_table(
    kind: str, database: str, db: psycopg.Connection, path: Path
) -> None:
    """Nobody described the tables whose frames had arrived behind that: the replay ends there, and it is no damage."""
    with Running(kind, database):
        pass
    db.execute("INSERT INTO wells (id) VALUES (1)")
    db.execute("ALTER TABLE wells ADD COLUMN status text; ALTER TABLE wells REPLICA IDENTITY FULL")
    db.execute("INSERT INTO wells (id, status) VALUES (2, 'open'), (3, 'shut')")
    prepare = lambda running: running.on("wells", running.events.append, filter="status=eq.open")  # noqa: E731
    with pytest.raises(cdc.SubscriptionError), Recorded(path, kind, database, prepare) as running:
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
    assert keys(path)[:1] == [1]
    assert check_recording(path).problems == []


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
        streaming = lambda: running.consumer._loop.link.session.stream._holding._streamed  # noqa: E731
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


# What goes wrong.


def test_a_file_that_cannot_be_written_is_refused_at_once(kind: str, database: str, tmp_path: Path) -> None:
    consumer = Running(kind, database).consumer
    for path, words in (
        (tmp_path / "none" / "stream.cdc", "its folder does not exist"),
        (tmp_path, "cannot be written: Is a directory"),
        (Path("/dev/null"), "it is not a regular file"),
    ):
        with pytest.raises(cdc.ConfigurationError, match=words):
            consumer.record(path)
    other = tmp_path / "other"
    other.write_text("a text of somebody, which stays as it is")
    with pytest.raises(cdc.ConfigurationError, match="is not a recording of cdc"):
        consumer.record(other)
    other.write_bytes(b"cdc recording 7\nwhatever")
    with pytest.raises(cdc.ConfigurationError, match="of format 7, and this release reads format 1"):
        consumer.record(other)
    assert other.read_bytes() == b"cdc recording 7\nwhatever"
    with (
        consumer.record(tmp_path / "a"),
        pytest.raises(cdc.ConfigurationError, match="another consumer records to"),
    ):
        Running(kind, database).consumer.record(tmp_path / "a")


def test_a_full_disk_ends_the_recording_and_not_the_consumer(
    kind: str, database: str, db: psycopg.Connection, path: Path
) -> None:
    """The limit is for this process, so that no other test runs meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with Recorded(path, kind, database) as running:
            db.execute("INSERT INTO wells VALUES (1)")
            running.caught_up(db)
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 2000, hard))
            for number in range(2, 40):
                db.execute("INSERT INTO wells VALUES (%s, repeat('x', 100))", (number,))
            running.caught_up(db)
            health = running.consumer.health()
            assert not running.recorder.is_open
            running.recorder.close()
            recovered = running.consumer.health()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, former)
    assert [event.key for event in running.events] == list(range(1, 40))
    assert health.colour is cdc.Colour.YELLOW
    assert any("the recording" in reason and "File too large" in reason for reason in health.reasons)
    assert recovered.colour is cdc.Colour.GREEN
    live = running.printed
    again = replayed(path)
    assert 1 <= len(again) < len(live) and again == live[: len(again)]
    assert Recording(path).note is None
    assert check_recording(path).is_sound


def test_what_a_replay_cannot_do_is_refused(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    with Recorded(path, kind, database) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
    with pytest.raises(cdc.ConfigurationError, match="a recording holds no roles, grants and policies"):
        replay(path).subscribe("wells", print, subject=cdc.Subject("authenticated"))
    with pytest.raises(cdc.ConfigurationError, match="a recording has no server from which a cache could load"):
        replay(path).cache("wells", ttl=1)
    with pytest.raises(cdc.ConfigurationError, match="a replay cannot be recorded"):
        replay(path).record(path)
    with pytest.raises(cdc.SubscriptionError, match=r"has no table public\.nothing: published were public\.wells"):
        list(replay(path).events("nothing"))
    with pytest.raises(cdc.SubscriptionError, match="no published column 'colour'|colour"):
        list(replay(path).events("wells", filter="colour=eq.red"))
    with pytest.raises(cdc.ConfigurationError, match="cannot be read: No such file"):
        replay(path.with_name("nothing"))
    empty = path.with_name("empty")
    cdc.Consumer(database, slot="never").record(empty).close()
    with pytest.raises(cdc.ConfigurationError, match="is empty: no connection was made"):
        replay(empty)


def test_damage_in_the_middle_is_an_error(database: str, db: psycopg.Connection, path: Path) -> None:
    with Recorded(path, "blocking", database) as running:
        work(db)
        running.caught_up(db)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(cdc.CdcError, match="is damaged at byte"):
        replayed(path)
    assert not check_recording(path).is_sound
    data[len(data) // 2] ^= 1
    # Zeros behind the end, as a crash of the machine leaves them, are no damage.
    path.write_bytes(bytes(data) + bytes(5000))
    again = replay(path)
    assert len(list(again.events("wells"))) == len(running.events)
    assert "the last 5000 bytes" in again.notes[0]


def test_a_recording_can_be_cut_off_anywhere(database: str, db: psycopg.Connection, path: Path) -> None:
    with Recorded(path, "blocking", database) as running:
        work(db)
        running.caught_up(db)
    live, data = running.printed, path.read_bytes()
    first = len(MAGIC) + 2000  # behind the header
    for size in range(first, len(data), 997):
        path.write_bytes(data[:size])
        again = replayed(path)
        assert again == live[: len(again)]


# Looking.


def test_until_a_position(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    with Recorded(path, kind, database) as running:
        work(db)
        running.caught_up(db)
    live = running.printed
    for index in (0, 4, 20, len(live) - 1):
        position = running.events[index].position
        for until_ in (position, str(position)):
            assert [printed(event) for event in replay(path, until=until_).events("wells")] == live[: index + 1]


def test_a_replay_that_is_left_early_ends_well(database: str, db: psycopg.Connection, path: Path) -> None:
    with Recorded(path, "blocking", database) as running:
        work(db)
        running.caught_up(db)
    again = replay(path)
    events = again.events("wells")
    assert next(events).key == 1
    assert abs(again.at - running.events[0].commit_time) < timedelta(seconds=100)
    events.close()
    again.close()
    assert again.health().status is cdc.Status.STOPPED


def test_recorded_streams_are_sound(kind: str, server: Sandbox, database: str, db: Any, path: Path) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    db.execute(f"ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'")
    with (
        Proxy(server.port) as proxy,
        Recorded(path, kind, psycopg.conninfo.make_conninfo(database, host="127.0.0.1", port=proxy.port)) as running,
    ):
        work(db)
        db.execute(FILL, (1, 1500))
        proxy.cut()
        db.execute("ALTER TABLE wells ADD COLUMN more int")
        db.execute("UPDATE wells SET more = 1 WHERE id < 5")
        running.caught_up(db)
    found = check_recording(path)
    assert found.problems == [] and found.events == len(running.events) and found.again == 0
    assert check_stream(running.events).is_sound


# The command.


def run_cdc(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from cdc.daemon import main; sys.argv[0] = 'cdc'; main()"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, cwd=folder)


def test_the_command(database: str, db: psycopg.Connection, path: Path) -> None:
    db.execute('CREATE TABLE "Odd.Name" (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE "Odd.Name"')

    def subscribe(running: Running) -> None:
        for table in ("wells", '"Odd.Name"'):
            running.on(table, running.events.append)

    with Recorded(path, "blocking", database, subscribe) as running:
        db.execute("INSERT INTO wells VALUES (1, 'North'), (2, 'South')")
        db.execute('INSERT INTO "Odd.Name" VALUES (5)')
        running.caught_up(db)
    lines = [event.to_json() for event in running.events]
    folder, name = path.parent, path.name
    everything = run_cdc("replay", name, folder=folder)
    assert (everything.returncode, everything.stdout.splitlines(), everything.stderr) == (0, lines, "")
    one = run_cdc("replay", name, "--table", "wells", "--filter", "name=eq.South", folder=folder)
    assert (one.returncode, one.stdout.splitlines()) == (0, lines[1:2])
    none = run_cdc("replay", name, "--operations", "delete", folder=folder)
    assert (none.returncode, none.stdout) == (0, "")
    first = run_cdc("replay", name, "--until", str(running.events[0].position), folder=folder)
    assert first.stdout.splitlines() == lines[:1]
    (folder / "app.py").write_text("def push(event): print('pushed', event.table, event.key)\n")
    pushed = run_cdc("replay", name, "--handlers", "app:push", folder=folder)
    assert pushed.stdout.splitlines() == ["pushed wells 1", "pushed wells 2", "pushed Odd.Name 5"]
    sound = run_cdc("replay", name, "--check", folder=folder)
    assert sound.returncode == 0 and sound.stdout.startswith("sound: ") and "3 events" in sound.stdout


def test_the_command_says_what_is_wrong(database: str, db: psycopg.Connection, path: Path) -> None:
    with Recorded(path, "blocking", database) as running:
        work(db)
        running.caught_up(db)

    def lose(records: list[Any]) -> None:
        del records[next(i for i, each in enumerate(records) if isinstance(each, Batch) and len(each.frames) > 1)]

    folder, name = path.parent, path.name
    damaged = changed(path, lose).name
    for words, code, said in (
        (["nothing"], 2, "cannot be read"),
        ([name, "--until", "soon"], 2, "--until: 'soon' is not a position"),
        ([name, "--filter", "id=eq.1"], 2, "--filter needs one --table"),
        ([name, "--check", "--table", "wells"], 2, "--check looks at the whole recording"),
        ([name, "--table", "nothing"], 2, "has no table public.nothing"),
        ([name, "--handlers", "app:nothing"], 2, "handler 'app:nothing'"),
        ([damaged], 1, "is damaged"),
        ([damaged, "--check"], 1, "missing"),
    ):
        answer = run_cdc("replay", *words, folder=folder)
        assert answer.returncode == code and said in answer.stdout + answer.stderr, (words, answer)
        assert "Traceback" not in answer.stderr
    path.write_bytes(path.read_bytes()[:-2])
    torn = run_cdc("replay", name, folder=folder)
    assert torn.returncode == 0 and "no whole record" in torn.stderr
