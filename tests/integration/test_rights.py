"""Rights and policies against the server itself: whatever `decide` says of a row, SELECT as that role must say too."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest
from psycopg import sql

from cdc.catalog import load_types
from cdc.connection import connect
from cdc.errors import SubscriptionError
from cdc.predicate import TRUE
from cdc.relation import Column, Relation
from cdc.rights import load_rights
from cdc.rls import Decision, Subject, TableRights, decide
from cdc.rls.compile import _EQUALITIES
from cdc.rls.nodes import read
from cdc.rls.session import _CASTS, _CURRENT_SETTING, EXPR_SUBLINK
from cdc.tuples import UNCHANGED
from cdc.values import Types

ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"

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
INSERT INTO w VALUES
    (1, '11111111-1111-4111-8111-111111111111', 'alpha', 'x y', 'ab', 'ab', true, 5, 5, '2020-01-02',
     '2020-01-02 03:04:05.678', '2020-01-02 03:04:05.678+00', 12.5, 1.5, 1.5, 77, 5, 'x', '{"a": "x"}', '{a}', 'sad', 'a'),
    (2, '22222222-2222-4222-8222-222222222222', '', '', '', '', false, -1, -1, 'infinity', '-infinity', 'infinity',
     'NaN', 'NaN', '-0', 0, 1, '', '{}', '{}', 'glad', 'A'),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL),
    (4, '11111111-1111-4111-8111-111111111111', 'authenticated', 'alpha', 'ab', 'alpha', NULL, 4294967301, 1, '0044-03-15 BC',
     '2020-01-02 03:04:05', '2020-01-02 05:04:05.678+02', 12.500, 0.1, 0.1, 4294967295, 7, 'alpha', 'null', NULL, 'sad', NULL),
    (5, '22222222-2222-4222-8222-222222222222', '11111111-1111-4111-8111-111111111111', 'größe', 'abcd', 'é', true, 7,
     7, '12020-01-02', NULL, NULL, -1234567890000000, 'Infinity', 'Infinity', 5, NULL, NULL, NULL, NULL, NULL, 'ä'),
    (6, NULL, repeat('long', 3000), '1.50', 'x', 'x', false, 0, 0, NULL, NULL, NULL, 'Infinity', 0, 0, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL),
    (7, NULL, 'true', '1000', 'true', 'true', true, NULL, NULL, NULL, NULL, NULL, 0.00, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL);
"""

