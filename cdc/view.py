"""A view: what one subscription sees of one relation's changes.

Pure: no I/O. A trusted subscription without a filter sees every change as it is. Any other one judges the row
before and the row after, each true, false or undecided, and the pair says whether the row enters, stays in or
leaves its view. Undecided never shows anything: it is counted.
"""

from __future__ import annotations

from cdc.events import Effect, Insert, RowChange, Truncate, Update
from cdc.predicate import Predicate, Verdict, verdict
from cdc.relation import Relation, Shape
from cdc.row import Row
from cdc.subscription import Subscription
from cdc.tuples import UNCHANGED

__all__ = ["View"]

_YES, _NO, _UNDECIDED = Verdict.YES, Verdict.NO, Verdict.UNDECIDED

_EFFECTS: dict[tuple[Verdict, Verdict], Effect | None] = {
    (_YES, _YES): Effect.STAY,
    (_NO, _YES): Effect.ENTER,
    (_UNDECIDED, _YES): Effect.ENTER,
    (_YES, _NO): Effect.LEAVE,
    (_YES, _UNDECIDED): Effect.LEAVE,
}
"""What an UPDATE means, by the verdicts on the old and the new row. Every other pair shows nothing."""


class View:
    """One subscription's eyes on one relation.

    Args:
        subscription: whose.
        relation: on what.
        predicate: filter and policies together; None sees everything.
        hidden: columns that this subscriber may not read.
        denied: True when it sees nothing at all, TRUNCATE included, for want of the right to select.
    """

    __slots__ = ("_identity", "_predicate", "_relation", "_whole", "denied", "subscription")

    def __init__(
        self,
        subscription: Subscription,
        relation: Relation,
        predicate: Predicate | None = None,
        hidden: frozenset[str] = frozenset(),
        denied: bool = False,
    ) -> None:
        self.subscription = subscription
        self.denied = denied
        self._relation = relation
        self._predicate = predicate
        self._whole: Shape | None = relation.whole.without(hidden) if hidden else None
        self._identity: Shape | None = relation.identity.without(hidden) if hidden else None

    def see(self, event: RowChange | Truncate) -> RowChange | Truncate | None:
        """The change as the subscription sees it, linked to what it saw before; None when it does not see it."""
        subscription = self.subscription
        if self.denied or subscription.closed:
            return None
        seen = event.seen() if isinstance(event, Truncate) else self._see_row(event)
        if seen is not None:
            seen._previous = subscription.link(event._transaction, event._ordinal)
        return seen

    def _see_row(self, event: RowChange) -> RowChange | None:
        if self._predicate is None:
            return event.seen_as(self._shown(event.old), self._shown(event.new), event.effect)
        if isinstance(event, Update):
            return self._update(event)
        row = event.new if isinstance(event, Insert) else event.old
        judged = _UNDECIDED if row is None else self._judge(row)
        if judged is not _YES:
            self.subscription.undecided += judged is _UNDECIDED
            return None
        return event.seen_as(self._shown(event.old), self._shown(event.new), event.effect)

    def _update(self, event: RowChange) -> RowChange | None:
        assert event.new is not None
        before = event.old if event.old is not None else self._key_of(event.new)
        pair = (self._judge(before), self._judge(event.new))
        effect = _EFFECTS.get(pair)
        if effect is None:
            self.subscription.undecided += _UNDECIDED in pair
            return None
        old = None if effect is Effect.ENTER else self._shown(before if effect is Effect.LEAVE else event.old)
        new = None if effect is Effect.LEAVE else self._shown(event.new)
        return event.seen_as(old, new, effect)

    def _key_of(self, row: Row) -> Row:
        """The old row of an UPDATE that came without one: its identity did not change."""
        identity = self._relation.identity
        cells = list(row.cells)
        for index in identity.absent:
            cells[index] = UNCHANGED
        return Row.of_cells(identity, cells)

    def _judge(self, row: Row) -> Verdict:
        assert self._predicate is not None
        return verdict(self._predicate.test(row.cells))

    def _shown(self, row: Row | None) -> Row | None:
        """The row without the columns that this subscriber may not read."""
        if row is None or self._whole is None or self._identity is None:
            return row
        return row.shown_as(self._identity if row.shape is self._relation.identity else self._whole)
