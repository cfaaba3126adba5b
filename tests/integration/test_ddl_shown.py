"""Changes of shape as `cdc tail` and `cdc run` show them."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg

from tests.integration.test_daemon import Launch, launch, lines_of, live, run

__all__ = ["launch", "run"]

STEPS = [
    "ADD COLUMN status text, DROP COLUMN depth, ALTER id TYPE bigint",
    "RENAME COLUMN name TO title",
    "REPLICA IDENTITY FULL",
    "DROP CONSTRAINT wells_pkey, ADD PRIMARY KEY (title)",
    "DROP CONSTRAINT wells_pkey",
    "DROP COLUMN title, ADD COLUMN title text",
]


def alter(db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells (id, name) VALUES (0, 'a')")
    for number, step in enumerate(STEPS, 1):
        db.execute(f"ALTER TABLE wells {step}")
        # What follows is described by the catalog of then: give it the time to be read.
        db.execute("SELECT pg_sleep(0.3)")
        db.execute(f"INSERT INTO wells (id, {'name' if number == 1 else 'title'}) VALUES ({number}, '{number}')")
        db.execute("SELECT pg_sleep(0.3)")


def test_tail(launch: Launch, database: str, db: psycopg.Connection) -> None:
    process = launch("tail", "wells", "--count", str(1 + 2 * len(STEPS)), CDC_DSN=database)
    process.says("Waiting")
    alter(db)
    code, output = process.finish()
    begin = "SCHEMA public.wells looks different from here: "
    told = [line.removeprefix(begin) for line in output.splitlines() if line.startswith(begin)]
    assert code == 0
    assert told == [
        "added status; dropped depth; changed id",
        "added title; dropped name",
        "the replica identity is full",
        "the key is title",
        "the key is none",
        "the columns stand in another order",
    ]


def test_run(run: Launch, db: psycopg.Connection, tmp_path: Path) -> None:
    process = run()
    live(process)
    alter(db)
    assert process.end() == 0
    lines = lines_of(tmp_path / "out.jsonl")
    told = [line for line in lines if line["eventType"] == "SCHEMA"]
    assert [line["eventType"] for line in lines] == ["INSERT", *["SCHEMA", "INSERT"] * len(STEPS)]
    assert [line["position"] for line in lines[1::2]] == [line["position"] for line in lines[2::2]]
    assert [line["key_columns"] for line in told] == [["id"], ["id"], ["id"], ["title"], [], []]
    assert [line["identity"] for line in told] == ["d", "d", "f", "f", "f", "f"]
    assert told[0]["added"] == ["status"] and told[0]["dropped"] == ["depth"] and told[0]["changed"] == ["id"]
    assert set(told[0]) == {
        *("schema", "table", "commit_timestamp", "eventType", "new", "old", "position", "key", "effect", "xid"),
        *("added", "dropped", "changed", "key_columns", "identity"),
    }
    assert json.dumps(told)