POLICIES: list[list[str]] = [
    # one permissive policy, by its expression alone
    *(
        [f"USING ({expression})"]
        for expression in (
            "true",
            "false",
            "null",
            "ok",
            "ok = true",
            "false = ok",
            "ok OR NULL",
            "ok AND NULL",
            "(SELECT true) AND ok",
            "id = 3",
            "5 = big",
            "big = 5000000000::bigint",
            "big = 4294967301",
            "sm = 5",
            "sm = -1 OR sm = 70000",
            "sm = 5::smallint",
            "sm = 5::bigint OR id = 3::bigint",
            "o = 77 OR o = '4294967295'",
            "o = -1",
            "name = 'alpha'",
            "name = ''",
            "name = 'größe' OR tag = 'größe'",
            "tag = 'x y'",
            "c = 'ab' OR c = 'x   '",
            "c = 'ab   '::bpchar",
            "n = 'ab' OR n = 'é'",
            "n = 'alpha'::text OR 'ab'::text = n",
            "d = '2020-01-02' OR d = 'infinity'",
            "ts = '2020-01-02 03:04:05.678' OR ts = '-infinity'",
            "tz = '2020-01-02 03:04:05.678+00'",
            "tz = '2020-01-02 05:04:05.678+02' OR tz = 'infinity'",
            "num = 12.50",
            "num = -123456.789e10 OR num = 0",
            "num = 'NaN' OR num = 'Infinity'",
            "num = 1e-5 OR num = 12.5000000000000000000000000000000000000000000000001",
            "f4 = 1.5 OR f4 = 'NaN'",
            "f4 = 0.1",
            "f4 = 0.1::real OR f4 = 0",
            "f8 = 0.1 OR f8 = 'Infinity'",
            "f8 = 0 OR f8 = 0.1::real",
            "dom = 5",
            "pl = 'x' OR pl = 'alpha'",
            "id = NULL",
            "owner = '11111111-1111-4111-8111-111111111111'",
            "owner = auth.uid()",
            "auth.uid() = owner",
            "owner = (SELECT auth.uid())",
            "owner = (SELECT (SELECT auth.uid()))",
            "ok OR owner = auth.uid()",
            "ok AND owner = auth.uid() AND id = 1",
            "(ok AND id = 1) OR (name = '' AND owner = auth.uid())",
            "owner = (auth.jwt() ->> 'sub')::uuid",
            "owner = ((SELECT auth.jwt()) ->> 'sub')::uuid",
            "owner = (SELECT (auth.jwt() ->> 'sub')::uuid)",
            "owner = (auth.jwt() -> 'app_metadata' ->> 'owner')::uuid",
            "name = auth.uid()::text",
            "name = auth.role() OR n = auth.email()",
            "auth.role() = 'authenticated'",
            "(SELECT auth.role()) = 'authenticated' AND ok",
            "auth.role() = auth.email()",
            "(auth.jwt() ->> 'admin')::boolean",
            "name = (auth.jwt() ->> 'admin')",
            "tag = (auth.jwt() ->> 'number')",
            "tag = (auth.jwt() ->> 'big')",
            "num = (auth.jwt() ->> 'number')::numeric AND id = 1",
            "big = (auth.jwt() ->> 'five')::int AND sm = (auth.jwt() ->> 'five')::bigint",
            "f8 = (auth.jwt() ->> 'number')::float8 OR id = (auth.jwt() ->> 'five')::int",
            "c = (auth.jwt() ->> 'padded')::bpchar",
            "tag = (auth.jwt() ->> 'sub')::varchar",
            "name = (auth.jwt() ->> 'absent')",
            "name = (auth.jwt() -> 'sub' ->> 'deeper')",
            "owner = (current_setting('request.jwt.claims', true)::jsonb ->> 'sub')::uuid",
            "owner = (current_setting('request.jwt.claims', true)::json ->> 'sub')::uuid",
            "tag = (current_setting('request.jwt.claims', true)::json ->> 'number')",
            "name = current_setting('app.tenant', true)",
            "name = current_setting('APP.tenant', true) OR ok",
            "name = current_setting('app.tenant')",
            "id = current_setting('app.number', true)::int",
            "owner = current_setting('app.tenant', true)::uuid",
            "owner = (current_setting('app.owner', true))::text::uuid",
        )
    ),
    # what each subject may get an error from
    ["USING (name = (auth.jwt() ->> 'app_metadata'))"],
    ["USING (owner = (auth.jwt() ->> 'five')::uuid)"],
    # several policies
    ["USING (ok)", "USING (owner = auth.uid())"],
    ["USING (true)", "AS RESTRICTIVE USING (owner = auth.uid())"],
    ["USING (true)", "AS RESTRICTIVE USING (owner = auth.uid())", "AS RESTRICTIVE USING (ok)"],
    ["USING (true)", "AS RESTRICTIVE USING (NULL)"],
    ["USING (ok)", "USING (id = 4)", "AS RESTRICTIVE USING (owner = auth.uid() OR id = 7)"],
    ["AS RESTRICTIVE USING (true)"],
    [],
    # commands and WITH CHECK
    ["FOR SELECT USING (ok)", "FOR UPDATE USING (true)", "FOR INSERT WITH CHECK (true)", "FOR DELETE USING (true)"],
    ["FOR UPDATE USING (true)"],
    ["WITH CHECK (true)"],
    ["USING (ok)", "AS RESTRICTIVE WITH CHECK (false)"],
    ["USING (ok)", "AS RESTRICTIVE FOR UPDATE USING (false)"],
    # roles
    ["TO authenticated USING (ok)", "TO anon USING (id = 3)"],
    ["TO group_ USING (ok)"],
    ["TO group_, anon USING (owner = auth.uid())", "USING (id = 6)"],
    ["USING (ok)", "AS RESTRICTIVE TO group_ USING (id = 1)"],
    ["TO owner_ USING (id = 2)"],
]

