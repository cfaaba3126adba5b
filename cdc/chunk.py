"""A chunk: some rows of a table as one snapshot shows them, kept in step with the stream until they are handed over.

Pure: no I/O, no clock. A chunk is read beside the stream, so that its snapshot and the place at which its rows join the
stream are two different moments. Three rules make the rows right at that place:

1. The stream has been handled up to an LSN that was taken after the snapshot: every commit that the snapshot shows
   lies before the place.
2. A change that was handed over before the window opened must be visible in the snapshot, else the chunk is read again.
   The stream delivers a commit before snapshots can see it, and visibility does not follow commit order: LSNs cannot
   decide that, transaction ids can. See the head of `caching.fence`.
3. A change that arrives in the window and is not visible in the snapshot is applied to the chunk's rows: a deleted row
   goes, an updated one becomes what it is at the place. That also fills in values that an update did not send.

Two changes of one key never come in an order that the snapshot contradicts: the second writer waits for the first one's
lock, which is given back after it became visible.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from cdc.caching.fence import Snapshot
from cdc.events import Delete, Insert, RowChange, Truncate, Update
from cdc.relation import Relation
from cdc.row import Row
from cdc.tuples import UNCHANGED, Cell

__all__ = ["Chunk", "Follower", "Key", "Window", "key_of", "moved_unsent"]

Key = tuple[Cell, ...]
"""The cells of a row's key as the server writes them; the same row version is always written the same."""


def key_of(relation: Relation, row: Row) -> Key:
    """The key of a row. The relation has to have one."""
    assert relation.key is not None
    cells = row.cells
    return tuple(cells[index] for index in relation.key)


def moved_unsent(event: RowChange | Truncate) -> Key | None:
    """The new key of a row that changed its key while a value was not sent; None for any other change.

    It may come from what was not read yet to where all was read: then nobody has the value.
    """
    if not isinstance(event, Update) or event.old is None or event.new is None or event._relation.key is None:
        return None
    if UNCHANGED not in event.new.cells:
        return None
    new = key_of(event._relation, event.new)
    return None if new == key_of(event._relation, event.old) else new


class Follower(Protocol):
    """Rows of one snapshot, in whatever form."""

    def follow(self, event: RowChange | Truncate) -> None:
        """A change of the table was handed out: what the snapshot does not show is applied to the rows."""


_C = TypeVar("_C", bound=Follower)


class Chunk:
    """Rows of one snapshot.

    Attributes:
        snapshot: what the rows were read under.
        relation: the table as it was then.
        rows: the rows that are to be handed over, by key, in the order in which they were read.
        reshaped: whether the table was altered since, so that the chunk has to be read again.
    """

    def __init__(self, snapshot: Snapshot, relation: Relation, rows: Iterable[Row]) -> None:
        self.snapshot = snapshot
        self.relation = relation
        self.rows: dict[Key, Row] = {key_of(relation, row): row for row in rows}
        self.reshaped = False

    def follow(self, event: RowChange | Truncate) -> None:
        """A change of the table was handed out: what the snapshot does not show is applied to the rows."""
        if self.snapshot.sees(event.xid):
            return
        if event._relation is not self.relation and event._relation != self.relation:
            self.reshaped = True
        elif isinstance(event, Truncate):
            self.rows.clear()
        else:
            self._follow_row(event)

    def _follow_row(self, event: RowChange) -> None:
        old, new, relation = event.old, event.new, self.relation
        if isinstance(event, Insert) and new is not None:
            # It replaces a row whose deletion is not published: the insert itself was handed over.
            self.rows.pop(key_of(relation, new), None)
        elif isinstance(event, Delete) and old is not None:
            self.rows.pop(key_of(relation, old), None)
        elif new is not None:
            after = key_of(relation, new)
            before = after if old is None else key_of(relation, old)
            older = self.rows.get(before)
            if before != after:
                self.rows.pop(before, None)
            if older is not None:
                self.rows[after] = new.filled_from(older)


class Window(Generic[_C]):
    """From before a chunk is read until its rows are handed over.

    Args:
        before: ids of transactions that were handed out before it opened and may not be visible yet.
        most: changes that are noted while the chunk is read; with more of them it is too long.
    """

    def __init__(self, before: Iterable[int], most: int = 20_000) -> None:
        self.chunk: _C | None = None
        self._before = set(before)
        self._notes: list[RowChange | Truncate] = []
        self._most = most

    @property
    def is_too_long(self) -> bool:
        """Whether so many changes were noted that it is better to open another one."""
        return len(self._notes) > self._most

    def note(self, event: RowChange | Truncate) -> None:
        """A change of the table was handed out."""
        if self.chunk is not None:
            self.chunk.follow(event)
        else:
            self._notes.append(event)

    def see(self, snapshot: Snapshot) -> set[int]:
        """The transactions from before the window that this snapshot does not show, so that it is too old."""
        self._before = {xid for xid in self._before if not snapshot.sees(xid)}
        return self._before

    def take(self, chunk: _C) -> None:
        """The chunk was read, under a snapshot that is not too old."""
        self.chunk = chunk
        notes, self._notes = self._notes, []
        for event in notes:
            chunk.follow(event)
