"""The readers: threads or tasks that fetch, and judge each answer at once."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg

import cdc
from tests.stress.delays import Delays
from tests.stress.truth import EVERY_BOOK, SHELVES, Truth, books_of

__all__ = ["READERS", "Putter", "Readers", "Tally"]

READERS = 8
_KEPT = 20
"""Stale reads that are kept in words; the others are counted."""
_ALL = "SELECT id, version FROM books"
_SHELF = f"{_ALL} WHERE shelf = %s"
_BOOKS = [books_of(shelf) for shelf in range(SHELVES)]


@dataclass(slots=True)
class Tally:
    """What readers have seen.

    Attributes:
        reads: answers that were judged.
        stale: how many were stale.
        told: some of these in words.
        not_yet_visible: fetches that gave up, since a change was not visible yet.
        after: answers to who asked for his own writes.
        lonely: answers while the stream was not live.
        errors: what else fetches raised.
    """

    reads: int = 0
    stale: int = 0
    told: list[str] = field(default_factory=list)
    not_yet_visible: int = 0
    after: int = 0
    lonely: int = 0
    errors: list[BaseException] = field(default_factory=list)


class Readers:
    """Eight readers.

    Args:
        truth: judges answers.
        by_shelf: caches whose key is a shelf, and how often each is read.
        whole: the cache that any change clears.
        reads: how many answers they want altogether.
        delays: loads are delayed, too.
        seed: of what is drawn.
    """

    def __init__(
        self, truth: Truth, by_shelf: Sequence[Any], whole: Any, reads: int, delays: Delays, seed: int
    ) -> None:
        self.tally = Tally()
        self.stopping = threading.Event()
        self._truth, self._by_shelf, self._whole, self._delays = truth, by_shelf, whole, delays
        self._reads, self._seed = reads, seed
        self._mutex = threading.Lock()
        self.statuses = 0
        """How often the stream has become live, or was lost."""

    @property
    def is_done(self) -> bool:
        """Whether there were enough reads, or something went wrong."""
        tally = self.tally
        return tally.reads >= self._reads or bool(tally.errors) or self.stopping.is_set()

    def threads(self) -> list[threading.Thread]:
        """The readers as threads, to be started."""
        return [
            threading.Thread(target=self._thread, args=(number,), name=f"reader-{number}", daemon=True)
            for number in range(READERS)
        ]

    def tasks(self) -> list[Any]:
        """The readers as coroutines."""
        return [self._task(number) for number in range(READERS)]

    def _thread(self, number: int) -> None:
        drawn = random.Random(f"{self._seed} {number}")
        while not self.is_done:
            fetch, key, load, judge = self._question(drawn)
            try:
                self._judge(judge, fetch(key, load))
            except BaseException as error:
                self._failed(error)

    async def _task(self, number: int) -> None:
        drawn = random.Random(f"{self._seed} {number}")
        while not self.is_done:
            fetch, key, load, judge = self._question(drawn)
            try:
                self._judge(judge, await fetch(key, self._awaited(load) if number % 2 else load))
            except Exception as error:
                self._failed(error)
            await asyncio.sleep(0)

    def _question(self, drawn: random.Random) -> tuple[Any, Any, Any, Callable[[Any], str | None]]:
        """What to fetch, and the judge of the answer; floors are taken here, before the fetch begins."""
        truth, chance = self._truth, drawn.random()
        if chance < 0.02:
            floors = truth.floors(EVERY_BOOK)
            return (
                self._whole.fetch, ("all", drawn.randrange(2)), self._all,
                lambda answer: truth.stale(EVERY_BOOK, None, floors, answer),
            )  # fmt: skip
        shelf = min(drawn.randrange(SHELVES), drawn.randrange(SHELVES))
        books = _BOOKS[shelf]
        floors = truth.floors(books)
        cache = self._by_shelf[chance > 0.8]
        fetch = cache.fetch
        if not cache.is_live:
            return fetch, shelf, self._shelf, self._lonely(books, shelf)
        settled = truth.settled
        if chance > 0.97 and settled is not None:
            lsn, committed = settled
            floors = [max(floor, committed[book]) for floor, book in zip(floors, books, strict=True)]
            fetch = partial(fetch, after=lsn)
            self.tally.after += 1
        return fetch, shelf, self._shelf, lambda answer: truth.stale(books, shelf, floors, answer)

    def _lonely(self, books: Sequence[int], shelf: int) -> Callable[[Any], str | None]:
        """The judge of an answer while the stream is not live: it has an age, too, unless it was live meanwhile."""
        truth, statuses = self._truth, self.statuses
        old, floors = truth.floors_when_old(books), truth.floors(books)

        def judge(answer: Any) -> str | None:
            self.tally.lonely += 1
            return truth.stale(books, shelf, old if statuses == self.statuses else floors, answer)

        return judge

    def _shelf(self, connection: psycopg.Connection, shelf: int) -> dict[int, int]:
        return self._load(connection, _SHELF, (shelf,))

    def _all(self, connection: psycopg.Connection, key: Any) -> dict[int, int]:
        return self._load(connection, _ALL, None)

    def _load(self, connection: psycopg.Connection, query: Any, values: Any) -> dict[int, int]:
        self._delays(3)
        answer = dict(connection.execute(query, values).fetchall())
        self._delays(10)
        return answer

    def _awaited(self, load: Any) -> Any:
        """The same load as a coroutine function."""
        query, values = (_SHELF, True) if load == self._shelf else (_ALL, False)

        async def awaited(connection: Any, key: Any) -> dict[int, int]:
            await asyncio.sleep(random.random() * 0.001)
            cursor = await connection.execute(query, (key,) if values else None)
            answer = dict(await cursor.fetchall())
            await asyncio.sleep(random.random() * 0.002)
            return answer

        return awaited

    def _judge(self, judge: Callable[[Any], str | None], answer: Any) -> None:
        said = judge(answer)
        tally = self.tally
        with self._mutex:
            tally.reads += 1
            if said is not None:
                tally.stale += 1
                if len(tally.told) < _KEPT:
                    tally.told.append(said)

    def _failed(self, error: BaseException) -> None:
        with self._mutex:
            if isinstance(error, cdc.NotYetVisible):
                self.tally.not_yet_visible += 1
            else:
                self.tally.errors.append(error)


class Putter(threading.Thread):
    """Somebody who reads by a connection of his own, and puts what he has read into a cache a while later.

    Args:
        dsn: where the books are.
        cache: of shelves.
        delays: hold him up, too.
        seed: of what is drawn.
    """

    def __init__(self, dsn: str, cache: Any, delays: Delays, seed: int) -> None:
        super().__init__(name="putter", daemon=True)
        self.stopping = threading.Event()
        self.kept = self.refused = 0
        self._dsn, self._cache, self._delays = dsn, cache, delays
        self._random = random.Random(seed)

    def run(self) -> None:
        """Read and put until it is to stop."""
        with psycopg.connect(self._dsn, autocommit=True) as db:
            while not self.stopping.is_set():
                shelf = self._random.randrange(SHELVES)
                db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                row = db.execute("SELECT pg_current_snapshot()::text").fetchone()
                answer = dict(db.execute(_SHELF, (shelf,)).fetchall())
                db.execute("COMMIT")
                self.stopping.wait(self._random.choice((0, 0.001, 0.01, 0.1)) * self._random.random())
                kept = self._cache.put(shelf, answer, row[0] if row else "")
                self.kept += kept
                self.refused += not kept
                self._delays(10)

    def stop(self) -> None:
        """End it."""
        self.stopping.set()
        self.join(20)
