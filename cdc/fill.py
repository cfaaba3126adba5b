"""A fill: what was read of a table for its store, and where the next part begins.

No I/O of its own; `filling` moves it.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

from cdc.chunk import Window
from cdc.events import RowChange, Truncate
from cdc.log import log
from cdc.snapshot import Part, Texts
from cdc.storing.feed import Feed
from cdc.storing.keys import Keys
from cdc.storing.line_chunk import LineChunk
from cdc.underway import WAITS_AFTER

__all__ = ["Fill"]

_SAY_AFTER = 5.0


@dataclass(slots=True, eq=False)
class Fill:
    """Rows that are read for a store: all of the table, or those that it misses a value of."""

    feed: Feed
    round: int
    ends: bool
    """Whether every row was read, so that only single keys are left."""
    after: Texts | None = None
    oid: int | None = None
    keys: Keys | None = None
    """By which the slots of what is being read are found."""
    window: Window[LineChunk] | None = None
    writers: frozenset[str] | None = None
    """Transactions that were changing the table when it was first read; what they did may never be streamed."""
    future: Future[Part] | None = None
    part: Part | None = None
    retry_at: float = 0.0
    since: float = 0.0
    """When the part was asked for."""
    pinged_at: float = 0.0
    nudged_at: float = 0.0
    waiting_for: str | None = None
    is_said: bool = False

    def note(self, event: RowChange | Truncate) -> None:
        """What the stream brings of the table."""
        if self.window is not None:
            self.window.note(event)

    def awaits(self, part: Part) -> frozenset[str]:
        """The transactions that were changing the table when it was first read, and had not ended before this part."""
        self.writers = part.writers if self.writers is None else self.writers & part.writers
        return self.writers

    def move(self, part: Part) -> None:
        """Every row of the part was merged."""
        self.oid = part.message.oid
        if not self.ends:
            self.after, self.ends = part.last or self.after, part.ends

    def later(self, reason: str, now: float, seconds: float) -> None:
        """The part could not be read, and is asked for again after some seconds."""
        if not self.is_said and now - self.since > _SAY_AFTER:
            self.is_said = True
            log.warning("store.waits", store=self.feed.name, reason=reason)
        if now - self.since > WAITS_AFTER:
            self.waiting_for = reason
        self.retry_at = now + seconds

    def drop_chunk(self) -> None:
        """What was read is of no use any more."""
        if self.future is not None:
            self.future.cancel()
        self.window = self.future = self.part = None

    @property
    def in_words(self) -> str:
        """How far it is, for people."""
        waits = "" if self.waiting_for is None else f", waiting for {self.waiting_for}"
        return f"{self.feed.name}: {self.feed.store.status}{waits}"
