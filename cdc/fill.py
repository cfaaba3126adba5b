"""A fill: what was read of a table for its store, and where the next part begins.

No I/O of its own; `filling` moves it.
"""

from __future__ import annotations

from dataclasses import dataclass

from cdc.events import RowChange, Truncate
from cdc.part_reading import PartReading
from cdc.snapshot import Part, Texts
from cdc.storing.feed import Feed
from cdc.storing.keys import Keys
from cdc.storing.line_chunk import LineChunk

__all__ = ["Fill"]


@dataclass(slots=True, eq=False)
class Fill(PartReading[LineChunk]):
    """Rows that are read for a store: all of the table, or those that it misses a value of."""

    feed: Feed
    round: int
    ends: bool
    """Whether every row was read, so that only single keys are left."""
    after: Texts | None = None
    oid: int | None = None
    keys: Keys | None = None
    """By which the slots of what is being read are found."""
    waiting_for: str | None = None

    def note(self, event: RowChange | Truncate) -> None:
        """What the stream brings of the table."""
        if self.window is not None:
            self.window.note(event)

    def wait(self, reason: str | None) -> None:
        """See `PartReading.wait`."""
        self.waiting_for = reason

    def move(self, part: Part) -> None:
        """Every row of the part was merged."""
        self.oid = part.message.oid
        if not self.ends:
            self.after, self.ends = part.last or self.after, part.ends

    @property
    def in_words(self) -> str:
        """How far it is, for people."""
        waits = "" if self.waiting_for is None else f", waiting for {self.waiting_for}"
        return f"{self.feed.name}: {self.feed.store.status}{waits}"
