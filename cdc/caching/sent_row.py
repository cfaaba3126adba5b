"""Rows as far as they were sent: what a key may be made of.

Pure. A key that is made of something that was not sent would be another key, and the entry would stay. So a column
that is not there raises KeyError, also one whose value stayed the same and was left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cdc.events import RowChange
from cdc.row import Row
from cdc.tuples import UNCHANGED, Undecoded

__all__ = ["SentRow", "rows_of"]


class SentRow(Mapping[str, Any]):
    """The columns of a row that were sent. Any other one raises KeyError.

    Args:
        row: the row.
        columns: the columns that count; None: all that it has.
    """

    __slots__ = ("_columns", "_row")

    def __init__(self, row: Row, columns: Mapping[str, int] | None = None) -> None:
        self._row = row
        self._columns = row.shape.columns if columns is None else columns

    def __getitem__(self, name: str) -> Any:
        value = self._row[name] if name in self._columns else UNCHANGED
        if value is UNCHANGED or isinstance(value, Undecoded):
            raise KeyError(name)
        return value

    def text(self, name: str) -> str | None:
        """The server's own text of a column, None for NULL. Raises KeyError when it was not sent."""
        if name not in self._columns or self._row.cells[self._columns[name]] is UNCHANGED:
            raise KeyError(name)
        return self._row.text(name)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._columns if self._row.cells[self._columns[name]] is not UNCHANGED)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def rows_of(event: RowChange) -> list[SentRow]:
    """The row before a change and the row after it; of an old row that was not sent, what is known of it."""
    rows = [SentRow(row) for row in (event.old, event.new) if row is not None]
    if event.event_type == "UPDATE" and event.old is None and event.new is not None:
        # The identity stayed the same. What else has changed is not known.
        rows.append(SentRow(event.new, event.relation.identity.columns))
    return rows
