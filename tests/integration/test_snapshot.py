"""Snapshots: the rows that a table has, merged with its changes while both go on."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdc
import cdc.connection
from cdc import snapshotting
from tests.harness import MUCH_LATER, Running, until


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshotting, "CHUNK_ROWS", 20)


class Kept:
    """A handler that keeps the table by key, and everything that it was told."""

    def __init__(self) -> None:
        self.rows: dict[Any, cdc.Row] = {}
        self.events: list[Any] = []

    def __call__(self, event: Any) -> None:
        self.events.append(event)
        event.apply(self.rows)

    @property
    def reads(self) -> list[cdc.Read]:
        return [event for event in self.events if isinstance(event, cdc.Read)]

    def table(self) -> dict[Any, dict[str, Any]]:
        return {key: dict(row) for key, row in self.rows.items()}


def table(db: psycopg.Connection, key: str = "id", name: str = "wells") -> dict[Any, dict[str, Any]]:
    cursor = db.execute(f"SELECT * FROM {name}")
    names = [column.name for column in cursor.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    keys = key.split(", ")
    return {row[key] if len(keys) == 1 else tuple(row[each] for each in keys): row for row in rows}


def follow(running: Running, kept: Any, table: str = "wells", **options: Any) -> cdc.Subscription:
    return running.subscribe(table, kept, snapshot=True, **options)


def complete(running: Running, subscription: cdc.Subscription, timeout: float = 60) -> None:
    running.do(running.consumer.wait_for_snapshot, subscription, timeout=timeout)


def nothing(running: Running) -> None:
    """A consumer whose subscriptions come later."""


def test_rows_that_were_there(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells SELECT n, 'well ' || n, NULL, n / 4.0, NULL FROM generate_series(1, 105) n")
    kept = Kept()
    with Running(kind, database, nothing) as running:
        subscription = follow(running, kept)
        complete(running, subscription)
        assert kept.table() == table(db)
        assert [event.key for event in kept.reads] == list(range(1, 106))
        assert (subscription.snapshot.rows, subscription.snapshot.chunks) == (105, 6)
        assert subscription.snapshot.done
        db.execute("UPDATE wells SET name = 'new' WHERE id = 3")
        running.caught_up(db)
        assert kept.table() == table(db)
    positions = [event.position for event in kept.events]
    assert positions == sorted(set(positions))
    assert [event.previous for event in kept.events] == [None, *positions[:-1]]


class Writer(threading.Thread):
    """Changes rows at random until it is stopped; each version of a key is higher than the one before."""

    def __init__(self, dsn: str, seed: int, keys: int = 300) -> None:
        super().__init__(daemon=True)
        self._dsn, self._keys = dsn, keys
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self.failure: BaseException | None = None

    def __enter__(self) -> Writer:
        self.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stopping.set()
        self.join(30)
        assert self.failure is None

    def run(self) -> None:
        try:
            with psycopg.connect(self._dsn, autocommit=True) as db:
                while not self._stopping.is_set():
                    self._write(db)
        except BaseException as error:
            self.failure = error

    def _write(self, db: psycopg.Connection) -> None:
        one, other = self._random.randint(1, self._keys), self._random.randint(1, self._keys)
        what = self._random.random()
        if what < 0.3:
            db.execute(
                "INSERT INTO wells VALUES (%s, nextval('versions'), repeat('x', 10)) ON CONFLICT (id) DO NOTHING",
                (one,),
            )
        elif what < 0.6:
            db.execute("UPDATE wells SET version = nextval('versions') WHERE id = %s", (one,))
        elif what < 0.75:
            db.execute("DELETE FROM wells WHERE id = %s", (one,))
        elif what < 0.9:
            db.execute(
                "UPDATE wells SET id = %s, version = nextval('versions') WHERE id = %s "
                "AND NOT EXISTS (SELECT FROM wells WHERE id = %s)",
                (other, one, other),
            )
        elif what < 0.95:
            with db.transaction():
                db.execute("UPDATE wells SET version = nextval('versions') WHERE id BETWEEN %s AND %s", (one, one + 20))
                with db.transaction():
                    db.execute("DELETE FROM wells WHERE id = %s", (other,))
        elif what < 0.97:
            with db.transaction():
                db.execute("TRUNCATE wells")
                db.execute(
                    "INSERT INTO wells SELECT n, nextval('versions'), %s FROM generate_series(1, %s, 2) n",
                    (big(self._random), self._keys),
                )
        else:
            db.execute("UPDATE wells SET notes = %s WHERE id = %s", (big(self._random), one))


def big(source: random.Random) -> str:
    """A text that is kept apart from its row, so that updates of others do not send it."""
    return "".join(chr(source.randrange(33, 2000)) for _ in range(3000))


class Watching(Kept):
    """Also finds a value that goes back."""

    def __init__(self) -> None:
        super().__init__()
        self.back: list[Any] = []
        self.newest: dict[Any, int] = {}

    def __call__(self, event: Any) -> None:
        new = getattr(event, "new", None)
        if new is not None:
            if new["version"] < self.newest.get(event.key, 0):
                self.back.append(event)
            self.newest[event.key] = new["version"]
        super().__call__(event)


VERSIONED = """
DROP TABLE wells; CREATE SEQUENCE versions;
CREATE TABLE wells (id int PRIMARY KEY, version bigint, notes text);
ALTER TABLE wells ALTER notes SET STORAGE EXTERNAL;
ALTER PUBLICATION wells ADD TABLE wells;
INSERT INTO wells SELECT n, nextval('versions'), repeat('long', 1000) FROM generate_series(1, 300) n;
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_writer_at_work(kind: str, database: str, db: psycopg.Connection, seed: int) -> None:
    db.execute(VERSIONED)
    kept = Watching()
    with Running(kind, database, nothing) as running:
        with Writer(database, seed):
            for _ in range(3):
                kept = Watching()
                subscription = follow(running, kept)
                complete(running, subscription)
                running.caught_up(db)
                subscription.close()
            kept = Watching()
            subscription = follow(running, kept)
            complete(running, subscription)
        running.caught_up(db)
    assert kept.table() == table(db)
    assert not kept.back
    assert kept.reads


