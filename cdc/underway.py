"""A snapshot under way: what was read of a table, and what the stream has brought of it meanwhile.

No I/O of its own; `snapshotting` moves it.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from cdc.bookmark import Bookmark
from cdc.chunk import Chunk, Key, Window, moved_unsent
from cdc.events import RowChange, Truncate
from cdc.log import log
from cdc.snapshot import Part, Texts
from cdc.snapshot_progress import SnapshotProgress
from cdc.subscription import Subscription

__all__ = ["WAITS_AFTER", "Reading", "texts"]

WAITS_AFTER = 0.25
"""Seconds after which a part that does not come counts as waited for."""
_SAY_AFTER = 5.0


@dataclass(slots=True)
class Reading:
    """A snapshot that is not complete."""

    subscription: Subscription
    mark: Bookmark
    noter: Subscription
    progress: SnapshotProgress
    again: dict[Key, None] = field(default_factory=dict)
    """Keys to read once more."""
    window: Window[Chunk] | None = None
    writers: frozenset[str] | None = None
    """Transactions that were changing the table when it was first read, before it was published: see `awaits`."""
    asked: list[Key] = field(default_factory=list)
    """Those of them that this chunk reads."""
    future: Future[Part] | None = None
    part: Part | None = None
    retry_at: float = 0.0
    since: float = 0.0
    """When the chunk was asked for."""
    pinged_at: float = 0.0
    nudged_at: float = 0.0
    is_said: bool = False
    """Whether it was logged what it waits for."""
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
        reading = cls(subscription, mark, noter, progress, again)
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

    def awaits(self, part: Part) -> frozenset[str]:
        """Those who may have changed the table before it was published, and had not ended before this part was read.

        Such a change is not streamed, though its transaction commits later.
        """
        self.writers = part.writers if self.writers is None else self.writers & part.writers
        return self.writers

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

    def later(self, reason: str, now: float, seconds: float) -> None:
        """The part could not be read, and is asked for again after some seconds."""
        if not self.is_said and now - self.since > _SAY_AFTER:
            self.is_said = True
            log.warning("snapshot.waits", name=self.subscription.name, reason=reason)
        if now - self.since > WAITS_AFTER:
            self.progress.waiting_for = reason
        self.retry_at = now + seconds

    def drop_chunk(self) -> None:
        """What was read is of no use any more."""
        if self.future is not None:
            self.future.cancel()
        self.window = self.future = self.part = None
        self.is_begun = False


def _nobody(event: Any) -> None:
    """A handler that is about to be replaced."""


def texts(keys: Iterable[Key]) -> tuple[Texts, ...]:
    """Keys as the text of their values."""
    return tuple(tuple(cell.decode() for cell in key if isinstance(cell, bytes)) for key in keys)
