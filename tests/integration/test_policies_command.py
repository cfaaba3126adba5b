"""The command `cdc policies`, on a real database."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from click.testing import CliRunner, Result

from cdc.daemon.policies import policies
from cdc.errors import ConfigurationError, ConnectionFailed
from cdc.rights import review_policies

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


def test_the_same_from_python(dsn: str) -> None:
    (wells,) = review_policies(dsn, "wells")
    assert (wells.schema, wells.table, wells.row_security, wells.forced) == ("public", "wells", True, False)
    assert [(found.policy.name, found.unsupported) for found in wells.policies] == [
        ("mine", None),
        ("named", "function pg_catalog.random()"),
        ("writes", None),
    ]


def test_a_plain_role_may_ask(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE asker_of_policies LOGIN")
    try:
        assert len(review_policies(psycopg.conninfo.make_conninfo(dsn, options="-c role=asker_of_policies"))) == 3
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("DROP ROLE asker_of_policies")
