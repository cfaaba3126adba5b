"""Each way in which a connection fails has a kind, and only what waiting can mend is tried again."""

from __future__ import annotations

import inspect
import os
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import cdc
from cdc import FailureKind
from cdc.connection import connect
from cdc.testing import Sandbox
from tests.harness import QUICK, SETUP, Running, until
from tests.proxy import Proxy

LASTING = cdc.ConfigurationError
PASSING = cdc.ConnectionFailed


@pytest.fixture(scope="module")
def small() -> Iterator[Sandbox]:
    """A server with few connections, and a role for each trouble."""
    settings = {"max_connections": "12", "superuser_reserved_connections": "2", "max_wal_senders": "2"}
    with Sandbox(settings=settings) as server, psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("CREATE ROLE plain LOGIN PASSWORD 'p'")
        db.execute("CREATE ROLE outside REPLICATION PASSWORD 'p'")
        db.execute("CREATE ROLE late LOGIN REPLICATION PASSWORD 'p' VALID UNTIL '2000-01-01'")
        db.execute("CREATE ROLE many LOGIN REPLICATION PASSWORD 'p' CONNECTION LIMIT 0")
        db.execute("CREATE DATABASE closed ALLOW_CONNECTIONS false")
        db.execute("CREATE DATABASE withheld")
        db.execute("REVOKE CONNECT ON DATABASE withheld FROM PUBLIC")
        yield server


def failing(dsn: str, **change: str | int) -> cdc.CdcError:
    """What both kinds of connection say."""
    with pytest.raises(cdc.CdcError) as caught:
        connect(make_conninfo(dsn, **change)).close()
    return caught.value


PLAIN = {"user": "plain", "password": "p"}
CAUSES: list[tuple[dict[str, str | int], FailureKind, type[cdc.CdcError]]] = [
    ({"password": "wrong"}, FailureKind.AUTHENTICATION, LASTING),
    ({"password": ""}, FailureKind.AUTHENTICATION, LASTING),
    ({"user": "nobody"}, FailureKind.AUTHENTICATION, LASTING),
    (PLAIN | {"user": "outside"}, FailureKind.AUTHENTICATION, LASTING),
    (PLAIN | {"user": "late"}, FailureKind.AUTHENTICATION, LASTING),
    (PLAIN | {"replication": "database"}, FailureKind.RIGHT, LASTING),
    (PLAIN | {"dbname": "withheld"}, FailureKind.RIGHT, LASTING),
    ({"dbname": "nowhere"}, FailureKind.MISSING, LASTING),
    ({"dbname": "too many clients"}, FailureKind.MISSING, LASTING),
    ({"sslmode": "require"}, FailureKind.TLS, LASTING),
    ({"options": "-c nothing=1"}, FailureKind.CONFIGURATION, LASTING),
    ({"dbname": "closed"}, FailureKind.FULL, PASSING),
    (PLAIN | {"user": "many"}, FailureKind.FULL, PASSING),
    ({"host": "no.such.host.invalid"}, FailureKind.NETWORK, PASSING),
    ({"port": 1}, FailureKind.NETWORK, PASSING),
    ({"host": "/nowhere"}, FailureKind.NETWORK, PASSING),
    ({"target_session_attrs": "standby"}, FailureKind.RESTARTING, PASSING),
]


@pytest.mark.parametrize(("change", "kind", "error"), CAUSES, ids=lambda value: str(value))
def test_each_refusal_has_its_kind(
    small: Sandbox, change: dict[str, str | int], kind: FailureKind, error: type[cdc.CdcError]
) -> None:
    failure = failing(small.dsn, **change)
    assert (failure.failure, type(failure)) == (kind, error)


@contextmanager
def many(dsn: str, number: int, **change: str) -> Iterator[None]:
    held: list[psycopg.Connection] = []
    try:
        for _ in range(number):
            try:
                held.append(psycopg.connect(make_conninfo(dsn, **change), autocommit=True))
            except psycopg.OperationalError:
                break
        yield
    finally:
        for each in held:
            each.close()


