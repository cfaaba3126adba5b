"""A chunk of lines: rows of one snapshot for a store, kept in step with the stream until they are merged.

Pure: no I/O, no clock. The rules are those at the head of `chunk`; the rows stay lines, since most of them are never
looked at here.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from cdc.caching.fence import Snapshot
from cdc.events import Delete, Insert, RowChange, Truncate
from cdc.row import Row
from cdc.storing.lens import Lens
from cdc.storing.line import cells_of, line_of

__all__ = ["LineChunk"]


class LineChunk:
    """Rows of one snapshot.

    Attributes:
        snapshot: what the rows were read under.
        lens: how the store looks at them.
        rows: the lines that are to be merged, by the slots of their keys.
        reshaped: whether the table was altered since, so that the chunk has to be read again.
    """

    def __init__(self, snapshot: Snapshot, lens: Lens, lines: Sequence[bytes] | dict[Hashable, bytes]) -> None:
        self.snapshot = snapshot
        self.lens = lens
        self.rows: dict[Hashable, bytes] = lines if isinstance(lines, dict) else lens.keys.of_lines(lines)
        self.reshaped = False

    def follow(self, event: RowChange | Truncate) -> None:
        """A change of the table was handed out: what the snapshot does not show is applied to the rows."""
        relation = self.lens.relation
        if self.snapshot.sees(event.xid):
            return
        if event._relation is not relation and event._relation != relation:
            self.reshaped = True
        elif isinstance(event, Truncate):
            self.rows.clear()
        else:
            self._follow_row(event)

    def _follow_row(self, event: RowChange) -> None:
        old, new, slot_of = event.old, event.new, self.lens.keys.of_cells
        if isinstance(event, Insert) and new is not None:
            self.rows.pop(slot_of(new.cells), None)
        elif isinstance(event, Delete) and old is not None:
            self.rows.pop(slot_of(old.cells), None)
        elif new is not None:
            after = slot_of(new.cells)
            before = after if old is None else slot_of(old.cells)
            older = self.rows.get(before)
            if before != after:
                self.rows.pop(before, None)
            if older is not None:
                filled = new.filled_from(Row.of_cells(self.lens.relation.whole, cells_of(older)))
                self.rows[after] = line_of(filled.cells)
