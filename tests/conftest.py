"""Fixtures: one private PostgreSQL for the whole run, a fresh database for each test that wants one."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import psycopg
import pytest

from cdc.testing import Sandbox, apply_supabase
from tests import harness
from tests.redis_server import RedisServer

# A shell ignores Ctrl-C for what it runs in the background, and children inherit that: tests would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run leave out one kind of consumer: what both do the same way need not be tried on every server."""
    parser.addoption("--kinds", choices=["both", "blocking", "asyncio"], default="both", help="kinds of consumers")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests of the kind that is left out."""
    chosen = config.getoption("--kinds")
    if chosen == "both":
        return
    kinds = [getattr(item, "callspec", None) for item in items]
    left = [spec is not None and spec.params.get("kind", chosen) != chosen for spec in kinds]
    config.hook.pytest_deselected(items=[item for item, out in zip(items, left, strict=True) if out])
    items[:] = [item for item, out in zip(items, left, strict=True) if not out]


@pytest.fixture(scope="session")
def server() -> Iterator[Sandbox]:
    """A running server with the Supabase roles, and a short wal_sender_timeout."""
    with Sandbox(supabase=True, settings={"wal_sender_timeout": "4s", "max_replication_slots": "40"}) as sandbox:
        yield sandbox


@pytest.fixture
def database(server: Sandbox) -> Iterator[str]:
    """The DSN of a fresh database, as superuser; it and its slots are dropped at the end."""
    dsn = server.create_database()
    apply_supabase(dsn)
    yield dsn
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = %s AND active", (name,)
        )
        _drop_slots(connection, str(name))
        # Hundreds of them make the server's end slow.
        connection.execute(psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(psycopg.sql.Identifier(str(name))))


def _drop_slots(connection: psycopg.Connection, name: str) -> None:
    """Drop what a test left; a walsender that was ended a moment ago may still hold its slot."""
    for _ in range(100):
        try:
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                "WHERE database = %s AND NOT temporary",
                (name,),
            )
            return
        except psycopg.errors.ObjectInUse:
            connection.execute("SELECT pg_sleep(0.05)")


@pytest.fixture
def db(database: str) -> Iterator[psycopg.Connection]:
    """A superuser's connection to a fresh database with schema cdc, a table wells and its publication."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(harness.SETUP)
        connection.execute(
            "CREATE TABLE wells (id int PRIMARY KEY, name text, project_id uuid, depth numeric, notes text)"
        )
        connection.execute("CREATE PUBLICATION wells FOR TABLE wells")
        yield connection


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A running Redis server of the run's own."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis database."""
    with redis_server.client() as client:
        client.flushdb()
    return redis_server.url


@pytest.fixture(params=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    """Both kinds of consumer have to pass."""
    return str(request.param)