def test_a_full_server_is_worth_waiting_for(small: Sandbox) -> None:
    with many(small.dsn, 20, user="plain", password="p"):
        assert failing(small.dsn, user="plain", password="p").failure is FailureKind.FULL
        with many(small.dsn, 20):
            assert failing(small.dsn).failure is FailureKind.FULL
    with many(small.dsn, 2, replication="database"):
        failure = failing(small.dsn, replication="database")
        assert (failure.failure, type(failure)) == (FailureKind.FULL, PASSING)


@contextmanager
def rules(server: Sandbox, lines: str) -> Iterator[None]:
    """Other lines in pg_hba.conf, for a while, which has begun and ended when a new connection meets them."""
    path = server.data_folder / "pg_hba.conf"
    before = path.read_text()
    with psycopg.connect(server.dsn, autocommit=True) as db:

        def become(text: str, reachable: bool) -> None:
            path.write_text(text)
            db.execute("SELECT pg_reload_conf()")
            until(lambda: reaches(server.dsn) is reachable)

        become(lines, False)
        try:
            yield
        finally:
            become(before, True)


def reaches(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.parametrize("line", ["host all postgres all reject\n", "host all plain all trust\n"])
def test_a_rejecting_pg_hba(small: Sandbox, line: str) -> None:
    with rules(small, line):
        failure = failing(small.dsn)
    assert (failure.failure, type(failure)) == (FailureKind.AUTHENTICATION, LASTING)


def test_of_several_hosts_one_that_may_come_back_is_enough(small: Sandbox) -> None:
    hosts = {"host": "127.0.0.1,127.0.0.1", "password": "wrong"}
    both = failing(small.dsn, **hosts, port=f"{small.port},{small.port}")
    assert (both.failure, type(both)) == (FailureKind.AUTHENTICATION, LASTING)
    for port in (f"1,{small.port}", f"{small.port},1"):
        one = failing(small.dsn, **hosts, port=port)
        assert (one.failure, type(one)) == (FailureKind.NETWORK, PASSING)
        assert "port 1 failed" in str(one) and "password authentication failed" in str(one)


@contextmanager
def answering(*fields: str) -> Iterator[int]:
    """A port where somebody refuses each connection as a server does, in these words."""
    body = b"".join(field.encode() + b"\0" for field in fields) + b"\0"
    answer = b"E" + (len(body) + 4).to_bytes(4, "big") + body
    closing = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)

        def serve() -> None:
            while not closing.is_set():
                try:
                    client, _ = listener.accept()
                except TimeoutError:
                    continue
                with client:
                    client.settimeout(5)
                    client.recv(4096)
                    client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            closing.set()
            thread.join()


@pytest.mark.parametrize(
    ("severity", "state", "text", "kind", "error"),
    [
        ("SCHWERWIEGEND", "28P01", "Passwort-Authentifizierung fehlgeschlagen", FailureKind.AUTHENTICATION, LASTING),
        ("FATAL", "57P03", "le système de bases de données se lance", FailureKind.RESTARTING, PASSING),
        ("致命错误", "53300", "对不起, 已经有太多的客户", FailureKind.FULL, PASSING),
        ("FATAL", "3D000", "Datenbank »b« existiert nicht", FailureKind.MISSING, LASTING),
        ("FATAL", "XX000", "etwas anderes", FailureKind.OTHER, PASSING),
    ],
)
def test_a_server_that_speaks_another_language(
    severity: str, state: str, text: str, kind: FailureKind, error: type[cdc.CdcError]
) -> None:
    with answering(f"S{severity}", "VFATAL", f"C{state}", f"M{text}") as port:
        failure = failing(f"postgresql://u:p@127.0.0.1:{port}/db?sslmode=disable")
    assert (failure.failure, type(failure)) == (kind, error)
    assert text in str(failure)


# A consumer that was connected before.

ENDED = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cdc' AND datname = %s"


@pytest.fixture
def role(server: Sandbox) -> Iterator[str]:
    """A role that may do everything."""
    name = f"app_{secrets.token_hex(4)}"
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD 'p'".encode())
        yield name
        db.execute(f"DROP ROLE IF EXISTS {name}".encode())


