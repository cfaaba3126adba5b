"""Cells in binary form, and users' own decoders, through a whole consumer."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import cdc
from cdc.values import Interval
from tests.harness import Running

TABLE = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE kinds (
    id bigint PRIMARY KEY, i int, n numeric(10,4), f float8, t text, u uuid, at timestamptz, day date,
    b bytea, j jsonb, tags text[], m mood, during tstzrange, gap interval, empty text
);
ALTER TABLE kinds REPLICA IDENTITY FULL;
ALTER PUBLICATION wells ADD TABLE kinds
"""
ROW = """
INSERT INTO kinds VALUES (
    1, -7, 2450.5, 'NaN', 'é', '8fac0a3e-8a52-4c41-9ddb-2d6d6d3a1b11', '2026-01-02 03:04:05.6+02', 'infinity',
    '\\x00ff', '{"a": [1, 2.5, null]}', '{a,NULL,"b c"}', 'ok', '[2026-01-01 00:00+00,)', '1 mon 2 days', NULL
)
"""


def kinds(running: Running) -> None:
    running.on("kinds", running.events.append)


def test_both_forms_are_the_same_to_handlers(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(TABLE)
    for slot, binary in (("text", False), ("bytes", True)):
        with Running(kind, database, kinds, slot=slot, binary=binary):
            pass
    db.execute(ROW)
    db.execute("UPDATE kinds SET id = 2, t = NULL")
    db.execute("DELETE FROM kinds")
    received = []
    for slot, binary in (("text", False), ("bytes", True)):
        with Running(kind, database, kinds, slot=slot, binary=binary) as running:
            running.caught_up(db)
            received.append(running.events)
    text, binary_form = received
    assert [repr(event.new or event.old) for event in text] == [repr(event.new or event.old) for event in binary_form]
    assert [event.to_dict() for event in text] == [event.to_dict() for event in binary_form]
    assert [(event.key, event.old_key) for event in binary_form] == [(1, None), (2, 1), (2, 2)]
    assert binary_form[0].new["gap"] == Interval(1, 2, 0)
    rows: dict[Any, Any] = {}
    for event in binary_form[:2]:
        event.apply(rows)
    assert list(rows) == [2]
    with pytest.raises(ValueError, match="column 'i' was sent in binary form"):
        binary_form[0].new.text("i")


def test_what_compares_text_is_refused(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database, binary=True) as running:
        for options in ({"filter": "id=eq.1"}, {"subject": cdc.Subject("anon")}):
            with pytest.raises(cdc.SubscriptionError, match="reads binary cells: leave out binary=True"):
                running.subscribe("wells", print, **options)
        with pytest.raises(cdc.SubscriptionError, match="a cache with by="):
            running.consumer.cache("wells", ttl=60, by="id")
        cache = running.consumer.cache("wells", ttl=60)
        loads: list[Any] = []

        def load(connection: psycopg.Connection, key: str) -> int:
            loads.append(key)
            return len(loads)

        running.caught_up(db)
        assert [running.do(cache.fetch, "all", load) for _ in range(2)] == [1, 1]
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        assert running.do(cache.fetch, "all", load) == 2


def test_users_decoders(kind: str, database: str, db: psycopg.Connection) -> None:
    """By name, inside of arrays and domains too; what one raises becomes the reason, and the event is not lost."""
    db.execute(
        "CREATE DOMAIN short AS interval; CREATE TYPE pair AS (a int, b int);"
        "CREATE TABLE spans (id int PRIMARY KEY, one interval, many interval[], short short, p pair);"
        "ALTER PUBLICATION wells ADD TABLE spans"
    )

    def seconds(text: str) -> float:
        return Interval.from_text(text).timedelta().total_seconds()

    def prepare(running: Running) -> None:
        running.consumer.register_type("interval", seconds)
        running.consumer.register_type("public.pair", str.upper)
        running.on("spans", running.events.append)

    with Running(kind, database, prepare) as running:
        with pytest.raises(cdc.ConfigurationError, match="register types before the consumer is opened"):
            running.consumer.register_type("interval", seconds)
        db.execute(
            "INSERT INTO spans VALUES (1, '90 s', '{1 min,NULL}', '2 s', '(1,2)'), (2, '1 month', NULL, NULL, NULL)"
        )
        running.caught_up(db)
    one, two = (event.new for event in running.events)
    assert dict(one) == {"id": 1, "one": 90.0, "many": [60.0, None], "short": 2.0, "p": "(1,2)"}
    assert two["one"] == "1 mon" and isinstance(two["one"], cdc.Undecoded)
    assert "interval" in two["one"].reason and "month" in two["one"].reason
    assert running.events[1].to_dict()["new"]["one"] == "1 mon"