def test_a_writer_whose_transaction_does_not_end(kind: str, database: str, db: psycopg.Connection) -> None:
    """What it wrote is in the WAL and on no disk, so that the stream alone would not come to its end for long."""
    db.execute("INSERT INTO wells SELECT generate_series(1, 50)")
    kept = Kept()
    db.execute(MUCH_LATER)
    with Running(kind, database, nothing) as running, psycopg.connect(database) as writer:
        writer.execute("INSERT INTO wells VALUES (0)")
        subscription = follow(running, kept)
        complete(running, subscription, timeout=10)
        writer.commit()
        running.caught_up(db)
    assert kept.table() == table(db)


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL", "USING INDEX other"])
def test_keys_of_several_columns_in_the_servers_order(
    kind: str, database: str, db: psycopg.Connection, identity: str
) -> None:
    db.execute(
        'CREATE TABLE cores (name text COLLATE "C", "50%" int NOT NULL, well text NOT NULL, day date NOT NULL, depth '
        "numeric NOT NULL, PRIMARY KEY (well, day, name), UNIQUE (depth, well)); "
        "CREATE UNIQUE INDEX other ON cores (depth, well); ALTER PUBLICATION wells ADD TABLE cores"
    )
    db.execute(f"ALTER TABLE cores REPLICA IDENTITY {identity}")
    db.execute(
        "INSERT INTO cores SELECT (array['a', 'B', 'ä', 'Z%', ''])[n % 5 + 1] || n, n, "
        "(array['É', 'e', 'F'])[n % 3 + 1], date '2000-01-01' - n % 7, n / 8.0 FROM generate_series(1, 130) n"
    )
    key = {"DEFAULT": "name, well, day", "FULL": "name, well, day", "USING INDEX other": "well, depth"}[identity]
    kept = Kept()
    with Running(kind, database, nothing) as running:
        complete(running, follow(running, kept, "cores"))
        db.execute(
            "UPDATE cores SET well = 'x', depth = depth + 1000 WHERE \"50%\" % 2 = 0;"
            'DELETE FROM cores WHERE "50%" % 3 = 0'
        )
        running.caught_up(db)
    assert len(kept.reads) == 130
    assert kept.table() == table(db, key, "cores")


def test_what_the_publication_sends(kind: str, database: str, db: psycopg.Connection) -> None:
    """Column lists, row filters (15 and later), generated columns, partitions as their root, no inherited rows."""
    db.execute(
        "CREATE TABLE parts (id int, year int, doubled int GENERATED ALWAYS AS (id * 2) STORED, "
        "PRIMARY KEY (id, year)) PARTITION BY RANGE (year);"
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);"
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);"
        "CREATE PUBLICATION roots FOR TABLE parts, parent WITH (publish_via_partition_root = true);"
        "INSERT INTO parts SELECT n, n % 20 FROM generate_series(1, 70) n;"
        "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2)"
    )
    names = ["parts", "parent"]
    narrow = db.info.server_version >= 150000
    if narrow:
        db.execute(
            "CREATE TABLE narrow (id int PRIMARY KEY, shown text, hidden text);"
            "INSERT INTO narrow SELECT n, 'a%%b', 'secret' FROM generate_series(1, 50) n;"
            "CREATE PUBLICATION part FOR TABLE narrow (id, shown) WHERE (id > 30 OR shown LIKE '%x')"
        )
        names.append("narrow")
    kept = {name: Kept() for name in names}
    publications = ["wells", "roots", "part"] if narrow else ["wells", "roots"]
    with Running(kind, database, nothing, publication=publications) as running:
        for name in names:
            complete(running, follow(running, kept[name], name, name=name))
        db.execute("UPDATE parts SET year = 19 - year")
        running.caught_up(db)
    assert set(kept["parts"].rows) == set(table(db, "id, year", "parts"))
    assert ("doubled" in kept["parts"].reads[0].new) is False
    assert set(kept["parent"].rows) == {1}
    if narrow:
        assert kept["narrow"].table() == {n: {"id": n, "shown": "a%%b"} for n in range(31, 51)}


