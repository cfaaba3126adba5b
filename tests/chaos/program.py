"""The consumer of a round, a process of its own: `python -m tests.chaos.program SETTINGS`.

Subscribes to each table and writes what comes to the sink. SIGTERM ends it in good order; an error ends it with
exit code 1. Some of its lives have a trouble: a handler that is slow or raises, a file that may not grow.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cdc
from tests.chaos.defects import spoil
from tests.chaos.ledger import TABLES
from tests.chaos.sink import Sink, described

__all__ = ["main"]


class _Handler:
    """Writes each event to the sink, unless its trouble is due.

    Args:
        sink: where the lines go.
        trouble: `{"raise_at": n}`, `{"sleep_at": n, "seconds": s, "blocking": bool}` or nothing.
        for_all: whether it is the one handler of all tables, whose events are linked with each other.
    """

    def __init__(self, sink: Sink, trouble: dict[str, Any], for_all: bool) -> None:
        self._sink, self._trouble, self._taken = sink, trouble, 0
        self._marks = {"linked": "all"} if for_all else {}

    def take(self, event: Any) -> None:
        """The handler of a `Consumer`."""
        if self._is_slow():
            time.sleep(self._trouble["seconds"])
        self._write(event)

    async def take_async(self, event: Any) -> None:
        """The handler of an `AsyncConsumer`; it may block the event loop all the same."""
        if self._is_slow():
            if self._trouble["blocking"]:
                time.sleep(self._trouble["seconds"])  # as careless users do
            else:
                await asyncio.sleep(self._trouble["seconds"])
        self._write(event)

    def _is_slow(self) -> bool:
        self._taken += 1
        return self._taken == self._trouble.get("sleep_at")

    def _write(self, given: Any) -> None:
        """One event, a list of them or a transaction."""
        if self._taken == self._trouble.get("raise_at"):
            raise ValueError("the handler fails, as its plan says")
        for event in given if isinstance(given, list | cdc.CommittedTransaction) else [given]:
            self._sink.write(**self._marks, **described(event))


def main() -> int:
    """Run the consumer that the settings describe; the exit code."""
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    settings = json.loads(Path(sys.argv[1]).read_text())
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    sink = Sink(Path(settings["sink"]), settings["fsync"])
    sink.write(start=os.getpid(), former=settings["former"])
    trouble = settings["trouble"]
    if "room" in trouble:
        # Python ignores SIGXFSZ, so that a write beyond the limit is an OSError: the disk is full.
        resource.setrlimit(resource.RLIMIT_FSIZE, (sink.size + trouble["room"], resource.RLIM_INFINITY))
    handler = _Handler(spoil(settings["defect"], sink), trouble, bool(settings["terms"]))
    options = settings["options"] | {"backoff": cdc.Backoff(first=0.05, longest=0.2), "rights_interval": 0.3}
    try:
        if settings["asynchronous"]:
            asyncio.run(_run_async(settings["dsn"], handler, options, settings["terms"]))
        else:
            _run(settings["dsn"], handler, options, settings["terms"])
    except cdc.CdcError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _follow(parent: int) -> None:
    """End with the process that started this one, however that ends."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _run(dsn: str, handler: _Handler, options: dict[str, Any], terms: dict[str, Any]) -> None:
    consumer = cdc.Consumer(dsn, publication="chaos", slot="chaos", **options)
    signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
    for table in ["public.*"] if terms else TABLES:
        consumer.subscribe(table, handler.take, **terms)
    consumer.run()


async def _run_async(dsn: str, handler: _Handler, options: dict[str, Any], terms: dict[str, Any]) -> None:
    consumer = cdc.AsyncConsumer(dsn, publication="chaos", slot="chaos", **options)
    stopping: list[asyncio.Task[None]] = []
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, lambda: stopping.append(asyncio.ensure_future(consumer.stop()))
    )
    for table in ["public.*"] if terms else TABLES:
        await consumer.subscribe(table, handler.take_async, **terms)
    await consumer.run()


if __name__ == "__main__":
    raise SystemExit(main())
