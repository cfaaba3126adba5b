"""The decoder with frames from elsewhere: `pg_recvlogical`, `pg_logical_slot_peek_binary_changes`, another driver."""

from __future__ import annotations

import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.pgoutput import (
    Begin,
    Commit,
    Decoder,
    DeleteMessage,
    InsertMessage,
    Message,
    RelationMessage,
    StreamCommit,
    StreamStart,
    TypeMessage,
    UpdateMessage,
)
from cdc.testing import Sandbox

OPTIONS = {"proto_version": "1", "publication_names": "wells", "messages": "true"}


@pytest.fixture
def slot(db: psycopg.Connection) -> str:
    """A slot, and a few changes behind it; the last is told of by an LSN, `end`."""
    db.execute("SELECT pg_create_logical_replication_slot('elsewhere', 'pgoutput')")
    db.execute("INSERT INTO wells (id, name, depth) VALUES (1, 'a', 1.50), (2, E'two\nlines', NULL)")
    db.execute("UPDATE wells SET id = 3 WHERE id = 2")
    db.execute("DELETE FROM wells WHERE id = 1")
    return "elsewhere"


def peek(db: psycopg.Connection, slot: str, **options: str) -> list[bytes]:
    given = [word for pair in (OPTIONS | options).items() for word in pair]
    words = ", ".join(["%s"] * len(given))
    query = f"SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, {words})"
    return [data for (data,) in db.execute(query, [slot, *given])]  # type: ignore[arg-type]


def received(server: Sandbox, db: psycopg.Connection, slot: str, path: Path, **options: str) -> bytes:
    """What `pg_recvlogical` writes to a file, up to what is written now."""
    row = db.execute("SELECT pg_current_wal_insert_lsn()::text, current_database()").fetchone()
    assert row is not None
    given = [f"--option={name}={value}" for name, value in (OPTIONS | options).items()]
    flags = ["--start", "--no-loop", f"--endpos={row[0]}", f"--file={path}", f"--slot={slot}", f"--dbname={row[1]}"]
    command = [str(server.command("pg_recvlogical")), *flags, *given]
    db.execute("CHECKPOINT")  # something behind the end, so that the server passes it
    subprocess.run(command, env=server.environment, check=True, timeout=60, capture_output=True)
    return path.read_bytes()


def told(messages: list[Message]) -> list[Any]:
    """The changes of rows."""
    changes = [each for each in messages if isinstance(each, InsertMessage | UpdateMessage | DeleteMessage)]
    return [(type(each).__name__, *(dict(row) if row is not None else None for row in _rows(each))) for each in changes]


def _rows(message: Any) -> tuple[Any, Any]:
    return getattr(message, "old", None), getattr(message, "new", None)


WELL: dict[str, Any] = {"project_id": None, "notes": None}


def expected() -> list[Any]:
    two = {"name": "two\nlines", "depth": None} | WELL
    return [
        ("InsertMessage", None, {"id": 1, "name": "a", "depth": Decimal("1.50")} | WELL),
        ("InsertMessage", None, {"id": 2} | two),
        ("UpdateMessage", {"id": 2}, {"id": 3} | two),
        ("DeleteMessage", {"id": 1}, None),
    ]


def test_rows_of_peek_binary_changes(db: psycopg.Connection, slot: str) -> None:
    decoder = Decoder()
    messages = [decoder.decode(data) for data in peek(db, slot)]
    assert told(messages) == expected()
    kinds = [type(message) for message in messages]
    assert kinds[:2] == [Begin, RelationMessage] and kinds[-1] is Commit and kinds.count(Begin) == 3
    assert {str(relation) for relation in decoder.relations.values()} == {"public.wells"}


def test_a_file_of_pg_recvlogical(server: Sandbox, db: psycopg.Connection, slot: str, tmp_path: Path) -> None:
    peeked = peek(db, slot)
    data = received(server, db, slot, tmp_path / "changes")
    decoder = Decoder()
    messages = list(decoder.feed(data))
    assert told(messages) == expected() and decoder.pending == 0
    same = Decoder()
    assert list(map(repr, messages)) == [repr(same.decode(each)) for each in peeked]


def test_a_file_with_streamed_transactions(server: Sandbox, db: psycopg.Connection, slot: str, tmp_path: Path) -> None:
    db.execute("ALTER SYSTEM SET logical_decoding_work_mem = '64kB'")
    db.execute("SELECT pg_reload_conf()")
    try:
        with db.transaction():
            db.execute("INSERT INTO wells (id, notes) SELECT i, repeat('x', 100) FROM generate_series(100, 1100) i")
            with db.transaction(force_rollback=True):
                db.execute("INSERT INTO wells (id) SELECT i FROM generate_series(2000, 3000) i")
        data = received(server, db, slot, tmp_path / "changes", proto_version="2", streaming="on")
    finally:
        db.execute("ALTER SYSTEM RESET logical_decoding_work_mem")
        db.execute("SELECT pg_reload_conf()")
    decoder = Decoder(streaming="on")
    messages = [message for at in range(0, len(data), 1000) for message in decoder.feed(data[at : at + 1000])]
    start = next(message for message in messages if isinstance(message, StreamStart))
    (commit,) = (message for message in messages if isinstance(message, StreamCommit))
    assert start.is_first and commit.xid == start.xid and commit.commit_time.tzinfo is not None
    inserted = [m for m in messages if isinstance(m, InsertMessage) and m.xid == start.xid]
    assert [message.new["id"] for message in inserted] == list(range(100, 1101))
    assert decoder.pending == 0


def test_types_of_the_user_are_known_by_their_messages(db: psycopg.Connection) -> None:
    db.execute("CREATE TYPE mood AS ENUM ('ok'); CREATE DOMAIN metres AS numeric(8, 2); CREATE DOMAIN many AS int[]")
    db.execute("CREATE TABLE kinds (id int PRIMARY KEY, m mood, d metres, n many)")
    db.execute("ALTER PUBLICATION wells ADD TABLE kinds")
    db.execute("SELECT pg_create_logical_replication_slot('elsewhere', 'pgoutput')")
    db.execute("INSERT INTO kinds VALUES (1, 'ok', 1.5, '{1,NULL}')")
    decoder = Decoder()
    messages = [decoder.decode(data) for data in peek(db, "elsewhere")]
    names = [(message.schema, message.name) for message in messages if isinstance(message, TypeMessage)]
    assert names == [("public", "mood"), ("pg_catalog", "numeric"), ("pg_catalog", "_int4")]
    ((_, _, new),) = told(messages)
    assert {name: repr(value) for name, value in new.items()} == {
        "id": "1",
        "m": "'ok'",
        "d": "Decimal('1.50')",
        "n": "[1, None]",
    }