REFUSED = [
    ("EXISTS (SELECT FROM w v WHERE v.id = w.id)", "sub-query"),
    ("owner IN (SELECT owner FROM w)", "sub-query"),
    ("owner = (SELECT auth.uid() WHERE true)", "sub-query"),
    ("owner = (SELECT auth.uid() LIMIT 1)", "sub-query"),
    ("owner = (SELECT DISTINCT auth.uid())", "sub-query"),
    ("owner = (SELECT auth.uid() UNION SELECT auth.uid())", "sub-query"),
    ("owner = (WITH a AS (SELECT auth.uid() AS u) SELECT u FROM a)", "sub-query"),
    ("owner = (VALUES (auth.uid()))", "sub-query"),
    ("id = (SELECT w.id)", "an expression of the column id"),
    ("id = (SELECT count(*))", "sub-query"),
    ("id IN (1, 2)", "= ANY"),
    ("id <> 1", "operator <>"),
    ("id + 0 = 1", "operator +"),
    ("NOT ok", "NOT"),
    ("owner IS NULL", "IS NULL"),
    ("auth.uid() IS NOT NULL", "IS NOT NULL"),
    ("ok IS TRUE", "IS TRUE"),
    ("id IS DISTINCT FROM 1", "IS DISTINCT FROM"),
    ("CASE WHEN ok THEN true END", "CASE"),
    ("owner = coalesce(auth.uid(), owner)", "COALESCE"),
    ("name = current_user", "current_user"),
    ("name COLLATE \"C\" = 'a'", "COLLATE"),
    ("soft = 'a'", "nondeterministic collation"),
    ("lower(name) = 'a'", "function pg_catalog.lower(text)"),
    ("is_member(owner)", "function public.is_member(uuid)"),
    ("owner = impostor.uid()", "function impostor.uid() (its body is not one that cdc knows)"),
    ("owner = impostor.powerful()", "function impostor.powerful() (its body is not one that cdc knows)"),
    ("owner = impostor.configured()", "function impostor.configured() (its body is not one that cdc knows)"),
    ("owner = impostor.slow()", "function impostor.slow() (written in plpgsql)"),
    ("owner = impostor.later()", "function impostor.later() (its body is not one that cdc knows)"),
    ("owner = impostor.given('x')", "function impostor.given(text)"),
    ("owner = ANY (impostor.uids())", "operator = ANY"),
    ("feeling = 'sad'", "operator ="),
    ("d = ts", "operator = with date and timestamp"),
    ("tz = '2020-01-01'::date", "operator = with timestamp with time zone and date"),
    ("arr = '{a}'", "operator ="),
    ("j ->> 'a' = 'x'", "an expression of the column j"),
    ("owner::text = 'x'", "an expression of the column owner"),
    ("c::text = 'ab'", "function pg_catalog.text(character)"),
    ("dom = (auth.jwt() ->> 'five')::pos", "domain pos"),
    ("name = tag", "two columns"),
    ("w IS NOT NULL", "IS NOT NULL"),
    ("ctid = '(0,1)'", "operator ="),
    ("tableoid = 5", "system column"),
    ("twice = 2", "column twice is not in the publication"),
    ("name = current_setting('server_version')", "current_setting('server_version')"),
    ("name = current_setting(tag, true)", "current_setting of a name that is not a constant"),
    ("name = (auth.jwt() #>> '{a}')", "operator #>>"),
    ("name = (auth.jwt() ->> 0)", "operator ->>"),
    ("tag = (auth.jwt() ->> 'sub')::varchar(3)", "function pg_catalog.varchar(character varying, integer, boolean)"),
    ("name = (auth.jwt() ->> 'sub')::date::text", "cast of date to text"),
    ("id OPERATOR(impostor.=) 1::bigint", "operator impostor.="),
]

