"""Rights against the server itself: grants, memberships, owners, and what it takes for rights to be equal."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from cdc.connection import connect
from cdc.errors import SubscriptionError
from cdc.predicate import FALSE
from cdc.rights import load_rights
from cdc.rls import Subject
from tests.rls_table import CLAIMS, ONE, Table, secured_table


@pytest.fixture
def table(database: str) -> Iterator[Table]:
    with secured_table(database) as made:
        yield made


def test_force_binds_the_owner_and_nobody_who_bypasses(table: Table) -> None:
    owner = table.role("owner", grant=False)
    heir = table.role("heir", f"IN ROLE {owner}")
    stranger = table.role("stranger", f"NOINHERIT IN ROLE {owner}")
    bypass = table.role("bypass", "BYPASSRLS")
    table.connection.execute(f"ALTER TABLE w OWNER TO {owner}")
    table.policies(["USING (ok)"])
    subjects = [Subject(role) for role in (owner, heir, stranger, bypass, "postgres")]
    shown = {}
    for forced in (False, True):
        table.connection.execute(f"ALTER TABLE w {'' if forced else 'NO '}FORCE ROW LEVEL SECURITY")
        for subject in subjects:
            decision = table.decide(subject)
            assert table.shown(decision) == table.selected(subject)
            shown[subject.role, forced] = decision.exempt
    assert [shown[subject.role, False] for subject in subjects] == [True, True, False, True, True]
    assert [shown[subject.role, True] for subject in subjects] == [False, False, False, True, True]
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
    assert "not what they were when these rows were written" in str(decision.denied)
    assert decision.predicate.test([b"alpha"] * 30) == FALSE


def test_the_time_zone_of_a_role_is_known_over_a_connection_of_our_own(database: str, db: psycopg.Connection) -> None:
    """It sets its own TimeZone, and that is not what a session of the role would have."""
    oid = db.execute("SELECT 'wells'::regclass::oid::int").fetchone()
    assert oid is not None
    with connect(database) as connection:
        expected = db.execute("SELECT setting FROM pg_settings WHERE name = 'TimeZone'").fetchone()
        assert (load_rights(connection, oid[0], "anon").zone,) == expected
        db.execute("ALTER ROLE anon SET TimeZone = 'Europe/Oslo'")
        try:
            assert load_rights(connection, oid[0], "anon").zone == "Europe/Oslo"
        finally:
            db.execute("ALTER ROLE anon RESET TimeZone")
        assert connection.execute("SHOW TimeZone").fetchone() == ("UTC",)
