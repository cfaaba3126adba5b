"""`cdc setup`, `cdc drop` and the scripts behind them: what they make, what they leave alone, what they take back."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

import cdc
from cdc.daemon.cli import run
from cdc.testing import Sandbox
from tests.harness import Running

SCRIPTS = sorted((Path(__file__).parents[2] / "sql").glob("*.sql"), key=lambda path: (path.name[:2] == "08", path.name))
"""In the order in which they can run: what removes goes last."""
MAKING = [script for script in SCRIPTS if script.name[:2] in ("02", "03", "04", "05", "06", "09", "10")]
TABLES = """
CREATE TABLE wells (id int PRIMARY KEY, name text);
CREATE TABLE projects (id serial PRIMARY KEY, name text);
CREATE TABLE notes (words text);
CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY);
CREATE TABLE readings (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE readings_2026 PARTITION OF readings FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE VIEW seen AS SELECT * FROM wells;
CREATE SCHEMA "Odd, one";
CREATE TABLE "Odd, one"."We""lls" (id int PRIMARY KEY);
"""
ALL = [
    "--all-tables",
    "--role",
    "cdc_all",
    "--rls",
    "--replica-identity-full",
    "--table",
    "wells",
    "--table",
    "projects",
]
EXPLODED = """
SELECT coalesce(r.rolname, 'PUBLIC') AS grantee, privilege_type AS privilege, is_grantable AS grantable
FROM aclexplode(coalesce({0}, acldefault({1}, {2}))) LEFT JOIN pg_roles r ON r.oid = grantee
"""


def acl(column: str, kind: str, owner: str) -> str:
    exploded = EXPLODED.format(column, kind, owner)
    return f"(SELECT array_agg(x::text ORDER BY x::text) FROM ({exploded}) AS x)"


CATALOG = {
    "publications": "SELECT pubname, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot FROM pg_publication",
    "published": "SELECT pubname, schemaname, tablename FROM pg_publication_tables",
    "roles": "SELECT rolname, rolcanlogin, rolreplication, rolbypassrls, rolsuper, rolinherit FROM pg_roles",
    "policies": "SELECT schemaname, tablename, policyname, permissive, roles, cmd, qual, with_check FROM pg_policies",
    "tables": "SELECT oid::regclass::text, relkind, relreplident, relrowsecurity, relforcerowsecurity, "
    + acl("relacl", "CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\"", "relowner")
    + " FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'S') AND relnamespace >= 'public'::regnamespace::oid "
    "AND relnamespace::regnamespace::text NOT LIKE 'pg_%' AND relnamespace::regnamespace::text <> 'information_schema'",
    "schemas": "SELECT nspname, "
    + acl("nspacl", "'n'", "nspowner")
    + " FROM pg_namespace WHERE nspname NOT LIKE 'pg_%'",
    "functions": "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace >= 'public'::regnamespace::oid "
    "AND pronamespace::regnamespace::text NOT LIKE 'pg_%'",
    "columns": "SELECT attrelid::regclass::text, attname, atttypid::regtype::text, attnotnull FROM pg_attribute "
    "WHERE attrelid::regclass::text LIKE 'cdc.%' AND attnum > 0",
}


def rows(dsn: str, query: str) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query).fetchall()


def write(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def catalog(dsn: str) -> dict[str, list[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return {name: sorted(map(repr, connection.execute(query).fetchall())) for name, query in CATALOG.items()}


def notes(dsn: str) -> list[Any]:
    return rows(dsn, "SELECT kind, name, undo FROM cdc.made ORDER BY id")


def published(dsn: str, publication: str = "wells") -> set[str]:
    """The tables of a publication, but for cdc's own."""
    with psycopg.connect(dsn) as connection:
        query = "SELECT schemaname || '.' || tablename FROM pg_publication_tables "
        query += "WHERE pubname = %s AND schemaname <> 'cdc'"
        return {name for (name,) in connection.execute(query, (publication,)).fetchall()}


@pytest.fixture
def wells(database: str) -> Iterator[str]:
    """A fresh database with tables. What a test leaves is removed, since roles belong to the whole server."""
    write(database, TABLES)
    yield database
    run(["drop", "--dsn", database, "--everything"])


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command; its exit code, output and errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(arguments)
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def psql(server: Sandbox) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run psql, which ends at the first error."""

    def call(dsn: str, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        words = [str(server.command("psql")), "-X", "-v", "ON_ERROR_STOP=1", "-d", dsn, *arguments]
        return subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=60, env=server.environment)

    return call


def user_dsn(server: Sandbox, dsn: str, role: str) -> str:
    """The DSN for a role, which gets a password."""
    write(dsn, f"ALTER ROLE {role} PASSWORD 'secret'")
    return server.dsn_for(str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]), role, "secret")


@pytest.fixture
def owner(server: Sandbox, wells: str) -> Iterator[str]:
    """A DSN of an ordinary role that owns the tables of schema public and may create in the database."""
    write(
        wells,
        "DROP ROLE IF EXISTS app; CREATE ROLE app LOGIN; DROP VIEW seen",
        "ALTER TABLE wells OWNER TO app; ALTER TABLE projects OWNER TO app; GRANT USAGE ON SCHEMA auth TO app",
        "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO app', current_database()); END $$",
    )
    yield user_dsn(server, wells, "app")
    write(wells, "DROP OWNED BY app CASCADE; DROP ROLE app")


# Setup


@pytest.mark.parametrize(
    "flags", [[], ["--table", "wells", "--table", "projects", "--role", "cdc_twice", "--rls"], ALL]
)
def test_a_second_run_changes_nothing_and_notes_nothing(wells: str, command: Any, flags: list[str]) -> None:
    assert command("setup", "--dsn", wells, *flags)[0] == 0
    state, noted = catalog(wells), notes(wells)
    code, said, _ = command("setup", "--dsn", wells, *flags)
    assert (code, said) == (0, "Nothing to do: everything is in place.\n")
    assert catalog(wells) == state
    assert notes(wells) == noted


@pytest.mark.parametrize("flags", [[], ALL], ids=["plain", "all"])
def test_dry_run_touches_nothing_and_is_a_script_for_psql(
    wells: str, command: Any, psql: Any, flags: list[str]
) -> None:
    before = catalog(wells)
    code, script, _ = command("setup", *flags, "--dry-run")
    assert code == 0
    assert catalog(wells) == before
    assert psql(wells, stdin=script).returncode == 0
    piped = catalog(wells), notes(wells)
    assert command("drop", "--dsn", wells, "--everything")[0] == 0
    assert catalog(wells) == before
    assert command("setup", "--dsn", wells, *flags)[0] == 0
    assert (catalog(wells), notes(wells)) == piped


def test_plain_setup_makes_the_schema_and_the_publication_and_no_more(wells: str, command: Any) -> None:
    before = catalog(wells)
    code, said, errors = command("setup", "--dsn", wells)
    after = catalog(wells)
    assert (code, errors) == (0, "")
    assert "CREATE SCHEMA cdc\n" in said
    assert "ALTER PUBLICATION wells ADD TABLE public.wells\n" in said
    assert published(wells) == {"public.wells"}
    assert (after["roles"], after["policies"]) == (before["roles"], before["policies"])
    assert [row for row in after["tables"] if "'cdc." not in row] == before["tables"]


def test_the_dsn_comes_from_the_environment(wells: str, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDC_DSN", wells)
    assert command("setup")[0] == 0
    assert published(wells) == {"public.wells"}


def test_names_with_everything_in_them(wells: str, command: Any) -> None:
    name = """it's "odd", \\ and; spaced"""
    code, *_ = command(
        "setup", "--dsn", wells, "--publication", name, "--table", '"Odd, one"."We""lls"', "--table", "wells"
    )
    assert code == 0
    assert published(wells, name) == {'Odd, one.We"lls', "public.wells"}
    assert command("drop", "--dsn", wells, "--everything")[0] == 0
    assert rows(wells, "SELECT pubname FROM pg_publication") == []


def test_names_of_tables_are_case_sensitive(wells: str, command: Any) -> None:
    write(wells, 'CREATE TABLE "Wells" (id int PRIMARY KEY)')
    assert command("setup", "--dsn", wells, "--table", "public.Wells")[0] == 0
    assert published(wells) == {"public.Wells"}


def test_a_table_is_added_to_a_publication_that_exists(wells: str, command: Any) -> None:
    write(wells, "CREATE PUBLICATION mine FOR TABLE wells WITH (publish = 'insert')")
    assert command("setup", "--dsn", wells, "--publication", "mine", "--table", "projects")[0] == 0
    assert published(wells, "mine") == {"public.wells", "public.projects"}
    assert command("drop", "--dsn", wells, "--everything")[0] == 0
    assert published(wells, "mine") == {"public.wells"}
    assert rows(wells, "SELECT pubinsert, pubupdate FROM pg_publication") == [(True, False)]


def test_a_publication_for_all_tables_is_left_as_it_is(wells: str, command: Any) -> None:
    write(wells, "CREATE PUBLICATION everything FOR ALL TABLES")
    for flags in ([], ["--all-tables"]):
        assert command("setup", "--dsn", wells, "--publication", "everything", *flags)[0] == 0
    assert "publication" not in {kind for kind, *_ in notes(wells)}


def test_all_tables_leaves_out_what_would_break_its_writers(wells: str, command: Any) -> None:
    code, _, errors = command("setup", "--dsn", wells, "--all-tables")
    assert code == 0
    assert published(wells) == {"public.wells", "public.projects", "public.readings"}
    assert "warning: public.notes is left out: it has no replica identity" in errors
    assert "ALTER TABLE public.notes REPLICA IDENTITY FULL" in errors
    write(wells, "UPDATE notes SET words = ''; CREATE TABLE later (id int PRIMARY KEY)")
    assert command("setup", "--dsn", wells, "--all-tables", "--replica-identity-full", "--table", "notes")[0] == 0
    assert published(wells) >= {"public.later", "public.notes"}
    write(wells, "UPDATE notes SET words = ''")


def test_replica_identity_full_reaches_partitions(wells: str, command: Any) -> None:
    write(wells, "CREATE UNIQUE INDEX by_name ON wells (name)", "ALTER TABLE wells ALTER name SET NOT NULL")
    write(wells, "ALTER TABLE wells REPLICA IDENTITY USING INDEX by_name")
    query = (
        "SELECT relname, relreplident::text FROM pg_class WHERE relkind IN ('r', 'p') AND relname ~ '^(wells|readings)'"
    )
    before = sorted(rows(wells, query))
    assert before == [("readings", "d"), ("readings_2026", "d"), ("wells", "i")]
    flags = ["--replica-identity-full", "--table", "wells", "--table", "readings"]
    assert command("setup", "--dsn", wells, *flags)[0] == 0
    assert {identity for _, identity in rows(wells, query)} == {"f"}
    assert command("drop", "--dsn", wells, "--everything")[0] == 0
    assert sorted(rows(wells, query)) == before


def test_row_level_security_lets_the_roles_read_and_insert(wells: str, command: Any) -> None:
    assert command("setup", "--dsn", wells, "--rls", "--table", "projects")[0] == 0
    for role in ("anon", "authenticated"):
        with psycopg.connect(wells, autocommit=True) as connection:
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
            connection.execute("INSERT INTO projects (name) VALUES ('new')")
            assert connection.execute("SELECT count(*) > 0 FROM projects").fetchone() == (True,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("DELETE FROM projects")


def test_the_conditions_of_policies_can_be_chosen(wells: str, command: Any) -> None:
    condition = "name = (auth.jwt() ->> 'name')"
    flags = ["--policy", "select_anon=false", "--policy", f"select_authenticated={condition}"]
    assert command("setup", "--dsn", wells, "--rls", *flags)[0] == 0
    found = dict(rows(wells, "SELECT policyname, coalesce(qual, with_check) FROM pg_policies"))
    assert found["cdc_select_anon"] == "false"
    assert "auth.jwt()" in found["cdc_select_authenticated"]
    assert found["cdc_insert_anon"] == found["cdc_insert_authenticated"] == "true"


def test_policies_that_exist_are_not_widened(wells: str, command: Any) -> None:
    write(
        wells,
        "ALTER TABLE wells ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON wells FOR SELECT TO authenticated USING (id < 10)",
        "CREATE POLICY ours ON projects FOR ALL USING (id < 10)",
    )
    assert command("setup", "--dsn", wells, "--rls", "--table", "wells", "--table", "projects")[0] == 0
    names = set(rows(wells, "SELECT tablename, policyname FROM pg_policies"))
    assert names == {
        ("projects", "ours"),
        ("wells", "mine"),
        ("wells", "cdc_select_anon"),
        ("wells", "cdc_insert_anon"),
        ("wells", "cdc_insert_authenticated"),
    }


def test_a_consumer_runs_as_the_role(server: Sandbox, wells: str, command: Any) -> None:
    code, said, errors = command("setup", "--dsn", wells, "--role", "cdc_reader", "--rls")
    assert (code, errors) == (0, "")
    assert "Set one in psql: \\password cdc_reader\n" in said
    dsn = user_dsn(server, wells, "cdc_reader")
    caches: list[cdc.Cache] = []

    def prepare(running: Running) -> None:
        running.on("wells", running.events.append)
        caches.append(running.consumer.cache("wells", ttl=60, by="id"))

    with Running("blocking", dsn, prepare) as running, psycopg.connect(wells, autocommit=True) as connection:
        connection.execute("INSERT INTO wells VALUES (1, 'first')")
        running.caught_up(connection)
        assert [event.new["name"] for event in running.events] == ["first"]
        name = caches[0].fetch(1, lambda c, key: c.execute("SELECT name FROM wells WHERE id = %s", (key,)).fetchone())
        assert name == ("first",)
    assert rows(wells, "SELECT slot, flush_lsn IS NOT NULL FROM cdc.slots") == [("ingest", True)]


def test_the_role_has_no_access_to_what_drop_executes(server: Sandbox, wells: str, command: Any) -> None:
    write(wells, "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC")
    assert command("setup", "--dsn", wells, "--role", "cdc_reader")[0] == 0
    assert rows(wells, "SELECT has_table_privilege('cdc_reader', 'cdc.made', 'SELECT, INSERT, UPDATE, DELETE')") == [
        (False,)
    ]
    dsn = user_dsn(server, wells, "cdc_reader")
    for statement in ("INSERT INTO cdc.made (kind, name, undo) VALUES ('x', 'x', 'SELECT 1')", "TABLE cdc.made"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            write(dsn, statement)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        write(dsn, "SELECT cdc.make('x', 'x', 'SELECT 1', 'SELECT 2')")


def test_a_role_that_exists_gets_what_it_lacks(wells: str, command: Any) -> None:
    write(wells, "DROP ROLE IF EXISTS mine; CREATE ROLE mine")
    attributes = "SELECT rolcanlogin, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = 'mine'"
    code, _, errors = command("setup", "--dsn", wells, "--role", "mine", "--rls")
    assert code == 0
    assert rows(wells, attributes) == [(True, True, False)]
    assert "warning: public.wells has row-level security and role mine does not bypass it" in errors
    assert "ALTER ROLE mine BYPASSRLS;" in errors
    assert command("drop", "--dsn", wells, "--everything")[0] == 0
    assert rows(wells, attributes) == [(False, False, False)]
    write(wells, "DROP ROLE mine")


# Refusals


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--table", "nothing"], "there is no table public.nothing. Create it first, or name another one"),
        (["--table", "a.b.c"], 'there is no table "a.b".c'),
        (["--table", '"a"."b"."c"'], "is not the name of a table"),
        (["--table", '"a'], 'cdc.tables: a quote is open in "a.'),
        (["--table", "seen"], "public.seen cannot be published: it is not an ordinary, logged table"),
        (["--table", "scratch"], "public.scratch cannot be published"),
        (["--table", "notes"], "public.notes has no replica identity"),
        (["--table", " "], "cdc.tables names no table"),
        (["--rls", "--policy", "select_anon=depth > 3"], 'column "depth" does not exist'),
        (["--rls", "--policy", "select_anon=true) WITH CHECK (true"], "WITH CHECK cannot be applied"),
    ],
)
def test_what_cannot_be_done_leaves_everything_as_it_was(wells: str, command: Any, flags: Any, message: str) -> None:
    before = catalog(wells)
    code, said, errors = command("setup", "--dsn", wells, *flags)
    assert (code, said) == (2, "")
    assert errors.startswith("cdc: ")
    assert message in errors
    assert errors.endswith("Nothing was changed.\n")
    assert errors.count("\n") == 1
    assert catalog(wells) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--all-tables", "--rls"], "name the tables for --rls and --replica-identity-full with --table"),
        (["--policy", "select_anon=true"], "--policy goes with --rls"),
        (["--rls", "--policy", "delete_anon=true"], "NAME is one of select_anon"),
        (["--rls", "--policy", "select_anon="], "NAME=CONDITION"),
        (["--publication", ""], "a name has 1 to 63 bytes"),
        (["--role", "x" * 64], "a name has 1 to 63 bytes"),
    ],
)
def test_wrong_usage(command: Any, flags: list[str], message: str) -> None:
    code, said, errors = command("setup", "--dsn", "postgresql://127.0.0.1:1/none", *flags)
    assert (code, said) == (2, "")
    assert message in re.sub(r"\s+", " ", errors)