IMPOSTORS = f"""
CREATE SCHEMA impostor;
CREATE FUNCTION is_member(uuid) RETURNS bool LANGUAGE sql STABLE AS 'SELECT true';
CREATE FUNCTION impostor.uid() RETURNS uuid LANGUAGE sql STABLE AS $$SELECT '{ONE}'::uuid$$;
CREATE FUNCTION impostor.powerful() RETURNS uuid LANGUAGE sql STABLE SECURITY DEFINER AS
    $$SELECT nullif(current_setting('request.jwt.claim.sub', true), '')::uuid$$;
CREATE FUNCTION impostor.configured() RETURNS uuid LANGUAGE sql STABLE SET search_path = '' AS
    $$SELECT nullif(current_setting('request.jwt.claim.sub', true), '')::uuid$$;
CREATE FUNCTION impostor.slow() RETURNS uuid LANGUAGE plpgsql STABLE AS
    $$BEGIN RETURN nullif(current_setting('request.jwt.claim.sub', true), '')::uuid; END$$;
CREATE FUNCTION impostor.later() RETURNS uuid LANGUAGE sql STABLE
    RETURN nullif(current_setting('request.jwt.claim.sub', true), '')::uuid;
CREATE FUNCTION impostor.given(text) RETURNS uuid LANGUAGE sql STABLE AS
    $$SELECT nullif(current_setting('request.jwt.claim.sub', true), '')::uuid$$;
CREATE FUNCTION impostor.uids() RETURNS uuid[] LANGUAGE sql STABLE AS 'SELECT ARRAY[auth.uid()]';
CREATE FUNCTION impostor.equal(int, bigint) RETURNS bool LANGUAGE sql STABLE AS 'SELECT true';
CREATE OPERATOR impostor.= (FUNCTION = impostor.equal, LEFTARG = int, RIGHTARG = bigint);
"""

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
EXACT = f'{{"sub": "{ONE.upper()}", "number": 1.50, "big": 1e3, "five": "5", "admin": null, "sub": "{TWO}"}}'


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
        self.relation = self.describe()
        names = sql.SQL(", ").join(sql.Identifier(column.name) for column in self.relation.columns)
        result = self.connection.execute(sql.SQL("SELECT {} FROM w ORDER BY id").format(names)).pgresult
        assert result is not None
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
        return load_rights(self.connection, self.oid, role)

    def decide(self, subject: Subject) -> Decision:
        return decide(self.rights(subject.role), self.relation, self.types, subject)

    def shown(self, decision: Decision) -> list[int]:
        """The ids of the rows that the decision shows."""
        return [int(row[0] or 0) for row in self.rows if decision.predicate.test(row) == TRUE]

    def selected(self, subject: Subject, columns: str = "id") -> list[int] | str:
        """The ids that Postgres shows to this subject, or its SQLSTATE. A session is one subject's for ever:
        a setting that was once set locally is '' and not NULL afterwards."""
        session = self._sessions.get(subject)
        if session is None:
            session = self._sessions[subject] = self.stack.enter_context(psycopg.connect(self.dsn))
        try:
            session.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(subject.role)))
            for name, value in subject.settings:
                session.execute("SELECT set_config(%s, %s, true)", (name, value))
            rows = session.execute(f"SELECT {columns} FROM public.w ORDER BY id").fetchall()  # type: ignore[arg-type]
        except psycopg.Error as error:
            return error.sqlstate or "error"
        finally:
            session.rollback()
        return [row[0] for row in rows]


@pytest.fixture
def table(database: str) -> Iterator[Table]:
    with ExitStack() as stack:
        made = Table(database, stack)
        yield made
        made._sessions.clear()
        stack.pop_all().close()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"REASSIGN OWNED BY {', '.join(made.roles)} TO current_user") if made.roles else None
        for role in reversed(made.roles):
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_oracle(table: Table) -> None:
    table.connection.execute("GRANT SELECT ON w TO anon, authenticated")
    group = table.role("group", grant=False)
    owner = table.role("owner", grant=False)
    inherits = table.role("inherits", f"INHERIT IN ROLE {group}")
    keeps = table.role("keeps", f"NOINHERIT IN ROLE {group}")
    bypass = table.role("bypass", "BYPASSRLS")
    subjects = [
        Subject("anon"),
        Subject("authenticated", CLAIMS, {"app.tenant": "alpha", "app.number": " 4 "}),
        Subject("authenticated", EXACT, {"app.tenant": "", "app.owner": ONE}),
        Subject("authenticated", settings={"request.jwt.claims": "", "request.jwt.claim.sub": TWO}),
        Subject(inherits, {"sub": "no uuid"}, {"app.number": "four", "app.tenant": TWO}),
        Subject(keeps, {"sub": TWO, "role": None}),
        Subject(bypass, {"sub": ONE}),
        Subject(owner, {"sub": TWO}),
        Subject("postgres", {"sub": ONE}),
    ]
    table.connection.execute(f"ALTER TABLE w OWNER TO {owner}")
    seen: set[tuple[int, ...]] = set()
    errors = 0
    for clauses in POLICIES:
        table.policies(clauses)
        for subject in subjects:
            decision = table.decide(subject)
            truth = table.selected(subject)
            where = f"{clauses} as {subject!r}: {decision.denied}"
            assert not decision.unsupported, where
            if isinstance(truth, str):
                errors += 1
                assert decision.denied and "cannot be evaluated" in decision.denied, f"{where}, not {truth}"
            elif decision.denied and "cannot be evaluated" in decision.denied:
                # Stricter than Postgres: it did not reach the expression, or reads what cdc refuses to read.
                assert not table.shown(decision)
                assert any("(SELECT" in clause or "app_metadata" in clause for clause in clauses), where
            else:
                assert table.shown(decision) == truth, where
                seen.add(tuple(truth))
            assert decision.exempt == (subject.role in (bypass, owner, "postgres"))
    assert len(seen) > 15 and errors > 15


