"""Runs either consumer behind one blocking face, so that a test can say what both have to do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Self

import psycopg

import cdc
from cdc.daemon.scripts import read_script

QUICK = cdc.Backoff(first=0.05, longest=0.2)

SETUP = read_script("01_schema.sql") + read_script("09_parked.sql")
"""The schema cdc, as `cdc setup` makes it."""

RIGHTS = read_script("10_rights.sql")
"""The table cdc.rights, in the publication wells, as `cdc setup` makes it for a superuser."""

REWRITES = RIGHTS + read_script("20_rewrites.sql")
"""The same with the table cdc.rewrites."""

MUCH_LATER = (
    "DO $$ BEGIN CREATE TEMP TABLE later (number int); FOR n IN 1..1100 LOOP BEGIN INSERT INTO later VALUES (n); "
    "EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; DROP TABLE later; END $$"
)
"""1,100 transactions go by, as many as make a publication an old one: see `ChunkReader`."""


class Running:
    """A consumer of one kind ("blocking" or "asyncio"), started on `with`, and what its handlers received.

    `prepare` is called with this object before the consumer is started, to subscribe.
    """

    def __init__(self, kind: str, dsn: str, prepare: Callable[[Running], None] | None = None, **options: Any) -> None:
        settings = {"slot": "ingest", "backoff": QUICK, "rights_interval": 0.2} | options
        self.kind = kind
        self.events: list[Any] = []
        self._prepare = prepare or (lambda running: running.on("wells", running.events.append))
        if kind == "blocking":
            self.consumer: Any = cdc.Consumer(dsn, **settings)
        else:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()
            self.consumer = cdc.AsyncConsumer(dsn, **settings)

    def __enter__(self) -> Self:
        self._prepare(self)
        self.do(self.consumer.start)
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.do(self.consumer.close)
        finally:
            if self.kind == "asyncio":
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()
                self._loop.close()

    def do(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a method, or await it in the consumer's event loop."""
        if self.kind == "blocking":
            return method(*arguments, **options)

        async def call() -> Any:
            result = method(*arguments, **options)
            return await result if isinstance(result, Coroutine) else result

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(60)

    def on(self, table: str, handler: Callable[[Any], Any], **options: Any) -> None:
        self.consumer.on(table, **options)(handler)

    def subscribe(self, table: str, handler: Callable[[Any], Any], **options: Any) -> cdc.Subscription:
        subscription = self.do(self.consumer.subscribe, table, handler, **options)
        assert isinstance(subscription, cdc.Subscription)
        return subscription

    def is_saved(self) -> bool:
        """Whether the position of everything that handlers have finished with is saved."""
        progress, session = self.consumer._loop.progress, self.consumer._loop.link.session
        position = session.saved.position
        return position is not None and bool(position == progress.position(session.saved.epoch))

    def caught_up(self, connection: psycopg.Connection, timeout: float = 20) -> None:
        """Wait until everything that this connection has written was handled."""
        self.do(self.consumer.wait_for, cdc.current_lsn(connection), timeout=timeout)


def until(condition: Callable[[], Any], timeout: float = 20) -> None:
    """Wait until a condition holds; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
