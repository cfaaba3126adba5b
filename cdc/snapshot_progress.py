"""How far the reading of a table's rows has come, as its subscriber sees it.

Pure but for a future, which those wait for who want the snapshot to be complete.
"""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

__all__ = ["SnapshotProgress"]


class SnapshotProgress:
    """How far the reading of a table's rows has come.

    Attributes:
        rows: rows that were handed over so far; of several processes together.
        chunks: parts of the table that are finished.
        waiting_for: what keeps the next part waiting, in words, or None.
    """

    __slots__ = ("_future", "chunks", "rows", "waiting_for")

    def __init__(self) -> None:
        self.rows = 0
        self.chunks = 0
        self.waiting_for: str | None = None
        self._future: Future[None] = Future()

    @property
    def done(self) -> bool:
        """Whether every row was handed over."""
        return self._future.done() and self._future.exception() is None

    @property
    def future(self) -> Future[None]:
        """Done when every row was handed over; it fails when the consumer ends before."""
        return self._future

    def begin(self, rows: int = 0, chunks: int = 0) -> None:
        """The table is read from its beginning, or from where a former process came to."""
        self.rows, self.chunks = rows, chunks
        if self._future.done():
            self._future = Future()

    def finish(self) -> None:
        """Every row was handed over."""
        self.waiting_for = None
        with suppress(InvalidStateError):
            self._future.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Nothing more will be read."""
        with suppress(InvalidStateError):
            self._future.set_exception(error)

    @property
    def in_words(self) -> str:
        """The same for people."""
        state = "done" if self.done else "reading" if self.waiting_for is None else f"waiting for {self.waiting_for}"
        return f"snapshot of {self.rows} rows in {self.chunks} chunks, {state}"

    def __repr__(self) -> str:
        return f"<{self.in_words}>"