def test_force_binds_the_owner_and_nobody_who_bypasses(table: Table) -> None:
    owner = table.role("owner", grant=False)
    heir = table.role("heir", f"IN ROLE {owner}")
    stranger = table.role("stranger", f"NOINHERIT IN ROLE {owner}")
    table.connection.execute(f"ALTER TABLE w OWNER TO {owner}")
    table.policies(["USING (ok)"])
    subjects = [Subject(role) for role in (owner, heir, stranger, "postgres")]
    shown = {}
    for forced in (False, True):
        table.connection.execute(f"ALTER TABLE w {'' if forced else 'NO '}FORCE ROW LEVEL SECURITY")
        for subject in subjects:
            decision = table.decide(subject)
            assert table.shown(decision) == table.selected(subject)
            shown[subject.role, forced] = decision.exempt
    assert [shown[subject.role, False] for subject in subjects] == [True, True, False, True]
    assert [shown[subject.role, True] for subject in subjects] == [False, False, False, True]
    table.connection.execute("ALTER TABLE w DISABLE ROW LEVEL SECURITY")
    assert table.decide(Subject(stranger)).exempt
    assert len(table.shown(table.decide(Subject(stranger)))) == len(table.rows)


def test_bypass_is_not_inherited(table: Table) -> None:
    bypass = table.role("bypass", "BYPASSRLS")
    member = table.role("member", f"IN ROLE {bypass}")
    table.policies(["USING (ok)"])
    assert table.decide(Subject(bypass)).exempt
    decision = table.decide(Subject(member))
    assert not decision.exempt
    assert table.shown(decision) == table.selected(Subject(member)) == [1, 5, 7]


def test_privileges_come_first(table: Table) -> None:
    role = table.role("reader", grant=False)
    table.policies(["USING (owner = auth.uid())"])
    subject = Subject(role, {"sub": ONE})

    def denial() -> str | None:
        decision = table.decide(subject)
        assert (decision.denied is None) == (table.shown(decision) != [])
        return decision.denied

    assert denial() == f"role {role} has no SELECT right on public.w"
    assert table.selected(subject) == "42501"
    table.connection.execute(f"GRANT SELECT (name, num) ON w TO {role}")
    assert denial() == f"role {role} has no SELECT right on id, the key of public.w"
    table.connection.execute(f"GRANT SELECT (id) ON w TO {role}")
    decision = table.decide(subject)
    assert decision.denied is None
    # The policy reads a column that the subscriber may not.
    assert table.shown(decision) == table.selected(subject, "id, name, num") == [1, 4]
    assert {column.name for column in table.relation.columns} - decision.hidden == {"id", "name", "num"}
    table.connection.execute(f"GRANT SELECT ON w TO {role}")
    assert table.decide(subject).hidden == frozenset()
    table.connection.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC, anon, authenticated, service_role")
    assert denial() == f"role {role} has no USAGE right on schema public"
    assert table.selected(subject) == "42501"


