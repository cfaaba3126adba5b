"""The file of a store: rows at once after a restart, nothing missing, and nothing trusted that may be old."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdc
from cdc import filling, keeper
from cdc.line_reader import LineReader
from tests.harness import Running, until
from tests.integration.test_snapshot import VERSIONED, Writer, table
from tests.integration.test_subjects import ONE, POLICY, TWO, selected, user


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "CHUNK_ROWS", 20)
    monkeypatch.setattr(filling, "_SLICE", 7)
    monkeypatch.setattr(keeper, "SLICE", 30)
    monkeypatch.setattr(keeper, "_EVERY", 0.05)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wells.store"


class Life:
    """A consumer with one store that has a file, from its making until it is closed."""

    def __init__(self, kind: str, dsn: str, path: Path, **options: Any) -> None:
        asked = {name: options.pop(name) for name in ("filter", "subject", "model") if name in options}
        self.told: list[cdc.StoreChange] = []
        self.store: Any = None

        def prepare(running: Running) -> None:
            self.store = running.consumer.store("wells", path, **asked)
            self.store.on_change(self.told.append)
            self.before = plain(self.store)
            self.as_of = self.store.position

        self.running = Running(kind, dsn, prepare, **options)

    def __enter__(self) -> Life:
        self.running.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.running.__exit__(*error)

    def settled(self, db: psycopg.Connection) -> None:
        self.running.do(self.store.wait_live, timeout=30)
        self.running.caught_up(db)
        self.running.do(self.store.wait_live, timeout=30)

    @property
    def read(self) -> int:
        """Rows that were read from the table."""
        return int(self.store.read)

    @property
    def changes(self) -> list[tuple[Any, str]]:
        return [(each.key, each.effect.value) for each in self.told]


def plain(store: Any) -> dict[Any, dict[str, Any]]:
    return {key: dict(row) for key, row in store.items()}


def fill(db: psycopg.Connection, rows: int = 105) -> None:
    db.execute(f"INSERT INTO wells SELECT n, 'well ' || n, NULL, n / 4.0, NULL FROM generate_series(1, {rows}) n")


def first_life(kind: str, dsn: str, db: psycopg.Connection, path: Path, **options: Any) -> dict[Any, dict[str, Any]]:
    """Fill the file; what it holds then."""
    with Life(kind, dsn, path, **options) as life:
        life.settled(db)
        assert life.before == {} and life.read >= len(life.store)
        return plain(life.store)


WHILE_DOWN = """
UPDATE wells SET name = 'new' WHERE id = 3;
UPDATE wells SET id = 300 WHERE id = 4;
DELETE FROM wells WHERE id = 5;
INSERT INTO wells VALUES (400, 'late')
"""


def test_a_restart_reads_no_rows(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    fill(db)
    rows = first_life(kind, database, db, path)
    assert rows == table(db) and path.stat().st_mode & 0o777 == 0o600
    db.execute(WHILE_DOWN)
    with Life(kind, database, path) as life:
        assert life.before == rows and life.as_of is not None and life.as_of.epoch
        life.settled(db)
        assert plain(life.store) == table(db)
        assert life.changes == [(3, "STAY"), (4, "LEAVE"), (300, "ENTER"), (5, "LEAVE"), (400, "ENTER")]
        assert life.read == 0
        db.execute("UPDATE wells SET name = 'later' WHERE id = 7")
        life.running.caught_up(db)
    with Life(kind, database, path) as life:
        assert life.before == table(db) and life.as_of == life.store.position
        life.settled(db)
        assert life.changes == [] and life.read == 0 and plain(life.store) == table(db)


def test_rows_are_there_without_a_server(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    db.execute("CREATE TYPE mood AS ENUM ('good', 'bad'); ALTER TABLE wells ADD mood mood DEFAULT 'bad'")
    fill(db)
    rows = first_life(kind, database, db, path)
    db.execute(WHILE_DOWN)
    consumer = (cdc.Consumer if kind == "blocking" else cdc.AsyncConsumer)(database, slot="ingest")
    store = consumer.store("wells", path)
    assert plain(store) == rows and store[3]["mood"] == "bad"
    assert store.position is not None and not store.is_live and store.status == "not started"
    assert [row["id"] for row in store.index("name")["well 3"]] == [3]
    store.close()
    assert len(store) == 0
    assert plain(consumer.store("wells", path)) == rows


def test_what_cannot_be_connected_to_leaves_the_rows(database: str, db: psycopg.Connection, path: Path) -> None:
    fill(db)
    rows = first_life("blocking", database, db, path)
    wrong = psycopg.conninfo.make_conninfo(database, user="nobody_at_all", password="wrong")
    consumer = cdc.Consumer(wrong, slot="ingest")
    store = consumer.store("wells", path)
    with pytest.raises(cdc.CdcError):
        consumer.start()
    assert plain(store) == rows and not store.is_live
    consumer.close()
    assert plain(store) == rows
    first = cdc.Consumer(database, slot="ingest")
    assert plain(first.store("wells", path)) == rows
    first.close()


@pytest.mark.parametrize("slot", ["ingest", None], ids=["named", "temporary"])
def test_a_refill_tells_differences_only(
    kind: str, database: str, db: psycopg.Connection, path: Path, slot: str | None, tmp_path: Path
) -> None:
    """A file that is behind the slot; and a temporary slot, which has no past."""
    fill(db)
    rows = first_life(kind, database, db, path, slot=slot)
    if slot is not None:
        shutil.copy(path, tmp_path / "old")
        db.execute("UPDATE wells SET depth = 7 WHERE id = 50")
        with Life(kind, database, path) as life:
            life.settled(db)
            assert life.read == 0
        shutil.copy(tmp_path / "old", path)
        db.execute("UPDATE wells SET depth = 50 / 4.0 WHERE id = 50")
    db.execute(WHILE_DOWN)
    with Life(kind, database, path, slot=slot) as life:
        assert life.before == rows
        life.settled(db)
        assert plain(life.store) == table(db)
        assert sorted(life.changes) == [(3, "STAY"), (4, "LEAVE"), (5, "LEAVE"), (300, "ENTER"), (400, "ENTER")]
        assert life.read >= len(rows)
    with Life(kind, database, path, slot=slot) as life:
        assert life.before == table(db)
        life.settled(db)
        assert life.changes == [] and (life.read == 0) == (slot is not None)


def test_a_file_ahead_of_the_slot(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    """A slow handler holds the slot back; what the store had comes again, and is passed over."""
    fill(db)
    first_life(kind, database, db, path)
    with Life(kind, database, path) as life:
        life.settled(db)
        gate = threading.Event()

        def slow(event: Any) -> None:
            gate.wait(20)
            raise RuntimeError("not now")

        if kind == "blocking":
            life.running.subscribe("wells", slow, queue=100, retries=0)
        else:

            async def slowly(event: Any) -> None:
                await asyncio.to_thread(slow, event)

            life.running.subscribe("wells", slowly, queue=100, retries=0)
        db.execute("UPDATE wells SET name = 'first' WHERE id = 3")
        db.execute("UPDATE wells SET name = 'second' WHERE id = 3; DELETE FROM wells WHERE id = 8")
        until(lambda: 8 not in life.store)
        until(lambda: keeper_of(life)._mark.position == life.store.position)
        gate.set()
        until(lambda: life.running.consumer.health().status == "STOPPED")
        with pytest.raises(cdc.HandlerError):
            life.running.do(life.running.consumer.stop)
    with Life(kind, database, path) as life:
        assert life.before == table(db)
        seen: list[Any] = []
        life.running.subscribe("wells", seen.append)
        life.settled(db)
        assert life.changes == [] and life.read == 0
        assert plain(life.store) == table(db)


MADE_ANEW = "SELECT pg_drop_replication_slot('ingest'); DELETE FROM cdc.slots"
DISTRUSTED = {
    "slot made anew": MADE_ANEW,
    "column added": "ALTER TABLE wells ADD more int DEFAULT 3",
    "rewritten": "ALTER TABLE wells ALTER depth TYPE numeric USING depth * 2",
    "last column made anew": "ALTER TABLE wells DROP notes; ALTER TABLE wells ADD notes text DEFAULT 'new'",
    "published anew": "ALTER PUBLICATION wells DROP TABLE wells; UPDATE wells SET name = 'missed' WHERE id = 9; "
    "ALTER PUBLICATION wells ADD TABLE wells",
    "another table": "ALTER TABLE wells RENAME TO old_wells; CREATE TABLE wells (LIKE old_wells INCLUDING ALL); "
    "INSERT INTO wells SELECT * FROM old_wells WHERE id < 50; ALTER PUBLICATION wells ADD TABLE wells",
    "truncated": "TRUNCATE wells; INSERT INTO wells VALUES (1, 'only')",
}


@pytest.mark.parametrize("what", DISTRUSTED)
def test_what_was_done_meanwhile_has_the_table_read(
    kind: str, database: str, db: psycopg.Connection, path: Path, what: str
) -> None:
    fill(db)
    rows = first_life(kind, database, db, path)
    for statement in DISTRUSTED[what].split(";"):
        db.execute(statement)
    with Life(kind, database, path) as life:
        assert life.before == rows
        life.settled(db)
        assert plain(life.store) == table(db) != {}
        assert life.read >= len(life.store)
    with Life(kind, database, path) as life:
        assert life.before == table(db)
        life.settled(db)
        assert plain(life.store) == table(db) and life.read == 0


def test_another_filter_or_database_shows_nothing_of_the_file(
    kind: str, database: str, db: psycopg.Connection, path: Path
) -> None:
    fill(db)
    rows = first_life(kind, database, db, path, filter="id=lt.50")
    assert set(rows) == set(range(1, 50))
    with Life(kind, database, path, filter="id=gt.100") as life:
        assert life.before == {}
        life.settled(db)
        assert set(life.store) == set(range(101, 106))
    with Life(kind, database, path, filter="id=gt.100") as life:
        assert set(life.before) == set(range(101, 106))
        db.execute("UPDATE wells SET id = 200 WHERE id = 3; UPDATE wells SET id = 2 - id WHERE id = 102")
        life.settled(db)
        assert set(life.store) == {101, 103, 104, 105, 200} and life.read == 0
    elsewhere = psycopg.conninfo.make_conninfo(database, dbname="postgres")
    consumer = cdc.Consumer(elsewhere, slot="ingest")
    assert not consumer.store("wells", path, filter="id=gt.100")
    consumer.close()


def test_a_file_that_is_in_use_damaged_or_something_else(
    kind: str, database: str, db: psycopg.Connection, path: Path, tmp_path: Path
) -> None:
    fill(db)
    first_life(kind, database, db, path)
    with Life(kind, database, path) as life:
        life.settled(db)
        with pytest.raises(cdc.ConfigurationError, match="in use by another store"):
            cdc.Consumer(database, slot="other").store("wells", path)
    path.write_bytes(path.read_bytes()[:6000] + bytes(3000))
    with Life(kind, database, path) as life:
        assert life.before == {}
        life.settled(db)
        assert plain(life.store) == table(db)
    other = tmp_path / "notes"
    other.write_text("dear diary")
    for wrong in (other, tmp_path, tmp_path / "no" / "folder", "", 3):
        with pytest.raises(cdc.ConfigurationError):
            cdc.Consumer(database, slot="other").store("wells", wrong)  # type: ignore[arg-type]
    assert other.read_text() == "dear diary"


def test_a_fill_goes_on_where_it_was(
    kind: str, database: str, db: psycopg.Connection, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(db, 600)
    reading, asked = hold_after(monkeypatch, 200)
    with Life(kind, database, path) as life:
        until(lambda: reading.is_set() and life.read >= 200)
        until(lambda: keeper_of(life)._mark is not None and keeper_of(life)._mark.after == ("200",))
        assert len(life.store) == 0 and not life.store.is_live
    monkeypatch.undo()
    db.execute("UPDATE wells SET name = 'changed' WHERE id IN (10, 500); DELETE FROM wells WHERE id IN (11, 501)")
    db.execute("UPDATE wells SET id = 1000 WHERE id = 12; UPDATE wells SET id = -5 WHERE id = 502")
    asked.clear()
    _, asked = hold_after(monkeypatch, 10_000)
    with Life(kind, database, path) as life:
        assert life.before == {}  # A part of a table is no table.
        life.settled(db)
        assert plain(life.store) == table(db)
        assert asked[0] == ("200",) and None not in asked
    with Life(kind, database, path) as life:
        assert life.before == table(db)


def hold_after(monkeypatch: pytest.MonkeyPatch, key: int) -> tuple[threading.Event, list[Any]]:
    """Let chunks behind a key wait for ever; the event says that one does, the list behind which keys was read."""
    held, read, asked = threading.Event(), LineReader.read, list[Any]()

    def slow(self: Any, dsn: str, schema: str, table: str, after: Any, again: Any, limit: int) -> Any:
        asked.append(after)
        if after is not None and int(after[0]) >= key:
            held.set()
            raise cdc.ConnectionFailed("held by the test")
        return read(self, dsn, schema, table, after, again, limit)

    monkeypatch.setattr(LineReader, "read", slow)
    return held, asked


def keeper_of(life: Life) -> Any:
    return life.running.consumer._loop.snapshots.files.keepers[life.store.feed]


def test_a_file_stays_while_its_table_is_read_anew(
    kind: str, database: str, db: psycopg.Connection, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gap, and an end before the refill is complete: the next life shows what was there, and does not trust it."""
    fill(db, 100)
    rows = first_life(kind, database, db, path, on_gap="deliver")
    db.execute(MADE_ANEW.split(";")[0])  # Its position is remembered: a gap.
    db.execute("UPDATE wells SET name = 'missed' WHERE id IN (3, 77)")
    reading, _ = hold_after(monkeypatch, 40)
    with Life(kind, database, path, on_gap="deliver") as life:
        until(lambda: reading.is_set() and keeper_of(life)._mark.due)
        assert plain(life.store) == rows and not life.store.is_live
        db.execute("INSERT INTO wells VALUES (500)")
        life.running.caught_up(db)
    monkeypatch.undo()
    with Life(kind, database, path, on_gap="deliver") as life:
        assert life.before == rows
        life.settled(db)
        assert plain(life.store) == table(db)
        assert sorted(life.changes) == [(3, "STAY"), (77, "STAY"), (500, "ENTER")]
        assert life.read >= 101


