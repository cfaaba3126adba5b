"""A table with every type that policies compare: what `decide` says of its rows, and what Postgres says."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
from psycopg import sql

from cdc.catalog import load_types
from cdc.connection import connect
from cdc.operators import Moment
from cdc.predicate import TRUE
from cdc.relation import Column, Relation
from cdc.rights import load_rights
from cdc.rls import Decision, Subject, TableRights, decide
from cdc.values import Types

__all__ = ["CLAIMS", "ONE", "TWO", "Table", "secured_table"]

ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"

CLAIMS = {
    "sub": ONE,
    "role": "authenticated",
    "email": "ab",
    "admin": True,
    "number": 1.5,
    "five": 5,
    "padded": "ab  ",
    "app_metadata": {"owner": TWO},
}

TABLE = """
CREATE DOMAIN pos AS int CHECK (value > 0);
CREATE DOMAIN plain AS text;
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE COLLATION loose FROM "C";
-- Not every build has ICU, which real nondeterministic collations need. Nothing is compared under this one.
UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'loose';
CREATE TABLE w (
    id int PRIMARY KEY, gone int, owner uuid, name text, tag varchar(40), c char(4), n name, ok bool, big bigint,
    sm smallint, d date, ts timestamp, tz timestamptz, num numeric, f4 real, f8 float8, o oid, dom pos, pl plain,
    j jsonb, arr text[], feeling mood, soft text COLLATE loose, twice int GENERATED ALWAYS AS (id * 2) STORED
);
ALTER TABLE w DROP COLUMN gone;
ALTER TABLE w ENABLE ROW LEVEL SECURITY;
INSERT INTO w (id) VALUES (3);
INSERT INTO w (id, owner, name, tag, c, n, ok, big, sm) VALUES
    (1, '11111111-1111-4111-8111-111111111111', 'alpha', 'x y', 'ab', 'ab', true, 5, 5),
    (2, '22222222-2222-4222-8222-222222222222', '', '', '', '', false, -1, -1),
    (4, '11111111-1111-4111-8111-111111111111', 'authenticated', 'alpha', 'ab', 'alpha', NULL, 4294967301, 1),
    (5, '22222222-2222-4222-8222-222222222222', '11111111-1111-4111-8111-111111111111', 'größe', 'abcd', 'é', true,
     7, 7),
    (6, NULL, repeat('long', 3000), '1.50', 'x', 'x', false, 0, 0),
    (7, NULL, 'true', '1000', 'true', 'true', true, NULL, NULL);
UPDATE w SET (d, ts, tz, num, f4, f8, o, dom, pl) =
    (new.d, new.ts, new.tz, new.num, new.f4, new.f8, new.o, new.dom, new.pl)
