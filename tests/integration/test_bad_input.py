"""Each mistake gives one message that names the thing and the remedy, and the right class of error."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import psycopg
import pytest

import cdc
from cdc.testing import Sandbox
from tests.harness import Running, until


def start(dsn: str, prepare: Callable[[Running], None] | None = None, **options: object) -> None:
    with Running("blocking", dsn, prepare, **options):
        pass


def subscribe(dsn: str, table: str = "wells", **options: object) -> None:
    start(dsn, lambda running: running.on(table, print, **options))


def test_a_dsn_that_cannot_be_read() -> None:
    with pytest.raises(cdc.ConfigurationError, match="the DSN cannot be read: there is no option 'hots'"):
        start("hots=127.0.0.1 dbname=postgres")
    for dsn in ("host=h password=my secret", "postgresql://u:my@secret@host/d", "postgresql://u:secret/x@host:x/d"):
        with pytest.raises(cdc.ConfigurationError, match="the DSN cannot be read.*%40") as caught:
            start(dsn)
        assert "secret" not in str(caught.value)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with pytest.raises(cdc.ConnectionFailed, match="cannot connect to the server.*Is it running"):
        start(f"postgresql://postgres@127.0.0.1:{port}/postgres")


@pytest.mark.parametrize(("change", "says"), [({"dbname": "nowhere"}, "nowhere"), ({"password": "wrong"}, "password")])
def test_wrong_database_or_password(database: str, change: dict[str, str], says: str) -> None:
    with pytest.raises(cdc.ConfigurationError, match=f"refuses the connection.*{says}.*Check user, password") as caught:
        start(psycopg.conninfo.make_conninfo(database, **change))
    assert "wrong" not in str(caught.value).replace("wrong password", "")


def test_no_replication_right(server: Sandbox, database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE ROLE plain LOGIN PASSWORD 'p'")
    try:
        with pytest.raises(
            cdc.ConfigurationError, match="role 'plain' has no replication right.*ALTER ROLE \"plain\" REPL"
        ):
            start(psycopg.conninfo.make_conninfo(database, user="plain", password="p"))
    finally:
        db.execute("DROP ROLE plain")


def test_wal_level_is_not_logical() -> None:
    with (
        Sandbox(settings={"wal_level": "replica"}) as server,
        pytest.raises(cdc.ConfigurationError, match="wal_level is 'replica'.*ALTER SYSTEM SET wal_level = 'logical'"),
    ):
        start(server.dsn)


def test_a_pooler_instead_of_a_server() -> None:
    """A listener that answers as a pooler does: the start-up parameter `replication` is refused."""
    message = b"Sunsupported startup parameter: replication\0"
    body = b"SFATAL\0C08P01\0M" + message[1:] + b"\0"
    answer = b"E" + (len(body) + 4).to_bytes(4, "big") + body
    from cdc.connection import ReplicationConnection

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        with pytest.raises(
            cdc.ConfigurationError, match="connection pooler, not PostgreSQL.*point the DSN at the server"
        ):
            ReplicationConnection(f"postgresql://u:p@127.0.0.1:{port}/db?sslmode=disable")
        thread.join()


def test_a_missing_publication(database: str, db: psycopg.Connection) -> None:
    with pytest.raises(
        cdc.ConfigurationError, match="publication 'nothing' does not exist: run `cdc setup.*CREATE PUBLIC"
    ):
        start(database, publication="nothing")
    assert db.execute("SELECT 1 FROM pg_replication_slots WHERE database = current_database()").fetchone() is None


def test_no_cdc_schema(database: str, db: psycopg.Connection) -> None:
    db.execute("DROP SCHEMA cdc CASCADE")
    with pytest.raises(cdc.ConfigurationError, match=r"cdc\.slots is missing: run `cdc setup.*state=PATH.*state=None"):
        start(database)


def test_a_table_that_is_not_published(database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE TABLE projects (id int PRIMARY KEY)")
    with pytest.raises(
        cdc.SubscriptionError, match='public.projects is not in publication .wells.*ALTER PUBLICATION "wells" A'
    ):
        subscribe(database, "projects")


def test_a_table_that_does_not_exist(database: str, db: psycopg.Connection) -> None:
    with pytest.raises(cdc.SubscriptionError, match=r"there is no table public\.Wells; names are case-sensitive"):
        subscribe(database, "Wells")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name", "column=eq.value"),
        ("name=ne.x", "did you mean neq"),
        ("nothing=eq.1", "nothing.*id, name, project_id"),
        ("project_id=eq.12", "project_id.*12.*uuid|12.*uuid"),
        ("", "column=eq.value"),
    ],
)
def test_an_invalid_filter(database: str, db: psycopg.Connection, text: str, says: str) -> None:
    with pytest.raises(cdc.SubscriptionError, match=says):
        subscribe(database, filter=text, accept_undecided=True)


def test_a_filter_that_cannot_judge_deletes(database: str, db: psycopg.Connection) -> None:
    with pytest.raises(
        cdc.SubscriptionError, match='without name.*ALTER TABLE "public"."wells" REPLICA IDENTITY FULL.*accept_un'
    ):
        subscribe(database, filter="name=eq.x")
    subscribe(database, filter="name=eq.x", operations=["insert"])
    subscribe(database, filter="name=eq.x", accept_undecided=True)
    subscribe(database, filter="id=eq.1")


def test_a_mistake_leaves_no_slot_behind(database: str, db: psycopg.Connection) -> None:
    with pytest.raises(cdc.SubscriptionError):
        subscribe(database, "nothing")
    assert db.execute("SELECT 1 FROM pg_replication_slots WHERE database = current_database()").fetchone() is None
    assert db.execute("SELECT 1 FROM cdc.slots").fetchone() is None


def test_unknown_operations(database: str) -> None:
    with pytest.raises(cdc.SubscriptionError, match="MERGE; choose of insert, update, delete, truncate"):
        subscribe(database, operations=["merge"])


def test_an_unknown_role(database: str, db: psycopg.Connection) -> None:
    with pytest.raises(cdc.SubscriptionError, match="nobody_like_that.*does not exist"):
        subscribe(database, subject=cdc.Subject("nobody_like_that"))


def test_claims_that_are_no_json() -> None:
    with pytest.raises(cdc.SubscriptionError, match="claims"):
        cdc.Subject("authenticated", claims="{sub: 1")
    with pytest.raises(cdc.SubscriptionError, match="claims"):
        cdc.Subject("authenticated", claims="[1]")


def test_a_policy_that_cannot_be_decided(database: str, db: psycopg.Connection) -> None:
    db.execute("GRANT SELECT ON wells TO authenticated; ALTER TABLE wells ENABLE ROW LEVEL SECURITY")
    db.execute("CREATE POLICY near ON wells FOR SELECT TO authenticated USING (depth < random())")
    with pytest.raises(cdc.SubscriptionError, match="policy 'near'"):
        subscribe(database, subject=cdc.Subject("authenticated"))


def test_a_filter_on_a_hidden_column(database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL; GRANT SELECT (id, name) ON wells TO authenticated")
    with pytest.raises(cdc.SubscriptionError, match="depth"):
        subscribe(database, subject=cdc.Subject("authenticated"), filter="depth=eq.1")


def test_a_subject_is_required(database: str) -> None:
    with pytest.raises(cdc.ConfigurationError, match="needs a subject"):
        cdc.Consumer(database, slot="x", require_subject=True).subscribe("wells", print)


def test_caches_refuse_what_would_make_them_stale(database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE PUBLICATION inserts FOR TABLE wells WITH (publish = 'insert')")
    with pytest.raises(cdc.SubscriptionError, match="inserts does not publish DELETE, TRUNCATE, UPDATE"):
        start(database, lambda running: running.consumer.cache("wells", ttl=1), publication="inserts")
    with pytest.raises(cdc.SubscriptionError, match="no published column 'nothing'"):
        start(database, lambda running: running.consumer.cache("wells", ttl=1, by="nothing"))
    with pytest.raises(cdc.ConfigurationError, match="ttl is above 0"):
        cdc.Consumer(database, slot="x").cache("wells", ttl=0)
    if db.info.server_version >= 150000:
        db.execute("CREATE PUBLICATION part FOR TABLE wells WHERE (id > 5)")
        with pytest.raises(cdc.SubscriptionError, match="part filters the rows"):
            start(database, lambda running: running.consumer.cache("wells", ttl=1), publication="part")


def test_a_late_mistake_is_said_at_once_and_stops_nobody(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        with pytest.raises(cdc.SubscriptionError, match="there is no table"):
            running.subscribe("nothing", print)
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
    assert len(running.events) == 1


def test_a_coroutine_function_for_the_blocking_consumer_and_settings_that_cannot_be() -> None:
    for options, says in (
        ({"slot": ""}, "slot: give a name"),
        ({"slot": "x", "publication": []}, "publication: give a name"),
        ({"slot": "x", "on_gap": "ignore"}, "on_gap is 'stop' or 'deliver' or 'resync'"),
        ({"slot": "x", "rights_interval": 0}, "rights_interval is above 0"),
    ):
        with pytest.raises(cdc.ConfigurationError, match=says):
            cdc.Consumer("", **options)  # type: ignore[arg-type]


def test_a_consumer_runs_once(database: str, db: psycopg.Connection) -> None:
    consumer = cdc.Consumer(database, slot=None)
    consumer.start()
    with pytest.raises(cdc.ConfigurationError, match="runs already"):
        consumer.start()
    consumer.close()
    consumer.close()
    with pytest.raises(cdc.ConfigurationError, match="was stopped: make a new one"):
        consumer.start()


def test_columns_whose_equality_only_the_server_can_decide(database: str, db: psycopg.Connection) -> None:
    db.execute('CREATE COLLATION loose FROM "C"')
    db.execute("UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'loose'")
    db.execute("ALTER TABLE wells ADD soft text COLLATE loose; ALTER TABLE wells REPLICA IDENTITY FULL")
    with pytest.raises(cdc.SubscriptionError, match=r"public\.wells\.soft has a nondeterministic collation"):
        subscribe(database, filter="soft=eq.x")
    with pytest.raises(cdc.SubscriptionError, match=r"public\.wells\.soft has a nondeterministic collation"):
        start(database, lambda running: running.consumer.cache("wells", ttl=1, by=("id", "soft")))


def test_operations_that_are_named_have_to_be_published(database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE PUBLICATION inserts FOR TABLE wells WITH (publish = 'insert')")
    for named in (["insert", "update"], ["insert", "update", "delete", "truncate"]):
        with pytest.raises(cdc.SubscriptionError, match="inserts does not publish .*UPDATE"):
            start(
                database,
                lambda running, named=named: running.on("wells", print, operations=named),
                publication="inserts",
            )
    start(database, publication="inserts")


def test_a_partition_that_is_published_as_its_root(database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE TABLE logs (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    db.execute("CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (0) TO (10)")
    db.execute("CREATE PUBLICATION rooted FOR TABLE logs WITH (publish_via_partition_root)")
    with pytest.raises(cdc.SubscriptionError, match=r"public\.logs_1 is a partition: subscribe to logs"):
        start(database, lambda running: running.on("logs_1", print), publication="rooted")


def test_a_publication_dropped_while_running_stops_the_consumer(database: str, db: psycopg.Connection) -> None:
    """PostgreSQL 18 streams on without it, and without a word."""
    with Running("blocking", database, rights_interval=0.1) as running:
        db.execute("DROP PUBLICATION wells")
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
        with pytest.raises(cdc.ConfigurationError, match="publication"):
            running.do(running.consumer.stop)


def test_a_temporary_slot_stops_at_a_gap_when_it_is_told_to(
    server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    with Running("blocking", database, slot=None, on_gap="stop") as running:
        running.caught_up(db)
        db.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND temporary")
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
        with pytest.raises(cdc.GapError, match="temporary slot ends with its connection"):
            running.do(running.consumer.stop)
