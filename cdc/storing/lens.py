"""A lens: how a store looks at its table as it was described last: by which key, at which rows, at which columns.

Pure: no I/O, no clock. A store receives every change as it is and judges it here, since it knows more than the change:
the row that it holds says what an update without an old row has left.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from cdc.errors import SubscriptionError
from cdc.group import Group, Problems, Sight
from cdc.operators import Moment
from cdc.predicate import FALSE, TRUE, Predicate, constant
from cdc.relation import Relation
from cdc.row import Row
from cdc.storing.keys import EqualityOf, Keys
from cdc.storing.line import cells_of
from cdc.tuples import UNCHANGED, Cell

__all__ = ["Lens"]


class Lens:
    """How a store looks at its table.

    Args:
        relation: the table.
        equality: how values of a type compare.
        predicate: which rows it may show; None: every row.
        hidden: columns that it may not show.
        moment: when a row is judged.
        problems: where to note what went wrong.

    Attributes:
        relation: the table.
        equality: how values of a type compare.
        keys: its key.
        sight: equal ones show the same rows and columns; None is like no other.
        hidden: columns that it may not show.

    Raises SubscriptionError when the table has no key that rows can be found by.
    """

    def __init__(
        self,
        relation: Relation,
        equality: EqualityOf,
        predicate: Predicate | None = None,
        hidden: frozenset[str] = frozenset(),
        moment: Moment | None = None,
        problems: Problems | None = None,
    ) -> None:
        if not relation.key:
            raise SubscriptionError(
                f"{relation} has no key among its published columns, and a store finds its rows by their key: give it "
                "a primary key that is published"
            )
        self.relation = relation
        self.equality = equality
        self.keys = Keys(relation, relation.key, equality)
        self.hidden = hidden
        self.sight: Hashable = ("everything",) if predicate is None else predicate.key and (predicate.key, hidden)
        self._shape = relation.without(hidden).whole
        self._whole = relation.whole
        self._moment = moment
        self._group = None if predicate is None else Group(predicate, Sight(relation, hidden, moment, problems))

    @property
    def sees_all(self) -> bool:
        """Whether it shows every row."""
        return self._group is None

    def shows(self, cells: Sequence[Cell], microseconds: int) -> int:
        """The outcome for a row: `TRUE` alone shows it; with other bits a cell that was not sent decides."""
        group = self._group
        if group is None:
            return TRUE
        if self._moment is not None:
            self._moment.microseconds = microseconds
        return group.outcome(cells)

    def row(self, line: bytes) -> Row:
        """The row of a line, without what may not be shown."""
        cells = cells_of(line)
        if self.hidden:
            masked = list(cells)
            for index in self._shape.absent:
                masked[index] = UNCHANGED
            cells = masked
        return Row.of_cells(self._shape, cells)

    def blind(self, relation: Relation) -> Lens:
        """One that shows no row."""
        return Lens(relation, self.equality, constant(FALSE))

    def is_like(self, other: Lens) -> bool:
        """Whether the other one shows the same rows and columns of the same table."""
        return self.sight is not None and self.sight == other.sight and self.relation == other.relation

    def differ(self, old: bytes, new: bytes, before: Lens) -> bool:
        """Whether a row looks different, where `old` was seen through the lens `before`."""
        if before.relation == self.relation and before.hidden == self.hidden:
            return old != new and (not self.hidden or list(self.row(old).cells) != list(self.row(new).cells))
        return _texts(before.row(old)) != _texts(self.row(new))


def _texts(row: Row) -> dict[str, tuple[int, Cell]]:
    """The cells that a row shows, with their types, by column."""
    shape = row.shape
    return {name: (shape.types[index], row.cells[index]) for name, index in shape.columns.items()}
