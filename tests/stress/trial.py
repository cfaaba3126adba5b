"""A trial: one consumer with its caches, eight readers and the writers, until enough was read."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg

from cdc.testing import Sandbox
from tests.harness import SETUP, Running, until
from tests.stress.defects import spoiled
from tests.stress.delays import Delays
from tests.stress.readers import Putter, Readers, Tally
from tests.stress.truth import Truth
from tests.stress.writers import SETTINGS, TABLE, Cutter, Releaser, Writer

__all__ = ["KINDS", "Outcome", "server", "trial"]

KINDS = ("blocking", "asyncio")
_EAGER, _LATE = 3, 2
"""Writers whose commits are visible at once, and those whose are not."""
_PATIENCE = 0.3
_INTERVAL = 0.05
"""Seconds that entries are served while the stream is not live."""
_SWITCH = 0.0005


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial came to.

    Attributes:
        kind: of the consumer.
        tally: what readers have seen.
        figures: what else happened, and how often.
        seconds: how long it took.
    """

    kind: str
    tally: Tally
    figures: dict[str, int]
    seconds: float

    @property
    def missing(self) -> list[str]:
        """What did not happen at all: a run without it has shown nothing."""
        return [name for name, count in self.figures.items() if not count]

    @property
    def is_good(self) -> bool:
        """Whether nothing was stale, and everything worth a look has happened."""
        return not (self.tally.stale or self.tally.errors or self.missing)

    def __str__(self) -> str:
        rate = self.tally.reads / max(self.seconds, 1e-9)
        lines = [f"{self.kind}: {self.tally.reads:,} reads, {self.tally.stale:,} stale, {self.seconds:.0f} s"]
        lines[0] += f", {rate:,.0f} reads a second"
        lines.append("  " + ", ".join(f"{name} {count:,}" for name, count in self.figures.items()))
        lines += [f"  stale: {said}" for said in self.tally.told]
        lines += [f"  a fetch raised {error!r}" for error in self.tally.errors[:3]]
        lines += [f"  this did not happen: {name}" for name in self.missing]
        return "\n".join(lines)


def server(version: str | None = None) -> Sandbox:
    """A server whose commits wait for a standby that does not exist, if their session asks for it."""
    return Sandbox(settings=SETTINGS, version=version)


def trial(
    kind: str,
    sandbox: Sandbox,
    reads: int,
    seed: int,
    defect: str | None = None,
    limit: float = 3600.0,
    first: bool = False,
) -> Outcome:
    """Read so often, or for `limit` seconds; with `first` only until a stale read was found."""
    dsn = sandbox.create_database()
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute(SETUP)
        db.execute(TABLE)
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        delays = Delays(seed)
        with delays.installed(), spoiled(defect):
            return _Trial(kind, dsn, delays, seed).run(reads, limit, first)
    finally:
        sys.setswitchinterval(before)
        with psycopg.connect(dsn, autocommit=True) as db:
            db.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")


class _Trial:
    def __init__(self, kind: str, dsn: str, delays: Delays, seed: int) -> None:
        self._dsn, self._delays, self._seed = dsn, delays, seed
        self._truth = Truth(_INTERVAL)
        self._caches: list[Any] = []
        self._counting: list[_Counting] = []
        self._running = Running(kind, dsn, self._prepare, slot="stress", polling_interval=_INTERVAL)
        writers = _EAGER + _LATE
        self._writers = [
            Writer(dsn, number, writers, number >= _EAGER, 0.08 if number >= _EAGER else 0.03, self._truth, seed)
            for number in range(writers)
        ]
        self._releaser, self._cutter = Releaser(dsn, seed), Cutter(dsn, seed)
        self._putter: Putter | None = None

    def _prepare(self, running: Running) -> None:
        cache = running.consumer.cache
        self._caches = [
            cache("books", ttl=300, by="shelf", patience=_PATIENCE),
            cache("books", ttl=0.2, by="shelf", maxsize=20, patience=_PATIENCE),
            cache("books", ttl=300, patience=_PATIENCE),
        ]
        for each in self._caches:
            core = getattr(each, "_cache", each)
            core._source = _Counting(core._source, self._delays)
            self._counting.append(core._source)
            if each is not core:
                each._loader = _Counting(each._loader, self._delays)
                self._counting.append(each._loader)
        running.on("books", self._truth.receive)

    def run(self, reads: int, limit: float, first: bool) -> Outcome:
        """Start everybody, wait, stop everybody."""
        with self._running:
            until(lambda: all(cache.is_live for cache in self._caches))
            begun = time.monotonic()
            self._releaser.start()
            for writer in self._writers:
                writer.start()
            *by_shelf, whole = self._caches
            readers = Readers(self._truth, by_shelf, whole, reads, self._delays, self._seed)
            self._running.consumer.on_status(partial(_count, readers))
            core = getattr(by_shelf[0], "_cache", by_shelf[0])
            self._putter = Putter(self._dsn, core, self._delays, self._seed)
            self._putter.start()
            self._cutter.start()
            wait = self._start(readers)
            while not readers.is_done:
                time.sleep(0.05)
                over = time.monotonic() - begun > limit
                if over or (first and readers.tally.stale) or any(writer.error for writer in self._writers):
                    readers.stopping.set()
            wait()
            seconds = time.monotonic() - begun
            for writer in self._writers:
                writer.stopping.set()
            for writer in self._writers:
                writer.stop()
            for each in (self._putter, self._cutter, self._releaser):
                each.stop()
            return Outcome(self._running.kind, readers.tally, self._figures(readers.tally), seconds)

    def _start(self, readers: Readers) -> Callable[[], object]:
        """Let the readers read; gives what waits for them."""
        if self._running.kind == "blocking":
            threads = readers.threads()
            for thread in threads:
                thread.start()
            return lambda: [thread.join(30) for thread in threads]
        future = asyncio.run_coroutine_threadsafe(_gather(readers), self._running._loop)
        return lambda: future.result(30)

    def _figures(self, tally: Tally) -> dict[str, int]:
        counters = [cache.counters for cache in self._caches]
        return {
            "changes received": self._truth.changes,
            "hits": sum(each.hits for each in counters),
            "loads": sum(each.loads for each in counters),
            "discarded fills": sum(each.discarded for each in counters),
            "tombstone reads": sum(each.fenced_count for each in self._counting),
            "pauses for visibility": self._delays.pauses,
            "reads of own writes": tally.after,
            "values put": self._putter.kept if self._putter else 0,
            "puts refused": self._putter.refused if self._putter else 0,
            "cuts of the stream": self._cutter.cuts,
            "reads while not live": tally.lonely,
            "NotYetVisible": tally.not_yet_visible,
            "late commits": self._releaser.released,
            "delays": self._delays.count,
            "delayed locks": self._delays.locks,
        }


class _Counting:
    """The source of a cache; counts what is asked of it, and delays it."""

    def __init__(self, source: Any, delays: Delays) -> None:
        self.fenced_count = 0
        self._source, self._delays = source, delays

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._source, name)
        if not callable(found):
            return found

        def asked(*arguments: Any, **options: Any) -> Any:
            self.fenced_count += name == "fenced"
            self._delays(3)
            try:
                return found(*arguments, **options)
            finally:
                self._delays(3)

        return asked


def _count(readers: Readers, change: Any) -> None:
    readers.statuses += 1


async def _gather(readers: Readers) -> None:
    await asyncio.gather(*readers.tasks())
