"""The readers: threads that read wells through the cache all the time and look for values that are too old.

Touches the cache, the consumer, and a database connection for each reader that writes.
"""

from __future__ import annotations

import math
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import psycopg

import cdc
from cdc.demo.setting import LAB

__all__ = ["Checker", "Reader", "Readers", "Watcher", "Well", "load_well"]

_PATIENCE = 30.0
"""Seconds to wait for a reader to end."""


class Well(NamedTuple):
    """What the cache keeps of a well."""

    name: str
    status: str | None
    revision: int


def load_well(connection: psycopg.Connection[Any], key: int) -> Well | None:
    """Read a well from the database: what the cache calls when it does not know."""
    row = connection.execute("SELECT name, status, revision FROM wells WHERE id = %s", (key,)).fetchone()
    return None if row is None else Well(*row)


class Wells(Protocol):
    """The part of a cache that readers use."""

    def fetch(self, key: Any, load: Any) -> Any:
        """See `cdc.Cache.fetch`."""


class Waiting(Protocol):
    """The part of a consumer that readers use."""

    def wait_for(self, lsn: cdc.Lsn, timeout: float = ...) -> None:
        """See `cdc.Consumer.wait_for`."""


class Reader(ABC):
    """A thread that does one thing again and again, until it is told to stop.

    Attributes:
        reads: values that it has fetched.
        failure: what went wrong, in words; None while all is well.
    """

    pause = 0.002

    def __init__(self, wells: Wells) -> None:
        self.reads = 0
        self.failure: str | None = None
        self._wells = wells
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-reader", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the read at hand."""
        self._stopping.set()

    def join(self) -> None:
        """Wait for the end, for a bounded time."""
        if self._thread.ident is None:
            return
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            self.failure = self.failure or "a reader did not come back from a read"

    def fetch(self, key: int) -> Well | None:
        """A well, through the cache."""
        well: Well | None = self._wells.fetch(key, load_well)
        self.reads += 1
        return well

    def _run(self) -> None:
        try:
            self.work()
        except (cdc.CdcError, psycopg.Error, TimeoutError) as error:
            self.failure = f"a reader failed: {error}"

    @abstractmethod
    def work(self) -> None:
        """Do one thing again and again."""


class Checker(Reader):
    """Writes a well of its own, waits until the stream has brought that write, and reads the well.

    Attributes:
        reads_after_wait: reads that followed a wait.
        stale: how many of them gave a value older than the write.
    """

    pause = 0.03

    def __init__(self, wells: Wells, consumer: Waiting, dsn: str, name: str) -> None:
        super().__init__(wells)
        self.reads_after_wait = 0
        self.stale = 0
        self._consumer = consumer
        self._dsn = dsn
        self._name = name

    def work(self) -> None:
        """Insert a well, then write and read it until told to stop."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            key = _only(
                connection.execute(
                    "INSERT INTO wells (name, project_id, depth) VALUES (%s, %s, 1) RETURNING id", (self._name, LAB)
                )
            )
            while not self._stopping.wait(self.pause):
                self.check(connection, key)

    def check(self, connection: psycopg.Connection[Any], key: int) -> None:
        """One write, one wait, one read."""
        revision = _only(
            connection.execute("UPDATE wells SET revision = revision + 1 WHERE id = %s RETURNING revision", (key,))
        )
        self._consumer.wait_for(cdc.current_lsn(connection))
        self.judge(self.fetch(key), revision)

    def judge(self, well: Well | None, written: int) -> None:
        """Count a value that was read after a wait; it is stale when it is older than what was written."""
        self.reads_after_wait += 1
        self.stale += well is None or well.revision < written


class Watcher(Reader):
    """Reads wells that changed lately, and remembers how new each was: the next read must not be older.

    Attributes:
        backward: reads that went back in time.
    """

    def __init__(self, wells: Wells, recent: Sequence[int]) -> None:
        super().__init__(wells)
        self.backward = 0
        self._recent = recent
        self._newest: dict[int, float] = {}

    def work(self) -> None:
        """Read without end."""
        while not self._stopping.wait(self.pause):
            if self._recent:
                key = random.choice(self._recent)
                self.judge(key, self.fetch(key))

    def judge(self, key: int, well: Well | None) -> None:
        """Count a value that is older than one that was read before. Gone is newer than any revision."""
        revision = math.inf if well is None else well.revision
        self.backward += revision < self._newest.get(key, 0)
        if len(self._newest) > 10_000:  # a long demo must not eat the memory
            self._newest.clear()
        self._newest[key] = revision


class Readers:
    """All readers, from the beginning to the end of a `with` statement."""

    def __init__(self, wells: Wells, consumer: Waiting, dsn: str, recent: Sequence[int]) -> None:
        self._checkers = [Checker(wells, consumer, dsn, f"lab {number}") for number in (1, 2)]
        self._watchers = [Watcher(wells, recent) for _ in range(3)]

    def __enter__(self) -> Self:
        for reader in self._all:
            reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in self._all:
            reader.stop()
        for reader in self._all:
            reader.join()

    @property
    def reads(self) -> int:
        """Every read."""
        return sum(reader.reads for reader in self._all)

    @property
    def reads_after_wait(self) -> int:
        """Reads that followed a wait for a write."""
        return sum(checker.reads_after_wait for checker in self._checkers)

    @property
    def stale(self) -> int:
        """Reads older than the write that was waited for."""
        return sum(checker.stale for checker in self._checkers)

    @property
    def backward(self) -> int:
        """Reads older than an earlier read of the same reader."""
        return sum(watcher.backward for watcher in self._watchers)

    @property
    def failures(self) -> list[str]:
        """What went wrong, in words."""
        return [reader.failure for reader in self._all if reader.failure is not None]

    @property
    def _all(self) -> list[Reader]:
        return [*self._checkers, *self._watchers]


def _only(cursor: psycopg.Cursor[Any]) -> int:
    row = cursor.fetchone()
    assert row is not None
    return int(row[0])
