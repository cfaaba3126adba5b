"""A view: what one subscription sees of one relation's changes.

Pure: no I/O. A trusted subscription without a filter sees every change as it is. Any other one belongs to a group of
views that see the same; the group judges a change once, for all of them. Here stands what is each subscription's own:
what it was handed before, and what it knows of the table.
"""

from __future__ import annotations

from cdc.events import Gap, RowChange, Truncate
from cdc.group import Group, Sight
from cdc.operators import Moment
from cdc.predicate import Predicate
from cdc.relation import Relation
from cdc.schema_change import SchemaChange
from cdc.subscription import Subscription
from cdc.transaction import Place

__all__ = ["View"]


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
        moment: what predicates know of the time, and what they say of an error.

    Attributes:
        reader: whose handler is called: the subscription, or the family that it belongs to.
        alone: whether it sees every change of this relation and no other view does, so that it needs no copy of them.
        group: those who see the same; None while it has none.
        sight: what it may know of the relation.
        order: its place among the views of a relation: caches first, then by the time of subscribing.
        at: its place in the group's list, -1 when it is not there.
    """

    __slots__ = (
        "_errors_before",
        "_past",
        "_replaced",
        "_undecided_before",
        "alone",
        "at",
        "denied",
        "group",
        "order",
        "predicate",
        "reader",
        "sight",
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
        moment: Moment | None = None,
    ) -> None:
        self.subscription = subscription
        self.reader = subscription.reader
        self.denied = denied or past
        self.alone = False
        self.predicate = predicate
        self.sight = Sight(relation, hidden, moment)
        self.group: Group | None = None
        self.order = self.reader._order
        self.at = -1
        self._past = past
        self._replaced = replaced
        self._undecided_before = self._errors_before = 0

    @property
    def relation(self) -> Relation:
        """The relation."""
        return self.sight.relation

    @property
    def is_plain(self) -> bool:
        """Whether it sees every change as it is."""
        return self.predicate is None and not self.sight.hidden and not self.denied

    def join(self, group: Group) -> None:
        """Become one of a group; what could not be judged is counted from here on."""
        self.group = group
        self.sight = group.sight
        self.predicate = group.predicate
        group.add(self)
        self._undecided_before, self._errors_before = group.withheld, group.errors

    def leave(self) -> None:
        """Be no one's any more: what was counted stays with the subscription."""
        if self.group is not None:
            self._settle(self.group)
            self.group.discard(self)
            self.group = None
        self.denied = True

    @property
    def undecided(self) -> int:
        """Number of changes that could not be judged, since it has joined its group."""
        return 0 if self.group is None else self.group.withheld - self._undecided_before

    @property
    def errors(self) -> int:
        """Number of changes for which PostgreSQL would raise an error, since it has joined its group."""
        return 0 if self.group is None else self.group.errors - self._errors_before

    @property
    def problem(self) -> str | None:
        """Why, for the last of these."""
        return self.group.problem if self.group is not None and self.errors else None

    def see(self, event: RowChange | Truncate) -> RowChange | Truncate | None:
        """The change as the subscription sees it, linked to what it saw before; None when it does not see it."""
        reader = self.reader
        if reader.closed or self.denied:
            return None
        last = reader._last
        if self.alone:
            seen: RowChange | Truncate | None = event
            event._previous = last
        else:
            group = self.group
            if group is None:
                return self._see_alone(event)
            seen = group.shown if group.event is event else group.judge(event)
            if seen is None:
                return None
            if seen._previous is not last:
                seen = group.linked(last)
        reader._last = event._place
        reader.delivered += 1
        return seen

    def remember(self) -> None:
        """Note what the subscriber may know of the table, until `see_schema` finds that it looks different.

        A column counts as known once it could be read: the catalog, which is newer than the stream, may not have it
        any more.
        """
        subscription, relation = self.subscription, self.relation
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
        subscription, reader, relation = self.subscription, self.reader, self.relation
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
        if self.denied and not subscription.named and (seen is None or len(seen[1]) == len(seen[0].columns)):
            return (
                None  # A pattern found a table that the subject may know nothing of, neither before nor from here on.
            )
        if replaced and not told:
            reason = f"another table is called {relation} from here on"
            return Gap(reason, previous=reader.previous, tables=(str(relation),))
        if replaced or seen is None or self.denied or subscription.asked or reader._last is None:
            return None
        if seen[0] == relation or (seen[1] and len(seen[1]) == len(seen[0].columns)):
            return None
        change = SchemaChange(place, relation, seen[0], self.sight.hidden, seen[1], reader._last)
        return change if change.is_visible else None

    @property
    def _unknown(self) -> frozenset[str]:
        """The columns that this subscriber may not read."""
        return frozenset(self.relation.whole.columns) if self.denied else self.sight.hidden

    def _see_alone(self, event: RowChange | Truncate) -> RowChange | Truncate | None:
        """See a change as the only one of a group that is for this change only."""
        seen = event
        if not self.is_plain:
            group = Group(self.predicate, self.sight)
            shown = group.judge(event)
            self._settle(group)
            if shown is None:
                return None
            seen = shown
        seen._previous = self.reader.link(event._place)
        return seen

    def _settle(self, group: Group) -> None:
        """Let the subscription keep what was counted in the group."""
        reader = self.reader
        reader._undecided += group.withheld - self._undecided_before
        errors = group.errors - self._errors_before
        if errors:
            reader._errors += errors
            reader._problem = group.problem
