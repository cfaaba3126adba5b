"""An index of a store: its rows by the value of other columns than the key's. Touches nothing but the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cdc.storing.line import cells_of

if TYPE_CHECKING:
    from cdc.storing.contents import Columns
    from cdc.storing.store import Store

__all__ = ["RowIndex"]


class RowIndex(Mapping[Any, tuple[Any, ...]]):
    """A read-only mapping from a value of some columns to the rows that have it, kept in step with the store.

    A value that no row has gives an empty tuple. `None` finds rows whose column is NULL. Any thread may use it.
    """

    def __init__(self, store: Store, columns: Columns) -> None:
        self._store = store
        self._columns = columns

    def __getitem__(self, value: Any) -> tuple[Any, ...]:
        with self._store._mutex:
            contents = self._store._readable
            if contents is None:
                return ()
            postings = contents.indexes[self._columns]
            slots = postings.slots.get(postings.keys.of_python(value), ())
            lines = [contents.rows[slot] for slot in slots]
        return tuple(self._store._made(contents, line) for line in lines)

    def get(self, value: Any, default: Any = ()) -> Any:
        """The rows with a value; `default` when there are none."""
        return self[value] or default

    def __contains__(self, value: object) -> bool:
        return bool(self[value])

    def __iter__(self) -> Iterator[Any]:
        with self._store._mutex:
            contents = self._store._readable
            if contents is None:
                return iter(())
            postings = contents.indexes[self._columns]
            lines = [contents.rows[next(iter(slots))] for slots in postings.slots.values()]
        return iter([postings.keys.to_python(cells_of(line)) for line in lines])

    def __len__(self) -> int:
        contents = self._store._readable
        return 0 if contents is None else len(contents.indexes[self._columns].slots)

    def __repr__(self) -> str:
        return f"<index of {self._store.table} by {', '.join(self._columns)}: {len(self)} values>"
