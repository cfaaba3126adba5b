"""Odd moments: things that change while nobody looks, servers that go silent, threads that come at the wrong time."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import psycopg
import pytest

import cdc
from cdc.caching import filling
from cdc.testing import Sandbox
from tests.harness import QUICK, SETUP, Running, until
from tests.proxy import Proxy


def through(proxy: Proxy, dsn: str) -> str:
    return psycopg.conninfo.make_conninfo(dsn, host="127.0.0.1", port=proxy.port)


def test_other_publications_after_a_stop_inside_a_transaction(kind: str, database: str, db: psycopg.Connection) -> None:
    """Ordinals count what the publications send: with other ones the transaction is delivered whole again."""
    db.execute("CREATE TABLE other (id int PRIMARY KEY); CREATE PUBLICATION other FOR TABLE other")

    def stops(running: Running) -> None:
        def handler(event: cdc.Change) -> None:
            if event.key == 3:
                raise ValueError

        running.on("other", handler)

    with Running(kind, database, stops, publication=["wells", "other"]) as running:
        with db.transaction():
            db.execute("INSERT INTO other VALUES (1), (2), (3)")
            db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        with pytest.raises(cdc.HandlerError):
            running.caught_up(db)
        with pytest.raises(cdc.HandlerError):
            running.do(running.consumer.stop)
    with Running(kind, database) as again:
        again.caught_up(db)
    assert [event.key for event in again.events] == [1, 2, 3]


def test_a_table_made_again_while_changes_wait(kind: str, database: str, db: psycopg.Connection) -> None:
    """Rows of a table that is gone cannot be judged: the subject is denied, the trusted subscriber has them all.

    What the former table held went without a change, so that both are told of a gap.
    """
    seen: list[Any] = []
    db.execute("GRANT SELECT ON wells TO authenticated; ALTER TABLE wells REPLICA IDENTITY FULL")
    with Running(kind, database):
        pass
    db.execute("INSERT INTO wells VALUES (1)")
    db.execute("DROP TABLE wells; CREATE TABLE wells (id int PRIMARY KEY, name text)")
    db.execute("GRANT SELECT ON wells TO authenticated; ALTER PUBLICATION wells ADD TABLE wells")
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL; INSERT INTO wells VALUES (2)")

    def both(running: Running) -> None:
        running.on("wells", running.events.append)
        running.on("wells", seen.append, subject=cdc.Subject("authenticated"))

    with Running(kind, database, both, on_gap="deliver") as running:
        running.caught_up(db)
    first, gap, second = running.events
    assert isinstance(gap, cdc.Gap) and gap.last == gap.previous == first.position
    assert (first.new["id"], second.new["id"]) == (1, 2)
    assert isinstance(seen[0], cdc.Gap) and [event.new["id"] for event in seen[1:]] == [2]


def test_renamed_columns_lend_no_rights_to_older_rows(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE TABLE notes (id int PRIMARY KEY, secret text, shown text)")
    db.execute("ALTER TABLE notes REPLICA IDENTITY FULL; GRANT SELECT (id, shown) ON notes TO authenticated")
    db.execute("ALTER PUBLICATION wells ADD TABLE notes")
    seen: list[Any] = []
    with Running(kind, database):
        pass
    db.execute("INSERT INTO notes VALUES (1, 'SECRET', 'shown')")
    db.execute("ALTER TABLE notes RENAME secret TO s; ALTER TABLE notes RENAME shown TO secret")
    db.execute("ALTER TABLE notes RENAME s TO shown")
    db.execute("INSERT INTO notes VALUES (2, 'SECRET', 'shown')")

    def subject(running: Running) -> None:
        running.on("notes", seen.append, subject=cdc.Subject("authenticated"))

    with Running(kind, database, subject) as running:
        running.caught_up(db)
    assert [dict(event.new) for event in seen] == [{"id": 2, "secret": "shown"}]
    assert all(b"SECRET" not in event.new.cells for event in seen), "hidden cells are not there either"


def test_a_refused_subscription_does_not_hide_a_change_of_rights(database: str, db: psycopg.Connection) -> None:
    db.execute("GRANT SELECT ON wells TO authenticated; ALTER TABLE wells REPLICA IDENTITY FULL")
    seen: list[Any] = []
    with Running("blocking", database, rights_interval=0.5) as running:
        running.subscribe("wells", seen.append, subject=cdc.Subject("authenticated"))
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        db.execute("ALTER TABLE wells ENABLE ROW LEVEL SECURITY")
        with pytest.raises(cdc.SubscriptionError):
            running.subscribe("wells", seen.append, subject=cdc.Subject("authenticated"), filter="nothing=eq.1")
        time.sleep(1.2)
        db.execute("INSERT INTO wells VALUES (2)")
        running.caught_up(db)
    insert, gap = seen
    assert insert.key == 1 and gap.kind is cdc.GapKind.RIGHTS


def test_slow_handlers_do_not_hold_up_a_change_of_rights(database: str, db: psycopg.Connection) -> None:
    db.execute("GRANT SELECT ON wells TO authenticated")
    seen: list[Any] = []

    def slow(event: cdc.Change) -> None:
        seen.append(event)
        if len(seen) == 5:
            db.execute("REVOKE SELECT ON wells FROM authenticated")
        time.sleep(0.02)

    def prepare(running: Running) -> None:
        running.on("wells", slow, subject=cdc.Subject("authenticated"), operations=["insert"])

    with Running("blocking", database, prepare, rights_interval=0.1) as running:
        db.execute("INSERT INTO wells SELECT generate_series(1, 200)")
        running.caught_up(db)
    assert 5 <= len(seen) < 100


def test_without_state_a_reconnect_repeats_nothing(
    kind: str, server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    with Proxy(server.port) as proxy, Running(kind, through(proxy, database), state=None) as running:
        for number in range(1, 9):
            db.execute("INSERT INTO wells VALUES (%s)", (number,))
            running.caught_up(db)
            proxy.cut()
            until(lambda number=number: running.consumer.health().reconnects >= number)
        running.caught_up(db)
    assert [event.key for event in running.events] == list(range(1, 9))
    assert len({event.position.epoch for event in running.events}) == 1


def test_a_gap_that_was_told_is_told_once(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("SELECT pg_create_logical_replication_slot('ingest', 'pgoutput')")
    with Running(kind, database, on_gap="deliver") as running:
        until(lambda: running.events)
        until(lambda: db.execute("SELECT 1 FROM cdc.slots").fetchone())
        db.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'ingest'")
        until(lambda: running.consumer.health().reconnects == 1)
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
    assert [type(event) for event in running.events] == [cdc.Gap, cdc.Insert]


def test_a_table_that_is_not_published_any_more_stops_the_consumer(database: str, db: psycopg.Connection) -> None:
    with Running("blocking", database, rights_interval=0.1) as running:
        db.execute("ALTER PUBLICATION wells DROP TABLE wells")
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
        with pytest.raises(cdc.SubscriptionError, match=r"public\.wells is not published any more"):
            running.do(running.consumer.stop)


def test_time_limits_of_the_database_do_not_end_the_consumer(kind: str, database: str, db: psycopg.Connection) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    db.execute(f"ALTER DATABASE {name} SET idle_session_timeout = '300ms'")
    db.execute(f"ALTER DATABASE {name} SET statement_timeout = '300ms'")
    with Running(kind, database) as running:
        time.sleep(1.5)
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        assert running.consumer.health().reconnects == 0


def test_a_server_that_falls_silent_is_left_and_found_again(
    kind: str, server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    with Proxy(server.port) as proxy, Running(kind, through(proxy, database)) as running:
        running.caught_up(db)
        proxy.fall_silent()
        until(lambda: running.consumer.health().status is cdc.Status.CONNECTING, timeout=40)
        proxy.speak()
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
    assert [event.key for event in running.events] == [1]


def test_a_server_can_shut_down_while_a_handler_works(kind: str) -> None:
    leave = threading.Event()
    with Sandbox() as server:
        with psycopg.connect(server.dsn, autocommit=True) as db:
            db.execute(SETUP)
            db.execute("CREATE TABLE wells (id int PRIMARY KEY); CREATE PUBLICATION wells FOR TABLE wells")
            entered = threading.Event()

            def blocks(event: cdc.Change) -> None:
                entered.set()
                leave.wait(60)

            with Running(kind, server.dsn, lambda running: running.on("wells", blocks), backoff=QUICK) as running:
                db.execute("INSERT INTO wells VALUES (1)")
                assert entered.wait(20)
                server.restart(mode="fast")
                leave.set()
                with psycopg.connect(server.dsn, autocommit=True) as after:
                    running.caught_up(after)


def test_a_value_kept_by_another_is_not_handed_on_after_a_change(
    database: str, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader is held up between keeping its value and leaving; a change comes; the next reader must not join it."""
    db.execute("INSERT INTO wells VALUES (1, 'old')")

    def name_of(connection: psycopg.Connection, key: int) -> str:
        row = connection.execute("SELECT name FROM wells WHERE id = %s", (key,)).fetchone()
        assert row is not None
        return str(row[0])

    with Running("blocking", database) as running:
        cache = running.consumer.cache("wells", ttl=60, by="id")
        until(lambda: cache.is_live)
        held, go_on = threading.Event(), threading.Event()
        keep = filling._keep

        def slow_to_leave(*arguments: Any, **named: Any) -> Any:
            value = keep(*arguments, **named)
            held.set()
            go_on.wait(20)
            return value

        monkeypatch.setattr(filling, "_keep", slow_to_leave)
        first = threading.Thread(target=cache.fetch, args=(1, name_of))
        first.start()
        assert held.wait(20)
        monkeypatch.setattr(filling, "_keep", keep)
        db.execute("UPDATE wells SET name = 'new'")
        running.caught_up(db)
        second: list[str] = []
        reader = threading.Thread(target=lambda: second.append(cache.fetch(1, name_of)))
        reader.start()
        reader.join(5)
        go_on.set()
        first.join()
        reader.join()
    assert second == ["new"]


