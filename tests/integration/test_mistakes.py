"""What a person gets wrong, and what he is told."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
import pytest

import cdc


def consumer(database: str) -> cdc.Consumer:
    return cdc.Consumer(database, slot="ingest")


def test_a_decorator_of_messages_without_a_prefix_is_refused(database: str) -> None:
    it = consumer(database)
    with pytest.raises(cdc.ConfigurationError, match="the prefix has to be named"):
        it.on_message(print)  # type: ignore[arg-type]
    assert not it.subscriptions


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"accept_undecided": "no"}, "accept_undecided is True or False, not 'no'"),
        ({"linger": 1.0}, "linger is for lists"),
    ],
)
def test_options_that_make_no_sense_are_refused(database: str, options: Any, said: str) -> None:
    with pytest.raises(cdc.ConfigurationError, match=said):
        consumer(database).subscribe("wells", print, **options)


def test_a_cache_by_a_number_is_refused(database: str) -> None:
    with pytest.raises(cdc.ConfigurationError, match="by is a column or several"):
        consumer(database).cache("wells", ttl=1, by=3)  # type: ignore[arg-type]


def test_waiting_for_the_snapshot_of_a_function_says_what_to_pass(database: str) -> None:
    with pytest.raises(cdc.ConfigurationError, match="takes a Subscription"):
        consumer(database).wait_for_snapshot(print)  # type: ignore[arg-type]


def test_waiting_for_a_snapshot_before_the_start_says_so(database: str) -> None:
    it = consumer(database)
    subscription = it.subscribe("wells", print, snapshot=True)
    with pytest.raises(TimeoutError, match="call start\\(\\) or run\\(\\)"):
        it.wait_for_snapshot(subscription, timeout=0.05)


def test_a_failure_is_logged_once(database: str, db: psycopg.Connection, caplog: pytest.LogCaptureFixture) -> None:
    def fails(event: Any) -> None:
        raise RuntimeError("no")

    with caplog.at_level(logging.ERROR, logger="cdc"), pytest.raises(cdc.HandlerError), consumer(database) as it:
        it.subscribe("wells", fails)
        it.start()
        db.execute("INSERT INTO wells VALUES (1)")
        it.wait_for(cdc.current_lsn(db))
    assert sum("consumer.failed" in each.getMessage() for each in caplog.records) == 1
