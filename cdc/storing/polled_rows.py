"""Polled rows: what a look at the table found for a store while there is no stream.

Touches nothing; the store that takes them holds the mutex.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cdc.storing.contents import Columns, Contents
from cdc.storing.lens import Lens
from cdc.storing.telling import Changes, differences, turned

__all__ = ["PolledRows"]


@dataclass(frozen=True, slots=True, repr=False)
class PolledRows:
    """What a store receives, between two steps of the loop.

    Attributes:
        table: for messages.
        lens: how the store looks at the table as it is now.
        rows: by slot, the lines that it may show; None for what is not there, or not to be seen, any more.
        is_whole: whether it has no other rows than these; else what is not named is as it was.
        is_first: whether no look was taken over since the stream was lost.
    """

    table: str
    lens: Lens
    rows: Mapping[Any, bytes | None]
    is_whole: bool
    is_first: bool

    def __repr__(self) -> str:
        return f"<rows that were polled of {self.table}>"

    def taken_by(
        self, shown: Contents, indexes: Iterable[Columns], make: Callable[[Contents], Callable[[bytes], Any]]
    ) -> tuple[Contents, Changes]:
        """The contents from here on, and what is to be told: only what looks different."""
        if not self.is_whole:
            changes = []
            for slot, line in self.rows.items():
                changes.append((slot, shown.rows.get(slot), line))
                if line is None:
                    shown.drop(slot)
                else:
                    shown.put(slot, line)
            return shown, _polled(turned(shown, changes, make(shown), None))
        now = Contents(self.lens, indexes)
        now.fill({slot: line for slot, line in self.rows.items() if line is not None})
        now.follow(shown)
        return now, _polled(differences(shown, now, make(shown), make(now)))


def _polled(changes: Changes) -> Changes:
    return (replace(change, polled=True) for change in changes)
