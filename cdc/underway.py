"""A snapshot under way: what was read of a table, and what the stream has brought of it meanwhile.

No I/O of its own; `snapshotting` moves it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from cdc.bookmark import Bookmark
from cdc.chunk import Chunk, Key, moved_unsent
from cdc.events import RowChange, Truncate
from cdc.part_reading import PartReading
from cdc.snapshot import Part, Texts
from cdc.snapshot_progress import SnapshotProgress
from cdc.subscription import Subscription

__all__ = ["Reading", "texts"]


@dataclass(slots=True, eq=False)
class Reading(PartReading[Chunk]):
    """A snapshot that is not complete."""

    mark: Bookmark
    noter: Subscription
    progress: SnapshotProgress
    again: dict[Key, None] = field(default_factory=dict)
    """Keys to read once more."""
    asked: list[Key] = field(default_factory=list)
    """Those of them that this chunk reads."""
    is_begun: bool = False
    """Whether rows of this chunk were handed over."""

    @classmethod
    def of(cls, subscription: Subscription, mark: Bookmark) -> Reading:
        """A reading from a bookmark on."""
        if subscription.snapshot is None:
            subscription.snapshot = SnapshotProgress()
        progress = subscription.snapshot
        progress.begin(mark.rows, mark.chunks)
        again: dict[Key, None] = {tuple(text.encode() for text in key): None for key in mark.again}
        noter = Subscription(subscription.schema, subscription.table, _nobody, first=True, name="cdc snapshot")
        noter._sent, noter._oid, noter._attached = subscription._sent, subscription._oid, subscription._attached
        reading = cls(mark, noter, progress, again, subscription=subscription)
        noter.handler = reading.note
        return reading

    def note(self, event: Any) -> None:
        """What the stream brings of the table."""
        if isinstance(event, Truncate):
            self.again.clear()
        if isinstance(event, RowChange | Truncate):
            key = moved_unsent(event)
            if key is not None:
                self.again[key] = None
                self.asked = [each for each in self.asked if each != key]
            if self.window is not None:
                self.window.note(event)

    def wait(self, reason: str | None) -> None:
        """See `PartReading.wait`."""
        self.progress.waiting_for = reason

    def move(self, part: Part, oid: int, at: tuple[int, int]) -> None:
        """Every row of the part was handed over, the last one at this place."""
        for key in self.asked:
            self.again.pop(key, None)
        self.progress.chunks += 1
        self.mark = replace(
            self.mark,
            done=part.ends and not self.again,
            oid=oid,
            after=part.last or self.mark.after,
            again=texts(self.again),
            rows=self.progress.rows,
            chunks=self.progress.chunks,
            lsn=at[0],
            ordinal=at[1],
        )

    def drop_chunk(self) -> None:
        """What was read is of no use any more."""
        super(Reading, self).drop_chunk()
        self.is_begun = False


def _nobody(event: Any) -> None:
    """A handler that is about to be replaced."""


def texts(keys: Iterable[Key]) -> tuple[Texts, ...]:
    """Keys as the text of their values."""
    return tuple(tuple(cell.decode() for cell in key if isinstance(cell, bytes)) for key in keys)