def test_inherited_privileges_count(table: Table) -> None:
    group = table.role("group")
    inherits = table.role("inherits", f"INHERIT IN ROLE {group}", grant=False)
    keeps = table.role("keeps", f"NOINHERIT IN ROLE {group}", grant=False)
    table.policies(["USING (ok)"])
    assert table.shown(table.decide(Subject(inherits))) == table.selected(Subject(inherits)) == [1, 5, 7]
    assert table.decide(Subject(keeps)).denied == f"role {keeps} has no SELECT right on public.w"
    assert table.selected(Subject(keeps)) == "42501"


def test_no_policy_for_the_role_says_so(table: Table) -> None:
    table.connection.execute("GRANT SELECT ON w TO anon")
    table.policies(["TO authenticated USING (true)"])
    decision = table.decide(Subject("anon"))
    assert decision.denied == "row-level security is on, and no policy lets role anon read"
    assert not decision.unsupported and not decision.exempt


def test_a_function_that_the_role_may_not_execute(table: Table) -> None:
    table.connection.execute("GRANT SELECT ON w TO anon, authenticated")
    table.connection.execute("REVOKE EXECUTE ON FUNCTION auth.uid() FROM PUBLIC")
    table.connection.execute("GRANT EXECUTE ON FUNCTION auth.uid() TO authenticated")
    table.policies(["USING (owner = auth.uid())"])
    allowed, refused = Subject("authenticated", CLAIMS), Subject("anon", CLAIMS)
    assert table.shown(table.decide(allowed)) == table.selected(allowed) == [1, 4]
    assert "role anon has no EXECUTE right on auth.uid()" in str(table.decide(refused).denied)
    assert table.selected(refused) == "42501"


def test_what_is_not_supported_is_refused_by_name(table: Table) -> None:
    table.connection.execute("GRANT SELECT ON w TO authenticated")
    table.connection.execute(IMPOSTORS)
    subject = Subject("authenticated", CLAIMS, {"app.tenant": "alpha"})
    for expression, construct in REFUSED:
        table.policies([f"USING ({expression})"])
        decision = table.decide(subject)
        assert [found.policy for found in decision.unsupported] == ["p0"], expression
        assert construct in decision.unsupported[0].construct, f"{expression}: {decision.unsupported[0]}"
        assert decision.denied and table.shown(decision) == []


def test_what_is_not_supported_is_safe(table: Table) -> None:
    table.connection.execute("GRANT SELECT ON w TO authenticated")
    subject = Subject("authenticated", CLAIMS)
    table.policies(["USING (id <> 1)", "USING (owner = auth.uid())"])
    permissive = table.decide(subject)
    assert permissive.denied is None and len(permissive.unsupported) == 1
    assert table.shown(permissive) == [1, 4]
    table.policies(["AS RESTRICTIVE USING (id <> 1)", "USING (owner = auth.uid())"])
    restrictive = table.decide(subject)
    assert restrictive.denied == 'restrictive policy "p0": operator <> is not supported'
    assert len(restrictive.unsupported) == 1 and table.shown(restrictive) == []
    table.policies(["TO anon USING (id <> 1)", "USING (owner = auth.uid())"])
    assert not table.decide(subject).unsupported


@pytest.mark.parametrize(
    "body",
    [
        "SELECT auth.uid() -- select",
        "select nullif(current_setting('request.jwt.claim.sub', true), '')::uuid union select null",
        "select nullif(current_setting('request.jwt.claim.SUB', true), '')::uuid",
        "select nullif(current_setting('request.jwt.claim.sub', false), '')::uuid",
        "select nullif(public.current_setting('request.jwt.claim.sub', true), '')::uuid",
    ],
)
def test_a_replaced_auth_uid_is_refused(table: Table, body: str) -> None:
    table.connection.execute("GRANT SELECT ON w TO authenticated")
    table.policies(["USING (owner = auth.uid())"])
    subject = Subject("authenticated", CLAIMS)
    before = table.rights("authenticated")
    assert not table.decide(subject).unsupported
    table.connection.execute("CREATE FUNCTION public.current_setting(text, bool) RETURNS text LANGUAGE sql AS 'SELECT $1'")
    table.connection.execute(f"CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql AS $f${body}$f$")
    assert table.rights("authenticated") != before
    (unsupported,) = table.decide(subject).unsupported
    assert unsupported.construct == "function auth.uid() (its body is not one that cdc knows)"