@pytest.mark.parametrize(
    ("trouble", "failure"),
    [
        ("ALTER ROLE {} PASSWORD 'another'", FailureKind.AUTHENTICATION),
        ("ALTER ROLE {} NOLOGIN", FailureKind.AUTHENTICATION),
        ("DROP ROLE {}", FailureKind.AUTHENTICATION),
        ("ALTER ROLE {} NOSUPERUSER", FailureKind.RIGHT),
    ],
)
def test_what_waiting_cannot_mend_stops_at_once(
    kind: str, database: str, db: psycopg.Connection, role: str, trouble: str, failure: FailureKind
) -> None:
    changes: list[cdc.StatusChange] = []

    def prepare(running: Running) -> None:
        running.on("wells", running.events.append)
        running.consumer.on_status(changes.append)

    with Running(kind, make_conninfo(database, user=role, password="p"), prepare) as running:
        running.caught_up(db)
        db.execute(trouble.format(role).encode())
        db.execute(ENDED, (db.info.dbname,))
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
        with pytest.raises(cdc.ConfigurationError) as caught:
            running.do(running.consumer.stop)
    health = running.consumer.health()
    assert caught.value.failure is failure
    assert health.colour is cdc.Colour.RED and health.failure is not None
    assert (health.failure.kind, health.attempts) == (failure, 1)
    assert changes[-1].error is caught.value and changes[-1].failure == health.failure