def test_a_table_that_is_altered_and_truncated_while_it_is_kept(
    kind: str, database: str, db: psycopg.Connection, path: Path
) -> None:
    fill(db)
    with Life(kind, database, path) as life:
        life.settled(db)
        db.execute("ALTER TABLE wells ADD more int; UPDATE wells SET more = id")
        life.settled(db)
        until(lambda: plain(life.store) == table(db))
    with Life(kind, database, path) as life:
        assert life.before == table(db)
        life.settled(db)
        db.execute("TRUNCATE wells")
        db.execute("INSERT INTO wells VALUES (1, 'only')")
        life.settled(db)
    with Life(kind, database, path) as life:
        assert life.before == table(db) and len(life.before) == 1
        life.settled(db)
        assert plain(life.store) == table(db)


# Subjects.


def owned(db: psycopg.Connection) -> None:
    db.execute(POLICY)
    db.execute(f"INSERT INTO wells SELECT n, 'well ' || n, '{ONE}' FROM generate_series(1, 40) n")
    db.execute(f"INSERT INTO wells SELECT n, 'well ' || n, '{TWO}' FROM generate_series(41, 60) n")


def test_a_subjects_file_is_shown_once_it_was_checked(
    kind: str, database: str, db: psycopg.Connection, path: Path
) -> None:
    owned(db)
    first_life(kind, database, db, path, subject=user(ONE))
    db.execute(
        f"UPDATE wells SET project_id = '{TWO}' WHERE id = 3; UPDATE wells SET project_id = '{ONE}' WHERE id = 50"
    )
    with Life(kind, database, path, subject=user(ONE)) as life:
        assert life.before == {}
        life.settled(db)
        assert plain(life.store) == selected(db, ONE) and set(life.store) == {*range(1, 41), 50} - {3}
        assert life.read == 40  # They came from the file.
    with Life(kind, database, path, subject=user(TWO)) as life:
        assert life.before == {}
        life.settled(db)
        assert plain(life.store) == selected(db, TWO)
        assert {each.key for each in life.told} == set(selected(db, TWO))