def test_filters_subjects_and_hidden_columns(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(
        "ALTER TABLE wells REPLICA IDENTITY FULL; ALTER TABLE wells ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY shallow ON wells TO authenticated USING (notes = 'seen');"
        "REVOKE ALL ON wells FROM authenticated; GRANT SELECT (id, depth) ON wells TO authenticated;"
        "INSERT INTO wells SELECT n, 'well ' || n % 6, NULL, n, CASE WHEN n < 30 THEN 'seen' END "
        "FROM generate_series(1, 60) n"
    )
    filtered, seen = Kept(), Kept()
    with Running(kind, database, nothing) as running:
        one = follow(running, filtered, filter="name=eq.well 0", name="named")
        other = follow(running, seen, subject=cdc.Subject("authenticated"), name="shallow")
        complete(running, one)
        complete(running, other)
        db.execute(
            "UPDATE wells SET depth = 100 - depth, name = 'well 0' WHERE id < 31; UPDATE wells SET notes = 'gone'"
        )
        running.caught_up(db)
    assert [event.key for event in filtered.reads] == list(range(6, 61, 6))
    assert len(seen.reads) == 29
    assert all(set(event.new) == {"id", "depth"} for event in seen.reads)
    assert seen.rows == {} and set(filtered.rows) == {*range(1, 31), 36, 42, 48, 54, 60}


def test_a_table_altered_and_made_anew_in_the_middle(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells SELECT n FROM generate_series(1, 100) n")
    kept, done = Kept(), []

    def slow(event: Any) -> None:
        kept(event)
        if isinstance(event, cdc.Read) and event.key in (30, 70) and event.key not in done:
            done.append(event.key)
            with psycopg.connect(database, autocommit=True) as other:
                if event.key == 30:
                    other.execute("ALTER TABLE wells ALTER depth TYPE text USING 'deep', ADD extra int DEFAULT 7")
                else:
                    other.execute("ALTER TABLE wells DROP notes; UPDATE wells SET extra = 8 WHERE id = 90")

    with Running(kind, database, nothing) as running:
        complete(running, follow(running, slow))
        running.caught_up(db)
        assert kept.rows[100]["extra"] == 7 and kept.rows[90]["extra"] == 8
        assert "notes" not in kept.rows[100] and len(kept.rows) == 100
        assert any(isinstance(event, cdc.SchemaChange) for event in kept.events)


def test_a_row_that_moves_to_where_all_was_read(kind: str, database: str, db: psycopg.Connection) -> None:
    """Its large value is not sent with the change of its key, and would be read by nobody."""
    db.execute(VERSIONED)
    kept = Kept()

    def move(event: Any) -> None:
        kept(event)
        if isinstance(event, cdc.Read) and event.key in (20, 30):
            db.execute("UPDATE wells SET id = -id WHERE id BETWEEN 200 AND 210 OR id = -205")

    with Running(kind, database, nothing) as running:
        complete(running, follow(running, move))
        running.caught_up(db)
    moved = [event for event in kept.events if isinstance(event, cdc.Update)]
    assert len(moved) == 12 and all(event.new["notes"] is cdc.UNCHANGED for event in moved)
    assert kept.table() == table(db)


def test_a_lost_connection_in_the_middle(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells SELECT n FROM generate_series(1, 300) n")
    kept = Kept()

    def cut(event: Any) -> None:
        kept(event)
        if isinstance(event, cdc.Read) and event.key in (50, 150):
            db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cdc'")

    with Running(kind, database, nothing) as running:
        subscription = follow(running, cut)
        complete(running, subscription)
        running.caught_up(db)
        assert running.consumer.health().reconnects >= 1
    assert kept.table() == table(db)


def test_a_finished_snapshot_is_not_read_again(
    kind: str, database: str, db: psycopg.Connection, tmp_path: Path
) -> None:
    db.execute("INSERT INTO wells SELECT n FROM generate_series(1, 50) n")

    def reads(name: str | None = "list", filter: str | None = None, **options: Any) -> list[Any]:
        kept = Kept()

        def prepare(running: Running) -> None:
            if name is not None:
                running.consumer.on("wells", snapshot=True, name=name, filter=filter)(kept)
            else:
                running.on("wells", lambda event: None)

        with Running(kind, database, prepare, **options) as running:
            if name is not None:
                complete(running, running.consumer.subscriptions[0])
            running.caught_up(db)
        return [event.key for event in kept.reads]

    everything = list(range(1, 51))
    for options in ({}, {"state": tmp_path / "position", "slot": "other"}):
        assert reads(**options) == everything
        assert reads(**options) == []
        assert reads(filter="id=eq.48", **options) == [48], "it wants to see something else"
        assert reads(None, **options) == [], "it was away, and missed changes"
        assert reads(**options) == everything
    assert reads(slot=None) == everything


def test_what_cannot_be_read_is_refused(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(
        "CREATE TABLE loose (id int); ALTER PUBLICATION wells ADD TABLE loose; ALTER TABLE loose REPLICA IDENTITY FULL"
    )
    with Running(kind, database, nothing) as running:
        with pytest.raises(cdc.SubscriptionError, match="has no primary key among the published columns"):
            follow(running, print, "loose")
        follow(running, print)
        with pytest.raises(cdc.SubscriptionError, match="two subscriptions are called 'public.wells print'"):
            follow(running, print)
        plain = running.subscribe("wells", print)
        with pytest.raises(cdc.ConfigurationError, match="reads no snapshot"):
            running.do(running.consumer.wait_for_snapshot, plain)
    with Running(kind, database, nothing, slot=None, on_gap="resync") as running:
        with pytest.raises(cdc.SubscriptionError, match="go without snapshot=True and on_gap='resync'"):
            running.subscribe("loose", print)
    with Running(kind, database, nothing, slot=None, binary=True) as running:
        with pytest.raises(cdc.SubscriptionError, match="a snapshot reads values as text"):
            follow(running, print)
    db.execute("ALTER PUBLICATION wells SET (publish = 'insert, update')")
    with Running(kind, database, nothing, slot=None) as running:
        with pytest.raises(cdc.SubscriptionError, match="is published without DELETE, TRUNCATE"):
            follow(running, print)


def test_a_role_that_row_level_security_holds_for(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("DROP ROLE IF EXISTS held; CREATE ROLE held LOGIN REPLICATION PASSWORD 'held'")
    dsn = cdc.connection.connection_string(database, user="held", password="held")
    try:
        with Running(kind, dsn, nothing, slot=None) as running:
            with pytest.raises(cdc.SubscriptionError, match="this role may not read public.wells for a snapshot"):
                follow(running, print)
            db.execute("GRANT SELECT ON wells TO held; ALTER TABLE wells ENABLE ROW LEVEL SECURITY")
            with pytest.raises(cdc.SubscriptionError, match="would hide rows of public.wells .* BYPASSRLS"):
                follow(running, print)
            db.execute("ALTER ROLE held BYPASSRLS")
    finally:
        db.execute("DROP OWNED BY held; DROP ROLE held")


def test_a_locked_table_is_waited_for(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells SELECT n FROM generate_series(1, 50) n")
    kept, locker = Kept(), psycopg.connect(database)

    def lock(event: Any) -> None:
        kept(event)
        if isinstance(event, cdc.Read) and event.key == 20:
            locker.execute("LOCK TABLE wells")

    with locker, Running(kind, database, nothing) as running:
        subscription = follow(running, lock)
        progress = subscription.snapshot
        until(lambda: progress.waiting_for == "a lock on the table")
        assert any("waiting for a lock on the table" in note for note in running.consumer.health().notes)
        locker.rollback()
        complete(running, subscription)
    assert kept.table() == table(db)


def test_a_database_of_before_lacks_the_table_of_snapshots(kind: str, database: str, db: psycopg.Connection) -> None:
    """What is wrong is raised where the consumer is opened, and the next one works once it is mended."""
    db.execute("ALTER TABLE cdc.snapshots RENAME TO away")
    prepare = lambda it: it.on("wells", it.events.append, snapshot=True)  # noqa: E731
    with pytest.raises(cdc.ConfigurationError, match="cdc.snapshots"), Running(kind, database, prepare):
        pytest.fail("it was opened")
    db.execute("ALTER TABLE cdc.away RENAME TO snapshots")
    db.execute("INSERT INTO wells VALUES (1)")
    with Running(kind, database, prepare) as running:
        until(lambda: [event.key for event in running.events][:1] == [1])