def test_a_publication_that_does_not_have_the_table_any_more(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        running.caught_up(db)
        db.execute("ALTER PUBLICATION wells DROP TABLE wells")
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
        with pytest.raises(cdc.SubscriptionError) as caught:
            running.do(running.consumer.stop)
    assert caught.value.failure is FailureKind.PUBLICATION


def test_a_database_that_is_closed_and_then_dropped(kind: str, server: Sandbox) -> None:
    """The one may end, and is waited for; the other stops the consumer."""
    dsn = server.create_database()
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute(SETUP)
        db.execute("CREATE TABLE wells (id int PRIMARY KEY); CREATE PUBLICATION wells FOR TABLE wells")
        name = db.info.dbname
    with psycopg.connect(server.dsn, autocommit=True) as admin, Running(kind, dsn, slot=f"i{name}") as running:

        def closed(closed: bool) -> None:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {not closed}".encode())
            admin.execute(ENDED, (name,))

        closed(True)
        until(lambda: kinds(running) >= {FailureKind.FULL})
        closed(False)
        until(lambda: running.consumer.health().status is cdc.Status.LIVE)
        assert running.consumer.health().failure is None
        closed(True)
        until(lambda: running.consumer.health().attempts > 0)
        admin.execute(f"DROP DATABASE {name}".encode())
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
        with pytest.raises(cdc.ConfigurationError, match="does not exist") as caught:
            running.do(running.consumer.stop)
        assert caught.value.failure is FailureKind.MISSING


def kinds(running: Running) -> set[FailureKind]:
    return {failure.kind for failure in running.consumer.health().failures}


def prepared_server(server: Sandbox) -> psycopg.Connection:
    db = psycopg.connect(server.dsn, autocommit=True)
    db.execute(SETUP)
    db.execute("CREATE TABLE IF NOT EXISTS wells (id int PRIMARY KEY)")
    db.execute("DROP PUBLICATION IF EXISTS wells")
    db.execute("CREATE PUBLICATION wells FOR TABLE wells")
    return db


def test_walsenders_that_others_have_are_waited_for(kind: str, small: Sandbox) -> None:
    with Proxy(small.port) as proxy, prepared_server(small) as db:
        with Running(kind, make_conninfo(small.dsn, port=proxy.port), slot=f"full_{kind}") as running:
            running.caught_up(db)
            proxy.refuse()
            proxy.cut()
            senders = "SELECT count(*) FROM pg_stat_replication"
            until(lambda: db.execute(senders).fetchone() == (0,))
            with many(small.dsn, 2, replication="database"):
                proxy.refuse(False)
                until(lambda: FailureKind.FULL in kinds(running))
                assert running.consumer.health().status is cdc.Status.CONNECTING
            db.execute("INSERT INTO wells VALUES (1)")
            running.caught_up(db)
        assert [event.key for event in running.events] == [1]
        db.execute("DELETE FROM wells")
        db.execute("SELECT pg_drop_replication_slot(%s)", (f"full_{kind}",))


def children(parent: int) -> dict[str, int]:
    """What the server's processes are called, with their numbers."""
    rows = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return {words: int(pid) for pid, words in (row.strip().split(None, 1) for row in rows.splitlines())}


def test_a_server_that_recovers_is_waited_for(kind: str) -> None:
    """A backend is killed, and the recovery is held up for as long as the test looks."""
    settings = {"checkpoint_timeout": "1h", "max_wal_size": "4GB"}
    with Sandbox(settings=settings) as server, prepared_server(server) as db:
        with Running(kind, server.dsn, backoff=QUICK) as running:
            running.caught_up(db)
            db.execute("CREATE TABLE fill AS SELECT n, repeat('x', 500) FROM generate_series(1, 200000) n")
            os.kill(db.info.backend_pid, signal.SIGKILL)
            startup: list[int] = []

            def found() -> bool:
                startup.extend(pid for name, pid in children(server.server_pid).items() if "startup" in name)
                return bool(startup)

            until(found)
            os.kill(startup[0], signal.SIGSTOP)
            try:
                until(lambda: running.consumer.health().attempts >= 2)
                failure = running.consumer.health().failure
                assert failure is not None and failure.kind is FailureKind.RESTARTING
                refusal = failing(server.dsn)
                assert (refusal.failure, type(refusal)) == (FailureKind.RESTARTING, PASSING)
            finally:
                os.kill(startup[0], signal.SIGCONT)
            until(lambda: running.consumer.health().status is cdc.Status.LIVE)
            with psycopg.connect(server.dsn, autocommit=True) as after:
                after.execute("INSERT INTO wells VALUES (1)")
                running.caught_up(after)
        assert [event.key for event in running.events] == [1]
        lost = running.consumer.health().failures[0]
        assert (lost.kind, lost.attempt) == (FailureKind.RESTARTING, 0)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_shuts_down_says_so(kind: str, mode: str) -> None:
    with Sandbox() as server, prepared_server(server) as db:
        with Running(kind, server.dsn, backoff=QUICK) as running:
            running.caught_up(db)
            server.restart(mode=mode)  # type: ignore[arg-type]
            until(lambda: running.consumer.health().reconnects and running.consumer.health().failure is None)
        assert running.consumer.health().failures[0].kind is FailureKind.RESTARTING


def test_the_first_opening_does_not_wait(kind: str, small: Sandbox) -> None:
    """Whoever starts a program wants to hear of it, also when waiting might mend it."""
    with (
        many(small.dsn, 2, replication="database"),
        pytest.raises(cdc.ConnectionFailed, match="no connection left") as caught,
        Running(kind, small.dsn, backoff=cdc.Backoff(first=3600, longest=3600)),
    ):
        pass
    assert caught.value.failure is FailureKind.FULL


# The constructor.


@pytest.mark.parametrize("consumer", [cdc.Consumer, cdc.AsyncConsumer])
def test_a_wrong_argument_names_the_class_and_what_is_wanted(consumer: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{consumer.__name__}\(\) got an unexpected keyword argument 'slto'"):
        consumer("", slto="ingest", slot="ingest")
    with pytest.raises(TypeError, match=rf"^{consumer.__name__}\(\) missing 1 required keyword-only argument: 'slot'"):
        consumer("")
    with pytest.raises(cdc.ConfigurationError, match="require_subject is True or False, not 'no'"):
        consumer("", slot="ingest", require_subject="no")
    with pytest.raises(
        cdc.ConfigurationError, match="spool_memory is a number of bytes, not '16MB'; 16 << 20 is 16 MB"
    ):
        consumer("", slot="ingest", spool_memory="16MB")
    assert "publication" in inspect.signature(consumer).parameters and "Args:" in consumer.__init__.__doc__

    class Own(consumer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__("", slot="own")

    assert Own().health().slot == "own"