KNOWN_BODIES = [
    "select nullif(current_setting('request.jwt.claim.sub', true), '')::uuid;",
    "SELECT NULLIF ( current_setting ( 'request.jwt.claim.sub' , TRUE ) , '' ) :: UUID",
    "select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid",
    "select (current_setting('request.jwt.claims', true)::jsonb ->> 'sub')::uuid -- the whole",
    "select coalesce((nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'), "
    "nullif(current_setting('request.jwt.claim.sub', true), ''))::uuid",
    "/* old */ select coalesce(current_setting('request.jwt.claim.sub', true), "
    "(current_setting('request.jwt.claims', true)::jsonb ->> 'sub'))::uuid",
]


def test_known_bodies_mean_what_they_mean_to_postgres(table: Table) -> None:
    table.connection.execute("GRANT SELECT ON w TO authenticated")
    table.policies(["USING (owner = auth.uid())"])
    settings = "request.jwt.claims", "request.jwt.claim.sub"
    values = [None, "", ONE, f'{{"sub": "{TWO}"}}', '{"sub": ""}', "{", '{"sub": null}', '{"sub": 1}']
    for body in KNOWN_BODIES:
        table.connection.execute(f"CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql AS $f${body}$f$")
        for whole in values:
            for own in values[:3]:
                declared = {name: value for name, value in zip(settings, (whole, own), strict=True) if value is not None}
                subject = Subject("authenticated", settings=declared)
                decision, truth = table.decide(subject), table.selected(subject)
                assert not decision.unsupported
                assert (decision.denied is not None) == isinstance(truth, str), f"{body} {subject.settings} {truth}"
                assert isinstance(truth, str) or table.shown(decision) == truth, f"{body} {subject.settings}"


def test_json_is_read_as_postgres_reads_it(table: Table) -> None:
    documents = [
        '{"a": 1}', '{"a": -0}', '{"a": 0.0}', '{"a": -0.00}', '{"a": 1.50}', '{"a": 1E3}', '{"a": 1.5e-3}', '{"a": 12e-1}',
        '{"a": 1e20}', '{"a": 123456789012345678901234567890.10}', '{"a": 0e5}', '{"a": 0.0e-3}', '{"a": true}', '{"a": false}',
        '{"a": null}', '{"a": ""}', '{"a": "x\\ny\\u00e9\\ud83d\\ude00"}', '{"a": 1, "a": "two"}', '{"b": 1}', "[1]", '"a"',
        "1", "null", ' { "a" : "b" } ', '{"a": "x', "{a: 1}", '{"a": 01}', '{"a": NaN}', '{"a": "\\u0000"}', '{"a": "\\ud83d"}',
        '{"a": 1e400000}', '{"a": {"b": 1}}', '{"a": [1]}', "", "nonsense", '{"a": .5}', '{"a": +1}', "{'a': 1}", '{"a": 1,}',
    ]  # fmt: skip
    for kind in ("json", "jsonb"):
        table.connection.execute("GRANT SELECT ON w TO authenticated")
        table.policies([f"USING (name = (current_setting('app.json')::{kind} ->> 'a') OR true)"])
        for document in documents:
            subject = Subject("authenticated", settings={"app.json": document})
            (rights,) = [table.rights("authenticated")]
            text = _evaluated(rights, table, subject)
            try:
                query = f"SELECT %s::{kind} ->> 'a'"
                truth = table.connection.execute(query, (document,)).fetchone()  # type: ignore[arg-type]
            except psycopg.Error:
                truth = None
            if text is not ...:
                assert truth == (text,), f"{kind} {document}"
            else:
                refused = truth is None or (truth[0] or "").startswith(("{", "["))
                assert refused or document in ('{"a": NaN}', '{"a": "\\ud83d"}', '{"b": 1}'), f"{kind} {document}"


def _evaluated(rights: TableRights, table: Table, subject: Subject) -> object:
    """What the policy's session expression is for a subject: the name that a row needs; ... when it has no value."""
    from cdc.rls.constructs import Scope
    from cdc.rls.session import SessionError, compile_session

    tree = read(str(rights.policies[0].node_text)).nodes("args")[0].nodes("args")[1]
    session = compile_session(tree, Scope(rights, table.relation, table.types))
    try:
        return session.value(subject)
    except SessionError:
        return ...


