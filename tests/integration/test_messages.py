"""Logical messages: in their place, exactly those that were committed, and never one that was rolled back."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdc
from cdc.rls import Subject
from tests.harness import Running, until

EMIT = "SELECT pg_logical_emit_message(true, %s, %s)"
AT_ONCE = "SELECT pg_logical_emit_message(false, %s, %s)"


def listening(*prefixes: str, **options: Any) -> Callable[[Running], None]:
    """Both rows and messages go to the same list."""

    def prepare(running: Running) -> None:
        running.on("wells", running.events.append)
        running.consumer.on_message(*prefixes, **options)(running.events.append)

    return prepare


def told(events: list[Any]) -> list[Any]:
    return [event.text() if isinstance(event, cdc.Message) else event.key for event in events]


def emit(connection: psycopg.Connection, *contents: str, prefix: str = "outbox") -> None:
    for content in contents:
        connection.execute(EMIT, (prefix, content))


def texts(events: list[Any]) -> list[str]:
    return [event.text() for event in events if isinstance(event, cdc.Message)]


def ended(running: Running) -> bool:
    return bool(running.consumer.health().status == "STOPPED")


def reconnect(running: Running, db: psycopg.Connection) -> None:
    before = running.consumer.health().reconnects
    db.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'ingest'")
    until(lambda: running.consumer.health().reconnects > before)
    until(lambda: running.consumer.health().status == "LIVE")


def small_work_mem(dsn: str) -> None:
    """The least that the server may have: everything larger is streamed."""
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'")


# Transactional ones.


def test_a_message_stands_among_the_rows_of_its_transaction(kind: str, db: psycopg.Connection, database: str) -> None:
    with Running(kind, database, listening("outbox")) as running:
        with db.transaction():
            emit(db, '{"a": 1}')
            db.execute("INSERT INTO wells (id) VALUES (1)")
            emit(db, "b", "c")
            db.execute("INSERT INTO wells (id) VALUES (2)")
            (xid,) = db.execute("SELECT txid_current()").fetchone() or (0,)
        emit(db, "alone")
        running.caught_up(db)
        events = running.events
        assert told(events) == ['{"a": 1}', 1, "b", "c", 2, "alone"]
        first, row, second, third, other, alone = events
        assert first.json() == {"a": 1} and first.content == b'{"a": 1}' and first.prefix == "outbox"
        assert first.transactional and first.xid == xid % (1 << 32) == row.xid
        assert first.commit_time == row.commit_time
        assert [event.position.ordinal for event in events[:5]] == [0, 1, 1, 1, 2]
        assert {event.position.commit_lsn for event in events[:5]} == {row.position.commit_lsn}
        assert first.lsn < second.lsn < third.lsn < alone.lsn <= alone.position.commit_lsn
        assert alone.position.ordinal == 0
        assert [first.previous, second.previous, third.previous, alone.previous] == [
            None,
            first.position,
            second.position,
            third.position,
        ]
        assert other.previous == row.position, "a message does not stand between the rows of another subscription"
        listener = running.consumer.subscriptions[1]
        assert listener.delivered == 4 and listener.previous == alone.position
        assert repr(listener) == "<Listener to messages outbox>" and listener.name.startswith("messages outbox ")
        listener.close()
        emit(db, "late")
        running.caught_up(db)
        assert len(events) == 6


def test_its_lsn_is_what_the_writer_was_told(kind: str, db: psycopg.Connection, database: str) -> None:
    with Running(kind, database, listening("outbox")) as running:
        said = [db.execute(query, ("outbox", "a")).fetchone() for query in (EMIT, AT_ONCE, EMIT)]
        running.caught_up(db)
        assert [(str(event.lsn),) for event in running.events] == said


def test_prefixes_are_exact_or_match_as_in_a_shell(kind: str, db: psycopg.Connection, database: str) -> None:
    heard: dict[str, list[Any]] = {"outbox": [], "outbox.*": [], "*": [], "a, b": []}

    def prepare(running: Running) -> None:
        for prefixes, events in heard.items():
            running.consumer.on_message(*prefixes.split(", "))(events.append)

    with Running(kind, database, prepare) as running:
        for prefix in ("outbox", "outbox.mail", "Outbox", "outboxes", "b", "a"):
            emit(db, prefix, prefix=prefix)
        running.caught_up(db)
        assert {name: texts(events) for name, events in heard.items()} == {
            "outbox": ["outbox"],
            "outbox.*": ["outbox.mail"],
            "*": ["outbox", "outbox.mail", "Outbox", "outboxes", "b", "a"],
            "a, b": ["b", "a"],
        }


def test_no_table_is_needed(kind: str, db: psycopg.Connection, database: str) -> None:
    db.execute("CREATE PUBLICATION nothing")
    events: list[Any] = []
    subscribed: Any = lambda running: running.consumer.on_message("outbox")(events.append)  # noqa: E731
    with Running(kind, database, subscribed, publication="nothing") as running:
        emit(db, "a")
        db.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
        assert texts(events) == ["a"]


def test_bytes_that_are_no_text(kind: str, db: psycopg.Connection, database: str) -> None:
    with Running(kind, database, listening("b")) as running:
        db.execute("SELECT pg_logical_emit_message(true, 'b', '\\x00ff'::bytea)")
        db.execute("SELECT pg_logical_emit_message(true, 'b', 'é')")
        running.caught_up(db)
        raw, text = running.events
        assert raw.content == b"\0\xff"
        said = raw.to_dict()
        assert (said["content"], said["text"]) == ("\\x00ff", None)
        assert text.to_dict()["text"] == "é" and '{"message": {' in text.to_json()
        rows = {1: "kept"}
        raw.apply(rows)
        assert rows == {1: "kept"}


@pytest.mark.parametrize("streaming", ["on", "off"])
def test_what_was_rolled_back_is_never_told(kind: str, db: psycopg.Connection, database: str, streaming: str) -> None:
    """A message in a sub-transaction carries the xid of the whole when streamed: it is read again without streaming."""
    small_work_mem(database)
    with Running(kind, database, listening("outbox"), streaming=streaming) as running:
        with db.transaction(force_rollback=True):
            emit(db, "never")
        with db.transaction():
            emit(db, "1")
            with db.transaction(force_rollback=True):
                emit(db, "in a sub-transaction, never")
                db.execute("INSERT INTO wells SELECT n, repeat('x', 100) FROM generate_series(1, 2000) n")
                emit(db, "behind rows, never")
            with db.transaction():
                emit(db, "2")
                with db.transaction(force_rollback=True):
                    emit(db, "deeper, never", "once more, never")
            db.execute("INSERT INTO wells SELECT n, repeat('x', 100) FROM generate_series(1, 2000) n")
            emit(db, "3")
            with db.transaction(force_rollback=True):
                emit(db, "late, never")
            emit(db, "4")
        emit(db, "5")
        running.caught_up(db, timeout=60)
        assert texts(running.events) == ["1", "2", "3", "4", "5"]
        keys = [event.key for event in running.events if not isinstance(event, cdc.Message)]
        assert keys == list(range(1, 2001))
        reconnects = running.consumer.health().reconnects
        assert reconnects == (streaming == "on")
        with db.transaction():
            with db.transaction(force_rollback=True):
                emit(db, "again, never")
            db.execute("UPDATE wells SET name = 'y' || name")
        running.caught_up(db, timeout=60)
        assert texts(running.events) == ["1", "2", "3", "4", "5"]
        assert running.consumer.health().reconnects == reconnects, "from then on it does not stream"


def test_a_temporary_slot_does_not_stream_messages(kind: str, db: psycopg.Connection, database: str) -> None:
    """It could not be read again."""
    small_work_mem(database)
    with Running(kind, database, listening("outbox"), slot=None) as running:
        with db.transaction():
            with db.transaction(force_rollback=True):
                emit(db, "never")
            db.execute("INSERT INTO wells SELECT n, repeat('x', 100) FROM generate_series(1, 2000) n")
            emit(db, "1")
        running.caught_up(db, timeout=60)
        assert told(running.events) == [*range(1, 2001), "1"]
        assert running.consumer.health().reconnects == 0


def test_messages_of_a_streamed_transaction(kind: str, db: psycopg.Connection, database: str) -> None:
    """Nothing of it was rolled back, so that it is clear which are told; the connection stays."""
    small_work_mem(database)
    with Running(kind, database, listening("outbox")) as running:
        with db.transaction():
            emit(db, "1")
            db.execute("INSERT INTO wells SELECT n, repeat('x', 100) FROM generate_series(1, 2000) n")
            with db.transaction():
                emit(db, "2")
            with db.transaction(force_rollback=True):
                pass
            emit(db, "3")
            running.caught_up(db)
            assert running.events == []
        running.caught_up(db, timeout=60)
        assert told(running.events) == ["1", *range(1, 2001), "2", "3"]
        assert running.consumer.health().reconnects == 0
        assert running.events[-1].position == running.events[-3].position


def test_rolled_back_rows_before_the_first_message_cost_no_connection(
    kind: str, db: psycopg.Connection, database: str
) -> None:
    small_work_mem(database)
    with Running(kind, database, listening("outbox")) as running:
        with db.transaction():
            with db.transaction(force_rollback=True):
                db.execute("INSERT INTO wells SELECT n, repeat('x', 100) FROM generate_series(1, 2000) n")
            emit(db, "1")
        running.caught_up(db, timeout=60)
        assert told(running.events) == ["1"]
        assert running.consumer.health().reconnects == 0


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_messages_of_a_prepared_transaction(
    kind: str, db: psycopg.Connection, database: str, large: bool, asked: bool
) -> None:
    small_work_mem(database)
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    two_phase = asked and db.info.server_version >= 150000
    with Running(kind, database, listening("outbox"), two_phase=two_phase) as running:
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("BEGIN")
            emit(other, "1")
            other.execute("SAVEPOINT s")
            emit(other, "never")
            other.execute("INSERT INTO wells SELECT n, repeat('x', 100) FROM generate_series(1, %s) n", (2000 * large,))
            other.execute("ROLLBACK TO s")
            emit(other, "2")
            other.execute(f"PREPARE TRANSACTION '{name}'")
        emit(db, "3")
        running.caught_up(db, timeout=60)
        assert texts(running.events) == ["3"]
        db.execute(f"COMMIT PREPARED '{name}'")
        running.caught_up(db, timeout=60)
        assert texts(running.events) == ["3", "1", "2"]
    with Running(kind, database, listening("outbox"), two_phase=two_phase) as running:
        emit(db, "4")
        running.caught_up(db)
        assert texts(running.events) == ["4"]


# Not transactional.


def test_a_message_that_is_not_transactional_comes_at_once(kind: str, db: psycopg.Connection, database: str) -> None:
    with Running(kind, database, listening("outbox")) as running:
        emit(db, "before")
        with db.transaction(force_rollback=True):
            db.execute("INSERT INTO wells (id) VALUES (1)")
            db.execute(AT_ONCE, ("outbox", "a"))
            emit(db, "never")
            with psycopg.connect(database, autocommit=True) as other:
                other.execute("INSERT INTO wells (id) VALUES (2)")
                running.caught_up(other)
            assert told(running.events) == ["before", "a", 2]
        before, message, _ = running.events
        assert not message.transactional
        assert message.position is message.xid is message.commit_time is None
        assert message.previous == before.position and message.lsn > before.lsn
        assert message.to_dict()["position"] is None
        until(lambda: running.consumer.health().confirmed_lsn > message.lsn), "nothing is held back"


# Acknowledged behind the handler, and told once.


@pytest.mark.parametrize("transactional", [True, False])
def test_a_message_is_confirmed_only_behind_its_handler(
    kind: str, db: psycopg.Connection, database: str, transactional: bool
) -> None:
    def fail(event: Any) -> None:
        if event.text() == "b":
            raise ValueError("no")

    def prepare(running: Running) -> None:
        running.consumer.on_message("outbox")(fail)

    running = Running(kind, database, prepare)
    with pytest.raises(cdc.HandlerError, match=r"ValueError: no; <Message outbox of 1 bytes"), running:
        for content in "abc":
            db.execute("SELECT pg_logical_emit_message(%s, 'outbox', %s)", (transactional, content))
        until(lambda: ended(running))
    with Running(kind, database, listening("outbox")) as running:
        running.caught_up(db)
        assert texts(running.events)[-2:] == ["b", "c"]


def test_nothing_comes_twice_in_one_process(kind: str, db: psycopg.Connection, database: str) -> None:
    """The server sends again what is not confirmed: what this process has had is skipped."""
    with Running(kind, database, listening("outbox")) as running:
        expected: list[Any] = []
        for number in range(3):
            with db.transaction():
                emit(db, f"a{number}")
                db.execute("INSERT INTO wells (id) VALUES (%s)", (number,))
                emit(db, f"b{number}", f"c{number}")
            db.execute(AT_ONCE, ("outbox", f"d{number}"))
            emit(db, f"e{number}")
            running.caught_up(db)
            reconnect(running, db)
            expected += [f"a{number}", number, f"b{number}", f"c{number}", f"d{number}", f"e{number}"]
        running.caught_up(db)
        assert told(running.events) == expected


def test_a_connection_lost_between_two_messages_at_one_place(kind: str, db: psycopg.Connection, database: str) -> None:
    running: Running

    def cut(event: Any) -> None:
        running.events.append(event)
        if event.text() == "b" and running.consumer.health().reconnects == 0:
            running.consumer._loop.link.session.abort()

    running = Running(kind, database, lambda running: running.consumer.on_message("outbox")(cut))
    with running:
        with db.transaction():
            emit(db, "a", "b")
            # More than is taken from the socket at once.
            for number in range(300):
                emit(db, str(number), "x" * 5000, prefix="outbox")
        running.caught_up(db, timeout=60)
        found = texts(running.events)
        assert found[:2] == ["a", "b"] and len(found) == len({event.lsn for event in running.events}) == 602
        assert running.consumer.health().reconnects == 1


def test_after_a_stop_nothing_comes_again(kind: str, db: psycopg.Connection, database: str) -> None:
    for number in range(3):
        with Running(kind, database, listening("outbox")) as running:
            with db.transaction():
                db.execute("INSERT INTO wells (id) VALUES (%s)", (number,))
                emit(db, f"a{number}")
            db.execute(AT_ONCE, ("outbox", f"b{number}"))
            until(lambda running=running: len(running.events) == 3)  # type: ignore[misc]
            assert told(running.events) == [number, f"a{number}", f"b{number}"]
        emit(db, f"between {number}")
        with Running(kind, database, listening("outbox")) as running:
            running.caught_up(db)
            assert told(running.events) == [f"between {number}"]


PROGRAM = textwrap.dedent(
    """
    import sys, cdc
    with open(sys.argv[2], "a") as file:
        consumer = cdc.Consumer(sys.argv[1], slot="killed")

        @consumer.on_message("outbox")
        def append(message):
            print(message.text(), message.lsn, file=file, flush=True)

        consumer.run()
    """
)


def test_after_kill_minus_nine_those_that_come_again_are_recognised(
    db: psycopg.Connection, database: str, tmp_path: Path
) -> None:
    program, output = tmp_path / "program.py", tmp_path / "messages"
    program.write_text(PROGRAM)
    output.touch()
    arguments = [sys.executable, str(program), database, str(output)]
    consumer = subprocess.Popen(arguments)
    written: list[str] = []
    try:
        until(lambda: db.execute("SELECT FROM pg_replication_slots WHERE active").fetchone() is not None)
        for kill in range(4):
            for number in range(20):
                content = f"{kill}.{number}"
                with db.transaction(force_rollback=number % 5 == 4):
                    (lsn,) = db.execute(EMIT, ("outbox", content)).fetchone() or ("",)
                if number % 5 != 4:
                    written.append(f"{content} {lsn}")
            until(lambda: written[-10] in output.read_text().splitlines())
            consumer.kill()
            consumer.wait()
            consumer = subprocess.Popen(arguments)
        until(lambda: written[-1] in output.read_text().splitlines())
    finally:
        consumer.terminate()
        consumer.wait()
    lines = output.read_text().splitlines()
    assert list(dict.fromkeys(lines)) == written, "each first time in order, and a repeat has the same LSN"


def test_a_gap_is_told_to_listeners(kind: str, db: psycopg.Connection, database: str) -> None:
    with Running(kind, database, listening("outbox")) as running:
        running.caught_up(db)
    db.execute("SELECT pg_drop_replication_slot('ingest')")
    events: list[Any] = []
    subscribed: Any = lambda running: running.consumer.on_message("outbox")(events.append)  # noqa: E731
    with Running(kind, database, subscribed, on_gap="deliver") as running:
        emit(db, "a")
        running.caught_up(db)
        assert [type(event) for event in events] == [cdc.Gap, cdc.Message]


# What cannot be had.


def test_a_handler_that_comes_too_late_is_told_what_to_do(kind: str, db: psycopg.Connection, database: str) -> None:
    with Running(kind, database) as running:
        running.caught_up(db)
        with pytest.raises(cdc.SubscriptionError, match=r"not asked for messages .*call on_message before start"):
            running.do(lambda: running.consumer.on_message("outbox")(print))
        assert len(running.consumer.subscriptions) == 1
    with Running(kind, database, listening("other")) as running:
        running.caught_up(db)
        late: list[Any] = []
        running.do(lambda: running.consumer.on_message("outbox")(late.append))
        emit(db, "a")
        running.caught_up(db)
        assert texts(late) == ["a"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"subject": Subject("anon")}, "takes no subject: a message belongs to no table"),
        ({"filter": "id=eq.1"}, "takes no filter"),
        ({"operations": ["insert"]}, "takes no operations"),
        ({"accept_undecided": True}, "takes no accept_undecided"),
        ({"snapshot": True}, "takes no snapshot"),
    ],
)
def test_what_messages_do_not_have(kind: str, options: dict[str, Any], problem: str) -> None:
    running = Running(kind, "postgresql://nowhere")
    with pytest.raises(cdc.ConfigurationError, match=problem):
        running.consumer.on_message("outbox", **options)(print)


def test_bad_handlers_and_prefixes(kind: str) -> None:
    running = Running(kind, "postgresql://nowhere")
    for prefixes in ((), ("",), (print,)):
        with pytest.raises(cdc.ConfigurationError, match="the prefix has to be named"):
            running.consumer.on_message(*prefixes)(print)
    with pytest.raises(cdc.ConfigurationError, match="cannot be called"):
        running.consumer.on_message("outbox")(1)
    strict = Running(kind, "postgresql://nowhere", require_subject=True)
    with pytest.raises(cdc.ConfigurationError, match="messages have no subject"):
        strict.consumer.on_message("outbox")(print)
