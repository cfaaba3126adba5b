"""The parking lot: what a handler cannot take waits in cdc.parked, or in a file, until somebody asks for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdc
from cdc.daemon.scripts import read_script
from tests.harness import Running, until

SHORT = cdc.Backoff(first=0.02, longest=0.05)


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of these tests are nobody else's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield tmp_path / "state" / "wells-cdc" / "ingest.parked.jsonl"


class Picky:
    """Does not take events of these keys; keeps what it takes."""

    def __init__(self, *refused: Any) -> None:
        self.refused = set(refused)
        self.taken: list[Any] = []
        self.given: list[Any] = []

    def __call__(self, event: Any) -> None:
        self.given.append(event)
        if getattr(event, "key", None) in self.refused or event.__class__ in self.refused:
            raise ValueError("no room")
        self.taken.append(event)

    @property
    def keys(self) -> list[Any]:
        return [event.key for event in self.taken]


def parking(kind: str, database: str, handler: Any, name: str = "mine", **options: Any) -> Running:
    terms = {"on_error": "park", "name": name, "backoff": SHORT}
    return Running(kind, database, lambda it: it.on("wells", handler, **terms), **options)


def rows(db: psycopg.Connection, columns: str = "position, operation, key, attempts") -> list[Any]:
    return db.execute(f"SELECT {columns} FROM cdc.parked ORDER BY number".encode()).fetchall()


def parked(it: Running) -> list[cdc.Parked]:
    return list(it.do(it.consumer.parked))


def retried(it: Running, id: str, force: bool = False) -> None:
    """Ask for another attempt and wait until it was made."""
    it.do(it.consumer.retry_parked, id, force=force)
    until(lambda: not any(each.id == id and each.requested_at is not None for each in parked(it)))


def test_what_is_not_taken_is_parked_and_the_stream_goes_on(kind: str, database: str, db: psycopg.Connection) -> None:
    picky = Picky(2)
    with parking(kind, database, picky) as it:
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        it.caught_up(db)
        (record,) = parked(it)
        health = it.consumer.health()
        assert (health.colour, health.parked) == (cdc.Colour.YELLOW, 1)
        assert any("parked events: 1" in reason for reason in health.reasons)
    assert picky.keys == [1, 3]
    assert (record.slot, record.subscription, record.operation, record.key) == ("ingest", "mine", "INSERT", 2)
    assert (record.schema, record.table, record.attempts) == ("public", "wells", 1)
    assert (record.error_type, record.error, record.superseded_by) == ("ValueError", "no room", None)
    assert record.position == str(picky.given[1].position)
    assert picky.taken[1].previous == picky.given[1].position, "a parked event was delivered"
    assert json.loads(json.dumps(record.to_dict()))["id"] == record.id
    with parking(kind, database, picky) as again:
        again.caught_up(db)
        assert again.consumer.health().parked == 1
    assert len(picky.given) == 3, "what is parked is acknowledged"


def test_it_is_parked_after_the_last_attempt_only(kind: str, database: str, db: psycopg.Connection) -> None:
    picky = Picky(1)
    terms = {"on_error": "park", "retries": 2, "backoff": SHORT}
    with Running(kind, database, lambda it: it.on("wells", picky, **terms)) as it:
        db.execute("INSERT INTO wells VALUES (1), (2)")
        it.caught_up(db)
    assert len(picky.given) == 4
    assert [attempts for *_, attempts in rows(db)] == [3]


def test_a_retry_hands_over_the_same_event(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL")
    db.execute("ALTER TABLE wells ALTER notes SET STORAGE EXTERNAL")
    picky = Picky(1, 2)
    with parking(kind, database, picky) as it:
        db.execute("INSERT INTO wells VALUES (1, 'ünï \"q\"', gen_random_uuid(), 1.50, NULL)")
        db.execute("INSERT INTO wells VALUES (2, 'b', NULL, 'NaN', repeat('x', 9000))")
        db.execute("UPDATE wells SET name = 'c' WHERE id = 2")
        db.execute("DELETE FROM wells WHERE id = 1")
        it.caught_up(db)
        picky.refused.clear()
        for record in parked(it):
            retried(it, record.id)
        until(lambda: not parked(it))
        it.consumer._loop.lot.look()
        assert it.consumer.health().colour is cdc.Colour.GREEN
    assert len(picky.taken) == 4
    for live, again in zip(picky.given[:4], picky.taken, strict=True):
        assert type(live) is type(again)
        assert live.to_json() == again.to_json()
        assert (live.position, live.previous, live.commit_time) == (again.position, again.previous, again.commit_time)
        assert (live.key, live.old_key, live.effect) == (again.key, again.old_key, again.effect)
        assert repr(live.old) == repr(again.old) and repr(live.new) == repr(again.new)
        assert live.relation == again.relation
        for name in live.new or ():
            assert live.new.text(name) == again.new.text(name)


def test_what_was_not_sent_stays_unknown_in_a_retry(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER TABLE wells ALTER notes SET STORAGE EXTERNAL")
    db.execute("INSERT INTO wells VALUES (1, 'a', NULL, 1, repeat('x', 9000))")
    picky = Picky(1)
    with parking(kind, database, picky) as it:
        db.execute("UPDATE wells SET name = 'b'")
        it.caught_up(db)
        picky.refused.clear()
        retried(it, parked(it)[0].id)
        until(lambda: picky.taken)
    assert picky.taken[0].new["notes"] is cdc.UNCHANGED
    assert picky.taken[0].old is None


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_users_types_decode_as_they_did(kind: str, database: str, db: psycopg.Connection, binary: bool) -> None:
    db.execute("CREATE TYPE mood AS ENUM ('calm', 'wild'); CREATE TYPE spot AS (x int, y mood)")
    db.execute("ALTER TABLE wells ADD COLUMN feels mood, ADD COLUMN at spot, ADD COLUMN many mood[]")
    picky = Picky(1)
    with parking(kind, database, picky, binary=binary) as it:
        db.execute("INSERT INTO wells (id, feels, at, many) VALUES (1, 'wild', '(3,calm)', '{calm,NULL}')")
        it.caught_up(db)
        picky.refused.clear()
        retried(it, parked(it)[0].id)
        until(lambda: picky.taken)
    assert dict(picky.taken[0].new) == dict(picky.given[0].new)
    assert picky.taken[0].new["at"] == {"x": 3, "y": "calm"}


def test_truncates_shapes_and_gaps_are_parked_too(kind: str, database: str, db: psycopg.Connection) -> None:
    picky = Picky(cdc.Truncate, cdc.SchemaChange, cdc.Gap)
    with parking(kind, database, picky):
        pass
    db.execute("SELECT pg_drop_replication_slot('ingest')")
    with parking(kind, database, picky, on_gap="deliver") as it:
        db.execute("INSERT INTO wells VALUES (1)")
        db.execute("TRUNCATE wells RESTART IDENTITY CASCADE")
        db.execute("ALTER TABLE wells ADD COLUMN more int")
        db.execute("INSERT INTO wells VALUES (2)")
        it.caught_up(db)
        records = parked(it)
        assert [each.operation for each in records] == ["GAP", "TRUNCATE", "SCHEMA"]
        picky.refused.clear()
        for record in records:
            retried(it, record.id, force=True)
        until(lambda: not parked(it))
    gap, truncate, shape = picky.taken[2:]
    assert gap == picky.given[0] and gap.to_dict() == picky.given[0].to_dict()
    assert truncate.cascade and truncate.restart_identity and truncate.position == picky.given[2].position
    assert (shape.added, shape.position) == (("more",), picky.given[3].position)
    assert shape.to_json() == picky.given[3].to_json()


def test_messages_are_parked_as_they_are(kind: str, database: str, db: psycopg.Connection) -> None:
    """Also several at one position, and those that have none."""
    refused, given, taken = {"a", "b", "m", "n"}, [], []

    def picky(message: cdc.Message) -> None:
        given.append(message)
        if message.text() in refused:
            raise ValueError("no room")
        taken.append(message)

    def prepare(it: Running) -> None:
        it.consumer.on_message("outbox", on_error="park", name="mine")(picky)

    with Running(kind, database, prepare) as it:
        emit = "SELECT pg_logical_emit_message(%s, 'outbox', %s)"
        with db.transaction():
            for text in ("a", "b", "c"):
                db.execute(emit, (True, text))
        for text in ("m", "n"):
            db.execute(emit, (False, text))
        it.caught_up(db)
        records = parked(it)
        assert [each.operation for each in records] == ["MESSAGE"] * 4
        assert [each.position is None for each in records] == [False, False, True, True]
        refused.clear()
        for record in records:
            retried(it, record.id)
        until(lambda: not parked(it))
    assert [message.text() for message in taken] == ["c", "a", "b", "m", "n"]
    before = {message.lsn: message for message in given[:5]}
    for message in taken:
        assert message.to_dict() == before[message.lsn].to_dict()
        assert message.previous == before[message.lsn].previous


def test_a_prepared_transaction_is_parked_too(database: str, db: psycopg.Connection) -> None:
    from cdc.parked import Parked
    from cdc.payload import event_of, payload_of
    from cdc.values import Types

    event = cdc.Prepared("g", 7, cdc.Lsn(9), db.execute("SELECT now()").fetchone()[0])  # type: ignore[index]
    assert event_of(json.loads(json.dumps(payload_of(event))), Types()) == event
    assert Parked.__doc__


def test_a_failed_retry_is_counted_and_stays(kind: str, database: str, db: psycopg.Connection) -> None:
    picky = Picky(1)
    with parking(kind, database, picky) as it:
        db.execute("INSERT INTO wells VALUES (1)")
        it.caught_up(db)
        retried(it, parked(it)[0].id)
        (record,) = parked(it)
        assert (record.attempts, record.requested_at) == (2, None)
        db.execute("INSERT INTO wells VALUES (2)")
        it.caught_up(db)
    assert picky.keys == [2]


@pytest.mark.parametrize(
    "later",
    [
        "UPDATE wells SET name = 'b' WHERE id = 1",
        "DELETE FROM wells WHERE id = 1",
        "TRUNCATE wells",
        "UPDATE wells SET id = 5 WHERE id = 1",
        "UPDATE wells SET id = 1 WHERE id = 7",
    ],
)
def test_a_retry_is_refused_when_a_later_change_of_the_row_was_delivered(
    kind: str, database: str, db: psycopg.Connection, later: str
) -> None:
    db.execute("INSERT INTO wells VALUES (7)")
    picky = Picky(1)
    with parking(kind, database, picky) as it:
        db.execute("INSERT INTO wells VALUES (1)")
        db.execute("INSERT INTO wells VALUES (2)")
        db.execute("DELETE FROM wells WHERE id = 1") if "id = 7" in later else None
        it.caught_up(db)
        db.execute("DELETE FROM cdc.parked WHERE operation = 'DELETE'")
        record = parked(it)[0]
        assert record.superseded_by is None, "an attempt that failed makes nothing out of date"
        picky.refused.clear()
        db.execute(later.encode())
        it.caught_up(db)
        last = str(picky.taken[-1].position)
        assert parked(it)[0].superseded_by == last
        with pytest.raises(cdc.CdcError, match=f"{record.id} is out of date: .* at {last}"):
            it.do(it.consumer.retry_parked, record.id)
    with parking(kind, database, picky) as it:
        with pytest.raises(cdc.CdcError, match="is out of date"):
            it.do(it.consumer.retry_parked, record.id)
        before = len(picky.taken)
        retried(it, record.id, force=True)
        until(lambda: len(picky.taken) == before + 1)
        assert picky.taken[-1].position == picky.given[0].position


def test_another_rows_change_does_not_make_it_out_of_date(kind: str, database: str, db: psycopg.Connection) -> None:
    picky = Picky(1)
    with parking(kind, database, picky) as it:
        db.execute("INSERT INTO wells VALUES (1)")
        db.execute("INSERT INTO wells VALUES (2), (11)")
        db.execute("UPDATE wells SET name = 'b' WHERE id = 2")
        db.execute("DELETE FROM wells WHERE id = 11")
        it.caught_up(db)
        assert parked(it)[0].superseded_by is None


def test_it_is_out_of_date_also_after_a_restart(kind: str, database: str, db: psycopg.Connection) -> None:
    picky = Picky(1)
    with parking(kind, database, picky) as it:
        db.execute("INSERT INTO wells VALUES (1)")
        it.caught_up(db)
    picky.refused.clear()
    with parking(kind, database, picky) as it:
        db.execute("UPDATE wells SET name = 'b'")
        it.caught_up(db)
        assert parked(it)[0].superseded_by == str(picky.taken[-1].position)


def test_two_changes_of_a_row_are_retried_in_their_order(kind: str, database: str, db: psycopg.Connection) -> None:
    picky = Picky(1)
    with parking(kind, database, picky) as it:
        db.execute("INSERT INTO wells VALUES (1, 'a')")
        db.execute("UPDATE wells SET name = 'b'")
        db.execute("UPDATE wells SET name = 'c'")
        it.caught_up(db)
        first, second, third = parked(it)
        picky.refused.clear()
        retried(it, first.id)
        retried(it, third.id)
        until(lambda: len(picky.taken) == 2)
        with pytest.raises(cdc.CdcError, match="out of date"):
            it.do(it.consumer.retry_parked, second.id)
    assert [event.new["name"] for event in picky.taken] == ["a", "c"]


def test_drop_forgets(kind: str, database: str, db: psycopg.Connection) -> None:
    with parking(kind, database, Picky(1)) as it:
        db.execute("INSERT INTO wells VALUES (1)")
        it.caught_up(db)
        (record,) = parked(it)
        it.do(it.consumer.drop_parked, record.id)
        assert parked(it) == []
        assert it.consumer.health().parked == 0
        for method in (it.consumer.drop_parked, it.consumer.retry_parked):
            with pytest.raises(
                cdc.ConfigurationError, match=f"there is no parked event '{record.id}' of slot 'ingest'"
            ):
                it.do(method, record.id)


def test_two_subscriptions_that_park_need_names(kind: str, database: str, db: psycopg.Connection) -> None:
    def both(it: Running) -> None:
        for _ in range(2):
            it.on("wells", Picky(), on_error="park", name="same")

    it = Running(kind, database, both)
    with pytest.raises(cdc.ConfigurationError, match="are called 'same': .* give each its own with name="):
        it.__enter__()
    it.__exit__()


def test_two_listeners_that_park_need_names() -> None:
    consumer = cdc.Consumer("", slot="ingest")
    consumer.on_message("a", on_error="park", name="same")(print)
    with pytest.raises(cdc.ConfigurationError, match="are called 'same': .* give each its own with name="):
        consumer.on_message("b", on_error="park", name="same")(print)


def test_a_family_takes_an_event_again_though_it_may_not_see_another_table(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    db.execute("CREATE TABLE shown (id int PRIMARY KEY); CREATE TABLE hidden (id int PRIMARY KEY)")
    db.execute("GRANT SELECT ON shown TO anon; REVOKE ALL ON hidden FROM anon")
    db.execute("CREATE PUBLICATION two FOR TABLE shown, hidden")
    picky = Picky(1)

    def prepare(it: Running) -> None:
        it.on("*", picky, on_error="park", name="mine", subject=cdc.Subject("anon"))

    with Running(kind, database, prepare, publication="two") as it:
        db.execute("INSERT INTO shown VALUES (1); INSERT INTO hidden VALUES (1)")
        it.caught_up(db)
        picky.refused.clear()
        (record,) = parked(it)
        retried(it, record.id)
        assert picky.keys == [1] and not parked(it)


def test_parking_does_not_feed_itself(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    picky = Picky(1)
    with parking(kind, database, picky, publication="everything") as it:
        db.execute("INSERT INTO wells VALUES (1)")
        it.caught_up(db)
        retried(it, parked(it)[0].id)
        it.caught_up(db)
        assert len(parked(it)) == 1
    assert len(picky.given) == 2


def test_nobody_else_reads_what_is_parked(database: str, db: psycopg.Connection) -> None:
    db.execute("DROP SCHEMA cdc CASCADE")
    db.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO anon, authenticated")
    db.execute(read_script("01_schema.sql").encode())
    db.execute("DROP ROLE IF EXISTS parking_reader; CREATE ROLE parking_reader")
    db.execute("REVOKE ALL ON cdc.slots FROM anon, authenticated")
    db.execute("GRANT USAGE ON SCHEMA cdc TO parking_reader, anon; GRANT SELECT, INSERT ON cdc.slots TO parking_reader")
    for _ in range(2):
        db.execute(read_script("09_parked.sql").encode())
    rights = "SELECT has_table_privilege(%s, 'cdc.parked', right_name) FROM unnest(%s::text[]) AS right_name"
    wanted = ["SELECT", "INSERT", "UPDATE", "DELETE"]
    assert db.execute(rights, ("parking_reader", wanted)).fetchall() == [(True,)] * 4
    for role in ("anon", "authenticated"):
        assert db.execute(rights, (role, wanted)).fetchall() == [(False,)] * 4
    db.execute("ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM anon, authenticated")
    db.execute("DROP OWNED BY parking_reader; DROP ROLE parking_reader")


# The file.


def test_a_dropped_table_sends_them_to_the_file_and_back(
    kind: str, database: str, db: psycopg.Connection, state_home: Path
) -> None:
    picky = Picky(1, 2)
    with parking(kind, database, picky) as it:
        db.execute("INSERT INTO wells VALUES (1)")
        it.caught_up(db)
        db.execute("CREATE TABLE kept AS TABLE cdc.parked; DROP TABLE cdc.parked")
        db.execute("INSERT INTO wells VALUES (2), (3)")
        it.caught_up(db)
        health = it.consumer.health()
        assert health.colour is cdc.Colour.YELLOW
        problem = "cdc.parked is missing: run `cdc setup`. Meanwhile parked events go to"
        assert any(problem in reason and str(state_home) in reason for reason in health.reasons)
        assert [each.key for each in parked(it)] == [2]
        assert state_home.stat().st_mode & 0o077 == 0
        db.execute(read_script("09_parked.sql").encode())
        db.execute("INSERT INTO cdc.parked OVERRIDING SYSTEM VALUE TABLE kept")
        until(lambda: len(rows(db)) == 2)
        until(lambda: not any("Meanwhile" in reason for reason in it.consumer.health().reasons))
        assert it.consumer.health().parked == 2
        picky.refused.clear()
        for record in parked(it):
            retried(it, record.id)
        until(lambda: picky.keys == [3, 1, 2])
    assert state_home.read_bytes() == b""


def test_without_a_table_the_file_does_it_all(kind: str, database: str, db: psycopg.Connection, tmp_path: Path) -> None:
    db.execute("DROP TABLE cdc.parked")
    file = tmp_path / "deep" / "parked"
    picky = Picky(1, 2, 3)
    with parking(kind, database, picky, park_file=file) as it:
        db.execute("INSERT INTO wells VALUES (1), (2), (3), (4)")
        it.caught_up(db)
        one, two, three = parked(it)
        picky.refused.clear()
        db.execute("UPDATE wells SET name = 'b' WHERE id = 1")
        it.caught_up(db)
        with pytest.raises(cdc.CdcError, match="out of date"):
            it.do(it.consumer.retry_parked, one.id)
        retried(it, two.id)
        it.do(it.consumer.drop_parked, three.id)
        until(lambda: len(parked(it)) == 1)
    with parking(kind, database, picky, park_file=file) as it:
        (left,) = parked(it)
        assert left.superseded_by == str(picky.taken[1].position)
        assert it.consumer.health().parked == 1
    assert picky.keys == [4, 1, 2]


@pytest.mark.parametrize("reads_only", [False, True], ids=["no right", "reads only"])
def test_a_role_that_cannot_write_the_table_parks_in_the_file(
    kind: str, database: str, db: psycopg.Connection, state_home: Path, tmp_path: Path, reads_only: bool
) -> None:
    db.execute("DROP ROLE IF EXISTS parking_none; CREATE ROLE parking_none LOGIN REPLICATION PASSWORD 'p'")
    db.execute("GRANT USAGE ON SCHEMA cdc TO parking_none; GRANT SELECT ON wells TO parking_none")
    if reads_only:  # As on a standby.
        db.execute("GRANT ALL ON cdc.parked TO parking_none")
        db.execute("ALTER ROLE parking_none SET default_transaction_read_only = on")
    dsn = psycopg.conninfo.make_conninfo(database, user="parking_none", password="p")
    try:
        with parking(kind, dsn, Picky(1), state=tmp_path / "position") as it:
            db.execute("INSERT INTO wells VALUES (1), (2)")
            it.caught_up(db)
            why = "this server only reads" if reads_only else "role may not use cdc.parked"
            assert any(why in reason and str(state_home) in reason for reason in it.consumer.health().reasons)
            assert [each.key for each in parked(it)] == [1]
    finally:
        db.execute("DROP OWNED BY parking_none; DROP ROLE parking_none")


def test_where_nothing_can_be_kept_the_consumer_stops_before_the_change(
    kind: str, database: str, db: psycopg.Connection, tmp_path: Path
) -> None:
    db.execute("DROP TABLE cdc.parked")
    with parking(kind, database, Picky(2), park_file=tmp_path / "plain" / "parked") as it:
        (tmp_path / "plain").touch()
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        with pytest.raises(
            cdc.CdcError,
            match=r"no room\), and parked events can be kept nowhere: the table cdc.parked is missing.*exists",
        ):
            it.caught_up(db)
        with pytest.raises(cdc.CdcError):
            it.do(it.consumer.stop)
    db.execute(read_script("09_parked.sql").encode())
    with Running(kind, database) as again:
        again.caught_up(db)
    assert [event.key for event in again.events] == [2, 3]


def test_a_file_of_another_slot_is_refused(kind: str, database: str, db: psycopg.Connection, tmp_path: Path) -> None:
    db.execute("DROP TABLE cdc.parked")
    with parking(kind, database, Picky(1), park_file=tmp_path / "parked") as it:
        db.execute("INSERT INTO wells VALUES (1)")
        it.caught_up(db)
    other = parking(kind, database, Picky(1), park_file=tmp_path / "parked", slot="other")
    with pytest.raises(cdc.ConfigurationError, match=r"keeps parked events of another slot \(ingest\)"):
        other.__enter__()
    other.__exit__()


def test_a_line_that_was_cut_off_is_no_event(kind: str, database: str, db: psycopg.Connection, tmp_path: Path) -> None:
    db.execute("DROP TABLE cdc.parked")
    file = tmp_path / "parked"
    picky = Picky(1, 2)
    with parking(kind, database, picky, park_file=file) as it:
        db.execute("INSERT INTO wells VALUES (1)")
        it.caught_up(db)
        with file.open("ab") as end:
            end.write(b'{"do": "park", "id"')
        db.execute("INSERT INTO wells VALUES (2)")
        it.caught_up(db)
        assert [each.key for each in parked(it)] == [1, 2]


def test_a_file_that_cannot_be_read_is_refused(
    kind: str, database: str, db: psycopg.Connection, tmp_path: Path
) -> None:
    (tmp_path / "plain").touch()
    it = parking(kind, database, Picky(1), park_file=tmp_path / "plain" / "parked")
    with pytest.raises(
        cdc.ConfigurationError, match="plain/parked cannot be read: Not a directory: give another park_"
    ):
        it.__enter__()
    it.__exit__()


def test_park_file_is_checked() -> None:
    for wrong in ("", 3, "/", "/dev/full"):
        with pytest.raises(cdc.ConfigurationError, match="park_file is the path of a file"):
            cdc.Consumer("", slot="ingest", park_file=wrong)  # type: ignore[arg-type]


def test_parked_needs_an_open_consumer(database: str) -> None:
    with pytest.raises(cdc.ConfigurationError, match="not open yet"):
        cdc.Consumer(database, slot="ingest").parked()


# Crashes.

PROGRAM = textwrap.dedent(
    """
    import os, signal, sys, cdc
    from cdc.lot import Lot

    consumer = cdc.Consumer(sys.argv[1], slot="ingest")
    refuse, die = sys.argv[2] == "refuse", sys.argv[3] == "die"

    @consumer.on("wells", on_error="park", name="mine")
    def handler(event):
        print(event.key, flush=True)
        if refuse and event.key == 2:
            raise ValueError("no room")

    park = Lot.park

    def and_die(*arguments):
        park(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    if die:
        Lot.park = and_die
    with consumer:
        consumer.start()
        consumer.wait_for(sys.argv[4], timeout=30)
    """
)


def program(database: str, *words: str) -> list[int]:
    """Run the program; the keys that its handler was given. It is killed by itself right after it has parked."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, database, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == (-9 if "die" in words else 0), done.stderr
    return [int(line) for line in done.stdout.split()]


def test_what_is_parked_twice_has_one_row(database: str, db: psycopg.Connection) -> None:
    """kill -9 between parking and acknowledgement."""
    program(database, "take", "live", "0/0")
    db.execute("INSERT INTO wells VALUES (1), (2), (3)")
    lsn = str(cdc.current_lsn(db))
    assert program(database, "refuse", "die", lsn) == [1, 2]
    assert [(operation, key, attempts) for _, operation, key, attempts in rows(db)] == [("INSERT", 2, 1)]
    assert program(database, "refuse", "live", lsn)[-2:] == [2, 3]
    assert [(operation, key, attempts) for _, operation, key, attempts in rows(db)] == [("INSERT", 2, 2)]


def test_what_is_taken_when_it_comes_again_is_not_parked_any_more(database: str, db: psycopg.Connection) -> None:
    program(database, "take", "live", "0/0")
    db.execute("INSERT INTO wells VALUES (1), (2), (3)")
    lsn = str(cdc.current_lsn(db))
    assert program(database, "refuse", "die", lsn) == [1, 2]
    assert len(rows(db)) == 1
    assert program(database, "take", "live", lsn)[-2:] == [2, 3]
    assert rows(db) == []


def test_what_comes_again_from_before_makes_nothing_out_of_date(database: str, db: psycopg.Connection) -> None:
    program(database, "take", "live", "0/0")
    with db.transaction():
        db.execute("INSERT INTO wells VALUES (0)")
        db.execute("UPDATE wells SET id = 2")
        db.execute("INSERT INTO wells VALUES (3)")
    lsn = str(cdc.current_lsn(db))
    assert program(database, "refuse", "die", lsn) == [0, 2]
    assert program(database, "refuse", "live", lsn)[-2:] == [2, 3]
    assert rows(db, "key, superseded_by, attempts") == [(2, None, 2)]


def test_a_batch_is_parked_event_by_event(database: str, db: psycopg.Connection) -> None:
    """The steps take lists, whoever makes them."""
    from cdc.waiting import BlockingWaiter

    picky = Picky(1, 2)
    with parking("blocking", database, picky) as it:
        db.execute("INSERT INTO wells VALUES (1), (2)")
        it.caught_up(db)
        (subscription,) = it.consumer.subscriptions
        db.execute("DELETE FROM cdc.parked")
        events, waiter = list(picky.given), BlockingWaiter()
        waiter.run(it.consumer._loop._attempts.failed(subscription, events, ValueError("no room")))
        assert [each.key for each in parked(it)] == [1, 2]
        left = it.consumer._loop._attempts.settled(subscription, events)
        assert left is not None
        waiter.run(left)
        waiter.close()
        assert parked(it) == []


@pytest.mark.parametrize(
    "terms",
    [{"batch": 10, "linger": 0.02}, {"debounce": 0.05}, {"transaction": True}, {"queue": 5}, {"queue": 5, "batch": 2}],
    ids=str,
)
def test_what_has_a_lane_parks_and_takes_it_again(
    kind: str, database: str, db: psycopg.Connection, terms: dict[str, Any]
) -> None:
    """The handler gets it again in the shape that it is used to, by itself."""
    refused, taken = {2}, []

    def handler(portion: Any) -> None:
        events = [portion] if isinstance(portion, cdc.Insert) else list(portion)
        if refused & {event.key for event in events}:
            raise ValueError("no room")
        taken.append((type(portion), [event.key for event in events]))

    def prepare(it: Running) -> None:
        it.on("wells", handler, on_error="park", name="mine", **terms)

    with Running(kind, database, prepare) as running:
        for key in (1, 2, 3):
            db.execute("INSERT INTO wells VALUES (%s)", (key,))
            running.caught_up(db)
        assert [key for _, keys in taken for key in keys] == [1, 3]
        refused.clear()
        running.do(running.consumer.retry_parked, parked(running)[0].id)
        until(lambda: len(taken) == 3)
        assert taken[2] == (taken[0][0], [2])
        until(lambda: not parked(running))
