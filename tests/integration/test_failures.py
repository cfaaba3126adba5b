"""Each way in which a connection fails has a kind, and only what waiting can mend is tried again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import cdc
from cdc import FailureKind
from cdc.connection import connect
from cdc.testing import Sandbox
from tests.harness import until

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
    """Other lines in pg_hba.conf, for a while. The reload has been heard when a new connection meets them."""
    path = server.data_folder / "pg_hba.conf"
    before = path.read_text()
    with psycopg.connect(server.dsn, autocommit=True) as db:
        for text in (lines, None):
            path.write_text(before if text is None else text)
            db.execute("SELECT pg_reload_conf()")
            until(lambda text=text: reaches(server.dsn) is (text is None))  # type: ignore[misc]
            if text is not None:
                try:
                    yield
                finally:
                    path.write_text(before)


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
