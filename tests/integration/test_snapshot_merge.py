"""What a snapshot merges: commits that are streamed and not visible yet, and what a killed process leaves.

The deterministic case is that of the cache's fence: a commit that waits for a standby that is not there is streamed,
while every new snapshot still shows the row from before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc import GapKind
from cdc.chunk import Window
from cdc.testing import Sandbox
from tests.harness import MUCH_LATER, SETUP, Running, until
from tests.integration.test_cache import a_commit_that_is_not_visible
from tests.integration.test_snapshot import Kept, complete, follow, nothing


@pytest.fixture(scope="module")
def synchronous() -> Iterator[Sandbox]:
    with Sandbox() as server:
        with psycopg.connect(server.dsn, autocommit=True) as db:
            db.execute(SETUP)
            db.execute("CREATE TABLE wells (id int PRIMARY KEY, name text); CREATE PUBLICATION wells FOR TABLE wells")
            db.execute(MUCH_LATER)
        yield server


@pytest.fixture
def filled(synchronous: Sandbox) -> Iterator[psycopg.Connection]:
    with psycopg.connect(synchronous.dsn, autocommit=True) as db:
        db.execute("TRUNCATE wells; INSERT INTO wells SELECT n, 'old' FROM generate_series(1, 50) n")
        yield db


def after_a_commit_that_is_not_visible(kind: str, server: Sandbox, db: psycopg.Connection, fault: bool) -> list[str]:
    """The names of well 1 that a subscription receives which begins after the commit was streamed."""
    kept = Kept()
    with Running(kind, server.dsn, slot=None) as running, a_commit_that_is_not_visible(server, db) as let_go:
        until(lambda: running.events)
        subscription = follow(running, kept)
        if fault:
            complete(running, subscription)
        else:
            until(lambda: "not visible yet" in (subscription.snapshot.waiting_for or ""))
            assert not kept.reads
            let_go()
            complete(running, subscription)
    return [event.new["name"] for event in kept.events if event.key == 1]


def test_a_change_streamed_before_is_waited_for_until_it_is_visible(
    kind: str, synchronous: Sandbox, filled: psycopg.Connection
) -> None:
    assert after_a_commit_that_is_not_visible(kind, synchronous, filled, fault=False) == ["new"]


def test_a_merge_by_lsn_leaves_the_old_value(
    kind: str, synchronous: Sandbox, filled: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault: whatever was streamed before the chunk's LSN counts as visible, as in merges by watermarks."""
    monkeypatch.setattr(Window, "see", lambda window, snapshot: set())
    assert after_a_commit_that_is_not_visible(kind, synchronous, filled, fault=True) == ["old"]


