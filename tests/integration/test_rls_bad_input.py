"""Bad input to row-level security, over the real stream: denied with a reason, counted, and nobody else notices."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import RIGHTS, Running, until

SLOW = 600.0
"""Seconds between two looks at the catalog: what is seen then, the stream has brought."""
ONE = "11111111-1111-4111-8111-111111111111"
OPEN = """
ALTER TABLE wells REPLICA IDENTITY FULL;
ALTER TABLE wells ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON wells TO authenticated, anon;
CREATE FUNCTION mine() RETURNS uuid LANGUAGE sql STABLE
    RETURN (current_setting('request.jwt.claims', true)::jsonb ->> 'sub')::uuid;
CREATE POLICY own ON wells FOR SELECT TO authenticated USING (project_id = mine());
CREATE POLICY other ON wells FOR SELECT TO anon USING (id > 0);
"""
USER = cdc.Subject("authenticated", {"sub": ONE})


@pytest.fixture
def db(db: psycopg.Connection) -> psycopg.Connection:
    """A table of which authenticated may read what is theirs, and anon everything."""
    db.execute(OPEN)
    db.execute(RIGHTS)
    return db


def insert(db: psycopg.Connection, *ids: int, table: str = "wells", depth: int = 1) -> None:
    for number in ids:
        db.execute(f"INSERT INTO {table} (id, project_id, depth) VALUES ({number}, '{ONE}', {depth})")


def told(events: list[Any]) -> list[Any]:
    return [event.kind.value if isinstance(event, cdc.Gap) else event.key for event in events]


class Three:
    """A consumer with a subject that something happens to, another subject, and a trusted subscriber."""

    def __init__(self, kind: str, dsn: str, subject: cdc.Subject = USER, table: str = "wells", **options: Any) -> None:
        self.seen: list[Any] = []
        self.other: list[Any] = []
        self.trusted: list[Any] = []

        def prepare(running: Running) -> None:
            self.subscription = running.subscribe(table, self.seen.append, subject=subject)
            self.beside = running.subscribe(table, self.other.append, subject=cdc.Subject("anon"))
            running.on(table, self.trusted.append)

        self.running = Running(kind, dsn, prepare, **({"rights_interval": SLOW} | options))

    def __enter__(self) -> Three:
        self.running.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.running.__exit__(*error)

    def caught_up(self, db: psycopg.Connection) -> list[Any]:
        self.running.caught_up(db)
        return told(self.seen)

    def nobody_else_noticed(self, *keys: int) -> None:
        assert told(self.other) == told(self.trusted) == list(keys)
        assert (self.beside.denied, self.beside.errors, self.beside.undecided) == (None, 0, 0)
        assert self.running.consumer.health().colour is cdc.Colour.GREEN


SPOILED = {
    "a policy dropped": ("DROP POLICY own ON wells", "no policy lets role authenticated read"),
    "a function replaced by one that fails": (
        "CREATE OR REPLACE FUNCTION mine() RETURNS uuid LANGUAGE sql STABLE RETURN 'no uuid'::text::uuid",
        'policy "own"',
    ),
    "a function replaced by one that cdc does not run": (
        "CREATE OR REPLACE FUNCTION mine() RETURNS uuid LANGUAGE plpgsql STABLE AS 'BEGIN RETURN NULL; END'",
        "written in plpgsql",
    ),
    "a policy that reads its own table": (
        "ALTER POLICY own ON wells USING (EXISTS (SELECT FROM wells AS again WHERE again.id = wells.id))",
        "sub-query",
    ),
    "two functions that call each other": (
        "CREATE FUNCTION yours() RETURNS uuid LANGUAGE sql STABLE AS 'SELECT mine()';"
        "CREATE OR REPLACE FUNCTION mine() RETURNS uuid LANGUAGE sql STABLE AS 'SELECT public.yours()'",
        "function public.mine()",
    ),
    "a claim divided by zero": ("ALTER POLICY own ON wells USING (id / (length(mine()::text) - 36) = 0)", ""),
    "a policy a thousand deep": (
        f"ALTER POLICY own ON wells USING ({'abs(' * 400}id{')' * 400} = 1)",
        "a node tree that cdc cannot read",
    ),
    "functions within functions, each ninety calls deep": (
        f"CREATE FUNCTION deep1() RETURNS int LANGUAGE sql STABLE RETURN {'abs(' * 90}1{')' * 90};"
        f"CREATE FUNCTION deep2() RETURNS int LANGUAGE sql STABLE RETURN {'abs(' * 90}deep1(){')' * 90};"
        f"CREATE FUNCTION deep3() RETURNS int LANGUAGE sql STABLE RETURN {'abs(' * 90}deep2(){')' * 90};"
        f"ALTER POLICY own ON wells USING ({'abs(' * 90}deep3(){')' * 90} = id)",
        "nested too deep",
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_what_is_spoiled_in_mid_stream(kind: str, database: str, db: psycopg.Connection, what: str) -> None:
    step, reason = SPOILED[what]
    with Three(kind, database) as three:
        insert(db, 1)
        db.execute(step)
        insert(db, 2)
        keys = [key for key in three.caught_up(db) if key != "rights"]
        assert keys == [1]
        subscription = three.subscription
        assert subscription.errors == 1 or subscription.denied is not None
        assert reason in str(subscription.denied)
        three.nobody_else_noticed(1, 2)


def test_a_table_renamed_in_mid_stream(kind: str, database: str, db: psycopg.Connection) -> None:
    """Another table takes the name: its rows are judged by its own policies, of which there are none."""
    with Three(kind, database, on_gap="deliver") as three:
        insert(db, 1)
        with db.transaction():
            db.execute("ALTER TABLE wells RENAME TO holes")
            db.execute("CREATE TABLE wells (LIKE holes INCLUDING ALL); ALTER TABLE wells ENABLE ROW LEVEL SECURITY")
            db.execute("ALTER TABLE wells REPLICA IDENTITY FULL; ALTER PUBLICATION wells ADD TABLE wells")
            db.execute("GRANT SELECT ON wells TO authenticated, anon")
            db.execute("CREATE POLICY other ON wells FOR SELECT TO anon USING (true)")
            insert(db, 2)
        three.caught_up(db)
        assert [event.key for event in three.seen if not isinstance(event, cdc.Gap)] == [1]
        assert "no policy lets role authenticated read" in str(three.subscription.denied)
        assert [event.key for event in three.other if not isinstance(event, cdc.Gap)] == [1, 2]


def test_a_policy_that_divides_by_zero(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER POLICY own ON wells USING (100 / depth > 5 AND project_id = mine())")
    with Three(kind, database) as three:
        insert(db, 1)
        insert(db, 2, depth=0)
        insert(db, 3)
        db.execute("UPDATE wells SET depth = 0 WHERE id = 1")
        assert three.caught_up(db)[:2] == [1, 3]
        assert three.subscription.denied is None
        assert three.subscription.errors == 2
        assert "division by zero" in str(three.subscription.problem)
        assert told(three.other) == told(three.trusted) == [1, 2, 3, 1]
        assert three.beside.errors == 0


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"sub": "no uuid"}, "invalid input for type uuid"),
        ({"sub": 7}, "invalid input for type uuid"),
        ({"sub": True}, "invalid input for type uuid"),
        ({"sub": [ONE]}, "invalid input for type uuid"),
        ({"sub": {"sub": ONE}}, "invalid input for type uuid"),
        ({"sub": ""}, "invalid input for type uuid"),
        ({"sub": "x" * 1_000_000}, "invalid input for type uuid"),
    ],
    ids=["no uuid", "number", "boolean", "list", "object", "empty", "1 MB"],
)
def test_claims_of_wrong_types(
    kind: str, database: str, db: psycopg.Connection, claims: dict[str, Any], reason: str
) -> None:
    with Three(kind, database, cdc.Subject("authenticated", claims)) as three:
        insert(db, 1)
        assert three.caught_up(db) == []
        assert reason in str(three.subscription.denied)
        assert "no uuid" not in str(three.subscription.denied) and ONE not in str(three.subscription.denied)
        assert len(str(three.subscription.denied)) < 300
        three.nobody_else_noticed(1)


def test_a_claim_that_is_null_shows_nothing(kind: str, database: str, db: psycopg.Connection) -> None:
    with Three(kind, database, cdc.Subject("authenticated", {"sub": None})) as three:
        insert(db, 1)
        assert three.caught_up(db) == []
        three.nobody_else_noticed(1)


def test_a_megabyte_of_claims_is_a_subject_like_any_other(kind: str, database: str, db: psycopg.Connection) -> None:
    with Three(kind, database, cdc.Subject("authenticated", {"sub": ONE, "notes": ["x" * 100] * 10_000})) as three:
        insert(db, 1, 2)
        assert three.caught_up(db) == [1, 2]
        three.nobody_else_noticed(1, 2)


def test_claims_that_are_nested_too_deep_are_refused() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    with pytest.raises(cdc.SubscriptionError, match="claims are not JSON: it is nested too deep"):
        cdc.Subject("authenticated", '{"sub": ' + deep + "}")


def test_a_setting_that_is_nested_too_deep_denies_that_subject(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    deep = '{"sub": ' + "[" * 100_000 + "]" * 100_000 + "}"
    subject = cdc.Subject("authenticated", settings={"request.jwt.claims": deep})
    with Three(kind, database, subject) as three:
        insert(db, 1)
        assert three.caught_up(db) == []
        assert "nested too deep" in str(three.subscription.denied)
        three.nobody_else_noticed(1)


def test_a_role_dropped_and_made_again_while_subscribed(kind: str, database: str, db: psycopg.Connection) -> None:
    """The new role has the name of the old one, and none of its rights."""
    db.execute("DROP ROLE IF EXISTS \"a role; of 'mine'\"; CREATE ROLE \"a role; of 'mine'\"")
    db.execute("ALTER POLICY own ON wells TO PUBLIC; GRANT SELECT ON wells TO \"a role; of 'mine'\"")
    role = "a role; of 'mine'"
    try:
        with Three(kind, database, cdc.Subject(role, {"sub": ONE}), rights_interval=0.1) as three:
            insert(db, 1)
            assert three.caught_up(db) == [1]
            db.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')
            until(lambda: "does not exist" in str(three.subscription.denied))
            insert(db, 2)
            assert three.caught_up(db) == [1, "rights"]
            db.execute(f'CREATE ROLE "{role}"')
            until(lambda: "no SELECT right" in str(three.subscription.denied))
            insert(db, 3)
            assert three.caught_up(db) == [1, "rights"]
            three.nobody_else_noticed(1, 2, 3)
    finally:
        db.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


def test_a_table_without_columns(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(
        "CREATE TABLE bare (); ALTER TABLE bare ENABLE ROW LEVEL SECURITY; ALTER PUBLICATION wells ADD TABLE bare"
    )
    db.execute("GRANT SELECT ON bare TO authenticated; CREATE POLICY bare ON bare USING (mine() IS NOT NULL)")
    seen: list[Any] = []
    denied: list[Any] = []
    with Three(kind, database) as three:
        terms: dict[str, Any] = {"operations": ["INSERT"]}
        three.running.subscribe("bare", seen.append, subject=USER, **terms)
        other = three.running.subscribe("bare", denied.append, subject=cdc.Subject("anon"), **terms)
        db.execute("INSERT INTO bare DEFAULT VALUES")
        insert(db, 1)
        assert three.caught_up(db) == [1]
        assert [dict(event.new) for event in seen] == [{}]
        assert denied == [] and "no SELECT right on public.bare" in str(other.denied)
        three.nobody_else_noticed(1)


def test_an_error_that_some_rows_reach_is_no_part_of_another_subjects_condition(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """Both subjects have 5 as the first setting that is a number; for one of them a row that reaches it raises."""
    settings = "current_setting('app.a')::int, current_setting('app.b')::int"
    db.execute(f"ALTER POLICY own ON wells USING (CASE WHEN id > 0 THEN coalesce(depth::int, {settings}) = 5 END)")
    good = cdc.Subject("authenticated", settings={"app.a": "5", "app.b": "7"})
    seen: list[Any] = []
    with Three(kind, database, good) as three:
        wrong = three.running.subscribe(
            "wells", seen.append, subject=cdc.Subject("authenticated", settings={"app.a": "bad", "app.b": "5"})
        )
        insert(db, 1, depth=5)
        db.execute("INSERT INTO wells (id) VALUES (2)")
        assert three.caught_up(db) == [1, 2]
        assert told(seen) == [1] and (wrong.denied, wrong.errors) == (None, 1)
        assert "invalid input for type integer" in str(wrong.problem)
        three.nobody_else_noticed(1, 2)


def test_numbers_that_python_hashes_alike_are_other_rights(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER POLICY own ON wells USING (depth = -1)")
    with Three(kind, database) as three:
        insert(db, 1, depth=-1)
        db.execute("ALTER POLICY own ON wells USING (depth = -2)")
        insert(db, 2, depth=-1)
        insert(db, 3, depth=-2)
        assert three.caught_up(db) == [1, "rights", 3]
        three.nobody_else_noticed(1, 2, 3)


@pytest.mark.parametrize("wrong", ["nope=eq.1", "depth=eq.x", "depth=gt.1", "notes=match.("])
def test_a_mistake_in_a_filter_names_no_hidden_column(database: str, db: psycopg.Connection, wrong: str) -> None:
    db.execute("REVOKE SELECT ON wells FROM authenticated; GRANT SELECT (id, project_id) ON wells TO authenticated")
    column = wrong.partition("=")[0]
    with Running("blocking", database, lambda running: None) as running:
        with pytest.raises(cdc.SubscriptionError) as caught:
            running.subscribe("wells", print, subject=USER, filter=wrong)
        said = str(caught.value).replace(f"reads {column}", "")
        assert not any(hidden in said for hidden in ("depth", "notes", "numeric", "pattern"))
        assert ("id, project_id" in said) == (column == "nope")
        nobody = running.subscribe("wells", print, subject=cdc.Subject("service_role"), filter=wrong)
        assert nobody.denied == "role service_role has no SELECT right on public.wells"


def test_a_pattern_tells_nothing_of_a_table_that_the_subject_may_not_read(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """Not even that another table has its name; and a consumer that stops at gaps does not stop at it."""
    make = "CREATE TABLE hush (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE hush"
    db.execute(make)
    seen: list[Any] = []
    with Three(kind, database) as three:
        family = three.running.subscribe("public.*", seen.append, subject=USER)
        db.execute("INSERT INTO hush VALUES (1)")
        insert(db, 1)
        with db.transaction():
            db.execute(f"ALTER TABLE hush RENAME TO old; {make}; INSERT INTO hush VALUES (2)")
        db.execute("ALTER TABLE hush ADD COLUMN more int; INSERT INTO hush VALUES (3); TRUNCATE hush")
        insert(db, 2)
        assert three.caught_up(db) == told(seen) == [1, 2]
        assert "no SELECT right on public.hush" in str(family.denied)
        three.nobody_else_noticed(1, 2)


ENUM = """
CREATE TYPE sight AS ENUM ('open', 'shut');
CREATE TABLE doors (id int PRIMARY KEY, sight sight, same sight DEFAULT 'open');
ALTER TABLE doors REPLICA IDENTITY FULL; ALTER TABLE doors ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON doors TO authenticated; ALTER PUBLICATION wells ADD TABLE doors;
"""
SWAP = """
ALTER TYPE sight RENAME VALUE 'open' TO 'passing'; ALTER TYPE sight RENAME VALUE 'shut' TO 'open';
ALTER TYPE sight RENAME VALUE 'passing' TO 'shut';
"""


@pytest.mark.parametrize("policy", ["sight = 'open'", "sight < 'shut'"])
def test_labels_of_an_enum_that_change_places(kind: str, database: str, db: psycopg.Connection, policy: str) -> None:
    """A policy means a label by its OID, whatever it is called; names are looked up as roles are."""
    db.execute(ENUM + f"CREATE POLICY seen ON doors FOR SELECT TO authenticated USING ({policy})")
    seen: list[Any] = []
    with Three(kind, database, rights_interval=0.1) as three:
        three.running.subscribe("doors", seen.append, subject=USER)
        db.execute("INSERT INTO doors VALUES (1, 'open'), (2, 'shut')")
        three.caught_up(db)
        db.execute(SWAP)
        until(lambda: told(seen) == [1, "rights"])
        db.execute("INSERT INTO doors VALUES (3, 'open'), (4, 'shut')")
        db.execute("ALTER TYPE sight ADD VALUE 'ajar' BEFORE 'shut'")
        until(lambda: three.running.consumer._loop.link.session.admission._types.enums[0].labels[0] == "ajar")
        insert(db, 1)
        three.caught_up(db)
        db.execute("INSERT INTO doors VALUES (5, 'ajar')")
        three.caught_up(db)
        keys = [key for key in told(seen) if key != "rights"]
        with db.transaction():
            db.execute("SET LOCAL ROLE authenticated")
            shown = [key for (key,) in db.execute("SELECT id FROM doors WHERE id <> 2 ORDER BY id").fetchall()]
        assert keys == shown == ([1, 4] if "=" in policy else [1, 4, 5])
        three.nobody_else_noticed(1)


POLICY = '{"name": "a", "permissive": true, "command": "ALL", "roles": [0], "to": ["public"], "expression": null'
FORGED = (
    '{"format": 1, "schema": "public", "table": "wells", "owner": 10, "row_security": true, "forced": false, '
    '"usage": [0], "select": [0], "columns": [[1, "id", 23, 0, []]], "functions": {}, "operators": {}, '
    '"nondeterministic": [], "code_point": [], "utf8": true, "policies": [' + POLICY
)


@pytest.mark.parametrize(
    "facts",
    [
        "[]",
        "5",
        '{"format": 1}',
        '{"format": 7}',
        FORGED + ', "tree": 5}]}',
        FORGED + ', "tree": "{OPEXPR :opno x}"}]}',
        FORGED + ', "tree": "{"}]}',
        FORGED.replace("[0]", "0") + "}]}",
    ],
)
def test_a_row_of_rights_that_is_no_such_row(kind: str, database: str, db: psycopg.Connection, facts: str) -> None:
    """Only a superuser can write it. Nobody sees anything of that table, and all others go on."""
    db.execute("CREATE TABLE beside (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE beside")
    seen: list[Any] = []
    with Three(kind, database) as three:
        three.running.on("beside", seen.append)
        insert(db, 1)
        db.execute("INSERT INTO cdc.rights (\"table\", name, facts) SELECT 'wells'::regclass, 'wells', %s", (facts,))
        insert(db, 2)
        db.execute("INSERT INTO beside VALUES (1)")
        assert three.caught_up(db) == told(three.other) == [1, "rights"]
        assert three.subscription.denied is not None
        assert told(three.trusted) == [1, 2] and told(seen) == [1]