@pytest.mark.parametrize(
    "revoked",
    [
        "DROP POLICY own ON wells; CREATE POLICY own ON wells FOR SELECT TO authenticated USING (id > 30)",
        "REVOKE SELECT ON wells FROM authenticated",
        "REVOKE SELECT ON wells FROM authenticated; GRANT SELECT (id, project_id) ON wells TO authenticated",
        "DROP POLICY own ON wells",
    ],
)
def test_what_was_revoked_meanwhile_is_never_shown(
    kind: str, database: str, db: psycopg.Connection, path: Path, revoked: str
) -> None:
    owned(db)
    with Life(kind, database, path, subject=user(ONE)) as life:
        life.settled(db)
        assert len(life.store) == 40
    for statement in revoked.split(";"):
        db.execute(statement)
    shown: set[Any] = set()
    with Life(kind, database, path, subject=user(ONE)) as life:
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            shown |= {(key, "name" in row) for key, row in life.store.items()}
    allowed = {(key, True) for key in range(31, 61)} if "id > 30" in revoked else set()
    if "GRANT" in revoked:
        allowed = {(key, False) for key in range(1, 41)}
    assert shown <= allowed


def test_what_is_revoked_goes_from_the_file(kind: str, database: str, db: psycopg.Connection, path: Path) -> None:
    owned(db)
    with Life(kind, database, path, subject=user(ONE)) as life:
        life.settled(db)
        db.execute("DROP POLICY own ON wells")
        until(lambda: len(life.store) == 0)
        until(lambda: life.store.is_live or life.store.feed.denied)
        life.running.caught_up(db)
        until(lambda: keeper_of(life)._kept.count == 0)
    assert b"well 7" not in path.read_bytes() or rows_in(path) == 0


