"""Grants as Python computes them, against what the server says, over random roles, memberships and grants."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from cdc.rights import load_rights, read_facts, read_roles
from cdc.rls.grants import rights_of

ROUNDS = 12
COUNT = 7
TRUTH = """
SELECT pg_has_role(%(role)s, c.relowner, 'USAGE'), has_schema_privilege(%(role)s, c.relnamespace, 'USAGE'),
       has_table_privilege(%(role)s, c.oid, 'SELECT'), r.rolsuper, r.rolbypassrls,
       ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
             AND has_column_privilege(%(role)s, c.oid, attnum, 'SELECT') ORDER BY attnum),
       ARRAY(SELECT polname::text FROM pg_policy WHERE polrelid = c.oid AND EXISTS (
             SELECT FROM unnest(polroles) o WHERE o = 0 OR pg_has_role(%(role)s, o, 'USAGE')) ORDER BY polname),
       has_function_privilege(%(role)s, '%(schema)s.mine()', 'EXECUTE')
FROM pg_class c, pg_roles r WHERE c.oid = %(oid)s AND r.rolname = %(role)s
"""


class Graph:
    """Random roles, and a table with random grants, in a schema of its own."""

    def __init__(self, db: psycopg.Connection[Any], chance: random.Random) -> None:
        self.db, self.chance = db, chance
        self.new = db.info.server_version >= 160000
        tag = secrets.token_hex(3)
        self.roles = [f"r{number}_{tag}" for number in range(COUNT)]
        self.schema = f"s_{tag}"
        for role in self.roles:
            attributes = " ".join(word for word, share in ATTRIBUTES.items() if chance.random() < share)
            db.execute(f"CREATE ROLE {role} {attributes}")
        for number, member in enumerate(self.roles):
            for group in self.roles[number + 1 :]:
                if chance.random() < 0.3:
                    self.join(member, group)
            if chance.random() < 0.15:
                self.join(member, chance.choice(["pg_read_all_data", "pg_write_all_data", "pg_monitor"]))
        self.make()

    def join(self, member: str, group: str) -> None:
        option = self.chance.choice(["", " WITH INHERIT TRUE", " WITH INHERIT FALSE"]) if self.new else ""
        self.db.execute(f"GRANT {group} TO {member}{option}")

    def make(self) -> None:
        chance, db, table = self.chance, self.db, f"{self.schema}.t"
        db.execute(f"CREATE SCHEMA {self.schema}; CREATE TABLE {table} (id int, gone int, name text, note text)")
        db.execute(f"ALTER TABLE {table} DROP COLUMN gone; ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        db.execute(f"CREATE FUNCTION {self.schema}.mine() RETURNS int LANGUAGE sql AS 'select 1'")
        if chance.random() < 0.5:
            db.execute(f"REVOKE ALL ON FUNCTION {self.schema}.mine() FROM PUBLIC")
        for _ in range(chance.randrange(6)):
            column, grantee = chance.choice(["id", "name", "note"]), self.somebody()
            right = chance.choice(["SELECT", f"SELECT ({column})", "INSERT", "UPDATE"])
            db.execute(f"GRANT {right} ON {table} TO {grantee}")
        for _ in range(chance.randrange(3)):
            db.execute(f"GRANT USAGE ON SCHEMA {self.schema} TO {self.somebody()}")
            db.execute(f"GRANT EXECUTE ON FUNCTION {self.schema}.mine() TO {self.somebody()}")
        for number in range(3):
            listed = ", ".join({self.somebody(), self.somebody()})
            db.execute(f"CREATE POLICY p{number} ON {table} TO {listed} USING (id = {self.schema}.mine())")
        if chance.random() < 0.7:
            db.execute(f"ALTER TABLE {table} OWNER TO {chance.choice(self.roles)}")
        if chance.random() < 0.3:
            db.execute(f"REVOKE SELECT ON {table} FROM {chance.choice(self.roles)}")
        if chance.random() < 0.3:
            db.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")

    def somebody(self) -> str:
        return self.chance.choice([*self.roles, "PUBLIC"]) if self.chance.random() < 0.9 else "pg_database_owner"

    def drop(self) -> None:
        self.db.execute(f"DROP SCHEMA {self.schema} CASCADE")
        for role in self.roles:
            self.db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


ATTRIBUTES = {"NOINHERIT": 0.25, "BYPASSRLS": 0.1, "SUPERUSER": 0.08}


@pytest.fixture(params=range(ROUNDS))
def graph(request: pytest.FixtureRequest, database: str) -> Iterator[Graph]:
    with psycopg.connect(database, autocommit=True) as db:
        made = Graph(db, random.Random(request.param))
        (name,) = db.execute("SELECT current_database()").fetchone() or ("",)
        db.execute(f'ALTER DATABASE "{name}" OWNER TO {made.roles[request.param % COUNT]}')
        yield made
        db.execute(f'ALTER DATABASE "{name}" OWNER TO CURRENT_USER')
        made.drop()


def test_every_role_has_the_rights_that_the_server_gives_it(graph: Graph) -> None:
    db = graph.db
    (oid,) = db.execute(f"SELECT '{graph.schema}.t'::regclass::oid").fetchone() or (0,)
    for role in graph.roles:
        asked = {"role": role, "oid": oid, "schema": psycopg.sql.SQL(graph.schema)}
        query = TRUTH.replace("%(schema)s", graph.schema)
        truth = db.execute(query, asked | {"schema": None}).fetchone()
        rights = load_rights(db, oid, role)
        mine = next(each for each in rights.functions.values() if each.name == "mine")
        said = (
            rights.owns,
            rights.schema_usage,
            rights.select,
            rights.superuser,
            rights.bypass_rls,
            [column.name for column in rights.columns.values() if column.selectable],
            [policy.name for policy in rights.policies if policy.applies],
            mine.executable,
        )
        assert said == truth, role
        assert rights.exempt is not active(db, role, graph.schema, rights.schema_usage), role


def active(db: psycopg.Connection[Any], role: str, schema: str, usage: bool) -> bool:
    """Whether the server applies row-level security to the role."""
    with db.transaction(force_rollback=True):
        # The function wants the schema's right to find the table; rights on the table do not matter to it.
        db.execute(f"GRANT USAGE ON SCHEMA {schema} TO PUBLIC")
        db.execute(f"SET LOCAL ROLE {role}")
        row = db.execute(f"SELECT row_security_active('{schema}.t')").fetchone()
    return row == (True,)


def test_one_question_is_enough_for_all_roles(graph: Graph) -> None:
    """The same facts, and roles that were asked for together, give the same rights as asked for one by one."""

    (oid,) = graph.db.execute(f"SELECT '{graph.schema}.t'::regclass::oid").fetchone() or (0,)
    facts, roles = read_facts(graph.db, [oid])[oid], read_roles(graph.db, [*graph.roles, "nobody at all"])
    for role in graph.roles:
        assert rights_of(facts, roles, role) == load_rights(graph.db, oid, role)
    assert rights_of(facts, roles, "nobody at all") is None
