"""What the server is told: the end of the contiguous finished prefix, never more, and not much later."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import cdc
from cdc.stream import Stream
from cdc.testing import Sandbox
from tests.harness import QUICK, SETUP, Running, until


def lsn(db: psycopg.Connection, query: str) -> cdc.Lsn:
    (value,) = db.execute(query.encode()).fetchone() or ("0/0",)
    return cdc.Lsn.parse(value)


def confirmed(db: psycopg.Connection) -> cdc.Lsn:
    """The slot's own memory, and what the walsender has heard, which may be ahead of it by a moment."""
    slot = lsn(db, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'ingest'")
    heard = lsn(
        db,
        "SELECT coalesce(flush_lsn, '0/0')::text FROM pg_stat_replication JOIN pg_replication_slots s "
        "ON s.active_pid = pid WHERE slot_name = 'ingest'",
    )
    return max(slot, heard)


class Gate:
    """A handler that stops at the changes with these keys until it is let go."""

    def __init__(self, *keys: int) -> None:
        self.seen: list[int] = []
        self.commits: dict[int, cdc.Lsn] = {}
        self._gates = {key: (threading.Event(), threading.Event()) for key in keys}

    def __call__(self, event: Any) -> None:
        self.commits[event.key] = event.position.commit_lsn
        if event.key in self._gates:
            entered, leave = self._gates[event.key]
            entered.set()
            assert leave.wait(60)
        self.seen.append(event.key)

    def reached(self, key: int) -> cdc.Lsn:
        """Wait until the handler has this change; its commit, behind which nothing may be confirmed meanwhile."""
        assert self._gates[key][0].wait(20)
        return self.commits[key]

    def leave(self, key: int) -> None:
        self._gates[key][1].set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Whatever happens, the consumer can end."""
        try:
            yield
        finally:
            for _, leave in self._gates.values():
                leave.set()


def insert(db: psycopg.Connection, *keys: int) -> None:
    """In one transaction."""
    db.execute("INSERT INTO wells SELECT unnest(%s::int[])", (list(keys),))


def never_beyond(db: psycopg.Connection, commit: cdc.Lsn, seconds: float = 2.5) -> None:
    """Look for longer than a save and a status update take (1 s and 1.3 s here)."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert confirmed(db) <= commit, "confirmed before its handlers have returned"
        time.sleep(0.02)


def prefix(kind: str, database: str, db: psycopg.Connection) -> None:
    """The confirmed position follows the handlers through their transactions, and is never ahead of them."""
    gate = Gate(2, 4)
    with Running(kind, database, lambda running: running.on("wells", gate)) as running, gate.held():
        insert(db, 1)
        insert(db, 2, 3)
        insert(db, 4, 5)
        never_beyond(db, gate.reached(2))
        gate.leave(2)
        never_beyond(db, gate.reached(4))
        gate.leave(4)
        until(lambda: 5 in gate.seen and confirmed(db) > gate.commits[5])
        assert running.consumer.health().reconnects == 0
    assert gate.seen == [1, 2, 3, 4, 5]


def test_the_finished_prefix_is_confirmed_and_no_more(kind: str, database: str, db: psycopg.Connection) -> None:
    prefix(kind, database, db)


def test_a_confirmation_that_comes_too_early_is_noticed(
    kind: str, database: str, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above is worth something: it fails when a commit is confirmed as soon as it is announced."""

    def early(self: Stream, *arguments: Any) -> Any:
        item = begin(self, *arguments)
        assert self.transaction is not None
        self.standby.confirm(cdc.Lsn(self.transaction.commit_lsn + 8))
        return item

    begin = Stream._begin
    monkeypatch.setattr(Stream, "_begin", early)
    with pytest.raises(AssertionError, match="confirmed before its handlers have returned"):
        prefix(kind, database, db)


def test_a_quiet_publication_in_a_busy_database_holds_back_nothing(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """Keepalives alone move the slot, also its restart_lsn, for which the server needs a little longer."""
    db.execute("CREATE TABLE elsewhere (id int, fill text)")
    with Running(kind, database) as running:
        running.caught_up(db)

        def busy() -> bool:
            db.execute("INSERT INTO elsewhere SELECT n, repeat('x', 200) FROM generate_series(1, 5000) n")
            return lsn(db, "SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = 'ingest'") > written

        written = cdc.current_lsn(db)
        until(busy, timeout=60)
        assert running.events == []


def test_an_idle_consumer_has_confirmed_the_last_change(kind: str, database: str, db: psycopg.Connection) -> None:
    """Nothing more has to happen on the server for that."""
    with Running(kind, database) as running:
        for key in range(3):
            insert(db, key)
            until(lambda key=key: len(running.events) == key + 1)  # type: ignore[misc]
            until(lambda: confirmed(db) > running.events[-1].position.commit_lsn)


# Feedback has a clock of its own.


def test_an_idle_consumer_keeps_its_connection(kind: str, database: str, db: psycopg.Connection) -> None:
    """For longer than it would wait for the answer of a server that is silent: 7 thirds of wal_sender_timeout."""
    with Running(kind, make_conninfo(database, options="-c wal_sender_timeout=1s")) as running:
        running.caught_up(db)
        time.sleep(5)
        assert running.consumer.health().failures == ()


def blocks(event: cdc.Change) -> None:
    time.sleep(7 if event.key == 1 else 0)


async def blocks_the_event_loop(event: cdc.Change) -> None:
    time.sleep(7 if event.key == 1 else 0)


async def awaits(event: cdc.Change) -> None:
    await asyncio.sleep(7 if event.key == 1 else 0)


@pytest.mark.parametrize(
    ("kind", "handler"),
    [("blocking", blocks), ("asyncio", blocks), ("asyncio", awaits), ("asyncio", blocks_the_event_loop)],
)
def test_a_handler_may_take_three_times_the_senders_timeout(
    kind: str, handler: Callable[[Any], Any], database: str, db: psycopg.Connection
) -> None:
    walsender = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'ingest'"

    def subscribe(running: Running) -> None:
        running.on("wells", running.events.append)
        running.on("wells", handler)

    with Running(kind, make_conninfo(database, options="-c wal_sender_timeout=2s"), subscribe) as running:
        running.caught_up(db)
        process = db.execute(walsender).fetchone()
        insert(db, 1, 2)
        insert(db, 3)
        db.execute("SELECT pg_logical_emit_message(false, '', repeat('x', 2000000))")
        until(lambda: running.events)
        never_beyond(db, running.events[0].position.commit_lsn, 6)
        until(lambda: len(running.events) == 3 and confirmed(db) > running.events[-1].position.commit_lsn)
        assert running.consumer.health().reconnects == 0
        assert db.execute(walsender).fetchone() == process


# Servers that shut down.


def prepare(db: psycopg.Connection) -> None:
    db.execute(SETUP)
    db.execute("CREATE TABLE wells (id int PRIMARY KEY)")
    db.execute("CREATE PUBLICATION wells FOR TABLE wells")


@contextmanager
def private() -> Iterator[tuple[Sandbox, psycopg.Connection]]:
    """A server of the test's own, to shut down."""
    with Sandbox(settings={"wal_sender_timeout": "4s"}) as server, psycopg.connect(server.dsn, autocommit=True) as db:
        prepare(db)
        yield server, db


def was_crash(server: Sandbox) -> bool:
    """Whether the sandbox lost patience with a fast shutdown and made a crash of it."""
    return "was not properly shut down" in server.log_file.read_text()


def test_a_server_that_shuts_down_is_let_go_while_a_handler_works(kind: str) -> None:
    """It would wait for the confirmation of what it has sent, which cannot come before the handler returns."""
    gate = Gate(1)
    with private() as (server, db), gate.held():
        with Running(kind, server.dsn, lambda running: running.on("wells", gate), backoff=QUICK) as running:
            insert(db, 1, 2)
            gate.reached(1)
            server.restart("fast")
            assert not was_crash(server)
            gate.leave(1)
            until(lambda: gate.seen[-1:] == [2])
            with psycopg.connect(server.dsn, autocommit=True) as after:
                insert(after, 3)
                running.caught_up(after)
        # What was handled before the end may come again; nothing is missing or out of order.
        assert sorted(set(gate.seen)) == [1, 2, 3] and gate.seen[-2:] == [2, 3]


def test_a_server_that_shuts_down_is_let_go_when_the_position_cannot_be_saved(kind: str) -> None:
    """A lock keeps the save waiting: nothing is confirmed, and the server must not wait for it."""
    with private() as (server, db), Running(kind, server.dsn, backoff=QUICK) as running:
        running.caught_up(db)
        locker = psycopg.connect(server.dsn)
        locker.execute("LOCK TABLE cdc.slots IN EXCLUSIVE MODE")
        insert(db, 1)
        until(lambda: db.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone())
        server.restart("fast")
        assert not was_crash(server)
        locker.close()
        with psycopg.connect(server.dsn, autocommit=True) as after:
            insert(after, 2)
            running.caught_up(after)
        assert [event.key for event in running.events] == [1, 2]


# A prepared transaction; test_streaming.py has those that are streamed and still open.


def test_a_prepared_transaction_holds_the_confirmation(kind: str) -> None:
    """It is sent once, when it is prepared; if that were confirmed, a crash of this process would lose it."""
    with Sandbox(settings={"max_prepared_transactions": 5}) as server, psycopg.connect(server.dsn) as db:
        db.autocommit = True
        prepare(db)
        two_phase = server.version >= 150000
        with Running(kind, server.dsn, two_phase=two_phase) as running:
            running.caught_up(db)
            for statement in ("BEGIN", "INSERT INTO wells VALUES (1)", "PREPARE TRANSACTION 'one'"):
                db.execute(statement.encode())
            prepared = cdc.current_lsn(db)
            insert(db, 2)
            until(lambda: running.events and running.events[-1].key == 2 if not two_phase else len(running.events) == 2)
            if two_phase:
                never_beyond(db, prepared)
            db.execute("COMMIT PREPARED 'one'")
            until(lambda: [event.key for event in running.events if isinstance(event, cdc.Insert)] == [2, 1])
            until(lambda: confirmed(db) > running.events[-1].position.commit_lsn)


# The end of a stream.


_WITHOUT_A_LAST_WORD = """
import socket, sys, threading, time
import cdc
from cdc.connection import ReplicationConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

dsn, slot = sys.argv[1:]
listener = socket.create_server(("127.0.0.1", 0))

def forward(source, target, until):
    data = b""
    while (more := source.recv(65536)):
        data += more
        end = data.find(until) + len(until) if until and until in data else len(data)
        target.sendall(data[len(data) - len(more):end])
        if end < len(data) or until and data.endswith(until):
            return

def relay():
    client, _ = listener.accept()
    server = socket.create_connection(("127.0.0.1", int(conninfo_to_dict(dsn)["port"])))
    threading.Thread(target=forward, args=(client, server, None), daemon=True).start()
    forward(server, client, b"c" + bytes([0, 0, 0, 4]))
    time.sleep(60)

threading.Thread(target=relay, daemon=True).start()
connection = ReplicationConnection(make_conninfo(dsn, port=listener.getsockname()[1]))
connection.start(f"START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names 'wells')")
connection._pgconn.put_copy_end()
connection._pgconn.flush()
ticks = []

def tick():
    while True:
        time.sleep(0.01)
        ticks.append(1)

threading.Thread(target=tick, daemon=True).start()
try:
    while True:
        before = len(ticks)
        connection.frames(100)
        connection.read()
except cdc.ConnectionFailed as error:
    print(error, len(ticks) - before > 20)
"""


def test_the_servers_last_words_are_waited_for_without_pythons_lock(database: str, db: psycopg.Connection) -> None:
    """The stream's end has arrived, and what comes behind it has not: other threads run on, and the wait has an end."""
    db.execute("SELECT pg_create_logical_replication_slot('ingest', 'pgoutput')")
    program = [sys.executable, "-c", _WITHOUT_A_LAST_WORD, database, "ingest"]
    run = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert run.stdout == "the server ended the stream True\n", run.stderr
