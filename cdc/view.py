"""A view: what one subscription sees of one relation's changes.

Pure: no I/O. A trusted subscription without a filter sees every change as it is. Any other one judges the row
before and the row after, each true, false or undecided, and the pair says whether the row enters, stays in or
leaves its view. Undecided never shows anything: it is counted.
"""

from __future__ import annotations

from cdc.events import Delete, Effect, Gap, RowChange, Truncate, Update
from cdc.predicate import Predicate, Verdict, verdict
from cdc.relation import Relation, Shape
from cdc.row import Row
from cdc.schema_change import SchemaChange
from cdc.subscription import Subscription
from cdc.transaction import Place

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
        replaced: whether the catalog had another table under this name when the subscription began.
        past: whether the subscription began later than this relation was in force; it sees nothing of it.

    Attributes:
        reader: whose handler is called: the subscription, or the family that it belongs to.
        alone: whether no other view is on this relation, so that a change needs no copy of its own.
    """

    __slots__ = (
        "_hidden",
        "_identity",
        "_past",
        "_plain",
        "_predicate",
        "_relation",
        "_replaced",
        "_whole",
        "alone",
        "denied",
        "reader",
        "subscription",
    )

    def __init__(
        self,
        subscription: Subscription,
        relation: Relation,
        predicate: Predicate | None = None,
        hidden: frozenset[str] = frozenset(),
        denied: bool = False,
        replaced: bool = False,
        past: bool = False,
    ) -> None:
        self.subscription = subscription
        self.reader = subscription.reader
        self.denied = denied or past
        self.alone = False
        self._plain = predicate is None and not hidden and not self.denied
        self._past = past
        self._hidden = hidden
        self._relation = relation
        self._predicate = predicate
        self._replaced = replaced
        self._whole: Shape | None = relation.whole.without(hidden) if hidden else None
        self._identity: Shape | None = relation.identity.without(hidden) if hidden else None

    def see(self, event: RowChange | Truncate) -> RowChange | Truncate | None:
        """The change as the subscription sees it, linked to what it saw before; None when it does not see it."""
        reader = self.reader
        if reader.closed or self.denied:
            return None
        if self._plain and self.alone:
            seen: RowChange | Truncate | None = event
        else:
            seen = event.seen() if isinstance(event, Truncate) else self._see_row(event)
        if seen is not None:
            seen._previous = reader.link(event._place)
        return seen

    def remember(self) -> None:
        """Note what the subscriber may know of the table, until `see_schema` finds that it looks different.

        A column counts as known once it could be read: the catalog, which is newer than the stream, may not have it
        any more.
        """
        subscription, relation = self.subscription, self._relation
        if self._past:
            return
        if subscription._seen is None and not self._replaced:
            subscription._seen = (relation, self._unknown)
        elif subscription._seen is not None and subscription._seen[0] == relation:
            hidden = (subscription._seen[1], self._unknown)
            subscription._seen = (relation, hidden[0] & hidden[1])

    def see_schema(self, place: Place) -> SchemaChange | Gap | None:
        """Whether the table looks different from the change at `place` on, as far as this subscriber may know.

        A `Gap` when another table has its name now. Whoever has seen no row of it yet, or named the operations that
        he wants, is told nothing else. A cache is told of everything, since it has to clear itself.
        """
        subscription, reader, relation = self.subscription, self.reader, self._relation
        if self._past:
            return None
        seen, subscription._seen = subscription._seen, (relation, self._unknown)
        told, subscription._name_lost = subscription._name_lost, False
        if reader.closed:
            return None
        replaced = self._replaced if seen is None else seen[0].oid != relation.oid
        if subscription.first:
            old = relation if seen is None else seen[0]
            return SchemaChange(place, relation, old) if replaced or old != relation else None
        if replaced and not told:
            reason = f"another table is called {relation} from here on"
            return Gap(reason, previous=reader.previous, tables=(str(relation),))
        if replaced or seen is None or self.denied or subscription.asked or reader._last is None:
            return None
        if seen[0] == relation or (seen[1] and len(seen[1]) == len(seen[0].columns)):
            return None
        change = SchemaChange(place, relation, seen[0], self._hidden, seen[1], reader._last)
        return change if change.is_visible else None

    @property
    def _unknown(self) -> frozenset[str]:
        """The columns that this subscriber may not read."""
        return frozenset(self._relation.whole.columns) if self.denied else self._hidden

    def _see_row(self, event: RowChange) -> RowChange | None:
        if self._predicate is None:
            return event.seen_as(self._shown(event.old), self._shown(event.new), event.effect)
        if isinstance(event, Update):
            return self._update(event)
        row = event.old if isinstance(event, Delete) else event.new
        judged = _UNDECIDED if row is None else self._judge(row)
        if judged is not _YES:
            self.reader.undecided += judged is _UNDECIDED
            return None
        return event.seen_as(self._shown(event.old), self._shown(event.new), event.effect)

    def _update(self, event: RowChange) -> RowChange | None:
        assert event.new is not None
        # Without an old row its identity did not change.
        before = event.old if event.old is not None else event.new.shown_as(self._relation.identity)
        pair = (self._judge(before), self._judge(event.new))
        effect = _EFFECTS.get(pair)
        if effect is None:
            self.reader.undecided += _UNDECIDED in pair
            return None
        old = None if effect is Effect.ENTER else self._shown(before if effect is Effect.LEAVE else event.old)
        new = None if effect is Effect.LEAVE else self._shown(event.new)
        return event.seen_as(old, new, effect)

    def _judge(self, row: Row) -> Verdict:
        assert self._predicate is not None
        return verdict(self._predicate.test(row.cells))

    def _shown(self, row: Row | None) -> Row | None:
        """The row without the columns that this subscriber may not read."""
        if row is None or self._whole is None or self._identity is None:
            return row
        return row.shown_as(self._identity if row.shape is self._relation.identity else self._whole)
