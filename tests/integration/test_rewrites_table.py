"""What the event triggers of cdc.rewrites note, and that they are in nobody's way."""

from __future__ import annotations

import psycopg
import pytest

from tests.harness import REWRITES

NOTED = "SELECT schema || '.' || name, command FROM cdc.rewrites WHERE id > %s ORDER BY id"


@pytest.fixture
def noted(db: psycopg.Connection) -> psycopg.Connection:
    """The connection of `db`, with the table cdc.rewrites and its triggers."""
    db.execute(REWRITES.encode())
    return db


def after(db: psycopg.Connection, statement: str) -> set[str]:
    """The tables that a statement is said to have rewritten."""
    last = db.execute("SELECT coalesce(max(id), 0) FROM cdc.rewrites").fetchone()
    db.execute(statement.encode())
    return {name for name, _ in db.execute(NOTED, last)}


def test_what_changes_nothing_is_not_noted(noted: psycopg.Connection) -> None:
    noted.execute("CREATE TABLE other (id int PRIMARY KEY, name text)")
    for statement in (
        "ALTER TABLE wells ALTER depth SET DEFAULT 3",
        "ALTER TABLE wells REPLICA IDENTITY FULL",
        "ALTER TABLE wells ENABLE ROW LEVEL SECURITY",
        "CREATE INDEX ON wells (name)",
        "ALTER TABLE other ALTER name TYPE text USING upper(name)",
        "DROP TABLE other",
        "CREATE TEMP TABLE wells (id int)",
        "ALTER TABLE pg_temp.wells ADD x float8 DEFAULT random(); DROP TABLE pg_temp.wells",
        "CREATE TABLE third (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE third",
    ):
        assert after(noted, statement) == set(), statement


def test_names_enums_and_generated_columns_are_noted(noted: psycopg.Connection) -> None:
    noted.execute("CREATE TYPE status AS ENUM ('new', 'old')")
    noted.execute(
        "CREATE TABLE states (id int PRIMARY KEY, status status, twice int GENERATED ALWAYS AS (id * 2) STORED)"
    )
    noted.execute("CREATE TABLE lists (id int PRIMARY KEY, states status[])")
    noted.execute("ALTER PUBLICATION wells ADD TABLE states, lists")
    assert after(noted, "ALTER TYPE status RENAME VALUE 'old' TO 'former'") == {"public.states", "public.lists"}
    assert after(noted, "ALTER TABLE lists RENAME TO lists2; ALTER TABLE states RENAME TO lists") == {
        "public.lists2",
        "public.lists",
    }
    assert after(noted, "ALTER SCHEMA public RENAME TO main") == {"main.wells", "main.lists2", "main.lists"}
    assert after(noted, "DROP TABLE main.lists") == {"main.lists"}
    assert after(noted, "ALTER TABLE main.wells DROP notes, ADD notes text DEFAULT 'x'") == {"main.wells"}


@pytest.mark.parametrize("root", [True, False], ids=["as the root", "as themselves"])
def test_partitions_concern_the_tables_above_them(noted: psycopg.Connection, root: bool) -> None:
    noted.execute("CREATE TABLE logs (id int PRIMARY KEY, name text) PARTITION BY RANGE (id)")
    noted.execute("CREATE TABLE logs1 PARTITION OF logs FOR VALUES FROM (0) TO (10)")
    noted.execute("CREATE TABLE logs2 (LIKE logs INCLUDING ALL)")
    noted.execute(f"CREATE PUBLICATION logs FOR TABLE logs WITH (publish_via_partition_root = {root})".encode())
    above = {"public.logs"} if root else set()
    parts = set() if root else {"public.logs1"}
    attach = "ALTER TABLE logs ATTACH PARTITION logs2 FOR VALUES FROM (10) TO (20)"
    assert after(noted, attach) >= above
    assert after(noted, "ALTER TABLE logs DETACH PARTITION logs2") >= above
    noted.execute(attach.encode())
    assert after(noted, "CREATE TABLE logs3 PARTITION OF logs FOR VALUES FROM (20) TO (30)") == set()
    assert after(noted, "DROP TABLE logs2") == above or not root
    assert after(noted, "ALTER TABLE logs ADD status float8 DEFAULT random()") >= above | parts
    assert after(noted, "ALTER TABLE logs DROP status") >= above | parts


def test_a_user_without_rights_is_not_in_the_way(database: str, noted: psycopg.Connection) -> None:
    noted.execute("GRANT CREATE ON SCHEMA public TO authenticated; ALTER TABLE wells OWNER TO authenticated")
    noted.execute("SET SESSION AUTHORIZATION authenticated")
    noted.execute("ALTER TABLE wells ALTER name TYPE text USING upper(name)")
    noted.execute("CREATE TABLE own (id int); ALTER TABLE own ADD x float8 DEFAULT random(); DROP TABLE own")
    for statement in ("SELECT FROM cdc.rewrites", "INSERT INTO cdc.rewrites (command) VALUES ('x')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            noted.execute(statement.encode())
    noted.execute("RESET SESSION AUTHORIZATION")
    assert noted.execute("SELECT schema, name FROM cdc.rewrites").fetchall() == [("public", "wells")]


def test_a_lock_is_not_waited_for_long(database: str, noted: psycopg.Connection) -> None:
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE cdc.shapes IN ACCESS EXCLUSIVE MODE")
        noted.execute("ALTER TABLE wells ADD status text DEFAULT 'x'")
    assert noted.execute('SELECT "table" FROM cdc.rewrites').fetchall() == [(None,)]


def test_old_rows_are_removed_and_setup_tells_what_was_missed(noted: psycopg.Connection) -> None:
    noted.execute("INSERT INTO cdc.rewrites (command, changed_at) VALUES ('old', now() - interval '31 days')")
    assert after(noted, "ALTER TABLE wells ADD status text DEFAULT 'x'") == {"public.wells"}
    assert noted.execute("SELECT command FROM cdc.rewrites").fetchall() == [("ALTER TABLE",)]
    noted.execute("ALTER EVENT TRIGGER cdc_rewrites_altered DISABLE")
    assert after(noted, "ALTER TABLE wells DROP status") == set()
    assert after(noted, REWRITES) == {"public.wells"}
    assert after(noted, REWRITES) == set()