def rows_in(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        count: int = connection.execute("SELECT count(*) FROM rows").fetchone()[0]
    connection.close()
    return count


# Trouble.


def test_a_full_disk_does_not_stop_the_store(
    kind: str, database: str, db: psycopg.Connection, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_RETRY_AFTER", 0.1)
    fill(db)
    first_life(kind, database, db, path)
    with Life(kind, database, path) as life:
        life.settled(db)
        connection = keeper_of(life)._file._connection
        connection.execute("PRAGMA max_page_count = 1")  # As SQLite finds a disk that is full.
        db.execute("UPDATE wells SET notes = repeat(md5(id::text), 100)")
        life.running.caught_up(db)
        until(lambda: keeper_of(life).problem is not None)
        assert plain(life.store) == table(db) and life.store.is_live
        assert any("cannot be written" in note for note in life.running.consumer.health().notes)
        connection.execute("PRAGMA max_page_count = 100000")
        until(lambda: keeper_of(life).problem is None)
    with Life(kind, database, path) as life:
        assert life.before == table(db)
        life.settled(db)
        assert life.read == 0


# kill -9.

CHILD = textwrap.dedent(
    """
    import sys
    import cdc
    from cdc import filling, housekeeping, keeper
    filling.CHUNK_ROWS, keeper._EVERY, housekeeping._SAVE_EVERY = 100, 0.2, 0.2
    consumer = cdc.Consumer(sys.argv[1], slot="ingest")
    store = consumer.store("wells", sys.argv[2])
    print("rows", len(store), flush=True)
    consumer.start()
    store.wait_live(60)
    print("live", store.read, flush=True)
    consumer.stop() if len(sys.argv) > 3 else __import__("threading").Event().wait()
    """
)


@pytest.mark.parametrize("truncates", [False, True], ids=["steady", "truncating"])
def test_kill_minus_nine_at_any_moment(database: str, db: psycopg.Connection, path: Path, truncates: bool) -> None:
    """Behind each kill the store is the table again, and what was read before need not be read again."""
    db.execute(VERSIONED)
    chance, lives = random.Random(5), list[list[str]]()
    with Calm(database, truncates):
        for number in range(6):
            arguments = [sys.executable, "-c", CHILD, database, str(path)]
            with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
                assert child.stdout is not None
                said = [child.stdout.readline()]
                if number % 2:
                    said.append(child.stdout.readline())
                time.sleep(chance.random() * 0.5)
                child.kill()
                lives.append([*said, *child.stdout])
    assert all(said[0].startswith("rows") for said in lives), lives
    with Life("blocking", database, path) as life:
        life.settled(db)
        assert plain(life.store) == table(db)
    with Life("blocking", database, path) as life:
        assert life.before == table(db)
    if not truncates:
        assert any("live 0\n" in said for said in lives), lives


class Calm(Writer):
    """A writer that leaves the consumer the time to keep up, and that may do without TRUNCATE."""

    def __init__(self, dsn: str, truncates: bool) -> None:
        super().__init__(dsn, 5)
        self._truncates = truncates

    def _write(self, db: psycopg.Connection) -> None:
        time.sleep(0.02)
        with suppress(_Truncates):
            super()._write(db if self._truncates else _Guarded(db))  # type: ignore[arg-type]


class _Truncates(Exception):
    pass


class _Guarded:
    def __init__(self, db: psycopg.Connection) -> None:
        self._db = db
        self.transaction: Callable[[], Any] = db.transaction

    def execute(self, statement: str, values: Any = None) -> Any:
        if statement.startswith("TRUNCATE"):
            raise _Truncates
        return self._db.execute(statement, values)
