"""What of a store goes to its file, and comes from it. Pure; it works on the store's contents under the store's mutex.

The file follows one of the store's contents: what is gathered while a table is read for the first time, else what is
shown. While a table that was there is read anew, what is shown does not move, and so the file does not: what the
new contents have different is noted when they take its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdc.events import RowChange, Truncate
from cdc.lsn import Lsn, Position
from cdc.storing.contents import Contents
from cdc.storing.lens import Lens
from cdc.storing.unsaved import Unsaved, key_of_lines
from cdc.transaction import Place, Transaction

if TYPE_CHECKING:
    from cdc.storing.moving import Moving

__all__ = ["Batch", "Kept", "begun"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be saved next.

    Attributes:
        lens: how the rows are looked at.
        changes: rows by key, as the file has them; None for one that goes.
        anew: whether every row that the file has goes first.
        whole: whether the file has all of the contents then.
        filled: whether these are the rows of the whole table, and not of a part of it.
        due: whether the table has to be read anew before they can be trusted.
        contents: the contents.
        taken: what was taken from what is not saved, and is to be given back when this fails.
    """

    lens: Lens
    changes: dict[bytes, bytes | None]
    anew: bool
    whole: bool
    filled: bool
    due: bool
    contents: Contents
    taken: Unsaved

    @property
    def position(self) -> Position | None:
        """The last change that the contents are as of, of their own table."""
        place = self.contents.place
        return None if place is None else place[0].position(place[1])


class Kept:
    """The side of a store that its file sees.

    Attributes:
        past: the position that the rows of the file have; changes up to it come again, and are passed over.
        has_all: whether every row of the table is there, though it is still gathered.
    """

    def __init__(self, store: Moving) -> None:
        self.past: Position | None = None
        self.has_all = False
        self._store = store

    # From the file.

    def recall(self, lens: Lens, lines: Sequence[bytes], position: Position | None) -> None:
        """Show these rows, as of their position. Raises SubscriptionError for a model or an index without a column."""
        store = self._store
        if store._model is not None:
            store._model.check(str(lens.relation), lens.relation.whole.columns)
        with store._mutex:
            store._shown = self._filled(lens, lines, position)

    def forget(self) -> None:
        """Show nothing of what was recalled: it is of another database."""
        store = self._store
        with store._mutex:
            if store._shown is not None:
                store._shown = Contents(store._shown.lens, store._columns)

    def trust(self, position: Position | None) -> None:
        """What was recalled is the table as of its position, and the stream goes on from there or before."""
        store = self._store
        with store._mutex:
            store._gathered, store.wanted, store.is_filled = None, None, True
            self.past = position

    def resume(self, lines: Sequence[bytes], position: Position | None, has_all: bool) -> None:
        """These rows are the table, or a part of it, as of that position; go on to gather the others."""
        store = self._store
        with store._mutex:
            assert store._gathered is not None
            store._gathered = self._filled(store._gathered.lens, lines, position)
            self.past, self.has_all = position, has_all
            store.read = len(lines)

    def _filled(self, lens: Lens, lines: Sequence[bytes], position: Position | None) -> Contents:
        contents = Contents(lens, self._store._columns)
        contents.place = _place(position)
        contents.fill(lens.keys.of_lines(lines))
        contents.unsaved = Unsaved(False)
        return contents

    def is_past(self, event: RowChange | Truncate) -> bool:
        """Whether the file had the change already."""
        past, position = self.past, event.position
        if past is None or past.epoch != position.epoch or position > past:
            self.past = None
            return False
        return True

    # When contents change places.

    def gather(self, gathered: Contents) -> Contents:
        """These contents are gathered from now on; the same."""
        self.past, self.has_all = None, False
        shown = self._store._shown
        if shown is None or shown.unsaved is None:
            gathered.unsaved = Unsaved(True)
        return gathered

    def complete(self, shown: Contents | None, gathered: Contents) -> None:
        """What was gathered takes the place of what was shown."""
        if gathered.unsaved is None and shown is not None:
            gathered.follow(shown)
        if gathered.unsaved is not None:
            gathered.unsaved.spoilt = False  # It was read.

    # To the file.

    def take(self, limit: int) -> Batch | None:
        """What is to be saved next, of up to `limit` rows; None when the file stays as it is but for its mark."""
        store = self._store
        with store._mutex:
            shown, gathered = store._shown, store._gathered
            if gathered is not None and gathered.unsaved is None:
                if shown is None or shown.unsaved is None or not shown.unsaved.spoilt:
                    return None
                # It has rows that may not be seen any more: nothing of it stays.
                shown.unsaved, gathered.unsaved = None, Unsaved.of(gathered.rows)
            contents = gathered or shown
            if contents is None or contents.unsaved is None:
                return None
            unsaved = contents.unsaved
            taken = unsaved.take(limit)
            key_of = key_of_lines(contents.lens.keys.places)
            return Batch(
                contents.lens,
                taken.changes(contents.rows, key_of),
                taken.anew,
                not unsaved.lines,
                self.has_all if gathered is not None else store.is_filled,
                unsaved.spoilt or bool(store.holes or store.stale),
                contents,
                taken,
            )

    def give_back(self, batch: Batch) -> None:
        """It could not be saved."""
        with self._store._mutex:
            if batch.contents.unsaved is not None:
                batch.contents.unsaved.give_back(batch.taken)

    @property
    def count(self) -> int:
        """How many rows are not saved, about."""
        store = self._store
        contents = store._gathered or store._shown
        return 0 if contents is None or contents.unsaved is None else len(contents.unsaved.lines)


def _place(position: Position | None) -> Place | None:
    if position is None:
        return None
    return Transaction(position.epoch, 0, Lsn(position.commit_lsn), 0), position.ordinal


def begun(kept: Kept | None, gathered: Contents) -> Contents:
    """The contents, which are gathered from now on by a store that may have a file."""
    return gathered if kept is None else kept.gather(gathered)
