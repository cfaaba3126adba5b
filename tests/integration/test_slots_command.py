"""`cdc slots` and the WAL budget in health: what slots keep, how fast that grows, when it is too much."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

import cdc
from cdc.daemon.cli import run
from cdc.testing import Sandbox
from tests.harness import SETUP, Running, until


@pytest.fixture
def limited() -> Iterator[tuple[Sandbox, psycopg.Connection]]:
    """A server that gives up a slot behind 64 MB of WAL."""
    settings = {"max_slot_wal_keep_size": "64MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    with Sandbox(settings=settings) as server, psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(SETUP)
        db.execute("CREATE TABLE wells (id int PRIMARY KEY); CREATE PUBLICATION wells FOR TABLE wells")
        yield server, db


def fill(db: psycopg.Connection, rows: int = 40000) -> None:
    db.execute(f"CREATE TABLE fill AS SELECT n, repeat('x', 500) FROM generate_series(1, {rows}) n; DROP TABLE fill")


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[dict]]:
    capsys.readouterr()
    code = run(["slots", "--json", *words])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_health_shows_what_the_slot_keeps(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        until(lambda: running.consumer.health().wal is not None)
        health = running.consumer.health()
        running.caught_up(db)
    wal = health.wal
    assert wal.wal_status == "reserved" and wal.retained_bytes > 0 and wal.safe_bytes is None and wal.warning is None
    assert health.to_dict()["wal"]["retained_bytes"] == wal.retained_bytes


def test_a_slot_that_falls_behind_turns_health_red_before_it_is_lost(
    kind: str, limited: tuple[Sandbox, psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that stays open keeps the WAL, whoever reads it. Once it has ended, all is well again."""
    monkeypatch.setattr("cdc.housekeeping._WAL_EVERY", 0.05)
    server, db = limited
    seen: list[cdc.Health] = []

    def turned(colour: cdc.Colour) -> bool:
        fill(db, 2000)
        seen.append(running.consumer.health())
        return seen[-1].colour is colour

    with Running(kind, server.dsn) as running, psycopg.connect(server.dsn, autocommit=True) as other:
        running.caught_up(db)
        until(lambda: running.consumer.health().colour is cdc.Colour.GREEN)
        with other.transaction():
            other.execute("INSERT INTO wells VALUES (1)")
            until(lambda: turned(cdc.Colour.RED))
            red = seen[-1]
            assert red.wal is not None and red.wal.is_critical and red.wal.wal_status != "lost"
            assert red.status is cdc.Status.LIVE and any("of WAL" in reason for reason in red.reasons)
        until(lambda: turned(cdc.Colour.GREEN), timeout=60)
    assert [event.key for event in running.events] == [1]


def test_the_slots_of_a_server(
    limited: tuple[Sandbox, psycopg.Connection], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, db = limited
    monkeypatch.setenv("CDC_DSN", server.dsn)
    assert shown(capsys, "--interval", "0") == (0, [])
    with Running("blocking", server.dsn) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        until(running.is_saved)
        db.execute("SELECT pg_create_logical_replication_slot('stranger', 'test_decoding')")
        code, (ingest, stranger) = shown(capsys, "--interval", "0")
        assert code == 0
        assert (ingest["slot"], ingest["plugin"], ingest["database"]) == ("ingest", "pgoutput", "postgres")
        assert ingest["position"] == str(running.events[0].position)
        assert ingest["epoch"] == running.events[0].position.epoch and ingest["saved_at"]
        assert ingest["active_pid"] and stranger["active_pid"] is None
        assert stranger["position"] is stranger["epoch"] is stranger["invalidation"] is None
        assert ingest["wal_status"] == "reserved" and ingest["safe_bytes"] > 0
        assert ingest["bytes_per_second"] is None
    assert run(["slots", "--interval", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["slot", "plug-in"] and [line.split()[0] for line in lines[1:]] == [
        "ingest",
        "stranger",
    ]


def test_a_slot_in_danger_gives_exit_code_1(
    limited: tuple[Sandbox, psycopg.Connection], capsys: pytest.CaptureFixture[str]
) -> None:
    server, db = limited
    db.execute("SELECT pg_create_logical_replication_slot('left', 'pgoutput')")
    words = ("--dsn", server.dsn, "--interval", "0.2")

    def in_danger() -> list[dict]:
        fill(db, 2000)
        code, slots = shown(capsys, *words)
        assert slots[0]["wal_status"] != "lost" or code == 1
        return slots if code == 1 else []

    found: list[dict] = []
    until(lambda: found.extend(in_danger()) or found, timeout=60)
    assert "of WAL" in found[0]["warning"] and found[0]["wal_status"] != "lost"

    def lost() -> bool:
        fill(db)
        db.execute("SELECT pg_switch_wal()")
        db.execute("CHECKPOINT")
        return bool(shown(capsys, *words)[1][0]["wal_status"] == "lost")

    until(lost, timeout=60)
    code, (left,) = shown(capsys, *words)
    assert code == 1 and "lost" in left["warning"] and left["retained_bytes"] is None
    assert run(["slots", *words]) == 1
    assert "lost" in capsys.readouterr().out


def test_a_database_without_the_schema_cdc(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot('plain', 'pgoutput')")
    _, slots = shown(capsys, "--dsn", database, "--interval", "0")
    assert [each["epoch"] for each in slots if each["slot"] == "plain"] == [None]


@pytest.mark.parametrize("interval", ["-1", "soon", "inf"])
def test_wrong_usage(interval: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["slots", "--dsn", "", "--interval", interval]) == 2
