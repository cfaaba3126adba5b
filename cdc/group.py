"""A group: views on one relation that always see the same, because their conditions and their columns are the same.

Pure: no I/O. A change is judged once for the whole group, and its views share one copy of it as long as what each of
them was handed before is the same, too. What could not be judged is counted for the group; a view knows what the
counts were when it joined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from cdc.events import Delete, Effect, RowChange, Truncate, Update
from cdc.operators import Moment
from cdc.predicate import ERROR, TRUE, Predicate
from cdc.relation import Relation
from cdc.row import Row
from cdc.transaction import Place
from cdc.tuples import Cell

if TYPE_CHECKING:
    from cdc.view import View

__all__ = ["Group", "Problems", "Sight", "Tally"]

_ENTER, _STAY, _LEAVE = Effect.ENTER, Effect.STAY, Effect.LEAVE
_UNLINKED: Place = (None, 0)  # type: ignore[assignment]  # a place of no change
"""What was before an event that was not handed to anybody yet."""
_MANY = 100
"""Different problems that are remembered."""

_in_order = attrgetter("order")


class Problems:
    """Why rows could not be judged, in words, and how often: what PostgreSQL would raise an error for.

    Attributes:
        counts: number of changes, by table and reason.
        said: the same when it was logged last, with the time.
    """

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}
        self.said: dict[tuple[str, str], tuple[int, float]] = {}

    def note(self, table: str, reason: str) -> None:
        """One more."""
        if (table, reason) in self.counts or len(self.counts) < _MANY:
            self.counts[table, reason] = self.counts.get((table, reason), 0) + 1

    def news(self, now: float, every: float) -> list[tuple[str, str, int]]:
        """What is to be said at `now`: each of them with its count, every so many seconds when there are more."""
        told = []
        for key, count in list(self.counts.items()):
            before, at = self.said.get(key, (0, -every))
            if count > before and now - at >= every:
                self.said[key] = (count, now)
                told.append((*key, count))
        return told

    @property
    def notes(self) -> list[str]:
        """The same for health."""
        return [
            f"{count} changes of {table} were withheld, as PostgreSQL would raise an error for their rows: {reason}"
            for (table, reason), count in list(self.counts.items())
        ]


class Sight:
    """What some views may know of a relation, and the moment at which they look.

    Attributes:
        relation: the relation.
        shown: the same without hidden columns.
        hidden: columns that may not be known.
        moment: when a change is judged.
        problems: where to note what went wrong.
    """

    __slots__ = ("_before", "_event", "hidden", "moment", "problems", "relation", "shown")

    def __init__(
        self,
        relation: Relation,
        hidden: frozenset[str] = frozenset(),
        moment: Moment | None = None,
        problems: Problems | None = None,
    ) -> None:
        self.hidden = hidden
        self.moment = moment
        self.problems = problems
        self._event: Update | None = None
        self._before: Row | None = None
        self.look_at(relation)

    def look_at(self, relation: Relation) -> None:
        """The relation was announced again, and is the same."""
        self.relation = relation
        self.shown = relation.without(self.hidden)

    def before(self, event: Update) -> Row:
        """The row before: as it was sent, else what of the new row identifies it, as that did not change."""
        old = event._old
        if old is not None:
            return old
        if self._event is not event or self._before is None:
            assert event._new is not None
            self._event, self._before = event, event._new.shown_as(event._relation.identity)
        return self._before

    def of(self, row: Row | None) -> Row | None:
        """The row without the columns that may not be known."""
        shown = self.shown
        if row is None or shown is self.relation:
            return row
        return row.shown_as(shown.identity if row.shape is self.relation.identity else shown.whole)

    def forget(self) -> None:
        """Keep nothing of the last change."""
        self._event = self._before = None


class Tally:
    """Changes that could not be judged, for all groups that are found by the same cells.

    Attributes:
        missed: number of changes in which one of these cells was not sent.
        groups: how many groups are counted so.
    """

    __slots__ = ("groups", "missed")

    def __init__(self) -> None:
        self.missed = 0
        self.groups = 0


class Group:
    """Views that see the same.

    Attributes:
        predicate: what they see; None sees everything.
        sight: what they may know.
        views: the views, in the order of `ordered` unless one has joined or left since.
        event: the change that was judged last; None when that is over.
        shown: what of it they see; None when nothing.
        tally: counts what was not judged here, as a cell by which the group is found was not sent.
        undecided: number of changes that could not be judged and were withheld, those of `tally` included once the
            number in `tally` is added.
        is_exact: whether the predicate is true for just those rows that have the value by which the group is found.
        errors: number of changes for which PostgreSQL would raise an error.
        problem: why, for the last of these.
    """

    __slots__ = (
        "_sorted",
        "errors",
        "event",
        "is_exact",
        "predicate",
        "problem",
        "shown",
        "sight",
        "tally",
        "undecided",
        "views",
    )

    def __init__(self, predicate: Predicate | None, sight: Sight) -> None:
        self.predicate = predicate
        self.sight = sight
        self.views: list[View] = []
        self.event: RowChange | Truncate | None = None
        self.shown: RowChange | Truncate | None = None
        self.tally: Tally | None = None
        self.is_exact = False
        self.undecided = 0
        self.errors = 0
        self.problem: str | None = None
        self._sorted = True

    def add(self, view: View) -> None:
        """Take a view in; what could not be judged before is not counted for it."""
        self._sorted = self._sorted and (not self.views or self.views[-1].order <= view.order)
        view.at = len(self.views)
        self.views.append(view)

    def discard(self, view: View) -> None:
        """Let a view go; its place is taken by the last one until somebody asks for the order."""
        last = self.views.pop()
        if last is not view:
            self.views[view.at], last.at = last, view.at
            self._sorted = False
        view.at = -1

    def ordered(self) -> list[View]:
        """The views in the order of subscribing; not to be altered."""
        if not self._sorted:
            self.views.sort(key=_in_order)
            for at, view in enumerate(self.views):
                view.at = at
            self._sorted = True
        return self.views

    @property
    def withheld(self) -> int:
        """Number of changes that could not be judged and were withheld."""
        return self.undecided if self.tally is None else self.undecided + self.tally.missed

    def judge(self, event: RowChange | Truncate) -> RowChange | Truncate | None:
        """What the group sees of a change; `shown` holds it until `forget`."""
        self.event = event
        shown = self.shown = event.seen_as(self.sight.shown) if isinstance(event, Truncate) else self._see(event)
        if shown is not None:
            shown._previous = _UNLINKED
        return shown

    def show(self, event: RowChange, was: bool, is_: bool, alone: bool = False) -> None:
        """Let the group see a change of which it is known whether the old row and the new one are seen.

        `alone` says that no other group does, so that it needs no copy of the change.
        """
        sight = self.sight
        if alone and not sight.hidden and (was is is_ or not isinstance(event, Update)):
            self.event = self.shown = event
            event._previous = _UNLINKED
            return
        old, new, effect = event._old, event._new, event._effect
        if isinstance(event, Update):
            if not was:
                old, effect = None, _ENTER
            elif not is_:
                old, new, effect = sight.before(event), None, _LEAVE
        if sight.hidden:
            old, new = sight.of(old), sight.of(new)
        self.event = event
        self.shown = shown = event.seen_as(sight.shown, old, new, effect)
        shown._previous = _UNLINKED

    def linked(self, previous: Place | None) -> RowChange | Truncate:
        """What the group sees, for a view that was handed this before. Whoever was handed the same shares it."""
        shown = self.shown
        assert shown is not None
        if shown._previous is _UNLINKED:
            shown._previous = previous
        else:
            shown = self.shown = shown.linked(previous)
        return shown

    def outcome(self, cells: Sequence[Cell]) -> int:
        """The outcome for a row that is no change of the stream, or not only that."""
        return TRUE if self.predicate is None else self._tested(self.predicate.test, cells)

    def forget(self) -> None:
        """The change is over: keep nothing of it."""
        self.event = self.shown = None
        self.sight.forget()

    def _see(self, event: RowChange) -> RowChange | None:
        predicate, sight = self.predicate, self.sight
        if predicate is None:
            return event.seen_as(sight.shown, sight.of(event._old), sight.of(event._new), event._effect)
        if predicate.timed and sight.moment is not None:
            sight.moment.microseconds = event._place[0].commit_microseconds
        if isinstance(event, Update):
            return self._update(event, predicate.test)
        row = event._old if isinstance(event, Delete) else event._new
        assert row is not None
        outcome = self._tested(predicate.test, row.cells)
        if outcome != TRUE:
            if outcome & TRUE:
                self.undecided += 1
            elif outcome == ERROR:
                self.errors += 1
            return None
        return event.seen_as(sight.shown, sight.of(event._old), sight.of(event._new), event._effect)

    def _update(self, event: Update, test: Callable[[Sequence[Cell]], int]) -> RowChange | None:
        """An update, by the outcomes for the old and the new row. What is not a certain TRUE shows nothing."""
        sight, new = self.sight, event._new
        assert new is not None
        before = sight.before(event)
        was, is_ = self._tested(test, before.cells), self._tested(test, new.cells)
        if ERROR in (was, is_):
            self.errors += 1
        if is_ == TRUE:
            if was == TRUE:
                return event.seen_as(sight.shown, sight.of(event._old), sight.of(new), _STAY)
            return event.seen_as(sight.shown, None, sight.of(new), _ENTER)
        if was == TRUE:
            return event.seen_as(sight.shown, sight.of(before), None, _LEAVE)
        if (was | is_) & TRUE:
            self.undecided += 1
        return None

    def _tested(self, test: Callable[[Sequence[Cell]], int], cells: Sequence[Cell]) -> int:
        """The outcome for a row. One subscriber's condition must not end the stream for all the others."""
        try:
            outcome = test(cells)
            if outcome != ERROR:
                return outcome
            moment = self.sight.moment
            self.problem = (moment.problem if moment is not None else None) or "its condition"
        except Exception as error:
            self.problem = f"cdc could not decide it ({type(error).__name__}: see to it that this is reported)"
        if self.sight.problems is not None:
            self.sight.problems.note(str(self.sight.relation), self.problem)
        return ERROR