def test_a_load_that_fetches_its_own_key_is_an_error(database: str, db: psycopg.Connection) -> None:
    with Running("blocking", database) as running:
        cache = running.consumer.cache("wells", ttl=60)
        until(lambda: cache.is_live)
        with pytest.raises(cdc.ConfigurationError, match="fetches its own key"):
            cache.fetch("k", lambda connection, key: cache.fetch("k", print))


def standby_of_new_connections(server: Sandbox) -> str:
    """A new connection has what the server's first process has read by now; others may be before it."""
    with psycopg.connect(server.dsn) as connection:
        row = connection.execute("SHOW synchronous_standby_names").fetchone()
        assert row is not None
        return str(row[0])


def test_a_commit_that_a_former_process_received_is_fenced_too(kind: str) -> None:
    """Streamed and confirmed before a restart, but still waiting for its standby: not to be cached as old."""
    with Sandbox() as server, psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(SETUP)
        db.execute("CREATE TABLE wells (id int PRIMARY KEY, name text); CREATE PUBLICATION wells FOR TABLE wells")
        db.execute("INSERT INTO wells VALUES (1, 'old'); SET synchronous_commit = local")
        with Running(kind, server.dsn) as running:
            running.caught_up(db)
            db.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            db.execute("SELECT pg_reload_conf()")
            until(lambda: standby_of_new_connections(server) == "nobody")
            writer = psycopg.connect(server.dsn, autocommit=True)
            thread = threading.Thread(target=writer.execute, args=("UPDATE wells SET name = 'new'",))
            thread.start()
            until(lambda: running.events)
            running.caught_up(db)
            assert db.execute("SELECT name FROM wells").fetchone() == ("old",), "the commit is not to be visible yet"

        def name_of(connection: psycopg.Connection, key: int) -> str:
            row = connection.execute("SELECT name FROM wells WHERE id = %s", (key,)).fetchone()
            assert row is not None
            return str(row[0])

        made: list[Any] = []

        def cached(running: Running) -> None:
            made.append(running.consumer.cache("wells", ttl=60, by="id", patience=0.3))

        with Running(kind, server.dsn, cached) as running:
            until(lambda: made[0].is_live)
            with pytest.raises(cdc.NotYetVisible):
                running.do(made[0].fetch, 1, name_of)
            db.execute("ALTER SYSTEM RESET synchronous_standby_names")
            db.execute("SELECT pg_reload_conf()")
            thread.join(20)
            writer.close()
            assert running.do(made[0].fetch, 1, name_of) == "new"