def test_a_change_in_the_window_that_the_snapshot_does_not_see(
    kind: str, synchronous: Sandbox, filled: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit is streamed while the first chunk is read, and stays invisible until all is over."""
    for fault, names in ((False, ["new", "new"]), (True, ["new", "old"])):
        filled.execute("UPDATE wells SET name = 'old' WHERE id = 1")
        kept = Kept()
        with Running(kind, synchronous.dsn, nothing, slot=None) as running:
            opened = hold_the_reader(running)
            subscription = follow(running, kept)
            until(opened)
            with a_commit_that_is_not_visible(synchronous, filled):
                until(lambda kept=kept: kept.events)
                if fault:
                    monkeypatch.setattr("cdc.chunk.Chunk.follow", lambda chunk, event: None)
                running.consumer._loop.snapshots._parts._reader.go.set()
                complete(running, subscription)
                assert filled.execute("SELECT name FROM wells WHERE id = 1").fetchone() == ("old",)
        assert [event.new["name"] for event in kept.events if event.key == 1] == names


def test_another_table_that_the_catalog_does_not_show_yet(kind: str, synchronous: Sandbox) -> None:
    """It is streamed before it is visible; whoever asks too soon who has the name is told of the table from before."""
    with psycopg.connect(synchronous.dsn, autocommit=True) as db:
        db.execute("CREATE TABLE cores (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE cores")
        replace = (
            "BEGIN; ALTER TABLE cores RENAME TO former; CREATE TABLE cores (id int PRIMARY KEY);"
            "ALTER TABLE cores REPLICA IDENTITY FULL; ALTER PUBLICATION wells ADD TABLE cores;"
            "INSERT INTO cores VALUES (1); COMMIT"
        )
        try:
            with Running(kind, synchronous.dsn, nothing, slot=None, on_gap="deliver") as running:
                events: list[Any] = []
                running.subscribe("cores", events.append)
                with a_commit_that_is_not_visible(synchronous, db, replace) as let_go:
                    time.sleep(0.3)  # It has arrived by then, as a rule; the consumer waits for a second.
                    let_go()
                    until(lambda: len(events) >= 2)
            gap, insert = events
            assert gap.kind is GapKind.TABLE_REPLACED and insert.key == 1
        finally:
            db.execute("DROP TABLE IF EXISTS cores, former")


def hold_the_reader(running: Running) -> Any:
    """Let the reader wait until `go` is set; tells whether it is asked."""
    reader = running.consumer._loop.snapshots._parts._reader
    reader.go, asked, read = threading.Event(), threading.Event(), reader.read

    def waits(*arguments: Any) -> Any:
        asked.set()
        reader.go.wait(20)
        return read(*arguments)

    reader.read = waits
    return asked.is_set


PROGRAM = textwrap.dedent(
    """
    import json, sys, time, cdc
    from cdc import snapshotting

    snapshotting.CHUNK_ROWS = 50
    consumer = cdc.Consumer(sys.argv[1], slot="killed")
    with open(sys.argv[2], "a") as file:

        @consumer.on("wells", snapshot=True, name="file")
        def append(event):
            if isinstance(event, cdc.Truncate):
                print(json.dumps(["TRUNCATE", None, None, None]), file=file, flush=True)
            else:
                new = None if event.new is None else event.new["version"]
                print(json.dumps([event.event_type, event.old_key, event.key, new]), file=file, flush=True)
            time.sleep(0.002)

        consumer.run()
    """
)


def test_kill_minus_nine_in_the_middle_of_a_snapshot(database: str, db: psycopg.Connection, tmp_path: Path) -> None:
    db.execute("DROP TABLE wells; CREATE TABLE wells (id int PRIMARY KEY, version int)")
    db.execute("ALTER PUBLICATION wells ADD TABLE wells; INSERT INTO wells SELECT n, 0 FROM generate_series(1, 2000) n")
    program, output = tmp_path / "program.py", tmp_path / "rows"
    program.write_text(PROGRAM)
    output.touch()
    done, marks = "SELECT bool_and((bookmark->>'done')::bool) FROM cdc.snapshots", []
    for turn in range(4):
        process = subprocess.Popen([sys.executable, str(program), database, str(output)])
        try:
            before = count(output)
            until(lambda before=before: count(output) > before + 500 or db.execute(done).fetchone() == (True,), 60)
            db.execute("UPDATE wells SET version = version + 1 WHERE id %% 10 = %s", (turn,))
            db.execute("DELETE FROM wells WHERE id %% 50 = %s", (turn,))
            db.execute("UPDATE wells SET id = id - 3000 WHERE id %% 70 = %s", (turn + 3,))
            until(lambda before=before: count(output) > before + 700 or db.execute(done).fetchone() == (True,), 60)
        finally:
            process.kill()
            process.wait()
        row = db.execute("SELECT (bookmark->>'rows')::int FROM cdc.snapshots").fetchone()
        marks.append(row[0] if row else 0)
    process = subprocess.Popen([sys.executable, str(program), database, str(output)])
    try:
        until(lambda: db.execute(done).fetchone() == (True,), 60)
        expected = {row[0]: row[1] for row in db.execute("SELECT id, version FROM wells")}
        until(lambda: rows(output) == expected, 60)
    finally:
        process.kill()
        process.wait()
    reads = sum('"READ"' in line for line in output.read_text().splitlines())
    assert marks == sorted(marks) and marks[0] > 0
    assert reads < 2 * 2000, "it began anew each time"


def count(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def rows(path: Path) -> dict[int, int]:
    kept: dict[int, int] = {}
    for line in path.read_text().splitlines():
        if not line.endswith("]") or not line.startswith("["):
            continue
        kind, old, key, version = json.loads(line)
        if kind == "TRUNCATE":
            kept.clear()
            continue
        kept.pop(old, None)
        if version is None:
            kept.pop(key, None)
        else:
            kept[key] = version
    return kept
