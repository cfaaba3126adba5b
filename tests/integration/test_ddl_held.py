"""DDL in transactions that are held until they commit: streamed and prepared ones."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import Running
from tests.integration.test_ddl import kinds
from tests.integration.test_narrowed import from_15_on


@pytest.fixture
def small(database: str, db: psycopg.Connection) -> None:
    """Transactions are streamed early."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    db.execute(f"ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'")


MANY = "INSERT INTO wells (id, name) SELECT n, repeat('x', 50) FROM generate_series({} + 1, {} + 3000) n"


def shapes(events: list[Any]) -> list[tuple[str, int, bool]]:
    """Runs of events of one kind, with their number and whether their rows have a column `a`."""
    runs: list[tuple[str, int, bool]] = []
    for event in events:
        kind, has = type(event).__name__, any(column.name == "a" for column in event.relation.columns)
        if runs and runs[-1][0::2] == (kind, has):
            runs[-1] = (kind, runs[-1][1] + 1, has)
        else:
            runs.append((kind, 1, has))
        assert list(event.new) == [column.name for column in event.relation.columns] if kind == "Insert" else True
    return runs


def test_ddl_in_a_streamed_transaction(kind: str, small: None, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        db.execute("INSERT INTO wells (id) VALUES (0)")
        with db.transaction():
            db.execute(MANY.format(0, 0))
            db.execute("ALTER TABLE wells ADD COLUMN a int")
            db.execute(MANY.format(3000, 3000))
            with db.transaction(force_rollback=True):
                db.execute("ALTER TABLE wells DROP COLUMN name, ADD COLUMN b int")
                db.execute("INSERT INTO wells (id) SELECT n FROM generate_series(6001, 9000) n")
            db.execute(MANY.format(9000, 9000))
        db.execute("INSERT INTO wells (id) VALUES (-1)")
        db.execute("ALTER TABLE wells DROP COLUMN a; INSERT INTO wells (id) VALUES (-2)")
        running.caught_up(db)
    assert shapes(running.events) == [
        ("Insert", 3001, False),
        ("SchemaChange", 1, True),
        ("Insert", 6001, True),
        ("SchemaChange", 1, False),
        ("Insert", 1, False),
    ]
    assert [event.key for event in running.events if isinstance(event, cdc.Insert)] == [
        *range(6001), *range(9001, 12001), -1, -2,
    ]  # fmt: skip


def test_a_streamed_transaction_with_ddl_is_rolled_back(
    kind: str, small: None, database: str, db: psycopg.Connection
) -> None:
    with Running(kind, database) as running:
        db.execute("INSERT INTO wells (id) VALUES (0)")
        with db.transaction(force_rollback=True):
            db.execute("ALTER TABLE wells ADD COLUMN a int")
            db.execute(MANY.format(0, 0))
        db.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
    assert shapes(running.events) == [("Insert", 2, False)]


def test_an_aborted_part_of_a_streamed_transaction_leaves_no_shape(
    kind: str, small: None, database: str, db: psycopg.Connection
) -> None:
    """A streamed transaction begins, the table is altered by another, and a part that was rolled back saw that."""
    db.execute("CREATE TABLE bulk (id int, name text); ALTER PUBLICATION wells ADD TABLE bulk")
    with Running(kind, database) as running, psycopg.connect(database) as other:
        db.execute("INSERT INTO wells (id) VALUES (1)")
        other.execute("INSERT INTO bulk SELECT n, repeat('x', 50) FROM generate_series(1, 3000) n")
        db.execute("ALTER TABLE wells ADD COLUMN a int; INSERT INTO wells (id, a) VALUES (2, 2)")
        running.caught_up(db)
        with other.transaction(force_rollback=True):
            other.execute(MANY.format(3000, 3000))
            db.execute("INSERT INTO bulk VALUES (0)")
            running.caught_up(db)  # so that the part was sent before it is rolled back
        other.execute("INSERT INTO bulk SELECT n, repeat('x', 50) FROM generate_series(1, 3000) n")
        other.commit()
        db.execute("INSERT INTO wells (id, a) VALUES (3, 3)")
        running.caught_up(db)
    assert shapes(running.events) == [("Insert", 1, False), ("SchemaChange", 1, True), ("Insert", 2, True)]
    assert running.events[-1].new["a"] == 3


def test_a_prepared_transaction_keeps_its_shape(kind: str, database: str, db: psycopg.Connection) -> None:
    """The publication's columns change between PREPARE and COMMIT: older rows are read, and judged, as they were."""
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL")
    if not from_15_on(db, "CREATE PUBLICATION other FOR TABLE wells (id)"):
        return
    db.execute("ALTER TABLE wells REPLICA IDENTITY DEFAULT")
    filtered: list[Any] = []

    def prepare(running: Running) -> None:
        running.on("wells", running.events.append)
        running.on("wells", filtered.append, filter="notes=eq.mine", operations=["insert"])

    with Running(kind, database, prepare, two_phase=True) as running:
        db.execute("INSERT INTO wells (id, notes) VALUES (0, 'mine')")
        db.execute("BEGIN; INSERT INTO wells (id, notes) VALUES (1, 'mine'), (2, 'theirs'); PREPARE TRANSACTION 'p'")
        try:
            db.execute("ALTER PUBLICATION wells SET TABLE wells (id, notes)")
            db.execute("INSERT INTO wells (id, notes) VALUES (3, 'mine')")
            running.caught_up(db)
        finally:
            db.execute("COMMIT PREPARED 'p'")
        db.execute("INSERT INTO wells (id, notes) VALUES (4, 'mine')")
        running.caught_up(db)
    assert [event.key for event in filtered] == [0, 3, 1, 4]
    told = [event for event in running.events if not isinstance(event, cdc.Prepared)]
    assert kinds(told) == ["Insert", *["SchemaChange", "Insert"] * 2, "Insert", "SchemaChange", "Insert"]
    assert [len(event.relation.columns) for event in told] == [5, 2, 2, 5, 5, 5, 2, 2]
    assert [event.new["notes"] for event in told if event.event_type == "INSERT"] == [*["mine"] * 3, "theirs", "mine"]
