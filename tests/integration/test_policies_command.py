"""The command `cdc policies`, on a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from cdc.daemon.cli import run as cdc_command
from cdc.daemon.policies import policies
from cdc.errors import ConfigurationError, ConnectionFailed

TABLES = """
CREATE SCHEMA shop;
CREATE TABLE wells (id int PRIMARY KEY, project_id uuid, name text);
CREATE TABLE shop.orders (id int PRIMARY KEY);
CREATE TABLE "Odd Name" (id int PRIMARY KEY);
CREATE TABLE plain (id int PRIMARY KEY);
ALTER TABLE wells ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Odd Name" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Odd Name" FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON wells FOR SELECT TO authenticated, anon USING (project_id = (auth.jwt() ->> 'project_id')::uuid);
CREATE POLICY named ON wells AS RESTRICTIVE USING (random()
  > 2);
CREATE POLICY writes ON wells WITH CHECK (true);
CREATE POLICY changes ON wells FOR UPDATE USING (true);
CREATE POLICY idle ON shop.orders USING (true);
"""


@pytest.fixture
def dsn(database: str) -> Iterator[str]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
    yield database


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(policies, arguments, env=environment)


def whole(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code and output of the command line as a whole."""
    code = cdc_command(["policies", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_every_table(dsn: str) -> None:
    result = run("--dsn", dsn)
    assert result.exit_code == 0, result.output
    assert result.output == (
        "public.Odd Name: row-level security is on, and binds the owner too\n"
        "  no policy: nobody sees a row\n"
        "\n"
        "public.wells: row-level security is on\n"
        "  mine: permissive, for SELECT, to authenticated, anon\n"
        "      using (project_id = ((auth.jwt() ->> 'project_id'::text))::uuid)\n"
        "      supported\n"
        "  named: restrictive, for ALL, to public\n"
        "      using (random() > (2)::double precision)\n"
        "      not supported: function pg_catalog.random()\n"
        "  writes: permissive, for ALL, to public\n"
        "      supported: WITH CHECK only, grants nothing to readers\n"
        "\n"
        "shop.orders: row-level security is off, so that policies do nothing and grants alone decide\n"
        "  idle: permissive, for ALL, to public\n"
        "      using true\n"
        "      supported\n"
    )


def test_one_table_with_the_address_from_the_environment(dsn: str) -> None:
    result = run("shop.orders", CDC_DSN=dsn)
    assert result.output.startswith("shop.orders: ") and "wells" not in result.output
    assert run("wells", CDC_DSN=dsn).output.startswith("public.wells: ")
    assert run("plain", CDC_DSN=dsn).output == (
        "public.plain: row-level security is off, so that policies do nothing and grants alone decide\n"
    )


def test_a_table_without_policies_shows_the_owner_only(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE plain ENABLE ROW LEVEL SECURITY")
    assert "  no policy: nobody but the owner sees a row\n" in run("plain", "--dsn", dsn).output


def test_no_table_at_all(database: str) -> None:
    assert run("--dsn", database).output == "no table has row-level security or policies\n"


def test_bad_input(dsn: str) -> None:
    unknown = run("nowhere.wells", "--dsn", dsn)
    assert isinstance(unknown.exception, ConfigurationError)
    assert "there is no table nowhere.wells" in str(unknown.exception)
    assert isinstance(run("--dsn", "no dsn").exception, ConfigurationError)
    assert isinstance(run("--dsn", "host=127.0.0.1 port=1 dbname=x").exception, ConnectionFailed)
    assert "Missing option '--dsn'" in run("wells").output


def test_a_plain_role_may_ask(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE asker_of_policies LOGIN")
    try:
        result = run("--dsn", psycopg.conninfo.make_conninfo(dsn, options="-c role=asker_of_policies"))
        assert result.output.count("row-level security is") == 3
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("DROP ROLE asker_of_policies")


MINE = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def rows(dsn: str) -> str:
    """A table with rows, of which a member sees one."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP POLICY named ON wells; GRANT SELECT ON wells TO authenticated")
        connection.execute("INSERT INTO wells VALUES (1, %s, 'a'), (2, NULL, 'b')", (MINE,))
    return dsn


def test_a_row_for_a_role(rows: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    claims = tmp_path / "claims.json"
    claims.write_text(json.dumps({"project_id": MINE}))
    user = ("wells", "--dsn", rows, "--as", "authenticated", "--claims", f"@{claims}")
    code, out, _ = whole(capsys, *user, "--key", "1")
    assert code == 0
    assert out == (
        "public.wells as authenticated: row-level security is on\n"
        "  mine: permissive, for SELECT, to authenticated, anon\n"
        "      using (project_id = ((auth.jwt() ->> 'project_id'::text))::uuid)\n"
        "      supported: found by project_id\n"
        "      this row: true\n"
        "  writes: permissive, for ALL, to public\n"
        "      supported: WITH CHECK only, grants nothing to readers\n"
        "  row 1: visible: policy mine is true\n"
        "  PostgreSQL as authenticated: visible: the same\n"
    )
    code, out, _ = whole(capsys, *user, "--key", "2")
    assert code == 0 and "  row 2: not visible: no permissive policy is true\n" in out
    code, out, _ = whole(capsys, *user, "--row", f'{{"project_id": "{MINE}", "id": 7}}', "--json")
    found = json.loads(out)
    assert code == 0 and found["visible"] is True and found["row"] == "7"
    assert found["policies"][0]["outcome"] == "true"


def test_every_table_for_a_role(rows: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = whole(capsys, "--dsn", rows, "--as", "authenticated", "--set", "app.tenant=7", "--json")
    found = json.loads(out)
    assert code == 0 and [each["table"] for each in found] == ["Odd Name", "wells", "orders"]
    assert {each["role"] for each in found} == {"authenticated"}
    assert json.loads(whole(capsys, "--dsn", rows, "--json")[1])[1]["policies"][0]["name"] == "mine"


def test_keys_of_several_columns(rows: str, capsys: pytest.CaptureFixture[str]) -> None:
    with psycopg.connect(rows, autocommit=True) as connection:
        connection.execute(
            """CREATE TABLE pairs (a int, b text, PRIMARY KEY (a, b)); INSERT INTO pairs VALUES (1, '[x]');
            CREATE TABLE texts (t text PRIMARY KEY); INSERT INTO texts VALUES ('[x]');
            GRANT SELECT ON pairs, texts TO anon"""
        )
    assert "row 1, [x]: visible" in whole(capsys, "pairs", "--dsn", rows, "--as", "anon", "--key", '[1, "[x]"]')[1]
    assert "row [x]: visible" in whole(capsys, "texts", "--dsn", rows, "--as", "anon", "--key", "[x]")[1]


def test_numbers_keep_their_digits(rows: str, capsys: pytest.CaptureFixture[str]) -> None:
    number = "1.10000000000000000000000001"
    with psycopg.connect(rows, autocommit=True) as connection:
        connection.execute(
            f"""CREATE TABLE sums (n numeric PRIMARY KEY, data jsonb); ALTER TABLE sums ENABLE ROW LEVEL SECURITY;
            GRANT SELECT ON sums TO anon; CREATE POLICY one ON sums USING (n = {number})"""
        )
    row = f'{{"n": {number}, "data": {{"a": [1.5, null]}}}}'
    assert f"row {number}: visible" in whole(capsys, "sums", "--dsn", rows, "--as", "anon", "--row", row)[1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--claims", "{}"], "--claims and --set need --as"),
        (["--set", "a.b=1"], "--claims and --set need --as"),
        (["--key", "1"], "--key and --row need a TABLE and --as"),
        (["wells", "--key", "1"], "--key and --row need a TABLE and --as"),
        (["--as", "anon", "--row", "{}"], "--key and --row need a TABLE and --as"),
        (["wells", "--as", "anon", "--row", "{}", "--key", "1"], "give --key or --row, not both"),
        (["wells", "--as", "anon", "--claims", "{no"], "claims are not JSON"),
        (["wells", "--as", "anon", "--claims", "[]"], "claims are not JSON: an object is needed"),
        (["wells", "--as", "anon", "--claims", "@absent.json"], "absent.json cannot be read: No such file"),
        (["wells", "--as", "anon", "--set", "app"], "--set app: write NAME=VALUE"),
        (["wells", "--as", "anon", "--set", "app=1"], "is not the name of a custom setting"),
        (["wells", "--as", "anon", "--row", "{no"], "--row is not JSON"),
        (["wells", "--as", "anon", "--row", "[" * 100000], "--row is not JSON"),
        (["wells", "--as", "anon", "--row", "[1]"], "--row is not an object of JSON"),
        (["wells", "--as", "anon", "--row", '{"colour": 1}'], "has no column colour"),
        (["wells", "--as", "anon", "--row", '{"id": "x"}'], "value for id of public.wells is no integer"),
        (["wells", "--as", "anon", "--row", '{"name": "a\\u0000b"}'], "value for name of public.wells is no text"),
        (["wells", "--as", "anon", "--row", '{"name": "\\ud800"}'], "value for name of public.wells is no text"),
        (["wells", "--as", "anon", "--key", "99"], "has no row with the key 99"),
        (["wells", "--as", "nobody_here"], 'role "nobody_here" does not exist'),
        (["absent", "--as", "anon"], "there is no table public.absent"),
    ],
)
def test_wrong_usage(rows: str, capsys: pytest.CaptureFixture[str], options: list[str], says: str) -> None:
    code, out, err = whole(capsys, "--dsn", rows, *options)
    assert (code, out) == (2, "") and says in err
    assert "Traceback" not in err


def test_where_the_two_differ_the_exit_code_says_so(rows: str, capsys: pytest.CaptureFixture[str]) -> None:
    with psycopg.connect(rows, autocommit=True) as connection:
        connection.execute(
            """CREATE ROLE modest LOGIN NOINHERIT PASSWORD 'x' BYPASSRLS; GRANT SELECT ON wells TO modest;
            GRANT authenticated TO modest;
            CREATE FUNCTION odd(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
            CREATE POLICY odd ON wells FOR SELECT TO authenticated USING (odd(id))"""
        )
        try:
            modest = psycopg.conninfo.make_conninfo(rows, user="modest", password="x")
            code, out, _ = whole(capsys, "wells", "--dsn", modest, "--as", "authenticated", "--key", "2")
            assert code == 1 and "PostgreSQL as authenticated: visible: cdc says otherwise" in out
        finally:
            connection.execute("DROP OWNED BY modest; DROP ROLE modest")


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = whole(capsys, "wells", "--dsn", "host=127.0.0.1 port=1 dbname=x", "--as", "anon", "--key", "1")
    assert code == 1 and "cannot connect" in err
