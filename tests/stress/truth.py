"""The truth: where a book stands at which version, what was received of it, and so which answers are stale.

Each book has a version that counts up with every change of it, and the version says where the book stands: on its
own shelf, on the next one, or nowhere, as it was deleted. So an answer can be judged without asking anybody: every
book in it has a version, and a book that is missing has to have had a version that stands elsewhere.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

import cdc

__all__ = ["BOOKS", "EVERY_BOOK", "SHELVES", "Truth", "books_of", "place"]

SHELVES = 64
BOOKS = 128
EVERY_BOOK = tuple(range(BOOKS))


def place(book: int, version: int) -> int | None:
    """The shelf on which a book stands at a version; None when there is no such row."""
    if version % 7 == 6:
        return None
    return (book + version // 3 % 2) % SHELVES


def books_of(shelf: int) -> tuple[int, ...]:
    """The books that can stand on a shelf."""
    return tuple(book for book in EVERY_BOOK if (shelf - book) % SHELVES in (0, 1))


class Truth:
    """What was written and what was received.

    Attributes:
        interval: seconds that entries are served while the stream is not live.
        begun: the newest version of each book that a writer has begun to write.
        received: the newest version of each book that a handler was told of; caches have heard of it before.
        committed: the newest version of each book whose COMMIT has returned.
        settled: an LSN, and what was committed before it.
        changes: how many changes were received.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.committed = [0] * BOOKS
        self.settled: tuple[Any, list[int]] | None = None
        self._past: deque[tuple[float, list[int]]] = deque(maxlen=2000)
        self.begun = [0] * BOOKS
        self.received = [0] * BOOKS
        self.changes = 0

    def receive(self, event: Any) -> None:
        """A handler's work: remember the version of the change."""
        row = event.old if event.new is None else event.new
        self.received[row["id"]] = row["version"] + (event.new is None)
        self.changes += 1

    def settle(self, versions: Mapping[int, int], db: psycopg.Connection[Any]) -> None:
        """A writer's work behind a commit: what is committed is what may be asked for from now on."""
        for book, version in versions.items():
            self.committed[book] = version
        committed = self.committed.copy()
        self._past.append((time.monotonic(), committed))
        try:
            lsn = cdc.current_lsn(db)
        except psycopg.errors.QueryCanceled:  # The releaser came too late for the commit.
            lsn = cdc.current_lsn(db)
        self.settled = (lsn, committed)

    def floors_when_old(self, books: Sequence[int]) -> list[int]:
        """The same while the stream is not live: what was committed before an interval."""
        before = time.monotonic() - self.interval
        found = next((versions for at, versions in reversed(list(self._past)) if at < before), None)
        floors = self.floors(books)
        return floors if found is None else [max(floor, found[book]) for floor, book in zip(floors, books, strict=True)]

    def floors(self, books: Sequence[int]) -> list[int]:
        """The versions that an answer may not be older than; to be asked before the question."""
        received = self.received
        return [received[book] for book in books]

    def stale(
        self, books: Sequence[int], shelf: int | None, floors: Sequence[int], answer: Mapping[int, int]
    ) -> str | None:
        """What is stale in an answer, in words; None for nothing. `shelf` is None for an answer about all shelves."""
        found = 0
        for book, floor in zip(books, floors, strict=True):
            version = answer.get(book)
            if version is None:
                if not self._was_away(book, shelf, floor):
                    return f"book {book} is not there, and version {floor} of it was received"
                continue
            found += 1
            if version < floor:
                return f"book {book} has version {version}, and version {floor} of it was received"
            if version > self.begun[book]:
                return f"book {book} has version {version}, which nobody has written"
        return None if found == len(answer) else f"{answer} has books that never stand on shelf {shelf}"

    def _was_away(self, book: int, shelf: int | None, floor: int) -> bool:
        """Whether the book is not there at this version, or at one that was written later."""
        for version in range(floor, self.begun[book] + 1):
            stands = place(book, version)
            if stands is None or (shelf is not None and stands != shelf):
                return True
        return False
