"""`cdc.explain`: what it says of policies, subjects and rows is so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import cdc

ME, YOU = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
TABLE = """
CREATE TABLE wells (id int PRIMARY KEY, owner uuid, ok boolean, tags text[], secret text, data jsonb, depth numeric);
INSERT INTO wells VALUES (1, %(me)s, true, '{a,"b c"}', 's', '{"a": [1.50]}', 1.50),
    (2, %(you)s, true, NULL, NULL, NULL, 2),
    (3, %(me)s, false, NULL, NULL, NULL, NULL), (4, NULL, NULL, NULL, NULL, NULL, NULL);
ALTER TABLE wells ENABLE ROW LEVEL SECURITY;
GRANT SELECT (id, owner, ok, tags, data, depth) ON wells TO authenticated;
CREATE POLICY mine ON wells FOR SELECT TO authenticated USING (owner = auth.uid());
CREATE POLICY shown ON wells AS RESTRICTIVE FOR SELECT USING (ok);
CREATE POLICY theirs ON wells FOR SELECT TO anon USING (true);
CREATE POLICY writes ON wells FOR ALL WITH CHECK (true);
"""
USER = cdc.Subject("authenticated", claims={"sub": ME})


@pytest.fixture
def db(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLE.replace("%(me)s", f"'{ME}'").replace("%(you)s", f"'{YOU}'").encode())
        yield connection


def policy(explanation: cdc.Explanation, name: str) -> cdc.ExplainedPolicy:
    (found,) = [each for each in explanation.policies if each.name == name]
    return found


def test_policies_alone(database: str, db: psycopg.Connection) -> None:
    found = cdc.explain(database, "wells")
    assert (found.schema, found.table, found.row_security, found.forced, found.role) == (
        "public", "wells", True, False, None,
    )  # fmt: skip
    assert [each.name for each in found.policies] == ["mine", "shown", "theirs", "writes"]
    assert {each.applies for each in found.policies} == {None}
    assert found.visible is found.server is found.row is None


def test_a_subject(database: str, db: psycopg.Connection) -> None:
    found = cdc.explain(database, "public.wells", USER)
    assert (found.role, found.hidden, found.denied, found.exempt) == ("authenticated", ("secret",), None, None)
    assert [each.applies for each in found.policies] == [True, True, False, True]
    assert policy(found, "mine").index == "found by owner"
    assert policy(found, "shown").index == "found by ok"
    assert "hidden columns: secret" in str(found)
    assert "does not apply to authenticated" in str(found)


@pytest.mark.parametrize(
    ("key", "visible", "outcomes", "because"),
    [
        (1, True, ["true", "true", None, None], "policy mine is true"),
        ("2", False, ["false", "true", None, None], "no permissive policy is true"),
        ((3,), False, ["true", "false", None, None], "restrictive policy shown is false"),
        (4, False, ["null", "null", None, None], "restrictive policy shown is null"),
    ],
)
def test_a_row_by_its_key(
    database: str, db: psycopg.Connection, key: Any, visible: bool, outcomes: list[str], because: str
) -> None:
    found = cdc.explain(database, "wells", USER, key=key)
    assert [each.outcome for each in found.policies] == outcomes
    assert (found.visible, found.because) == (visible, because)
    assert found.server == cdc.ServerAnswer(visible, None, True)
    assert f"row {key[0] if isinstance(key, tuple) else key}: {'' if visible else 'not '}visible" in str(found)


def test_a_row_that_is_given(database: str, db: psycopg.Connection) -> None:
    row = {
        "id": 9,
        "owner": ME.upper(),
        "ok": True,
        "tags": ["a", None, 'b"\\c'],
        "data": {"a": [1]},
        "depth": Decimal(1),
    }
    found = cdc.explain(database, "wells", USER, row=row | {"secret": None})
    assert (found.visible, found.row) == (True, "9")
    assert found.server is not None and found.server.visible is None and "was given" in str(found.server.reason)
    assert cdc.explain(database, "wells", USER, row={"ok": False}).visible is False
    part = cdc.explain(database, "wells", USER, row={"ok": True, "owner": cdc.UNCHANGED})
    assert (part.visible, policy(part, "mine").outcome, part.row) == (None, "not decidable", "?")
    assert "not decidable, so not shown: policy mine is not decidable" in str(part)


def test_values_are_read_as_their_columns_types(database: str, db: psycopg.Connection) -> None:
    db.execute("DROP POLICY mine ON wells; CREATE POLICY deep ON wells FOR SELECT TO authenticated USING (depth = 1.5)")
    for depth in (1.5, "1.500", Decimal("1.50")):
        assert cdc.explain(database, "wells", USER, row={"ok": "yes", "depth": depth}).visible is True


def test_why_a_subject_sees_nothing(database: str, db: psycopg.Connection) -> None:
    nobody = cdc.explain(database, "wells", cdc.Subject("authenticated", claims={"sub": "no uuid"}), key=1)
    assert nobody.visible is False and nobody.denied is not None and "mine" in nobody.denied
    assert nobody.server is not None and nobody.server.visible is False
    assert "it raises InvalidTextRepresentation, SQLSTATE 22P02" in str(nobody)
    assert "no uuid" not in str(nobody)
    assert "supported, but not for this subject" in str(nobody)
    anon = cdc.explain(database, "wells", cdc.Subject("anon"), key=1)
    assert anon.denied == "role anon has no SELECT right on public.wells"
    assert anon.server is not None and (anon.server.visible, anon.server.agrees) == (False, True)
    assert "nothing is visible: role anon has no SELECT right" in str(anon)


def test_a_policy_that_raises_for_a_row(database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE POLICY ratio ON wells FOR SELECT TO authenticated USING (100 / (id - 2) > 0)")
    found = cdc.explain(database, "wells", USER, key=2)
    ratio = policy(found, "ratio")
    assert (found.visible, ratio.outcome, ratio.reason) == (
        False,
        "error",
        'policy "ratio": ((100 / (id - 2)) > 0): division by zero',
    )
    assert found.because == "policy ratio raises an error"
    assert found.server is not None and "it raises DivisionByZero" in str(found.server.reason)
    assert found.server.agrees is True
    assert "this row: error: policy" in str(found)


def test_what_depends_on_the_time_is_judged_now(database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER TABLE wells ADD until timestamptz; UPDATE wells SET until = now() + interval '1 h' * (id - 2.5)")
    db.execute(
        "CREATE POLICY open ON wells FOR SELECT TO authenticated USING (until > now()); DROP POLICY shown ON wells"
    )
    db.execute("GRANT SELECT ON wells TO authenticated; DROP POLICY mine ON wells")
    for key in (1, 2, 3, 4):
        found = cdc.explain(database, "wells", USER, key=key)
        assert found.visible is (key > 2) and found.server is not None and found.server.agrees is True


def test_the_index_of_several_values_and_of_elements(database: str, db: psycopg.Connection) -> None:
    db.execute(
        "CREATE POLICY several ON wells FOR SELECT TO authenticated USING (id IN (1, 2, 3) OR owner = auth.uid())"
    )
    db.execute("CREATE POLICY tagged ON wells FOR SELECT TO authenticated USING ('a' = ANY (tags))")
    db.execute("CREATE POLICY each ON wells FOR SELECT TO authenticated USING (id > 7)")
    db.execute("CREATE POLICY never ON wells FOR SELECT TO authenticated USING (auth.uid() IS NULL)")
    found = cdc.explain(database, "wells", USER)
    indexes = {each.name: each.index for each in found.policies}
    assert indexes["several"] == "found by id (3 values) or owner"
    assert indexes["tagged"] == "found by an element of tags"
    assert indexes["each"] == "every row is judged"
    assert indexes["never"] == "true for no row"


def test_roles_that_policies_do_not_bind(database: str, db: psycopg.Connection) -> None:
    found = cdc.explain(database, "wells", cdc.Subject("service_role"))
    assert found.denied is not None, "grants come first"
    db.execute("GRANT SELECT ON wells TO service_role")
    found = cdc.explain(database, "wells", cdc.Subject("service_role"), key=4)
    assert (found.visible, found.exempt) == (True, "service_role has BYPASSRLS")
    assert found.server is not None and found.server.agrees is True
    assert "service_role sees every row: service_role has BYPASSRLS" in str(found)
    superuser = str(db.execute("SELECT current_user").fetchone()[0])  # type: ignore[index]
    assert "is a superuser" in str(cdc.explain(database, "wells", cdc.Subject(superuser)).exempt)
    db.execute("ALTER TABLE wells OWNER TO authenticated")
    assert "is the table's owner" in str(cdc.explain(database, "wells", USER).exempt)
    db.execute("ALTER TABLE wells FORCE ROW LEVEL SECURITY")
    assert cdc.explain(database, "wells", USER).exempt is None
    db.execute("ALTER TABLE wells DISABLE ROW LEVEL SECURITY")
    assert cdc.explain(database, "wells", USER).exempt == "row-level security is off"


def test_a_superuser_does_not_run_what_cdc_does_not_read(database: str, db: psycopg.Connection) -> None:
    db.execute(
        "CREATE FUNCTION trap(int) RETURNS boolean LANGUAGE plpgsql AS "
        "$$BEGIN RESET ROLE; PERFORM set_config('app.trapped', 'yes', false); RETURN true; END$$"
    )
    db.execute("CREATE POLICY trap ON wells FOR SELECT TO authenticated USING (trap(id))")
    found = cdc.explain(database, "wells", USER, key=2)
    assert policy(found, "trap").unsupported == "function public.trap(integer)"
    assert "subscribe refuses this table to authenticated, because of what is not supported in trap" in str(found)
    assert found.server is not None and found.server.visible is None
    assert "the DSN's role is a superuser" in str(found.server.reason)
    assert "PostgreSQL was not asked" in str(found)


def test_a_modest_login(database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE ROLE explainer LOGIN NOINHERIT PASSWORD 'x'; GRANT authenticated TO explainer")
    try:
        dsn = make_conninfo(database, user="explainer", password="x")
        found = cdc.explain(dsn, "wells", USER, row={"id": 1, "owner": ME, "ok": True})
        assert found.visible is True
        with pytest.raises(cdc.ConfigurationError, match=r"rows of public\.wells cannot be read: .*or give the row"):
            cdc.explain(dsn, "wells", USER, key=1)
        db.execute("GRANT SELECT ON wells TO explainer")
        with pytest.raises(cdc.ConfigurationError, match=r"row-level security policy.*sees all of them"):
            cdc.explain(dsn, "wells", USER, key=1)
        db.execute("ALTER ROLE explainer BYPASSRLS")
        found = cdc.explain(dsn, "wells", USER, key=1)
        assert found.server == cdc.ServerAnswer(True, None, True)
        found = cdc.explain(dsn, "wells", cdc.Subject("anon"), key=1)
        assert found.server is not None and "may not become anon" in str(found.server.reason)
        db.execute("CREATE FUNCTION odd(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END'")
        db.execute("CREATE POLICY odd ON wells FOR SELECT TO authenticated USING (odd(id))")
        found = cdc.explain(dsn, "wells", USER, key=2)
        assert found.server is not None and (found.visible, found.server.visible) == (False, True)
        assert found.server.agrees is False and "cdc says otherwise" in str(found)
    finally:
        db.execute("DROP OWNED BY explainer; DROP ROLE explainer")


def test_functions_that_the_user_lists(database: str, db: psycopg.Connection) -> None:
    db.execute(
        """CREATE ROLE asker LOGIN NOINHERIT PASSWORD 'x'; GRANT authenticated TO asker;
        CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC;
        CREATE FUNCTION app.me() RETURNS uuid LANGUAGE plpgsql STABLE AS 'BEGIN RETURN auth.uid(); END';
        DROP POLICY mine ON wells; CREATE POLICY me ON wells FOR SELECT TO authenticated USING (owner = app.me())"""
    )
    try:
        if db.info.server_version >= 160000:
            db.execute("GRANT authenticated TO asker WITH INHERIT FALSE")
        unsupported = policy(cdc.explain(database, "wells", USER), "me").unsupported
        assert unsupported == "function app.me() (written in plpgsql)"
        login = make_conninfo(database, user="asker", password="x")
        found = cdc.explain(database, "wells", USER, key=1, session_functions=["app.me()"], rights_dsn=login)
        assert (policy(found, "me").outcome, found.visible) == ("true", True)
        assert found.server is not None and found.server.visible is None, "a superuser would run it"
        with pytest.raises(cdc.ConfigurationError, match="given together"):
            cdc.explain(database, "wells", USER, session_functions=["app.me()"])
        with pytest.raises(cdc.ConfigurationError, match="is a superuser"):
            cdc.explain(database, "wells", USER, session_functions=["app.me()"], rights_dsn=database)
    finally:
        db.execute("DROP OWNED BY asker; DROP ROLE asker")


def test_nothing_is_changed(database: str, db: psycopg.Connection) -> None:
    """What a policy calls cannot write, and settings do not stay."""
    db.execute("CREATE TABLE traces (id int)")
    before = db.execute("SELECT xmin, ctid, * FROM wells").fetchall()
    cdc.explain(database, "wells", USER, key=1)
    assert db.execute("SELECT xmin, ctid, * FROM wells").fetchall() == before


def test_several_key_columns_odd_names_and_domains(database: str, db: psycopg.Connection) -> None:
    db.execute(
        """CREATE DOMAIN short AS varchar(3) CHECK (VALUE <> 'bad');
        CREATE TABLE "Odd %s Name" ("a b" short, n int, "c%" char(3), PRIMARY KEY (n, "a b"));
        INSERT INTO "Odd %s Name" VALUES ('x', 1, 'ab'), ('y', 2, 'ab');
        ALTER TABLE "Odd %s Name" ENABLE ROW LEVEL SECURITY; GRANT SELECT ON "Odd %s Name" TO anon;
        CREATE POLICY one ON "Odd %s Name" USING (n = 1)"""
    )
    anon = cdc.Subject("anon")
    found = cdc.explain(database, "Odd %s Name", anon, key=("x", 1))
    assert found.visible is True and found.server == cdc.ServerAnswer(True, None, True)
    assert found.row == "x, 1"
    assert cdc.explain(database, "Odd %s Name", anon, key=["y", 2]).visible is False
    assert cdc.explain(database, "Odd %s Name", anon, row={"a b": "x", "n": 1, "c%": None}).visible is True
    with pytest.raises(cdc.ConfigurationError, match="the key of public.Odd %s Name is a b, n, and 1 values"):
        cdc.explain(database, "Odd %s Name", anon, key=1)


def test_warnings(database: str, db: psycopg.Connection) -> None:
    def warned() -> str:
        return " ".join(cdc.explain(database, "wells").warnings)

    assert warned() == ""
    db.execute("DROP POLICY writes ON wells")
    assert "FOR SELECT only" in warned()
    db.execute("CREATE POLICY changes ON wells FOR UPDATE USING (true)")
    assert warned() == "no policy lets a role that they bind insert"
    db.execute("DROP POLICY changes ON wells; DROP POLICY mine ON wells; DROP POLICY theirs ON wells")
    assert "all policies are restrictive" in warned()
    db.execute("ALTER TABLE wells DISABLE ROW LEVEL SECURITY")
    assert warned() == "", "the first line says it"
    db.execute("ALTER TABLE wells ENABLE ROW LEVEL SECURITY; DROP POLICY shown ON wells")
    assert "nobody but the owner sees a row" in str(cdc.explain(database, "wells"))


def test_as_json(database: str, db: psycopg.Connection) -> None:
    found = cdc.explain(database, "wells", USER, key=1).to_dict()
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(found))
    assert found["visible"] is True and found["server"] == {"visible": True, "reason": None, "agrees": True}
    assert found["policies"][0]["outcome"] == "true"


@pytest.mark.parametrize(
    ("table", "options", "says"),
    [
        ("nowhere", {}, r"there is no table public\.nowhere"),
        ("a\0b", {}, "there is no table"),
        ("a\ud800b", {}, "there is no table"),
        ("wells", {"subject": USER, "key": "\ud800"}, "is no key of public.wells"),
        ("wells", {"subject": cdc.Subject("nobody_here")}, 'role "nobody_here" does not exist'),
        ("wells", {"key": 1}, "say as whom to look"),
        ("wells", {"subject": USER, "key": 1, "row": {}}, "give a key or a row, not both"),
        ("wells", {"subject": USER, "key": 99}, r"public\.wells has no row with the key 99"),
        ("wells", {"subject": USER, "key": "x"}, r"'x' is no key of public\.wells: invalid input syntax for type int"),
        ("wells", {"subject": USER, "key": "a\0b"}, "is no key of"),
        ("wells", {"subject": USER, "key": (1, 2)}, "the key of public.wells is id, and 2 values were given"),
        ("wells", {"subject": USER, "row": {"colour": 1}}, "has no column colour; it has id, owner"),
        ("wells", {"subject": USER, "row": {"owner": "me"}}, r"value for owner of public\.wells is no uuid: invalid"),
        ("wells", {"subject": USER, "row": {"tags": "{"}}, r"value for tags of public\.wells is no text\[\]"),
        ("wells", {"subject": USER, "row": [1]}, "the row is an object"),
        ("keyless", {"subject": USER, "key": 1}, r"public\.keyless has no key: give the row itself"),
    ],
)
def test_bad_input(database: str, db: psycopg.Connection, table: str, options: dict[str, Any], says: str) -> None:
    db.execute("CREATE TABLE keyless (id int)")
    with pytest.raises(cdc.ConfigurationError, match=says):
        cdc.explain(database, table, **options)