def test_an_unsent_cell_leaves_it_open(table: Table) -> None:
    table.connection.execute("GRANT SELECT ON w TO authenticated")
    table.policies(["USING (owner = auth.uid() OR ok)"])
    predicate = table.decide(Subject("authenticated", CLAIMS)).predicate
    cells = [UNCHANGED] * len(table.relation.columns)
    owner, ok = table.relation.whole.columns["owner"], table.relation.whole.columns["ok"]
    assert predicate.columns == {owner, ok}
    assert predicate.test(cells) not in (TRUE,)
    assert predicate.test([*cells[:owner], ONE.encode(), *cells[owner + 1 :]]) == TRUE


def test_what_does_not_exist(table: Table) -> None:
    with pytest.raises(SubscriptionError, match='role "nobody at all" does not exist'):
        table.rights("nobody at all")
    with pytest.raises(SubscriptionError, match="no table with OID 1 any more"):
        load_rights(table.connection, 1, "postgres")


def test_rights_are_equal_until_something_changes(table: Table) -> None:
    role = table.role("reader")
    table.policies(["USING (owner = auth.uid())"])
    changes: list[str] = [
        f"REVOKE SELECT ON w FROM {role}",
        f"GRANT SELECT (id) ON w TO {role}",
        "ALTER POLICY p0 ON w USING (ok)",
        "ALTER POLICY p0 ON w TO anon",
        "ALTER TABLE w FORCE ROW LEVEL SECURITY",
        f"ALTER ROLE {role} BYPASSRLS",
        "ALTER TABLE w RENAME COLUMN ok TO fine",
        "ALTER TABLE w DISABLE ROW LEVEL SECURITY",
    ]
    before = table.rights(role)
    assert before == table.rights(role)
    for change in changes:
        table.connection.execute(change)
        after = table.rights(role)
        assert after != before, change
        before = after


def test_a_renamed_or_retyped_column_is_not_mistaken(table: Table) -> None:
    table.connection.execute("GRANT SELECT ON w TO authenticated")
    table.policies(["USING (name = 'alpha')"])
    table.connection.execute("ALTER TABLE w RENAME name TO title; ALTER TABLE w RENAME tag TO name")
    # The stream still describes the table of before: its `name` is the policy's `title`, of another type here.
    decision = table.decide(Subject("authenticated"))
    assert decision.unsupported[0].construct == "column title is not in the publication"
    table.policies(["USING (name = 'alpha')"])
    assert "another type" in table.decide(Subject("authenticated")).unsupported[0].construct


def test_the_numbers_that_the_code_relies_on(table: Table) -> None:
    connection = table.connection
    for oid, (left, right) in _EQUALITIES.items():
        row = connection.execute(
            "SELECT oprname, oprleft, oprright FROM pg_operator WHERE oid = %s AND oprnamespace = 'pg_catalog'::regnamespace",
            (oid,),
        ).fetchone()
        assert row == ("=", left, right), oid
    arguments = "SELECT proargtypes::oid[]::bigint[], prorettype, provolatile::text FROM pg_proc WHERE oid = %s"
    for oid, (source, target) in _CASTS.items():
        assert connection.execute(arguments, (oid,)).fetchone() == ([source], target, "i"), oid
    for oid, count in _CURRENT_SETTING.items():
        row = connection.execute("SELECT proname, pronargs::int FROM pg_proc WHERE oid = %s", (oid,)).fetchone()
        assert row == ("current_setting", count)
    for oid, name in {3211: "->", 3477: "->>", 3962: "->", 3963: "->>"}.items():
        row = connection.execute("SELECT oprname, oprright FROM pg_operator WHERE oid = %s", (oid,)).fetchone()
        assert row == (name, 25)
    numbers = {
        "EXISTS (SELECT 1)": 0,
        "id = ALL (SELECT 1)": 1,
        "id = ANY (SELECT 1)": 2,
        "(id, id) = (SELECT 1, 2)": 3,
        "(SELECT true)": EXPR_SUBLINK,
    }
    for expression, number in numbers.items():
        table.policies([f"USING ({expression})"])
        assert read(str(table.rights("postgres").policies[0].node_text)).number("subLinkType") == number
