"""Which rows and columns a store shows: filters, subjects, rights, and values that the server does not send."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest

import cdc
from cdc import filling
from tests.harness import RIGHTS, until
from tests.integration.test_snapshot import table
from tests.integration.test_store import Stores, plain

LONG = "repeat('long', 1000)"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "CHUNK_ROWS", 20)
    monkeypatch.setattr(filling, "_SLICE", 7)


def effects(told: list[cdc.StoreChange]) -> list[tuple[Any, str]]:
    return [(each.key, each.effect.value) for each in told]


def test_a_filter_without_replica_identity_full(kind: str, database: str, db: psycopg.Connection) -> None:
    """Whether a row was seen before is known from the store: an update that comes without an old row leaves it."""
    db.execute("INSERT INTO wells SELECT n, CASE WHEN n % 3 = 0 THEN 'in' ELSE 'out' END FROM generate_series(1, 60) n")
    with Stores(kind, database, filter="name=eq.in") as it:
        it.live()
        assert sorted(it.store) == list(range(3, 61, 3))
        it.told.clear()
        db.execute(
            "UPDATE wells SET name = 'out' WHERE id = 3; UPDATE wells SET depth = 1 WHERE id = 1;"
            "UPDATE wells SET depth = 1 WHERE id = 6; UPDATE wells SET name = 'in' WHERE id = 2;"
            "UPDATE wells SET id = 100, name = 'out' WHERE id = 9; UPDATE wells SET id = 120 WHERE id = 12;"
            "DELETE FROM wells WHERE id IN (1, 15); UPDATE wells SET name = name WHERE id = 18;"
            "UPDATE wells SET id = -21 WHERE id = 21; UPDATE wells SET id = 21 WHERE id = -21"
        )
        it.running.caught_up(db)
        assert effects(it.told) == [
            (3, "LEAVE"), (6, "STAY"), (2, "ENTER"), (9, "LEAVE"), (12, "LEAVE"), (120, "ENTER"), (15, "LEAVE"),
            (21, "LEAVE"), (-21, "ENTER"), (-21, "LEAVE"), (21, "ENTER"),
        ]  # fmt: skip
        assert it.told[0].old["name"] == "in" and it.told[0].position is not None
        shown = {key: row for key, row in table(db).items() if row["name"] == "in"}
        assert plain(it.store) == shown


def test_values_that_are_not_sent(kind: str, database: str, db: psycopg.Connection) -> None:
    """They come from the row that is held; one that is not held is read, and no row is shown without it."""
    db.execute("ALTER TABLE wells ALTER notes SET STORAGE EXTERNAL")
    db.execute(f"INSERT INTO wells SELECT n, 'out', NULL, n, {LONG} || n FROM generate_series(1, 50) n")
    with Stores(kind, database, filter="name=eq.in") as it, Stores(kind, database, slot="other") as other:
        it.live()
        other.live()
        db.execute("UPDATE wells SET name = 'in' WHERE id <= 30; UPDATE wells SET depth = -1 WHERE id <= 10")
        db.execute("UPDATE wells SET id = id + 100 WHERE id = 5; UPDATE wells SET name = 'out' WHERE id = 6")
        db.execute("UPDATE wells SET notes = 'short' WHERE id = 7; DELETE FROM wells WHERE id = 8")
        for each in (it, other):
            each.settled(db)
            assert all(row["notes"] is not cdc.UNCHANGED for row in each.store.values())
        assert plain(other.store) == table(db)
        assert plain(it.store) == {key: row for key, row in table(db).items() if row["name"] == "in"}
        assert all(change.new is None or cdc.UNCHANGED not in change.new.values() for change in it.told)
        db.execute("UPDATE wells SET name = 'in' WHERE id = 40; TRUNCATE wells")
        it.settled(db)
        assert len(it.store) == 0
        entered = {key for key, effect in effects(it.told) if effect == "ENTER"}
        assert {*range(1, 31), 105} - {5, 6, 8} <= entered <= {*range(1, 31), 105, 40}


POLICY = """
ALTER TABLE wells ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON wells FROM authenticated, anon;
GRANT SELECT (id, name, depth) ON wells TO authenticated;
CREATE POLICY own ON wells FOR SELECT TO authenticated USING (notes = auth.jwt() ->> 'notes');
"""


ROWS = "INSERT INTO wells SELECT n, 'w', NULL, n, (array['a', 'b'])[n % 2 + 1] FROM generate_series(1, 60) n"


def user(notes: str, **more: Any) -> cdc.Subject:
    return cdc.Subject("authenticated", claims={"notes": notes} | more)


@pytest.mark.parametrize("rights", ["polled", "streamed"])
def test_a_subject_and_its_rights(kind: str, database: str, db: psycopg.Connection, rights: str) -> None:
    """No REPLICA IDENTITY FULL is needed. What may not be seen any more goes at once."""
    db.execute(POLICY)
    if rights == "streamed":
        db.execute(RIGHTS)
    db.execute(ROWS)

    def shown() -> set[tuple[int, ...]]:
        return {(key, len(row)) for key, row in it.store.items()}

    with Stores(kind, database, subject=user("a")) as it:
        it.live()
        assert shown() == {(n, 3) for n in range(2, 61, 2)}
        with pytest.raises(KeyError):
            it.store[2]["notes"]
        it.told.clear()
        db.execute("UPDATE wells SET notes = 'b' WHERE id = 2; UPDATE wells SET notes = 'a' WHERE id = 1")
        db.execute("DELETE FROM wells WHERE id IN (3, 4); UPDATE wells SET project_id = gen_random_uuid() WHERE id = 6")
        it.running.caught_up(db)
        assert effects(it.told) == [(2, "LEAVE"), (1, "ENTER"), (4, "LEAVE")], "a change of a hidden column is none"
        assert set(it.told[0].old) == {"id", "name", "depth"}
        before = set(it.store)

        it.told.clear()
        db.execute("ALTER POLICY own ON wells USING (notes = auth.jwt() ->> 'notes' AND depth > 30)")
        until(lambda: set(it.store) == {n for n in before if n > 30})
        it.settled(db)
        assert set(effects(it.told)) == {(n, "LEAVE") for n in before if n <= 30}
        db.execute("ALTER POLICY own ON wells USING (true)")
        until(lambda: len(it.store) == 58)
        db.execute("REVOKE SELECT (depth) ON wells FROM authenticated")
        until(lambda: shown() == {(key, 2) for key in table(db)})
        db.execute("REVOKE SELECT (id, name) ON wells FROM authenticated")
        until(lambda: len(it.store) == 0)
        assert it.store.feed.denied is not None
        db.execute("GRANT SELECT ON wells TO authenticated")
        until(lambda: plain(it.store) == table(db))
        kept: set[int] = set()
        for change in it.told:
            (kept.discard if change.effect == "LEAVE" else kept.add)(change.key)
        it.live()


def test_a_renewed_subject(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(POLICY)
    db.execute(ROWS)
    with Stores(kind, database, subject=user("a")) as it:
        it.live()
        it.told.clear()
        it.store.update_subject(user("b"))
        until(lambda: set(it.store) == set(range(1, 61, 2)))
        it.live()
        left = {(n, "LEAVE") for n in range(2, 61, 2)}
        assert set(effects(it.told)) == left | {(n, "ENTER") for n in range(1, 61, 2)}
        it.told.clear()
        it.store.update_subject(user("b", exp=int(time.time()) + 2))
        until(lambda: it.store.feed.closed)
        until(lambda: len(it.told) == 30)
        assert len(it.store) == 0 and not it.store.is_live and {effect for _, effect in effects(it.told)} == {"LEAVE"}
        assert it.store.status.startswith("closed: ") and "expired" in it.store.status
        with pytest.raises(cdc.CdcError, match="was closed"):
            it.live()
        with pytest.raises(cdc.SubscriptionError, match="is closed"):
            it.store.update_subject(user("a"))
    with (
        Stores(kind, database, slot="other") as it,
        pytest.raises(cdc.SubscriptionError, match="no subject of its own"),
    ):
        it.store.update_subject(user("a"))


def test_a_policy_that_cannot_be_decided(kind: str, database: str, db: psycopg.Connection) -> None:
    """At the start it is refused; later the rows go, with the reason."""
    db.execute(POLICY)
    db.execute("INSERT INTO wells SELECT n, 'well', NULL, n, 'a' FROM generate_series(1, 60) n")
    odd = "CREATE POLICY odd ON wells AS RESTRICTIVE FOR SELECT TO authenticated USING (pg_backend_pid() > 0)"
    with Stores(kind, database, subject=user("a")) as it:
        it.live()
        db.execute(odd)
        until(lambda: len(it.store) == 0)
        assert "odd" in (it.store.feed.denied or "")
        with pytest.raises(cdc.SubscriptionError, match="policies that cdc cannot decide"):
            it.running.consumer.store("wells", subject=user("a"))
        db.execute("DROP POLICY odd ON wells")
        until(lambda: len(it.store) == 60)


def test_what_a_subject_cannot_have_any_more_goes_and_ends_nothing(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """Its filter names a column that is dropped. A trusted store ends the consumer, with the reason."""
    db.execute(POLICY + ROWS)
    with Stores(kind, database, subject=user("a"), filter="depth=gt.10") as it:
        it.live()
        assert set(it.store) == set(range(12, 61, 2))
        it.told.clear()
        db.execute("ALTER TABLE wells DROP depth; INSERT INTO wells VALUES (62, 'w', NULL, 'a')")
        until(lambda: len(it.store) == 0)
        it.running.caught_up(db)
        assert it.store.feed.denied is not None and set(effects(it.told)) == {(n, "LEAVE") for n in range(12, 61, 2)}
        db.execute("ALTER TABLE wells ADD depth numeric DEFAULT 20; GRANT SELECT (depth) ON wells TO authenticated")
        db.execute("INSERT INTO wells VALUES (64, 'w', NULL, 'a')")
        until(lambda: set(it.store) == set(range(2, 65, 2)))
    trusted = Stores(kind, database, slot="other", filter="depth=gt.10")
    with pytest.raises(cdc.SubscriptionError, match="depth"), trusted:
        trusted.live()
        db.execute("ALTER TABLE wells DROP depth; INSERT INTO wells VALUES (66, 'w', NULL, 'a')")
        until(lambda: trusted.store.status.startswith("stopped: "))
        assert not trusted.store.is_live
