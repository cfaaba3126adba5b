"""Row-level security: what subjects receive, against what SELECT shows to the same users."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import Running, until

ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
POLICY = """
ALTER TABLE wells ENABLE ROW LEVEL SECURITY;
ALTER TABLE wells REPLICA IDENTITY FULL;
GRANT SELECT ON wells TO anon, authenticated;
CREATE POLICY own ON wells FOR SELECT TO authenticated USING (project_id = (auth.jwt() ->> 'project_id')::uuid);
"""


def user(project: str) -> cdc.Subject:
    return cdc.Subject("authenticated", claims={"sub": project, "project_id": project})


def selected(db: psycopg.Connection, project: str, role: str = "authenticated") -> dict[int, dict[str, Any]]:
    """What a SELECT as this user shows."""
    with db.transaction():
        db.execute(f"SET LOCAL ROLE {role}")
        db.execute("SELECT set_config('request.jwt.claims', %s, true)", (json.dumps({"project_id": project}),))
        rows = db.execute("SELECT id, name, project_id, depth, notes FROM wells").fetchall()
    names = ("id", "name", "project_id", "depth", "notes")
    return {row[0]: dict(zip(names, row, strict=True)) for row in rows}


SCRIPT = [
    f"INSERT INTO wells VALUES (1, 'a', '{ONE}'), (2, 'b', '{TWO}'), (3, 'c', NULL), (4, 'd', '{ONE}')",
    "UPDATE wells SET name = 'a2' WHERE id = 1",
    f"UPDATE wells SET project_id = '{TWO}' WHERE id = 1",
    f"UPDATE wells SET project_id = '{ONE}' WHERE id = 3",
    f"UPDATE wells SET project_id = '{ONE}', id = 20 WHERE id = 2",
    f"UPDATE wells SET project_id = '{TWO}', id = 40 WHERE id = 4",
    "UPDATE wells SET project_id = NULL WHERE id = 40",
    "UPDATE wells SET depth = 1.5",
    "DELETE FROM wells WHERE id IN (1, 3)",
]


def test_two_users_keep_exactly_what_they_may_select(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    rows: dict[str, dict[int, Any]] = {ONE: {}, TWO: {}}
    events: dict[str, list[Any]] = {ONE: [], TWO: [], "anon": []}

    def keep(project: str) -> Any:
        def handler(event: cdc.Change) -> None:
            events[project].append(event)
            event.apply(rows[project])

        return handler

    def three(running: Running) -> None:
        running.on("wells", keep(ONE), subject=user(ONE))
        running.on("wells", keep(TWO), subject=user(TWO))
        running.on("wells", events["anon"].append, subject=cdc.Subject("anon"))
        running.on("wells", running.events.append)

    with Running(kind, database, three) as running:
        for statement in SCRIPT:
            db.execute(statement)
            running.caught_up(db)
            for project in (ONE, TWO):
                assert {key: dict(row) for key, row in rows[project].items()} == selected(db, project), statement
        assert events["anon"] == []
        anon = next(each for each in running.consumer.subscriptions if each.subject and each.subject.role == "anon")
        assert anon.denied is not None and anon.delivered == 0
        assert any("see nothing" in note for note in running.consumer.health().notes)
    assert [(type(event).__name__, event.effect.value, event.key, event.old_key) for event in events[ONE]] == [
        ("Insert", "ENTER", 1, None),
        ("Insert", "ENTER", 4, None),
        ("Update", "STAY", 1, 1),
        ("Update", "LEAVE", 1, 1),
        ("Update", "ENTER", 3, 3),
        ("Update", "ENTER", 20, 20),
        ("Update", "LEAVE", 4, 4),
        ("Update", "STAY", 3, 3),
        ("Update", "STAY", 20, 20),
        ("Delete", "LEAVE", 3, 3),
    ]
    for event in events[ONE]:
        assert event.new is None or str(event.new["project_id"]) == ONE
        assert event.old is None or str(event.old["project_id"]) == ONE


def test_a_leaving_row_never_shows_its_new_values(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    seen: list[Any] = []
    with Running(kind, database, lambda running: running.on("wells", seen.append, subject=user(ONE))) as running:
        db.execute(f"INSERT INTO wells VALUES (1, 'mine', '{ONE}')")
        db.execute(f"UPDATE wells SET name = 'secret', project_id = '{TWO}'")
        running.caught_up(db)
    assert seen[1].new is None and "secret" not in seen[1].to_json()


def test_truncate_goes_to_those_who_may_select(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    seen: dict[str, list[Any]] = {"user": [], "anon": [], "nobody": []}

    def both(running: Running) -> None:
        running.on("wells", seen["user"].append, subject=user(ONE))
        running.on("wells", seen["anon"].append, subject=cdc.Subject("anon"))
        running.on("wells", seen["nobody"].append, subject=cdc.Subject("service_role"))

    with Running(kind, database, both) as running:
        db.execute("TRUNCATE wells")
        running.caught_up(db)
    assert [type(event) for event in seen["user"]] == [cdc.Truncate]
    assert [type(event) for event in seen["anon"]] == [cdc.Truncate], "it may select, though no policy shows it a row"
    assert seen["nobody"] == [], "it bypasses row-level security, but has no right to select"


def test_columns_without_privilege_are_removed(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL; GRANT SELECT (id, name) ON wells TO authenticated")
    seen: list[Any] = []
    with Running(kind, database, lambda running: running.on("wells", seen.append, subject=user(ONE))) as running:
        db.execute(f"INSERT INTO wells VALUES (1, 'a', '{ONE}', 5)")
        db.execute("UPDATE wells SET depth = 6")
        db.execute("DELETE FROM wells")
        running.caught_up(db)
    assert [(event.old and dict(event.old), event.new and dict(event.new)) for event in seen] == [
        (None, {"id": 1, "name": "a"}),
        ({"id": 1, "name": "a"}, {"id": 1, "name": "a"}),
        ({"id": 1, "name": "a"}, None),
    ]
    assert "depth" not in seen[0].to_json()


def test_undecided_changes_are_withheld_and_counted(kind: str, database: str, db: psycopg.Connection) -> None:
    """Without REPLICA IDENTITY FULL the old row is its key: a LEAVE or a DELETE cannot be judged."""
    db.execute(POLICY + "ALTER TABLE wells REPLICA IDENTITY DEFAULT")
    seen: list[Any] = []
    with pytest.raises(cdc.SubscriptionError, match=r"project_id.*REPLICA IDENTITY FULL"):
        with Running(kind, database, lambda running: running.on("wells", seen.append, subject=user(ONE))):
            pass
    with Running(kind, database) as running:
        subscription = running.subscribe("wells", seen.append, subject=user(ONE), accept_undecided=True)
        db.execute(f"INSERT INTO wells VALUES (1, 'a', '{ONE}')")
        db.execute("UPDATE wells SET name = 'b'")
        db.execute(f"UPDATE wells SET project_id = '{TWO}'")
        db.execute("DELETE FROM wells")
        running.caught_up(db)
        assert subscription.undecided == 2
    assert [(type(event).__name__, event.effect.value) for event in seen] == [("Insert", "ENTER"), ("Update", "ENTER")]


@pytest.mark.parametrize(
    "change",
    [
        "REVOKE SELECT ON wells FROM authenticated",
        "DROP POLICY own ON wells",
        "ALTER POLICY own ON wells USING (false)",
        "CREATE POLICY stop ON wells AS RESTRICTIVE FOR SELECT USING (false)",
        "CREATE OR REPLACE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT ''{}''::jsonb'",
        "ALTER POLICY own ON wells USING (project_id = auth.uid() AND depth > random())",
        "REVOKE USAGE ON SCHEMA public FROM authenticated, public",
    ],
)
def test_rights_that_are_taken_away_are_followed(database: str, db: psycopg.Connection, change: str) -> None:
    db.execute(POLICY)
    seen: list[Any] = []
    with Running("blocking", database, rights_interval=0.1) as running:
        subscription = running.subscribe("wells", seen.append, subject=user(ONE))
        db.execute(f"INSERT INTO wells VALUES (1, 'a', '{ONE}')")
        running.caught_up(db)
        assert len(seen) == 1
        db.execute(change)
        number = 2

        def unseen() -> bool:
            nonlocal number
            number += 1
            before = len(seen)
            db.execute(f"INSERT INTO wells VALUES ({number}, 'x', '{ONE}')")
            running.caught_up(db)
            return len(seen) == before

        until(unseen)
        assert len(running.events) == number - 1, "the trusted subscriber notices nothing"
        assert subscription.closed is False
        assert any("newest" in note for note in running.consumer.health().notes)


def test_rights_that_are_given_are_followed(database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    seen: list[Any] = []
    with Running("blocking", database, rights_interval=0.1) as running:
        subscription = running.subscribe("wells", seen.append, subject=cdc.Subject("anon"))
        assert subscription.denied
        db.execute("CREATE POLICY public_wells ON wells FOR SELECT TO anon USING (true)")
        until(lambda: subscription.denied is None)
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
    gap, change = seen
    assert (gap.kind, gap.tables, change.key) == (cdc.GapKind.RIGHTS, ("public.wells",), 1)


def test_a_dropped_role_is_denied_and_nobody_else_notices(database: str, db: psycopg.Connection) -> None:
    db.execute("DROP ROLE IF EXISTS passing; CREATE ROLE passing; GRANT SELECT ON wells TO passing")
    seen: list[Any] = []
    with Running("blocking", database, rights_interval=0.1) as running:
        subscription = running.subscribe("wells", seen.append, subject=cdc.Subject("passing"))
        db.execute("DROP OWNED BY passing; DROP ROLE passing")
        until(lambda: subscription.denied is not None)
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        assert "passing" in str(subscription.denied)
        assert ([event.kind for event in seen], len(running.events)) == ([cdc.GapKind.RIGHTS], 1)


def test_a_claim_that_is_no_uuid_denies_that_subject_only(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    good: list[Any] = []
    with Running(kind, database) as running:
        bad = running.subscribe("wells", good.append, subject=cdc.Subject("authenticated", {"project_id": "no uuid"}))
        running.subscribe("wells", good.append, subject=user(ONE))
        db.execute(f"INSERT INTO wells VALUES (1, 'a', '{ONE}')")
        running.caught_up(db)
        assert bad.denied is not None and "uuid" in bad.denied
    assert len(good) == 1


def test_rights_that_are_read_again_deny_nobody_meanwhile(
    database: str, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may judge with the rights while they are being read."""
    db.execute(POLICY)
    seen: list[Any] = []
    meanwhile: list[bool] = []
    load = cdc.rights_book.read_fresh

    with Running("blocking", database, rights_interval=0.05) as running:
        subscription = running.subscribe("wells", seen.append, subject=user(ONE))
        admission = running.consumer._loop.link.session.admission
        relation = admission._checked[subscription]

        def judged_during(*arguments: Any) -> Any:
            admission.view(subscription, relation)
            meanwhile.append(subscription.denied is None)
            return load(*arguments)

        monkeypatch.setattr(cdc.rights_book, "read_fresh", judged_during)
        until(lambda: len(meanwhile) >= 3)
    assert all(meanwhile)
