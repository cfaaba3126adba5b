"""A snapshot under way: what was read of a table, and what the stream has brought of it meanwhile.

No I/O of its own; `snapshotting` moves it.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from cdc.bookmark import Bookmark
from cdc.chunk import Key, Window, moved_unsent
from cdc.events import RowChange, Truncate
from cdc.snapshot import Part, Texts
from cdc.snapshot_progress import SnapshotProgress
from cdc.subscription import Subscription

__all__ = ["Reading", "texts"]


@dataclass(slots=True)
class Reading:
    """A snapshot that is not complete."""

    subscription: Subscription
    mark: Bookmark
    noter: Subscription
    progress: SnapshotProgress
    again: dict[Key, None] = field(default_factory=dict)
    """Keys to read once more."""
    window: Window | None = None
    asked: list[Key] = field(default_factory=list)
    """Those of them that this chunk reads."""
    future: Future[Part] | None = None
    part: Part | None = None
    retry_at: float = 0.0
    since: float = 0.0
    """When the chunk was asked for."""
    pinged_at: float = 0.0
    nudged_at: float = 0.0
    is_begun: bool = False
    """Whether rows of this chunk were handed over."""

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

    def drop_chunk(self) -> None:
        """What was read is of no use any more."""
        if self.future is not None:
            self.future.cancel()
        self.window = self.future = self.part = None
        self.is_begun = False


def texts(keys: Iterable[Key]) -> tuple[Texts, ...]:
    """Keys as the text of their values."""
    return tuple(tuple(cell.decode() for cell in key if isinstance(cell, bytes)) for key in keys)
