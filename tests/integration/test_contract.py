"""What the house relies on in psycopg's libpq wrapper and in the server, pinned."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from decimal import Decimal
from struct import pack

import psycopg
import pytest
from psycopg import pq

import cdc
from cdc.connection import ReplicationConnection
from tests.harness import Running, until


def test_psycopg_lets_start_replication_through(database: str, db: psycopg.Connection) -> None:
    db.execute("SELECT pg_create_logical_replication_slot('contract', 'pgoutput')")
    db.execute("INSERT INTO wells VALUES (1)")
    pgconn = pq.PGconn.connect(f"{database}&replication=database".encode())
    try:
        result = pgconn.exec_(
            b"START_REPLICATION SLOT contract LOGICAL 0/0 (proto_version '1', publication_names '\"wells\"')"
        )
        assert result.status == pq.ExecStatus.COPY_BOTH
        kinds = ""
        while not kinds.endswith("C"):
            size, data = pgconn.get_copy_data(0)
            assert size == len(data) > 0
            kinds += chr(data[25]) if data[0] == ord("w") else ""
        assert kinds == "BRIC"
        until(lambda: pgconn.get_copy_data(1)[0] == 0)  # keepalives may follow
        pgconn.put_copy_data(b"r" + pack(">QQQqB", 0, 0, 0, 0, 1))
        pgconn.flush()
        assert pgconn.get_copy_data(0)[1][0] == ord("k")
    finally:
        pgconn.finish()


def test_connecting_does_not_hold_other_threads_up(database: str, db: psycopg.Connection) -> None:
    """A listener that accepts and says nothing: another thread runs on while the connection waits for it."""
    import socket

    ran = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dsn = f"postgresql://u@127.0.0.1:{listener.getsockname()[1]}/d?connect_timeout=2"
        threading.Timer(0.2, ran.set).start()

        def connect() -> None:
            with pytest.raises(cdc.ConnectionFailed):
                ReplicationConnection(dsn)
            assert ran.is_set()

        connect()


def test_settings_of_the_database_do_not_change_values(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE TABLE times (id int PRIMARY KEY, at timestamptz, day date, data bytea, x float8)")
    db.execute("ALTER PUBLICATION wells ADD TABLE times")
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    for setting in (
        "TimeZone = 'Asia/Tokyo'",
        "DateStyle = 'German'",
        "bytea_output = 'escape'",
        "extra_float_digits = -5",
    ):
        db.execute(f"ALTER DATABASE {name} SET {setting}")
    with Running(kind, database, lambda running: running.on("times", running.events.append)) as running:
        db.execute("INSERT INTO times VALUES (1, '2024-03-04 05:06:07+00', '2024-03-04', '\\x0001', 0.1)")
        running.caught_up(db)
    assert dict(running.events[0].new) == {
        "id": 1,
        "at": datetime(2024, 3, 4, 5, 6, 7, tzinfo=UTC),
        "day": datetime(2024, 3, 4).date(),
        "data": b"\0\1",
        "x": 0.1,
    }


def test_a_slot_waits_for_running_transactions_and_says_so(
    database: str, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(database) as other, caplog.at_level(logging.WARNING, "cdc"):
        other.execute("INSERT INTO wells VALUES (1)")
        consumer = cdc.Consumer(database, slot="late")
        thread = threading.Thread(target=consumer.start)
        thread.start()
        until(lambda: "slot.create.waits" in caplog.text)
        assert str(other.info.backend_pid) in caplog.text
        assert thread.is_alive()
        other.commit()
        thread.join(20)
        assert not thread.is_alive()
        consumer.close()


def test_partitions_published_as_their_root(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(
        "CREATE TABLE logs (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);"
        "CREATE TABLE logs_24 PARTITION OF logs FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');"
        "CREATE TABLE logs_25 PARTITION OF logs FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');"
        "CREATE PUBLICATION rooted FOR TABLE logs WITH (publish_via_partition_root);"
        "CREATE PUBLICATION leaves FOR TABLE logs"
    )

    def logs(running: Running) -> None:
        running.on("logs", running.events.append)

    with Running(kind, database, logs, publication="rooted") as running:
        db.execute("INSERT INTO logs VALUES (1, '2024-05-05')")
        db.execute("UPDATE logs SET day = '2025-05-05'")
        running.caught_up(db)
    assert [(type(e).__name__, e.table, e.key[0]) for e in running.events] == [
        ("Insert", "logs", 1),
        ("Delete", "logs", 1),
        ("Insert", "logs", 1),
    ]
    with pytest.raises(cdc.SubscriptionError, match=r"public\.logs is not in publication"):
        with Running(kind, database, logs, publication="leaves", slot=None):
            pass


def test_column_lists_and_generated_columns(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE TABLE sums (id int PRIMARY KEY, a numeric, b numeric GENERATED ALWAYS AS (a * 2) STORED)")
    db.execute("ALTER PUBLICATION wells ADD TABLE sums")
    with Running(kind, database, lambda running: running.on("sums", running.events.append)) as running:
        db.execute("INSERT INTO sums VALUES (1, 1.5)")
        running.caught_up(db)
        with pytest.raises(cdc.SubscriptionError, match="b"):
            running.subscribe("sums", print, filter="b=eq.3", accept_undecided=True)
    assert dict(running.events[0].new) == {"id": 1, "a": Decimal("1.5")}
    if db.info.server_version >= 150000:
        db.execute("CREATE PUBLICATION narrow FOR TABLE wells (id, name)")
        with Running(kind, database, publication="narrow", slot="narrow") as running:
            db.execute("INSERT INTO wells VALUES (1, 'a', NULL, 5)")
            running.caught_up(db)
        assert dict(running.events[0].new) == {"id": 1, "name": "a"}


async def lsn_of(dsn: str) -> cdc.Lsn:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("INSERT INTO wells VALUES (77)")
        return await cdc.current_lsn(connection)


def test_current_lsn_of_both_kinds_of_connection(database: str, db: psycopg.Connection) -> None:
    import asyncio

    before = cdc.current_lsn(db)
    assert asyncio.run(lsn_of(database)) > before
    assert cdc.current_lsn(db) > before
    db.execute("SET synchronous_commit = off")
    with psycopg.connect(database, autocommit=True) as slow:
        slow.execute("SET synchronous_commit = off")
        slow.execute("INSERT INTO wells VALUES (78)")
        assert cdc.current_lsn(slow) > before
