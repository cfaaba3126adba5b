"""The readers: threads or tasks that fetch, and judge each answer at once."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

import cdc
from tests.stress.delays import Delays
from tests.stress.truth import EVERY_BOOK, SHELVES, Truth, books_of

__all__ = ["READERS", "Readers", "Tally"]

READERS = 8
_KEPT = 20
"""Stale reads that are kept in words; the others are counted."""
_BOOKS = [books_of(shelf) for shelf in range(SHELVES)]


@dataclass(slots=True)
class Tally:
    """What readers have seen.

    Attributes:
        reads: answers that were judged.
        stale: how many were stale.
        told: some of these in words.
        not_yet_visible: fetches that gave up, since a change was not visible yet.
        errors: what else fetches raised.
    """

    reads: int = 0
    stale: int = 0
    told: list[str] = field(default_factory=list)
    not_yet_visible: int = 0
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
                self._judge(judge, await fetch(key, load))
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
        return cache.fetch, shelf, self._shelf, lambda answer: truth.stale(books, shelf, floors, answer)

    def _shelf(self, connection: psycopg.Connection, shelf: int) -> dict[int, int]:
        return self._load(connection, "SELECT id, version FROM books WHERE shelf = %s", (shelf,))

    def _all(self, connection: psycopg.Connection, key: Any) -> dict[int, int]:
        return self._load(connection, "SELECT id, version FROM books", None)

    def _load(self, connection: psycopg.Connection, query: Any, values: Any) -> dict[int, int]:
        self._delays(3)
        answer = dict(connection.execute(query, values).fetchall())
        self._delays(10)
        return answer

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