FROM (VALUES
    (1, date '2020-01-02', timestamp '2020-01-02 03:04:05.678', timestamptz '2020-01-02 03:04:05.678+00', 12.5,
     1.5::real, 1.5::float8, '77'::oid, 5, 'x'),
    (2, 'infinity', '-infinity', 'infinity', 'NaN', 'NaN', '-0', '0', 1, ''),
    (4, '0044-03-15 BC', '2020-01-02 03:04:05', '2020-01-02 05:04:05.678+02', 12.500, 0.1, 0.1, '4294967295', 7,
     'alpha'),
    (5, '12020-01-02', NULL, NULL, -1234567890000000, 'Infinity', 'Infinity', '5', NULL, NULL),
    (6, NULL, NULL, NULL, 'Infinity', 0, 0, NULL, NULL, NULL),
    (7, NULL, NULL, NULL, 0.00, NULL, NULL, NULL, NULL, NULL)
) AS new (id, d, ts, tz, num, f4, f8, o, dom, pl) WHERE w.id = new.id;
"""


class Table:
    """The table `w` in a fresh database, roles of its own, and one connection for each subject."""

    def __init__(self, dsn: str, stack: ExitStack) -> None:
        self.dsn = dsn
        self.stack = stack
        self.connection = stack.enter_context(connect(dsn))
        self.roles: list[str] = []
        self.types = Types()
        self._sessions: dict[Subject, psycopg.Connection] = {}
        self.connection.execute(TABLE)
        (self.oid,) = self.connection.execute("SELECT 'w'::regclass::oid").fetchone() or (0,)
        self.moment = Moment()
        self.read()

    def read(self) -> None:
        """Read columns and rows again."""
        self.relation = self.describe()
        names = sql.SQL(", ").join(sql.Identifier(column.name) for column in self.relation.columns)
        result = self.connection.execute(sql.SQL("SELECT {} FROM w ORDER BY id").format(names)).pgresult
        assert result is not None
        self.places = dict(self.connection.execute("SELECT id, ctid::text FROM w").fetchall())
        self.rows = [[result.get_value(row, at) for at in range(result.nfields)] for row in range(result.ntuples)]

    def describe(self) -> Relation:
        """The relation as pgoutput describes it before version 18: without the generated column."""
        found = self.connection.execute(
            "SELECT attname, atttypid, atttypmod FROM pg_attribute "
            "WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
            (self.oid,),
        ).fetchall()
        self.types.add(load_types(self.connection, self.types.missing(oid for _, oid, _ in found)))
        columns = tuple(Column(name, oid, mod, name == "id", bytes.decode) for name, oid, mod in found)
        return Relation(self.oid, "public", "w", "d", columns, (0,))

    def role(self, name: str, attributes: str = "", grant: bool = True) -> str:
        """A new role, which goes at the end of the test."""
        role = f"{name}_{secrets.token_hex(4)}"
        self.connection.execute(f"CREATE ROLE {role} {attributes}")
        self.roles.append(role)
        if grant:
            self.connection.execute(f"GRANT SELECT ON w TO {role}; GRANT USAGE ON SCHEMA auth TO {role}")
        return role

    def policies(self, clauses: list[str]) -> None:
        """Replace all policies. `group_` and the like stand for the role whose name begins so."""
        for (name,) in self.connection.execute("SELECT polname FROM pg_policy").fetchall():
            self.connection.execute(sql.SQL("DROP POLICY {} ON w").format(sql.Identifier(name)))
        for number, clause in enumerate(clauses):
            for role in self.roles:
                clause = clause.replace(f" {role[:-8]} ", f" {role} ").replace(f" {role[:-8]},", f" {role},")
            self.connection.execute(f"CREATE POLICY p{number} ON w {clause}")

    def rights(self, role: str) -> TableRights:
        found = load_rights(self.connection, self.oid, role)
        self.types.add(load_types(self.connection, self.types.missing(found.type_oids)))
        return found

    def decide(self, subject: Subject, rights: TableRights | None = None) -> Decision:
        """What the subject may see, judged at the moment of the database's clock."""
        (now,) = self.connection.execute("SELECT (extract(epoch FROM now()) * 1000000)::bigint").fetchone() or (0,)
        self.moment.microseconds = now - 946_684_800_000_000
        return decide(rights or self.rights(subject.role), self.relation, self.types, subject, self.moment)

    def shown(self, decision: Decision) -> list[int]:
        """The ids of the rows that the decision shows."""
        return [int(row[0] or 0) for row in self.rows if decision.predicate.test(row) == TRUE]

    def selected(self, subject: Subject, columns: str = "id", where: str = "true") -> list[int] | str:
        """The ids that Postgres shows to this subject, or its SQLSTATE. A session is one subject's for ever:
        a setting that was once set locally is '' and not NULL afterwards."""
        session = self._sessions.get(subject)
        if session is None:
            session = self._sessions[subject] = self.stack.enter_context(psycopg.connect(self.dsn))
        try:
            for name in {name for name, _ in subject.settings} & {"session_authorization"}:
                session.execute(
                    sql.SQL("SET LOCAL SESSION AUTHORIZATION {}").format(sql.Identifier(subject.setting(name) or ""))
                )
            session.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(subject.role)))
            for name, value in subject.settings:
                if name == "session_authorization":
                    continue
                session.execute("SELECT set_config(%s, %s, true)", (name, value))
            rows = session.execute(f"SELECT {columns} FROM public.w WHERE {where} ORDER BY id").fetchall()  # type: ignore[arg-type]
        except psycopg.Error as error:
            return error.sqlstate or "error"
        finally:
            session.rollback()
        return [row[0] for row in rows]

    def asked(self, subject: Subject, key: int) -> bool | None:
        """Whether Postgres shows the row with this id to the subject; None when it raises an error.

        It is asked for by its place: `id = 3` would let the planner leave out what follows from that.
        """
        found = self.selected(subject, where=f"ctid = '{self.places[key]}'")
        return None if isinstance(found, str) else bool(found)


@contextmanager
def secured_table(dsn: str) -> Iterator[Table]:
    """The table for one test; its roles are dropped at the end."""
    with ExitStack() as stack:
        made = Table(dsn, stack)
        yield made
    with psycopg.connect(dsn, autocommit=True) as connection:
        for role in reversed(made.roles):
            connection.execute(f"REASSIGN OWNED BY {role} TO current_user; DROP OWNED BY {role}; DROP ROLE {role}")
