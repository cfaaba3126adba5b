"""The contents of a store: the lines of its rows by key, and by the values of other columns.

Touches nothing; the store that owns it holds the mutex. Rows of one table as one lens shows them, all of them whole.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from cdc.row import Row
from cdc.storing.keys import Keys
from cdc.storing.lens import Lens
from cdc.storing.line import cells_of, line_of
from cdc.storing.unsaved import Unsaved
from cdc.transaction import Place

__all__ = ["Columns", "Contents", "Postings", "is_other"]

Columns = tuple[str, ...]
"""The columns of an index."""


class Postings:
    """One index: the slots of rows by the value of some columns.

    Attributes:
        keys: the columns.
        slots: by their value, the slots of the rows, in the order in which they came.
    """

    __slots__ = ("keys", "slots")

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.slots: dict[Hashable, dict[Hashable, None]] = {}

    def add(self, slot: Hashable, line: bytes) -> None:
        """A row is there."""
        self.slots.setdefault(self.keys.of_cells(cells_of(line)), {})[slot] = None

    def discard(self, slot: Hashable, line: bytes) -> None:
        """A row is gone."""
        value = self.keys.of_cells(cells_of(line))
        slots = self.slots[value]
        del slots[slot]
        if not slots:
            del self.slots[value]


class Contents:
    """The rows of a store.

    Attributes:
        lens: how they are looked at.
        rows: the line of each row, by the slot of its key.
        indexes: the indexes, by their columns.
        place: the last change, or part of a fill, that they are as of; None before there was one.
        unsaved: what the store's file lacks of them; None when no file follows them.
    """

    __slots__ = ("indexes", "lens", "place", "rows", "unsaved")

    def __init__(self, lens: Lens, indexes: Iterable[Columns] = ()) -> None:
        self.lens = lens
        self.rows: dict[Any, bytes] = {}
        self.indexes: dict[Columns, Postings] = {}
        self.place: Place | None = None
        self.unsaved: Unsaved | None = None
        for columns in indexes:
            self.index(columns)

    def index(self, columns: Columns) -> None:
        """Find rows by these columns, too. Raises SubscriptionError for what cannot be."""
        postings = Postings(Keys.of(self.lens.relation, columns, self.lens.equality))
        for slot, line in self.rows.items():
            postings.add(slot, line)
        self.indexes[columns] = postings

    def put(self, slot: Hashable, line: bytes) -> None:
        """A row is there, or looks like this now."""
        if self.indexes or self.unsaved is not None:
            old = self.rows.get(slot)
            if self.unsaved is not None:
                self.unsaved.note(slot, old)
            for postings in self.indexes.values():
                if old is not None:
                    postings.discard(slot, old)
                postings.add(slot, line)
        self.rows[slot] = line

    def fill(self, rows: Mapping[Any, bytes]) -> None:
        """Put many."""
        if self.indexes:
            for slot, line in rows.items():
                self.put(slot, line)
            return
        if self.unsaved is not None:
            for slot in rows:
                self.unsaved.note(slot, self.rows.get(slot))
        if not self.rows and type(rows) is dict:
            self.rows = rows
        else:
            self.rows.update(rows)

    def drop(self, slot: Hashable) -> bytes | None:
        """A row is gone; what it was."""
        line = self.rows.pop(slot, None)
        if line is not None:
            for postings in self.indexes.values():
                postings.discard(slot, line)
            if self.unsaved is not None:
                self.unsaved.note(slot, line)
        return line

    def clear(self) -> None:
        """Every row is gone."""
        if self.unsaved is not None:
            self.unsaved.clear()
        # New objects, so that whoever goes through the old ones is not disturbed.
        self.rows = {}
        for postings in self.indexes.values():
            postings.slots = {}

    def follow(self, shown: Contents) -> None:
        """They take the place of others, which a file may have followed."""
        if shown.unsaved is None:
            return
        if self.lens.relation == shown.lens.relation:
            self.unsaved = Unsaved.between(shown.rows, shown.unsaved, self.rows)
        else:
            self.unsaved = Unsaved.of(self.rows)
        self.unsaved.spoilt = shown.unsaved.spoilt

    def spoil(self) -> None:
        """What goes or changes now does so for another reason than the table's changes."""
        if self.unsaved is not None:
            self.unsaved.spoilt = True

    def row(self, line: bytes) -> Row:
        """The row of a line."""
        return self.lens.row(line)

    def key(self, line: bytes) -> Any:
        """The key of a line, as users have it."""
        return self.lens.keys.to_python(cells_of(line))


def is_other(contents: Contents, old: Row | None, held: bytes | None) -> bool:
    """Whether what is held under the old key is another row by now, as when two rows change their keys at once."""
    if old is None or held is None or old.shape is not contents.lens.relation.whole:
        return False
    return line_of(old.cells) != held
