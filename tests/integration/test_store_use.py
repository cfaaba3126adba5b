"""How a store is used: indexes, models, handlers of changes, keys, waiting, refusals, closing."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import threading
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdc
from cdc import filling
from tests.harness import Running, until
from tests.integration.test_snapshot import table
from tests.integration.test_store import Stores, live, plain


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "CHUNK_ROWS", 20)
    monkeypatch.setattr(filling, "_SLICE", 7)


def nothing(running: Running) -> None:
    """A consumer whose stores come later."""


ROWS = (
    "INSERT INTO wells SELECT n, 'w' || n % 3, CASE WHEN n % 4 > 0 THEN lpad((n % 4)::text, 32, '0')::uuid END, "
    "n % 5 / 2.0, NULL FROM generate_series(1, 50) n"
)


def test_an_index_is_kept_in_step(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROWS)
    with Stores(kind, database) as it:
        by_name = it.store.index("name")
        it.live()
        by_project = it.store.index("project_id")
        by_both = it.store.index("name", "depth")

        def check() -> None:
            rows = table(db)
            for index, columns in ((by_name, ["name"]), (by_project, ["project_id"]), (by_both, ["name", "depth"])):
                wanted: dict[Any, set[int]] = {}
                for row in rows.values():
                    value = tuple(row[column] for column in columns)
                    wanted.setdefault(value[0] if len(columns) == 1 else value, set()).add(row["id"])
                assert {value: {row["id"] for row in found} for value, found in index.items()} == wanted
                assert len(index) == len(wanted) and set(index) == set(wanted)

        check()
        assert by_name["never"] == () and "never" not in by_name and by_name.get("never") == ()
        assert len(by_project[None]) == 12 and len(by_both["w1", Decimal("0.50")]) == len(by_both["w1", Decimal("0.5")])
        with pytest.raises(TypeError, match="expected a str"):
            by_name[33]
        db.execute(
            "UPDATE wells SET name = 'new' WHERE id < 9; UPDATE wells SET id = id + 100 WHERE id < 4;"
            "UPDATE wells SET project_id = NULL, depth = 0.5 WHERE id % 7 = 0; DELETE FROM wells WHERE id % 11 = 0;"
            "INSERT INTO wells VALUES (500)"
        )
        it.running.caught_up(db)
        check()
        db.execute("TRUNCATE wells; INSERT INTO wells VALUES (1, 'w1')")
        it.running.caught_up(db)
        check()
        assert it.store.index("name")["w1"] == by_name["w1"] != ()
        with pytest.raises(cdc.SubscriptionError, match="no published column 'colour'; it has id, name"):
            it.store.index("colour")
        with pytest.raises(cdc.ConfigurationError, match="name the columns"):
            it.store.index()


def test_an_index_of_a_column_that_is_not_there_is_refused_at_the_opening(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    def prepare(running: Running) -> None:
        running.consumer.store("wells").index("colour")

    with pytest.raises(cdc.SubscriptionError, match="no published column 'colour'"), Running(kind, database, prepare):
        pytest.fail("it was opened")


@dataclasses.dataclass
class Well:
    id: int
    name: str
    depth: Decimal
    seen: bool = dataclasses.field(default=False, init=False)


@dataclasses.dataclass
class Odd:
    id: int
    colour: str = "red"


def test_rows_become_instances_of_a_model(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROWS)
    with Stores(kind, database, model=Well) as it:
        it.live()
        assert it.store[4] == Well(4, "w1", Decimal("2.0000000000000000"))
        assert it.told[0].new == it.store[it.told[0].key]
        assert all(isinstance(well, Well) for well in it.store.values())
        assert it.store.index("name")["w1"][0].name == "w1"
        with pytest.raises(cdc.SubscriptionError, match=r"Odd\.colour has no column in public\.wells, which shows id"):
            it.running.consumer.store("wells", model=Odd)
        with pytest.raises(cdc.ConfigurationError, match="the model of a store is a dataclass, not <class 'dict'>"):
            it.running.consumer.store("wells", model=dict)
        assert len(it.running.consumer.subscriptions) == 1


def test_keys_are_compared_as_the_server_does(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(
        "CREATE TABLE cores (note text, depth numeric, well uuid, at timestamptz, name text, "
        "PRIMARY KEY (depth, well, at, name)); ALTER PUBLICATION wells ADD TABLE cores;"
        "INSERT INTO cores SELECT 'tab\\' || chr(9) || chr(92), n / 8.0, lpad(n::text, 32, '0')::uuid, "
        "'2024-05-06 07:08:09Z', E'a\\t\\\\' || n FROM generate_series(1, 45) n"
    )
    with Stores(kind, database, table="cores") as it:
        it.live()
        assert plain(it.store) == table(db, "depth, well, at, name", "cores")
        at = datetime.datetime(2024, 5, 6, 9, 8, 9, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
        key = (Decimal("1.000"), uuid.UUID(int=8), at, "a\t\\8")
        assert it.store[key]["name"] == "a\t\\8" and key in it.store
        assert (Decimal(1), uuid.UUID(int=9), at, "a\t\\8") not in it.store
        for wrong, message in (((1, "x"), "tuple of"), ((1, "x", at, 3), "a str"), (7, "tuple of")):
            with pytest.raises(TypeError, match=message):
                it.store[wrong]
        db.execute("UPDATE cores SET depth = depth + 100; DELETE FROM cores WHERE depth = 101")
        it.running.caught_up(db)
        assert plain(it.store) == table(db, "depth, well, at, name", "cores") and key not in it.store


def test_a_key_of_another_type(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (33)")
    with Stores(kind, database) as it:
        it.live()
        assert it.store[33]["id"] == 33 and it.store.get(34) is None and 2**70 not in it.store
        for wrong in ("33", None, True, 33.0):
            with pytest.raises((TypeError, KeyError)):
                it.store[wrong]
        with pytest.raises(TypeError, match="expected an int, got '33' of type str"):
            "33" in it.store  # noqa: B015


def test_the_store_has_moved_before_anybody_hears_of_it(kind: str, database: str, db: psycopg.Connection) -> None:
    order: list[Any] = []
    with Running(kind, database, nothing) as running:
        running.subscribe("wells", lambda event: order.append(("handler", store.get(event.key))))
        store = running.consumer.store("wells")

        @store.on_change
        def changed(change: cdc.StoreChange) -> None:
            order.append(("store", store.get(change.key)))
            with pytest.raises(cdc.ConfigurationError, match="inside a handler"):
                running.consumer.store("wells").wait_live() if kind == "blocking" else store._when_live()

        live(running, store)
        db.execute("INSERT INTO wells VALUES (1, 'one')")
        running.caught_up(db)
    assert [(who, row["name"]) for who, row in order] == [("store", "one"), ("handler", "one")]


def test_handlers_that_are_coroutines(database: str, db: psycopg.Connection) -> None:
    db.execute(ROWS)
    order: list[Any] = []
    with Running("asyncio", database, nothing) as running:
        store = running.consumer.store("wells")

        @store.on_change
        async def changed(change: cdc.StoreChange) -> None:
            await asyncio.sleep(0)
            order.append(change.key)

        store.on_change(lambda change: order.append(-change.key))
        live(running, store)
        db.execute("DELETE FROM wells WHERE id > 40")
        running.caught_up(db)
    keys = [*range(1, 51), *range(41, 51)]
    assert order == [each for key in keys for each in (key, -key)]
    with Running("blocking", database, nothing, slot="other") as running:
        store = running.consumer.store("wells")
        with pytest.raises(cdc.ConfigurationError, match="is a coroutine function: use AsyncConsumer"):
            store.on_change(changed)
        with pytest.raises(cdc.ConfigurationError, match="on_change takes a function"):
            store.on_change(3)


def test_a_handler_that_raises_ends_the_consumer(kind: str, database: str, db: psycopg.Connection) -> None:
    """The change is not acknowledged: the next consumer has it again."""

    def refuse(change: cdc.StoreChange) -> None:
        raise ValueError("no")

    running = Running(kind, database)
    with pytest.raises(cdc.HandlerError, match="on_change of the store of public.wells raised ValueError: no"), running:
        store = running.consumer.store("wells")
        live(running, store)
        store.on_change(refuse)
        db.execute("INSERT INTO wells VALUES (1)")
        until(lambda: store.status.startswith("stopped: "))
        with pytest.raises(cdc.HandlerError):
            live(running, store)
        assert 1 in store and not store.is_live
    assert not running.events
    with Running(kind, database) as again:
        until(lambda: [event.key for event in again.events] == [1])


def test_what_cannot_be_kept_is_refused(kind: str, database: str, db: psycopg.Connection, tmp_path: Path) -> None:
    db.execute(
        "CREATE TABLE loose (id int); ALTER TABLE loose REPLICA IDENTITY FULL;"
        "CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY LIST (id);"
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);"
        "CREATE TABLE apart (id int PRIMARY KEY); CREATE VIEW seen AS SELECT * FROM wells;"
        "CREATE TABLE odd (id bytea PRIMARY KEY);"
        "ALTER PUBLICATION wells ADD TABLE loose, odd;"
        "CREATE PUBLICATION roots FOR TABLE parts WITH (publish_via_partition_root = true)"
    )
    messages = {
        "loose": "public.loose has no key among its published columns",
        "parts": "has partitions or child tables",
        "apart": "is not in publication",
        "seen": "there is no table public.seen",
        "nowhere": "there is no table public.nowhere",
        "odd": "rows cannot be found by 'id': its type cannot be compared",
        "a.b.c": "is not the name of a table",
        "public.*": "a store is of one table",
    }
    with Running(kind, database, nothing, publication=["wells", "roots"]) as running:
        store = running.consumer.store
        for name, message in messages.items():
            with pytest.raises(cdc.SubscriptionError, match=message):
                store(name)
        with pytest.raises(cdc.ConfigurationError, match="the path of the store of wells is text or a Path, not 3"):
            store("wells", 3)
        with pytest.raises(cdc.SubscriptionError, match="the filter is text"):
            store("wells", filter=3)
        with pytest.raises(cdc.SubscriptionError, match="colour"):
            store("wells", filter="colour=eq.red")
        with pytest.raises(cdc.ConfigurationError, match=r"the subject is a cdc\.Subject"):
            store("wells", subject="anon")
        with pytest.raises(cdc.ConfigurationError, match="the name of a subscription is text"):
            store("wells", name="")
        assert running.consumer.subscriptions == []
    with Running(kind, database, nothing, slot=None, binary=True) as running:
        with pytest.raises(cdc.SubscriptionError, match="a store compares values in text form"):
            running.consumer.store("wells")
    with Running(kind, database, nothing, slot=None, require_subject=True) as running:
        with pytest.raises(cdc.ConfigurationError, match="needs a subject"):
            running.consumer.store("wells")
    db.execute("ALTER PUBLICATION wells SET (publish = 'insert, update')")
    with Running(kind, database, nothing, slot=None) as running:
        with pytest.raises(cdc.SubscriptionError, match="does not publish DELETE, TRUNCATE"):
            running.consumer.store("wells")


def test_closing_leaves_nothing_behind(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROWS)
    threads = set(threading.enumerate())
    with Running(kind, database) as running:
        store = running.consumer.store("wells", name="list")
        live(running, store)
        assert [each.name for each in running.consumer.subscriptions if each.first] == ["list"]
        dispatcher = running.consumer._loop._dispatcher
        db.execute("INSERT INTO wells VALUES (500)")
        running.caught_up(db)
        oid = running.events[0].relation.oid
        assert len(dispatcher.views_of(oid)) == 2
        store.close()
        store.close()
        assert len(store) == 0 and not store.is_live and store.status == "closed"
        assert not any(each.first for each in running.consumer.subscriptions)
        db.execute("INSERT INTO wells VALUES (501)")
        running.caught_up(db)
        until(lambda: len(dispatcher.views_of(oid)) == 1)
        until(lambda: not running.consumer._loop.snapshots.stores._feeds)
        with pytest.raises(cdc.CdcError, match="was closed"):
            live(running, store)
        early = running.consumer.store("wells")
        early.close()
        again = running.consumer.store("wells")
        live(running, again)
        assert plain(again) == table(db)
    assert not again.is_live and again.status.startswith("stopped") and len(again) == 52
    with pytest.raises(cdc.CdcError, match="the consumer was stopped"):
        raise again._future.exception()  # type: ignore[misc]
    until(lambda: set(threading.enumerate()) <= threads)


def test_waiting_says_what_for(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROWS)
    stores: list[Any] = []
    running = Running(kind, database, lambda running: stores.append(running.consumer.store("wells")))
    running._prepare(running)
    with pytest.raises(TimeoutError, match=r"was not live within 0.1 s: not started; the consumer is not started"):
        running.do(stores[0].wait_live, timeout=0.1)
    assert len(stores[0]) == 0 and 1 not in stores[0] and list(stores[0]) == [] and stores[0].position is None
    assert list(stores[0].index("name")) == [] and stores[0].index("name")["w1"] == ()
    with psycopg.connect(database) as locker:
        with running:
            live(running, stores[1])
            locker.execute("LOCK TABLE wells")
            late = running.consumer.store("public.wells") if kind == "never" else stores[1]
            late.refill("asked for")
            until(lambda: any("waiting for a lock on the table" in note for note in running.consumer.health().notes))
            assert not late.is_live and len(late) == 50
            with pytest.raises(TimeoutError, match="was not live within 0.1 s: filled anew, 0 rows read"):
                running.do(late.wait_live, timeout=0.1)
            locker.rollback()
            live(running, late)
            assert not any("store of" in note for note in running.consumer.health().notes)