def test_no_rights(owner: str, wells: str, command: Any) -> None:
    write(wells, "DO $$ BEGIN EXECUTE format('REVOKE CREATE ON DATABASE %I FROM app', current_database()); END $$")
    code, _, errors = command("setup", "--dsn", owner)
    assert code == 2
    assert errors.startswith("cdc: role 'app' may not do this: permission denied for database")
    assert "Run it as the owner of the tables or as a superuser, or hand them the output of --dry-run." in errors


def test_the_owner_of_the_tables_needs_no_superuser(owner: str, command: Any) -> None:
    flags = ["--table", "wells", "--table", "projects", "--rls", "--replica-identity-full"]
    before = catalog(owner)
    assert command("setup", "--dsn", owner, *flags)[0] == 0
    assert command("drop", "--dsn", owner, "--everything")[0] == 0
    assert catalog(owner) == before


def test_another_owners_table_or_a_role_is_too_much_for_it(owner: str, command: Any) -> None:
    for flags in (["--table", "readings"], ["--role", "cdc_other"]):
        code, _, errors = command("setup", "--dsn", owner, *flags)
        assert code == 2
        assert "role 'app' may not do this: " in errors


def test_a_schema_of_another_owner_is_refused(owner: str, wells: str, command: Any, psql: Any) -> None:
    """Its functions and statements would be executed with the rights of whoever runs setup or drop."""
    assert command("setup", "--dsn", owner)[0] == 0
    write(owner, "INSERT INTO cdc.made (kind, name, undo) VALUES ('x', 'x', 'ALTER ROLE app SUPERUSER')")
    for arguments in (["setup"], ["drop", "--everything"]):
        code, _, errors = command(*arguments, "--dsn", wells)
        assert code == 2
        assert "to role app, not to postgres. Run this as that role" in errors
    assert psql(wells, "-f", str(SCRIPTS[-1])).returncode != 0
    assert rows(wells, "SELECT rolsuper FROM pg_roles WHERE rolname = 'app'") == [(False,)]