def test_caches_refuse_tables_whose_changes_may_go_by_another_name(database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE TABLE logs (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    db.execute("CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (0) TO (10)")
    db.execute("CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent)")
    db.execute("CREATE PUBLICATION all_of_it FOR TABLE logs, parent WITH (publish_via_partition_root)")
    with cdc.Consumer(database, slot=None, publication="all_of_it") as consumer:
        for table in ("logs", "parent"):
            with pytest.raises(cdc.SubscriptionError, match="partitions or child tables"):
                consumer.cache(table, ttl=1)


def test_a_closed_cache_serves_nothing(database: str, db: psycopg.Connection) -> None:
    with Running("blocking", database) as running:
        cache = running.consumer.cache("wells", ttl=60)
        until(lambda: cache.is_live)
        count = [0]

        def load(connection: psycopg.Connection, key: Any) -> int:
            count[0] += 1
            return count[0]

        assert [cache.fetch("k", load), cache.fetch("k", load)] == [1, 1]
        next(each for each in running.consumer.subscriptions if each.first).close()
        assert [cache.fetch("k", load), cache.fetch("k", load)] == [2, 3]


def test_a_changed_table_clears_its_cache(database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, '5'), (2, '6')")
    with Running("blocking", database) as running:
        cache = running.consumer.cache("wells", ttl=60, by="id")
        until(lambda: cache.is_live)

        def load(connection: psycopg.Connection, key: int) -> Any:
            return (connection.execute("SELECT name FROM wells WHERE id = %s", (key,)).fetchone() or (None,))[0]

        assert cache.fetch(1, load) == "5"
        db.execute("ALTER TABLE wells ALTER name TYPE int USING name::int * 10")
        db.execute("UPDATE wells SET depth = 1 WHERE id = 2")
        running.caught_up(db)
        assert cache.fetch(1, load) == 50


def test_asyncio_stop_from_the_task_that_awaits_run(database: str, db: psycopg.Connection) -> None:
    async def program() -> list[int]:
        seen: list[int] = []
        consumer = cdc.AsyncConsumer(database, slot=None)
        consumer.on("wells")(lambda event: seen.append(event.key))

        async def stopper() -> None:
            while not seen:
                await asyncio.sleep(0.01)
            await consumer.stop()

        async def write() -> None:
            while consumer.health().status is not cdc.Status.LIVE:
                await asyncio.sleep(0.01)
            db.execute("INSERT INTO wells VALUES (1)")

        tasks = [asyncio.create_task(stopper()), asyncio.create_task(write())]
        await consumer.run()
        await asyncio.gather(*tasks)
        return seen

    assert asyncio.run(asyncio.wait_for(program(), 30)) == [1]


def test_asyncio_loads_do_not_starve_the_stream(database: str, db: psycopg.Connection) -> None:
    gate = threading.Event()

    async def program() -> None:
        async with cdc.AsyncConsumer(database, slot="ingest") as consumer:
            cache = consumer.cache("wells", ttl=60)
            await consumer.start()
            fetches = [asyncio.create_task(cache.fetch(n, lambda connection, key: gate.wait(30))) for n in range(40)]
            await asyncio.sleep(0.2)
            db.execute("INSERT INTO wells VALUES (1)")
            await consumer.wait_for(cdc.current_lsn(db), timeout=20)
            gate.set()
            await asyncio.gather(*fetches)

    asyncio.run(asyncio.wait_for(program(), 60))


def test_an_asyncio_cancellation_ends_in_good_order(database: str, db: psycopg.Connection) -> None:
    async def program() -> BaseException:
        consumer = cdc.AsyncConsumer(database, slot="ingest")
        task = asyncio.create_task(consumer.run())
        while consumer.health().status is not cdc.Status.LIVE:
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(consumer.wait_for("FFFF/0", timeout=30))
        await asyncio.sleep(0.1)
        task.cancel()
        (ended, other) = await asyncio.gather(task, waiting, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)
        assert consumer.health().status is cdc.Status.STOPPED
        return other  # type: ignore[return-value]

    other = asyncio.run(asyncio.wait_for(program(), 30))
    assert isinstance(other, cdc.CdcError) and "ended by CancelledError" in str(other)


def test_ctrl_c_is_heard_while_the_slot_waits_for_a_transaction(database: str, db: psycopg.Connection) -> None:
    program = textwrap.dedent(
        """
        import sys, cdc
        consumer = cdc.Consumer(sys.argv[1], slot="late")
        print("connecting", flush=True)
        consumer.run()
        """
    )
    with psycopg.connect(database) as other:
        other.execute("INSERT INTO wells VALUES (1)")
        process = subprocess.Popen([sys.executable, "-c", program, database], stderr=subprocess.PIPE)
        until(
            lambda: db.execute("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE_REPLICATION_SLOT%'").fetchone()
        )
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert b"KeyboardInterrupt" in errors
        other.rollback()


def test_a_waiter_that_gave_up_costs_nothing_more(database: str, db: psycopg.Connection) -> None:
    with Running("blocking", database) as running:
        with pytest.raises(TimeoutError):
            running.consumer.wait_for("FFFF/0", timeout=0.1)
        until(lambda: not running.consumer._loop.progress.is_awaited)


def test_names_that_need_quotes(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute('CREATE SCHEMA "Odd.One"; CREATE TABLE "Odd.One"."My ""T""" (id int PRIMARY KEY)')
    db.execute('ALTER PUBLICATION wells ADD TABLE "Odd.One"."My ""T"""')
    with Running(kind, database, lambda running: running.on('"Odd.One"."My ""T"""', running.events.append)) as running:
        db.execute('INSERT INTO "Odd.One"."My ""T""" VALUES (1)')
        running.caught_up(db)
    assert [(event.schema, event.table) for event in running.events] == [("Odd.One", 'My "T"')]


def test_arguments_of_the_wrong_type(database: str, db: psycopg.Connection) -> None:
    consumer = cdc.Consumer(database, slot=None)
    wrong: list[tuple[Any, str]] = [
        (lambda: cdc.Consumer(b"dsn", slot=None).start(), "the DSN is text, not bytes"),  # type: ignore[arg-type]
        (lambda: cdc.Consumer(database, slot=5), "slot: give a name"),  # type: ignore[arg-type]
        (lambda: cdc.Consumer(database, slot="s", publication=5), "publication: give a name"),  # type: ignore[arg-type]
        (lambda: cdc.Consumer(database, slot="s", rights_interval="5"), "rights_interval"),  # type: ignore[arg-type]
        (lambda: cdc.Consumer(database, slot="s", state=""), "state is 'database', the path"),
        (lambda: consumer.subscribe(None, print), "not the name of a table"),  # type: ignore[arg-type]
        (lambda: consumer.subscribe("", print), "not the name of a table"),
        (lambda: consumer.subscribe("wells", None), "cannot be called"),  # type: ignore[arg-type]
        (lambda: consumer.subscribe("wells", print, filter=5), "the filter is text"),  # type: ignore[arg-type]
        (lambda: consumer.subscribe("wells", print, subject="anon"), r"cdc\.Subject\('anon'\)"),  # type: ignore[arg-type]
        (lambda: consumer.subscribe("wells", print, operations=5), "choose of insert"),  # type: ignore[arg-type]
        (lambda: consumer.on(print), "the table has to be named"),  # type: ignore[arg-type]
        (lambda: consumer.cache("wells", ttl="300"), "ttl is above 0"),  # type: ignore[arg-type]
        (lambda: consumer.cache("wells", ttl=float("nan")), "ttl is above 0"),
        (lambda: consumer.cache("wells", ttl=1, by=()), "by is a column or several"),
    ]
    for call, says in wrong:
        with pytest.raises(cdc.ConfigurationError, match=says):
            call()
    with consumer:
        pass
    with pytest.raises(cdc.ConfigurationError, match="was stopped: make a new one"):
        consumer.run()


def test_a_table_that_is_being_altered_does_not_hold_up_the_others(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """Reading the publications waits for the lock of an ALTER TABLE that has not committed."""
    db.execute("CREATE TABLE other (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE other")
    with Running(kind, database) as running, psycopg.connect(database) as altering:
        altering.execute("ALTER TABLE other ADD COLUMN more text")
        deadline = time.monotonic() + 1.5  # several intervals of reading rights
        while time.monotonic() < deadline:
            db.execute("INSERT INTO wells VALUES (%s)", (len(running.events),))
            running.caught_up(db, timeout=5)
        assert running.consumer.health().reconnects == 0
        altering.rollback()
