"""Dispatch by index against a naive judge: every view evaluated for every change, in the order of subscribing."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cdc.dispatcher import Dispatcher
from cdc.events import Delete, Effect, Insert, RowChange, Truncate, Update
from cdc.lsn import Lsn
from cdc.operators import Moment
from cdc.predicate import ERROR, NULL, TRUE, UNKNOWN, Predicate, Probe, constant, equal, every, negation, some
from cdc.relation import Column, Relation
from cdc.row import Row
from cdc.subscription import Subscription
from cdc.transaction import Transaction
from cdc.tuples import UNCHANGED, Cell
from cdc.view import View

NAMES = ("id", "owner", "team", "tags")
VALUES = (b"1", b"2", b"3")
MOMENT = Moment()


def relation(identity: str) -> Relation:
    """DEFAULT (`d`): the id identifies a row; FULL (`f`): everything; USING INDEX (`i`): id and owner do."""
    within = {"d": ("id",), "f": NAMES, "i": ("id", "owner")}[identity]
    columns = tuple(Column(name, 25, -1, name in within, bytes.decode) for name in NAMES)
    return Relation(7, "public", "wells", identity, columns, (0,))


def split(cell: bytes) -> Hashable:
    """The elements of a cell such as `1,2`; one that cannot be read raises."""
    if b"?" in cell:
        raise ValueError("no list")
    return tuple(cell.split(b","))


def has(column: int, value: bytes) -> Predicate:
    """`value = ANY (column)`: found by the elements of an array."""

    def test(cells: Sequence[Cell]) -> int:
        cell = cells[column]
        if type(cell) is not bytes:
            return NULL if cell is None else UNKNOWN
        return (TRUE if value in cell.split(b",") else 2) if b"?" not in cell else UNKNOWN

    return Predicate(
        test, frozenset({column}), frozenset({(Probe(column, split, True), value)}), ("has", column, value)
    )


def fails(column: int, value: bytes) -> Predicate:
    """`1 / (column <> value)::int = 1`: an error for one value."""

    def test(cells: Sequence[Cell]) -> int:
        cell = cells[column]
        if type(cell) is not bytes:
            return NULL if cell is None else UNKNOWN
        MOMENT.problem = "division by zero"
        return ERROR if cell == value else TRUE

    return Predicate(test, frozenset({column}), None, ("fails", column, value))


def later(microseconds: int) -> Predicate:
    """`now() > …`."""
    return Predicate(
        lambda cells: TRUE if MOMENT.microseconds > microseconds else 2,
        frozenset(),
        None,
        ("later", microseconds),
        timed=True,
    )


def hit(column: int, value: bytes) -> Predicate:
    """An equality through a reader, so that the index has another probe of the same column."""
    return equal(column, value.decode(), bytes.decode)


value = st.sampled_from(VALUES)
leaf = st.one_of(
    st.builds(lambda column, value: equal(column, value, None), st.integers(0, 2), value),
    st.builds(hit, st.integers(0, 2), value),
    st.builds(has, st.just(3), value),
    st.builds(fails, st.integers(1, 2), value),
    st.builds(later, st.integers(0, 5)),
    st.sampled_from([constant(TRUE), constant(2), constant(NULL), constant(UNKNOWN)]),
)
predicates = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.builds(lambda parts: every(parts), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: some(parts), st.lists(inner, min_size=1, max_size=3)),
        st.builds(negation, inner),
    ),
    max_leaves=4,
)
cell = st.sampled_from([*VALUES, None, UNCHANGED])
listed = st.sampled_from([b"1", b"1,2", b"2,3,3", b"?", b"", None, UNCHANGED])
operations = st.sampled_from([None, None, frozenset({"INSERT"}), frozenset({"UPDATE", "DELETE"})])


class Eye:
    """A subscription, what it asks for, and what a judge that knows no index says that it sees."""

    def __init__(self, subscription: Subscription, predicate: Predicate | None, hidden: frozenset[str]) -> None:
        self.subscription = subscription
        self.predicate = predicate
        self.hidden = hidden
        self.undecided = self.errors = 0
        self.is_exact = predicate is None or predicate.cover is None or predicate.key[0] in ("equal", "has")  # type: ignore[index]

    def sees(self, event: RowChange, microseconds: int) -> str | None:
        """The effect of a change, None when nothing of it is shown. Two rows, three outcomes each."""
        name = type(event).__name__.upper()
        if name not in self.subscription.operations:
            return None
        if self.predicate is None:
            return event.effect.value
        MOMENT.microseconds = microseconds
        old, new = event.old, event.new
        if isinstance(event, Update) and old is None:
            assert new is not None
            old = new.shown_as(event._relation.identity)
        was, is_ = (None if row is None else self.predicate.test(row.cells) for row in (old, new))
        self.errors += ERROR in (was, is_)
        if not isinstance(event, Update):
            outcome = was if isinstance(event, Delete) else is_
            assert outcome is not None
            self.undecided += bool(outcome != TRUE and outcome & TRUE)
            return event.effect.value if outcome == TRUE else None
        assert was is not None and is_ is not None
        table = {(True, True): "STAY", (False, True): "ENTER", (True, False): "LEAVE"}
        effect = table.get((was == TRUE, is_ == TRUE))
        self.undecided += bool(effect is None and (was | is_) & TRUE)
        return effect


class Dispatching(RuleBasedStateMachine):
    """Subscribe, close, judge by other conditions, describe the table anew; and changes in between."""

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = Dispatcher()
        self.relation = relation("d")
        self.eyes: dict[Subscription, Eye] = {}
        self.waiting: list[Eye] = []
        self.got: list[tuple[Subscription, RowChange | Truncate]] = []
        self.lsn = 0
        self.dispatcher.define(self.relation, self.bind)

    def bind(self, subscription: Subscription, of: Relation) -> View:
        eye = next(each for each in [*self.waiting, *self.eyes.values()] if each.subscription is subscription)
        return View(subscription, of, eye.predicate, eye.hidden, moment=MOMENT)

    @rule(
        predicate=st.one_of(st.none(), predicates),
        hidden=st.sampled_from([frozenset(), frozenset(), frozenset({"team"})]),
        operations=operations,
        first=st.sampled_from([False, False, False, True]),
    )
    def subscribe(
        self, predicate: Predicate | None, hidden: frozenset[str], operations: frozenset[str] | None, first: bool
    ) -> None:
        made = Subscription("public", "wells", print, operations, first=first, on_close=self.dispatcher.remove)
        made.handler = lambda event: self.got.append((made, event))
        self.dispatcher.add(made)
        self.waiting.append(Eye(made, predicate, hidden))

    @rule()
    def activate(self) -> None:
        self.dispatcher.activate(self.bind)
        self.eyes |= {eye.subscription: eye for eye in self.waiting}
        self.waiting = []

    @rule(at=st.integers(0, 20))
    def close(self, at: int) -> None:
        if self.eyes:
            subscription = list(self.eyes)[at % len(self.eyes)]
            subscription.close()
            del self.eyes[subscription]

    @rule(at=st.integers(0, 20), predicate=st.one_of(st.none(), predicates))
    def look_otherwise(self, at: int, predicate: Predicate | None) -> None:
        if self.eyes:
            eye = list(self.eyes.values())[at % len(self.eyes)]
            exact = eye.is_exact
            eye.predicate = predicate
            eye.is_exact = exact and Eye(eye.subscription, predicate, eye.hidden).is_exact
            self.dispatcher.rebind(self.bind, [eye.subscription])

    @rule(identity=st.sampled_from("dfi"))
    def describe(self, identity: str) -> None:
        self.relation = relation(identity)
        self.dispatcher.define(self.relation, self.bind)

    @rule()
    def describe_alike(self) -> None:
        self.relation = relation(self.relation.replica_identity)
        self.dispatcher.restore({7: self.relation}, self.bind)

    @rule(
        kind=st.sampled_from("IUD"),
        cells=st.tuples(cell, cell, cell, listed),
        before=st.tuples(cell, cell, cell, listed),
    )
    def change(self, kind: str, cells: tuple[Cell, ...], before: tuple[Cell, ...]) -> None:
        self.lsn += 1
        place, whole, identity = (
            (Transaction("e", 1, Lsn(self.lsn), self.lsn), 1),
            self.relation.whole,
            self.relation.identity,
        )
        old = Row.of_cells(whole, before).shown_as(identity) if identity.absent else Row.of_cells(whole, before)
        new = Row.of_cells(whole, cells)
        event: RowChange
        if kind == "I":
            event = Insert(place, self.relation, None, new, Effect.ENTER)
        elif kind == "D":
            event = Delete(place, self.relation, old, None, Effect.LEAVE)
        else:
            # The old row is sent when what identifies it changed, and always under FULL.
            same = bool(identity.absent) and all(cells[i] == before[i] for i in identity.columns.values())
            event = Update(place, self.relation, None if same else old, new, Effect.STAY)
        self.hand_out(event)

    def hand_out(self, event: RowChange) -> None:
        self.got.clear()
        before = {subscription: subscription._last for subscription in self.eyes}
        expected = [(eye.subscription, eye.sees(event, self.lsn)) for eye in self.eyes.values()]
        expected = [pair for pair in expected if pair[1] is not None]
        expected.sort(key=lambda pair: not pair[0].first)  # stable: the order of subscribing
        for view in self.dispatcher.views(event):
            seen = view.see(event)
            if seen is not None:
                view.reader.handler(seen)
        assert [(who, seen.effect.value) for who, seen in self.got] == expected
        for who, seen in self.got:
            assert seen._previous is before[who]
            self.check_shown(who, event, seen)

    def check_shown(self, who: Subscription, event: RowChange, seen: Any) -> None:
        hidden = self.eyes[who].hidden
        assert hidden.isdisjoint(column.name for column in seen.relation.columns)
        for row in (seen.old, seen.new):
            assert row is None or (
                hidden.isdisjoint(row) and all(row.cells[NAMES.index(n)] is UNCHANGED for n in hidden)
            )
        if seen.effect.value == "LEAVE":
            assert seen.new is None and seen.old is not None
        elif seen.effect.value == "ENTER":
            assert seen.old is None
        assert seen.key == event.key or seen.effect.value == "LEAVE"

    @rule()
    def truncate(self) -> None:
        self.got.clear()
        event = Truncate((Transaction("e", 1, Lsn(self.lsn), self.lsn), 1), self.relation, False, False)
        for view in self.dispatcher.views(event):
            seen = view.see(event)
            if seen is not None:
                view.reader.handler(seen)
        expected = [each for each in self.eyes if "TRUNCATE" in each.operations]
        assert [who for who, _ in self.got] == sorted(expected, key=lambda each: not each.first)

    @invariant()
    def what_is_withheld_is_counted(self) -> None:
        for subscription, eye in self.eyes.items():
            if eye.is_exact:
                assert (subscription.undecided, subscription.errors) == (eye.undecided, eye.errors)
            else:
                assert subscription.undecided >= eye.undecided - eye.errors


keyed = st.tuples(st.sampled_from("IUD"), st.sampled_from([*VALUES, None]), st.sampled_from([*VALUES, None]))


@given(st.sampled_from("dfi"), st.lists(value, min_size=1, max_size=5), st.lists(keyed, max_size=12))
def test_those_who_are_told_apart_by_one_value(identity: str, owners: list[bytes], changes: list[Any]) -> None:
    """Nobody is asked for each change, and the value says it all: the shortest way through the index."""
    machine = Dispatching()
    machine.describe(identity=identity)
    for owner in owners:
        machine.subscribe(predicate=equal(1, owner, None), hidden=frozenset(), operations=None, first=False)
    machine.activate()
    for kind, before, after in changes:
        machine.change(kind=kind, cells=(b"1", after, b"1", b"1"), before=(b"1", before, b"1", b"1"))
        machine.what_is_withheld_is_counted()


Dispatching.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestDispatching = Dispatching.TestCase
