"""Rights at their place in the stream: each change is judged by the rights of its time, with the table cdc.rights."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdc
import cdc.testing
from tests.harness import RIGHTS, Running, until

SLOW = 600.0
"""Seconds between two looks at the catalog: what is seen then, the stream has brought."""
OPEN = """
ALTER TABLE wells REPLICA IDENTITY FULL;
ALTER TABLE wells ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON wells TO authenticated;
CREATE POLICY open ON wells FOR SELECT TO authenticated USING (true);
"""
USER = cdc.Subject("authenticated")


@pytest.fixture
def db(db: psycopg.Connection) -> psycopg.Connection:
    """A table that authenticated may read, and cdc.rights."""
    db.execute(OPEN)
    db.execute(RIGHTS)
    return db


def insert(db: psycopg.Connection, *ids: int, table: str = "wells") -> None:
    for number in ids:
        db.execute(f"INSERT INTO {table} (id) VALUES ({number})")


def told(events: list[Any]) -> list[Any]:
    """What a handler got: keys of changes, and "rights" for a gap."""
    return ["rights" if isinstance(event, cdc.Gap) else event.key for event in events]


class Watched:
    """A consumer with a subject on wells, and a trusted subscriber."""

    def __init__(self, kind: str, dsn: str, subject: cdc.Subject = USER, table: str = "wells", **options: Any) -> None:
        self.seen: list[Any] = []
        self.trusted: list[Any] = []
        terms = options.pop("terms", {})

        def prepare(running: Running) -> None:
            self.subscription = running.subscribe(table, self.seen.append, subject=subject, **terms)
            running.on(table, self.trusted.append)

        self.running = Running(kind, dsn, prepare, **({"rights_interval": SLOW} | options))

    def __enter__(self) -> Watched:
        self.running.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.running.__exit__(*error)

    def caught_up(self, db: psycopg.Connection) -> list[Any]:
        self.running.caught_up(db)
        return told(self.seen)


def test_a_change_is_judged_by_the_rights_of_its_time(kind: str, database: str, db: psycopg.Connection) -> None:
    with Watched(kind, database) as watched:
        insert(db, 1)
        db.execute("DROP POLICY open ON wells")
        insert(db, 2)
        db.execute("CREATE POLICY few ON wells FOR SELECT TO authenticated USING (id <> 4)")
        insert(db, 3, 4, 5)
        assert watched.caught_up(db) == [1, "rights", "rights", 3, 5]
        assert told(watched.trusted) == [1, 2, 3, 4, 5]
        gap = watched.seen[1]
        assert (gap.kind, gap.tables, gap.resync) == (cdc.GapKind.RIGHTS, ("public.wells",), False)
        assert gap.reason.startswith("rights")
        assert gap.previous == watched.seen[0].position
        assert any("those of the change's position" in note for note in watched.running.consumer.health().notes)


def test_within_a_transaction(kind: str, database: str, db: psycopg.Connection) -> None:
    with Watched(kind, database) as watched:
        with db.transaction():
            insert(db, 1)
            db.execute("ALTER POLICY open ON wells USING (false)")
            insert(db, 2)
            db.execute("ALTER POLICY open ON wells USING (id > 3)")
            insert(db, 3, 4)
        with pytest.raises(ZeroDivisionError), db.transaction():
            db.execute("DROP POLICY open ON wells")
            raise ZeroDivisionError
        insert(db, 5)
        assert watched.caught_up(db) == [1, "rights", "rights", 4, 5]


def test_another_transaction_is_judged_by_what_was_committed_before_it(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    with Watched(kind, database) as watched, psycopg.connect(database, autocommit=True) as other:
        with other.transaction():
            other.execute("REVOKE SELECT ON wells FROM authenticated")
            insert(db, 1)
        insert(db, 2)
        assert watched.caught_up(db) == [1, "rights"]


def test_a_consumer_that_lags_judges_by_the_rights_of_that_time(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    with Watched(kind, database) as watched:
        insert(db, 1)
        watched.caught_up(db)
    db.execute("DROP POLICY open ON wells; ALTER TABLE wells DISABLE ROW LEVEL SECURITY")
    db.execute("REVOKE SELECT ON wells FROM authenticated")
    insert(db, 2)
    db.execute("GRANT SELECT (id) ON wells TO authenticated")
    insert(db, 3)
    db.execute("REVOKE SELECT (id) ON wells FROM authenticated")
    insert(db, 4)
    db.execute("GRANT SELECT ON wells TO authenticated")
    insert(db, 5)
    with Watched(kind, database) as watched:
        assert watched.caught_up(db) == [*["rights"] * 4, 3, "rights", "rights", 5]
        assert next(list(event.new) for event in watched.seen if isinstance(event, cdc.Insert)) == ["id"]
        insert(db, 6)
        assert watched.caught_up(db)[-1] == 6


@pytest.mark.parametrize("state", ["database", "file"])
def test_rights_begin_where_the_position_does(
    kind: str, database: str, db: psycopg.Connection, tmp_path: Path, state: str
) -> None:
    """Row by row: the consumer is stopped behind each step, and has to know the rights of that place again."""
    options = {"state": "database" if state == "database" else tmp_path / "position"}
    with Watched(kind, database, **options) as watched:
        watched.caught_up(db)
    for number, condition in enumerate(["false", "true", "id > 100", "true"]):
        db.execute(f"ALTER POLICY open ON wells USING ({condition})")
        with Watched(kind, database, **options) as watched:
            watched.caught_up(db)
        # The newest rights say otherwise, whatever they were.
        insert(db, number)
        db.execute(f"ALTER POLICY open ON wells USING (NOT {condition})")
        with Watched(kind, database, **options) as watched:
            assert watched.caught_up(db) == ([number] if condition == "true" else []) + ["rights"], condition


def test_a_user_with_his_own_position(database: str, db: psycopg.Connection) -> None:
    """The server sends again what stands behind its own bookmark; rights in there count, rows do not come again."""
    with Watched("blocking", database) as watched:
        insert(db, 1)
        watched.caught_up(db)
        until(watched.running.is_saved)
        # From here on nothing is saved or confirmed, as when the process ends without a farewell.
        watched.running.consumer._loop._house.holds = True
        insert(db, 2)
        db.execute("ALTER POLICY open ON wells USING (id <> 4)")
        insert(db, 3)
        assert watched.caught_up(db) == [1, 2, "rights", 3]
        position = watched.seen[-1].position
    insert(db, 4, 5)
    db.execute("ALTER POLICY open ON wells USING (true)")
    insert(db, 6)
    with Watched("blocking", database, start_after=position) as watched:
        assert [each for each in watched.caught_up(db) if each != "rights"] == [5, 6]


def test_after_a_lost_connection(kind: str, database: str, db: psycopg.Connection) -> None:
    with Watched(kind, database) as watched:
        insert(db, 1)
        db.execute("ALTER POLICY open ON wells USING (id <> 3)")
        insert(db, 2)
        watched.caught_up(db)
        db.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
        insert(db, 3)
        db.execute("ALTER POLICY open ON wells USING (true)")
        insert(db, 4)
        assert watched.caught_up(db) == [1, "rights", 2, "rights", 4]


STEPS: dict[str, tuple[str, str]] = {
    "revoke": ("REVOKE SELECT ON wells FROM authenticated", "GRANT SELECT ON wells TO authenticated"),
    "schema": ("REVOKE USAGE ON SCHEMA public FROM PUBLIC, authenticated", "GRANT USAGE ON SCHEMA public TO PUBLIC"),
    "force": ("ALTER TABLE wells OWNER TO authenticated; ALTER TABLE wells FORCE ROW LEVEL SECURITY; "
              "DROP POLICY open ON wells", "ALTER TABLE wells NO FORCE ROW LEVEL SECURITY"),
    "function": ("CREATE FUNCTION app() RETURNS text LANGUAGE sql STABLE AS "
                 "'select nullif(current_setting(''app.x'', true), '''')::text'; "
                 "ALTER POLICY open ON wells USING (app() = 'y')", "ALTER POLICY open ON wells USING (true)"),
    "drop owned": ("DROP OWNED BY authenticated", "GRANT SELECT ON wells TO authenticated; "
                   "CREATE POLICY again ON wells USING (true)"),
    "restrictive": ("CREATE POLICY no ON wells AS RESTRICTIVE USING (false)", "DROP POLICY no ON wells"),
    "roles of a policy": ("ALTER POLICY open ON wells TO anon", "ALTER POLICY open ON wells TO PUBLIC"),
    "disable": ("ALTER POLICY open ON wells USING (false)", "ALTER TABLE wells DISABLE ROW LEVEL SECURITY"),
    "key column": ("REVOKE SELECT ON wells FROM authenticated; GRANT SELECT (name) ON wells TO authenticated",
                   "GRANT SELECT (id, name) ON wells TO authenticated"),
}  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_whatever_takes_rights_and_gives_them(database: str, db: psycopg.Connection, step: str) -> None:
    take, give = STEPS[step]
    with Watched("blocking", database) as watched:
        insert(db, 1)
        db.execute(take)
        insert(db, 2)
        db.execute(give)
        insert(db, 3)
        got = watched.caught_up(db)
        assert [each for each in got if each != "rights"] == [1, 3], got
        assert got.index("rights") == 1 and got[-2] == "rights"
        assert watched.subscription.denied is None


def test_columns_come_and_go(database: str, db: psycopg.Connection) -> None:
    with Watched("blocking", database) as watched:
        db.execute("REVOKE SELECT ON wells FROM authenticated; GRANT SELECT (id, name) ON wells TO authenticated")
        insert(db, 1)
        db.execute("GRANT SELECT (depth) ON wells TO authenticated")
        insert(db, 2)
        db.execute("REVOKE SELECT (name) ON wells FROM authenticated")
        insert(db, 3)
        watched.caught_up(db)
        shown = [list(event.new) for event in watched.seen if isinstance(event, cdc.Insert)]
        assert shown == [["id", "name"], ["id", "name", "depth"], ["id", "depth"]]


def test_a_function_that_is_replaced_within_a_transaction(kind: str, database: str, db: psycopg.Connection) -> None:
    uid = "CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS "
    usual = "'select nullif(current_setting(''request.jwt.claim.sub'', true), '''')::uuid'"
    db.execute(f"{uid}{usual}")
    db.execute("ALTER POLICY open ON wells USING (project_id = auth.uid())")
    one = "11111111-1111-4111-8111-111111111111"
    row = "INSERT INTO wells (id, project_id) VALUES ({}, '" + one + "')"
    with Watched(kind, database, cdc.Subject("authenticated", {"sub": one}, {"request.jwt.claim.sub": one})) as watched:
        with db.transaction():
            db.execute(row.format(1))
            db.execute("CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE plpgsql STABLE AS "
                       "'begin return null; end'")  # fmt: skip
            db.execute(row.format(2))
        db.execute(row.format(3))
        watched.caught_up(db)
        assert "auth.uid()" in str(watched.subscription.denied), "what does not compile any more denies"
        db.execute(f"{uid}{usual}")
        db.execute(row.format(4))
        assert watched.caught_up(db) == [1, "rights", "rights", 4]


def test_a_table_that_is_renamed(kind: str, database: str, db: psycopg.Connection) -> None:
    with Watched(kind, database, on_gap="deliver") as watched:
        insert(db, 1)
        db.execute("ALTER TABLE wells RENAME TO holes")
        insert(db, 2, table="holes")
        db.execute("REVOKE SELECT ON holes FROM authenticated")
        insert(db, 3, table="holes")
        db.execute("ALTER TABLE holes RENAME TO wells")
        insert(db, 4)
        db.execute("GRANT SELECT ON wells TO authenticated")
        insert(db, 5)
        watched.caught_up(db)
        assert [event.key for event in watched.seen if not isinstance(event, cdc.Gap)] == [1, 5]


def test_a_role_that_is_dropped(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("DROP ROLE IF EXISTS leaving; CREATE ROLE leaving; GRANT SELECT ON wells TO leaving")
    db.execute("ALTER POLICY open ON wells TO PUBLIC")
    with Watched(kind, database, cdc.Subject("leaving"), rights_interval=0.1) as watched:
        insert(db, 1)
        watched.caught_up(db)
        db.execute("DROP OWNED BY leaving; DROP ROLE leaving")
        until(lambda: "does not exist" in str(watched.subscription.denied))
        insert(db, 2)
        assert watched.caught_up(db) == [1, "rights"]
        assert told(watched.trusted) == [1, 2]


def test_memberships_are_read_again(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("DROP ROLE IF EXISTS newcomer; CREATE ROLE newcomer")
    try:
        with Watched(kind, database, cdc.Subject("newcomer"), rights_interval=0.1) as watched:
            insert(db, 1)
            assert watched.caught_up(db) == []
            db.execute("GRANT authenticated TO newcomer")
            until(lambda: watched.subscription.denied is None)
            insert(db, 2)
            until(lambda: told(watched.seen) == ["rights", 2])
            db.execute("REVOKE authenticated FROM newcomer")
            until(lambda: watched.subscription.denied is not None)
            until(lambda: told(watched.seen) == ["rights", 2, "rights"])
    finally:
        db.execute("DROP ROLE newcomer")


def test_what_no_event_trigger_sees_is_found_by_asking(database: str, db: psycopg.Connection) -> None:
    """REASSIGN OWNED: the newest row does not hold any more."""
    db.execute("DROP ROLE IF EXISTS former; CREATE ROLE former; ALTER TABLE wells OWNER TO former")
    try:
        with Watched("blocking", database, cdc.Subject("former"), rights_interval=0.1) as watched:
            insert(db, 1)
            watched.caught_up(db)
            db.execute("REASSIGN OWNED BY former TO CURRENT_USER")
            until(lambda: watched.subscription.denied is not None)
            insert(db, 2)
            assert watched.caught_up(db) == [1, "rights"]
            db.execute("GRANT SELECT ON wells TO former; ALTER POLICY open ON wells TO PUBLIC")
            insert(db, 3)
            assert watched.caught_up(db)[-2:] == ["rights", 3]
    finally:
        db.execute("DROP OWNED BY former; DROP ROLE former")


def test_a_table_in_another_schema(database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE SCHEMA app; CREATE TABLE app.holes (id int PRIMARY KEY); GRANT SELECT ON app.holes TO anon")
    db.execute("ALTER PUBLICATION wells ADD TABLE app.holes")
    with Watched("blocking", database, cdc.Subject("anon"), "app.holes") as watched:
        insert(db, 1, table="app.holes")
        watched.caught_up(db)
        assert "no USAGE right on schema app" in str(watched.subscription.denied)
        db.execute("GRANT USAGE ON SCHEMA app TO anon")
        insert(db, 2, table="app.holes")
        db.execute("REVOKE USAGE ON SCHEMA app FROM anon")
        insert(db, 3, table="app.holes")
        assert watched.caught_up(db) == ["rights", 2, "rights"]


def test_a_table_that_is_published_later(kind: str, database: str, db: psycopg.Connection) -> None:
    seen: list[Any] = []
    with Running(kind, database, lambda running: None, rights_interval=0.2) as running:
        running.subscribe("public.*", seen.append, subject=cdc.Subject("anon"))
        db.execute("CREATE TABLE late (id int PRIMARY KEY); GRANT SELECT ON late TO anon")
        db.execute("ALTER PUBLICATION wells ADD TABLE late")
        insert(db, 1, table="late")
        db.execute("REVOKE SELECT ON late FROM anon")
        insert(db, 2, table="late")
        running.caught_up(db)
    assert [event.key for event in seen if not isinstance(event, cdc.Gap)] == [1]
    assert [event.tables for event in seen if isinstance(event, cdc.Gap)] == [("public.late",)]


def test_partitions_go_by_their_root(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE TABLE days (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)")
    db.execute("CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (10); GRANT SELECT ON days TO anon")
    db.execute("ALTER PUBLICATION wells SET (publish_via_partition_root = true)")
    db.execute("ALTER PUBLICATION wells ADD TABLE days")
    with Watched(kind, database, cdc.Subject("anon"), "days") as watched:
        db.execute("INSERT INTO days VALUES (1, 1)")
        db.execute("REVOKE SELECT ON days FROM anon; GRANT SELECT ON days_1 TO anon")
        db.execute("INSERT INTO days VALUES (2, 1)")
        db.execute("CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM (10) TO (20); GRANT SELECT ON days TO anon")
        db.execute("INSERT INTO days VALUES (3, 11)")
        assert watched.caught_up(db) == [(1, 1), "rights", "rights", (3, 11)]


@pytest.mark.parametrize("streaming", ["on", "off"])
def test_a_transaction_that_is_streamed_while_it_runs(
    kind: str, database: str, db: psycopg.Connection, streaming: str
) -> None:
    db.execute("ALTER SYSTEM SET logical_decoding_work_mem = '64kB'")
    db.execute("SELECT pg_reload_conf()")
    try:
        with Watched(kind, database, streaming=streaming) as watched:
            many = "INSERT INTO wells (id, name) SELECT n, repeat('x', 500) FROM generate_series({}, {}) n"
            with db.transaction():
                db.execute(many.format(1, 1000))
                insert_by_other(database, 9001)
                db.execute("ALTER POLICY open ON wells USING (id > 2500)")
                db.execute(many.format(1001, 2000))
                db.execute(many.format(2001, 3000))
            insert(db, 9002)
            got = watched.caught_up(db)
        # The other one committed before.
        assert got == [9001, *range(1, 1001), "rights", *range(2501, 3001), 9002]
    finally:
        db.execute("ALTER SYSTEM RESET logical_decoding_work_mem")
        db.execute("SELECT pg_reload_conf()")


def insert_by_other(database: str, number: int) -> None:
    with psycopg.connect(database, autocommit=True) as other:
        insert(other, number)


@pytest.mark.parametrize("how", ["queue", "batch", "transaction"])
def test_through_lanes(kind: str, database: str, db: psycopg.Connection, how: str) -> None:
    seen: list[Any] = []

    def take(event: Any) -> None:
        seen.extend(getattr(event, "events", event if isinstance(event, list) else [event]))

    def prepare(running: Running) -> None:
        if how == "transaction":
            running.consumer.on_transaction("wells", subject=USER)(take)
        else:
            running.on("wells", take, subject=USER, **{how: 3})

    with Running(kind, database, prepare, rights_interval=SLOW) as running:
        insert(db, 1)
        with db.transaction():
            insert(db, 2)
            db.execute("ALTER POLICY open ON wells USING (id > 3)")
            insert(db, 3, 4)
        insert(db, 5)
        running.caught_up(db)
        until(lambda: len(seen) >= 5)
    assert told(seen) == [1, 2, "rights", 4, 5]


def test_a_thousand_policies(database: str, db: psycopg.Connection) -> None:
    db.execute("DROP EVENT TRIGGER cdc_rights; DROP POLICY open ON wells")
    db.execute("""
        DO $$ BEGIN FOR n IN 1..1000 LOOP
            EXECUTE format('CREATE POLICY p%s ON wells FOR SELECT TO authenticated USING (name = %L)', n, 'name ' || n);
        END LOOP; END $$
    """)
    db.execute(RIGHTS)
    with Watched("blocking", database) as watched:
        db.execute("INSERT INTO wells (id, name) VALUES (1, 'name 700'), (2, 'name 0')")
        db.execute("DROP POLICY p700 ON wells")
        db.execute("INSERT INTO wells (id, name) VALUES (3, 'name 700'), (4, 'name 701')")
        assert watched.caught_up(db) == [1, "rights", 4]
    size = db.execute("SELECT max(length(facts::text)) FROM cdc.rights").fetchone()
    assert size is not None and size[0] > 500_000


def test_a_forged_message_does_nothing(database: str, db: psycopg.Connection) -> None:
    watched = Watched("blocking", database)
    watched.running.consumer.on_message("cdc.rights")(watched.trusted.append)
    with watched:
        row = db.execute('SELECT "table", facts::text FROM cdc.rights ORDER BY id DESC LIMIT 1').fetchone()
        db.execute("ALTER POLICY open ON wells USING (false)")
        db.execute("SELECT pg_logical_emit_message(true, 'cdc.rights', %s)", (str(row),))
        insert(db, 1)
        assert watched.caught_up(db) == ["rights"]


def test_no_other_role_may_write_the_table(database: str, db: psycopg.Connection) -> None:
    db.execute("SET ROLE authenticated")
    for forged in ("INSERT INTO cdc.rights (\"table\", name) VALUES (1, 'x')", "DELETE FROM cdc.rights",
                   "SELECT cdc.note_rights('{}')", "SELECT cdc.table_facts('{}')"):  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute(forged)
    db.execute("RESET ROLE")


def test_rows_of_rights_are_recorded_and_replayed(database: str, db: psycopg.Connection, tmp_path: Path) -> None:
    """A replay has no subjects; positions count the rows as they did."""
    path = tmp_path / "stream"
    watched = Watched("blocking", database)
    recorder = watched.running.consumer.record(path)
    with watched:
        with db.transaction():
            insert(db, 1)
            db.execute("ALTER POLICY open ON wells USING (false)")
            insert(db, 2)
        assert watched.caught_up(db) == [1, "rights"]
    recorder.close()
    again: list[Any] = []
    replay = cdc.testing.replay(path)
    replay.on("wells")(again.append)
    replay.run()
    assert [(event.key, event.position) for event in again] == [
        (event.key, event.position) for event in watched.trusted
    ]
    assert [event.position.ordinal for event in again] == [1, 3]


def test_many_at_once_end_with_the_truth(database: str, db: psycopg.Connection) -> None:
    """Transactions that change the rights on one table by different ways at the same time."""
    db.execute("CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'select $1'")
    db.execute("CREATE POLICY two ON wells USING (twice(id) = 1)")
    failures: list[BaseException] = []

    def work(statements: Callable[[int], str]) -> None:
        try:
            with psycopg.connect(database, autocommit=True) as mine:
                for number in range(15):
                    mine.execute(statements(number))
        except BaseException as error:
            failures.append(error)

    replace = "CREATE OR REPLACE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'select $1 + {}'"
    jobs: list[Callable[[int], str]] = [
        replace.format,
        lambda number: f"ALTER POLICY two ON wells USING (twice(id) = {number})",
        lambda number: f"{'GRANT' if number % 2 else 'REVOKE'} SELECT ON wells {'TO' if number % 2 else 'FROM'} anon",
    ]
    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    differing = db.execute("""
        SELECT count(*) FROM cdc.table_facts(ARRAY['wells'::regclass::oid]) now
        WHERE now.facts IS DISTINCT FROM (SELECT facts FROM cdc.rights WHERE "table" = now.oid ORDER BY id DESC LIMIT 1)
    """).fetchone()
    assert differing == (0,)