def test_a_planted_function_is_not_called(owner: str, wells: str, command: Any) -> None:
    """One in schema public whose arguments fit better than those of pg_catalog's own."""
    write(wells, "GRANT CREATE ON SCHEMA public TO app")
    body = "LANGUAGE plpgsql AS $$ BEGIN ALTER ROLE app SUPERUSER; RETURN $1; END $$"
    for name in ("format(text, text)", "format(text, name)", "format(text, regclass)", "concat_ws(text, text)"):
        write(owner, f"CREATE FUNCTION public.{name} RETURNS text {body}")
    assert command("setup", "--dsn", wells, "--rls", "--role", "cdc_reader", "--replica-identity-full")[0] == 0
    assert command("drop", "--dsn", wells, "--everything")[0] == 0
    assert rows(wells, "SELECT rolsuper FROM pg_roles WHERE rolname = 'app'") == [(False,)]


def test_a_table_that_is_locked(wells: str, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdc.daemon.setup.PREPARATION", ["SET LOCAL lock_timeout = '100ms';"])
    with psycopg.connect(wells) as connection:
        connection.execute("LOCK TABLE wells")
        code, _, errors = command("setup", "--dsn", wells)
    assert code == 1
    assert "A long transaction holds the table; nothing was changed." in errors


def test_a_server_that_only_reads(wells: str, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c default_transaction_read_only=on")
    code, _, errors = command("setup", "--dsn", wells)
    assert code == 2
    assert "let the DSN name the primary" in errors


# Scripts


def test_each_script_runs_by_itself(wells: str, psql: Any) -> None:
    before = catalog(wells)
    settings = ["-c", "SET cdc.role = 'cdc_psql'", "-c", "SET cdc.tables = 'wells, Projects'"]
    for _ in range(2):
        for script in SCRIPTS[:-1]:
            answer = psql(wells, *settings, "-f", str(script))
            assert answer.returncode == 0, answer.stderr
    assert published(wells) == {"public.wells", "public.projects", "public.readings"}
    assert len(rows(wells, "SELECT * FROM pg_policies")) == 8
    assert rows(wells, "SELECT kind, name FROM cdc.made GROUP BY 1, 2 HAVING count(*) > 1") == []
    for _ in range(2):
        assert psql(wells, "-f", str(SCRIPTS[-1])).returncode == 0
    assert catalog(wells) == before


@pytest.mark.parametrize("script", MAKING, ids=lambda script: script.name)
def test_a_script_without_the_schema_says_what_to_run_first(wells: str, psql: Any, script: Path) -> None:
    answer = psql(wells, "-f", str(script))
    assert answer.returncode != 0
    assert "the schema cdc is missing" in answer.stderr
    assert "HINT:  Run 01_schema.sql first." in answer.stderr


def test_settings_come_from_the_environment_too(wells: str, psql: Any, server: Sandbox) -> None:
    options = {"PGOPTIONS": "-c cdc.publication=mine -c cdc.tables=wells,public.projects"}
    words = [str(server.command("psql")), "-X", "-1", "-d", wells, "-f", str(SCRIPTS[0]), "-f", str(SCRIPTS[2])]
    subprocess.run(words, check=True, capture_output=True, timeout=60, env=server.environment | options)
    assert published(wells, "mine") == {"public.wells", "public.projects"}


def test_verify_shows_what_is_wrong(wells: str, command: Any, psql: Any) -> None:
    verify = next(str(script) for script in SCRIPTS if script.name == "07_verify.sql")
    empty = psql(wells, "-f", verify)
    assert empty.returncode == 0
    assert "It does not exist: run 03_publication_table.sql." in empty.stdout
    assert "The schema cdc is missing" in empty.stdout
    assert command("setup", "--dsn", wells, "--all-tables")[0] == 0
    write(
        wells,
        "ALTER TABLE wells ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY reading ON wells FOR SELECT USING (true)",
        "ALTER TABLE projects REPLICA IDENTITY NOTHING",
        "INSERT INTO cdc.slots VALUES ('gone', '1', 1, 'abcd', '0/10', 3, '0/20')",
    )
    answer = psql(wells, "-f", verify)
    assert answer.returncode == 0
    assert re.search(r"public \| wells .* SELECT policies only: .*ingestion breaks", answer.stdout)
    assert "ALTER TABLE public.projects REPLICA IDENTITY FULL;" in answer.stdout
    assert re.search(r"slot gone, position abcd:0/10:3, .*warning: the slot itself does not exist", answer.stderr)


# Drop


def test_drop_everything_gives_the_catalog_back() -> None:
    """On a server that knew none of the roles, with things of its own."""
    with Sandbox() as sandbox:
        write(
            sandbox.dsn,
            TABLES,
            "CREATE ROLE reader; GRANT SELECT ON wells TO reader",
            "CREATE PUBLICATION other FOR TABLE wells",
            "CREATE POLICY mine ON readings USING (true)",
            "ALTER TABLE projects REPLICA IDENTITY NOTHING",
        )
        before = catalog(sandbox.dsn)
        assert run(["setup", "--dsn", sandbox.dsn, *ALL]) == 0
        assert run(["setup", "--dsn", sandbox.dsn, "--publication", "other", "--table", "projects"]) == 0
        assert "('anon', False, False, False, False, True)" in catalog(sandbox.dsn)["roles"]
        assert run(["drop", "--dsn", sandbox.dsn, "--everything"]) == 0
        assert catalog(sandbox.dsn) == before
        assert run(["drop", "--dsn", sandbox.dsn, "--everything"]) == 0


def test_what_was_there_before_survives(wells: str, command: Any) -> None:
    write(
        wells,
        "CREATE PUBLICATION wells FOR TABLE wells",
        "DROP ROLE IF EXISTS mine; CREATE ROLE mine LOGIN REPLICATION",
        "ALTER TABLE wells ENABLE ROW LEVEL SECURITY; ALTER TABLE wells REPLICA IDENTITY FULL",
        "CREATE POLICY mine ON wells TO anon, authenticated USING (true)",
        "CREATE SCHEMA cdc; CREATE TABLE cdc.own (id int)",
    )
    before = catalog(wells)
    assert command("setup", "--dsn", wells, "--role", "mine", "--rls", "--replica-identity-full")[0] == 0
    assert command("drop", "--dsn", wells, "--everything")[0] == 0
    assert catalog(wells) == before
    write(wells, "DROP ROLE mine")


def test_what_others_lean_on_stays_with_a_warning(wells: str, command: Any) -> None:
    assert command("setup", "--dsn", wells, "--role", "cdc_kept", "--rls")[0] == 0
    write(
        wells,
        "GRANT SELECT ON projects TO cdc_kept",
        "CREATE POLICY mine ON wells FOR SELECT USING (id < 10)",
        "CREATE TABLE cdc.own (id int)",
        "DROP PUBLICATION wells",
    )
    code, said, errors = command("drop", "--dsn", wells, "--everything")
    assert code == 0
    assert "published table public.wells in wells is gone already\n" in said
    assert "warning: role cdc_kept stays: " in errors
    assert "warning: schema cdc stays: " in errors
    assert "warning: row-level security of public.wells stays: " in errors
    assert rows(wells, "SELECT relrowsecurity FROM pg_class WHERE relname = 'wells'") == [(True,)]
    write(wells, "DROP OWNED BY cdc_kept; DROP ROLE cdc_kept")


def test_a_slot_and_its_row(wells: str, command: Any) -> None:
    assert command("setup", "--dsn", wells)[0] == 0
    with Running("blocking", wells) as running:
        running.do(running.consumer.health)
        code, said, errors = command("drop", "--dsn", wells, "--slot", "ingest")
        assert (code, said) == (1, "")
        assert re.fullmatch(r"cdc: slot 'ingest' is in use by process \d+ .*stop its consumer first.*\n", errors)
        code, _, errors = command("drop", "--dsn", wells, "--everything")
        assert code == 1
        assert published(wells) == {"public.wells"}
    _, script, _ = command("drop", "--dsn", wells, "--slot", "ingest", "--dry-run")
    assert "SELECT pg_catalog.pg_drop_replication_slot('ingest');" in script
    code, said, _ = command("drop", "--dsn", wells, "--slot", "ingest")
    assert (code, said) == (0, "removed what was remembered of slot 'ingest'\nremoved slot 'ingest'\n")
    assert rows(wells, "SELECT slot FROM cdc.slots") == []
    assert rows(wells, "SELECT 1 FROM pg_replication_slots WHERE database = current_database()") == []
    code, said, _ = command("drop", "--dsn", wells, "--slot", "ingest")
    assert (code, said) == (0, "there is no slot 'ingest'\n")


def test_drop_everything_takes_the_slots_that_are_remembered(wells: str, command: Any, psql: Any) -> None:
    before = catalog(wells)
    assert command("setup", "--dsn", wells)[0] == 0
    write(
        wells,
        "SELECT pg_create_logical_replication_slot(name, 'pgoutput') FROM unnest(ARRAY['ours', 'alien']) AS name",
        "INSERT INTO cdc.slots VALUES ('ours', '1', 1, 'abcd'), ('gone', '1', 1, 'abcd')",
    )
    warned = psql(wells, "-c", "BEGIN", "-f", str(SCRIPTS[-1])).stderr
    assert "slot ours stays, and keeps WAL" in warned
    assert "slot gone" not in warned
    _, script, _ = command("drop", "--dsn", wells, "--everything", "--dry-run")
    assert "--   DROP PUBLICATION IF EXISTS wells\n" in script
    assert len(rows(wells, "SELECT * FROM cdc.slots")) == 2
    assert psql(wells, stdin=script).returncode == 0
    assert catalog(wells) == before
    assert rows(wells, "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()") == [("alien",)]


def test_a_slot_of_another_database_is_left_alone(server: Sandbox, wells: str, command: Any) -> None:
    write(wells, "SELECT pg_create_logical_replication_slot('elsewhere', 'pgoutput')")
    write(server.dsn, "SELECT pg_create_physical_replication_slot('standby')")
    try:
        code, _, errors = command("drop", "--dsn", server.dsn, "--slot", "elsewhere")
        assert code == 1
        assert "is a logical slot of database 'db_" in errors
        code, _, errors = command("drop", "--dsn", wells, "--slot", "standby")
        assert code == 1
        assert "is a physical slot of no database" in errors
    finally:
        write(server.dsn, "SELECT pg_drop_replication_slot('standby')")


def test_drop_without_a_word_what(command: Any) -> None:
    code, _, errors = command("drop", "--dsn", "postgresql://127.0.0.1:1/none")
    assert code == 2
    assert "say what to remove: --slot NAME, or --everything" in errors


def test_drop_without_rights(owner: str, wells: str, command: Any) -> None:
    write(wells, "SELECT pg_create_logical_replication_slot('guarded', 'pgoutput')")
    code, _, errors = command("drop", "--dsn", owner, "--slot", "guarded")
    assert code == 2
    assert "role 'app' may not do this: " in errors
