"""Groups, what they keep, what they share and what they never show; and what is said of rows that raise an error."""

from __future__ import annotations

from cdc.dispatcher import Dispatcher
from cdc.events import Effect, Insert, SchemaChange, Truncate
from cdc.group import Problems
from cdc.lsn import Lsn
from cdc.payload import event_of, payload_of
from cdc.predicate import Predicate, equal
from cdc.relation import Column, Relation
from cdc.row import Row
from cdc.subscription import Subscription
from cdc.transaction import Transaction
from cdc.values import Types
from cdc.view import View

NAMES = ("secret", "id", "owner")
COLUMNS = tuple(Column(name, 25, -1, name == "id", bytes.decode) for name in NAMES)
WELLS = Relation(7, "public", "wells", "d", COLUMNS, (1,))
HIDDEN = WELLS.without(frozenset({"secret"}))


def insert(number: int, owner: bytes = b"a") -> Insert:
    place = (Transaction("e", 1, Lsn(number), 0), 1)
    row = Row.of_cells(WELLS.whole, (b"s", str(number).encode(), owner))
    return Insert(place, WELLS, None, row, Effect.ENTER)


def dispatcher(predicates: dict[Subscription, Predicate | None]) -> Dispatcher:
    made = Dispatcher()

    def bind(subscription: Subscription, relation: Relation) -> View:
        return View(subscription, relation, predicates[subscription])

    made.define(WELLS, bind)
    for each in predicates:
        made.add(each)
    made.activate(bind)
    return made


def test_a_hidden_column_is_not_in_the_relation() -> None:
    assert [column.name for column in HIDDEN.shown.columns] == ["id", "owner"]
    assert HIDDEN.shown.key == (0,), "the key by its place among the columns that are left"
    assert HIDDEN.key == (1,), "the tuples are as they were"
    assert HIDDEN == WELLS and WELLS.shown is WELLS and WELLS.without(frozenset()) is WELLS
    assert WELLS.without(frozenset({"id"})).shown.key is None
    place = (Transaction("e", 1, Lsn(1), 0), 1)
    for event in (
        Truncate(place, HIDDEN, False, False),
        SchemaChange(place, WELLS, WELLS, HIDDEN.hidden, HIDDEN.hidden),
    ):
        assert "secret" not in [column.name for column in event.relation.columns]
    assert "secret" not in [column.name for column in event.old_relation.columns]


def test_a_parked_event_goes_on_hiding_what_it_hid() -> None:
    event = insert(1)
    shown = event.seen_as(HIDDEN, None, event.new.shown_as(HIDDEN.whole), Effect.ENTER)  # type: ignore[union-attr]
    shown._previous = None
    again = event_of(payload_of(shown), Types())
    assert isinstance(again, Insert) and again.new is not None
    assert [column.name for column in again.relation.columns] == ["id", "owner"]
    assert (dict(again.new), again.key) == ({"id": "1", "owner": "a"}, "1")


def test_those_who_see_the_same_share_one_event_and_nobody_else_does() -> None:
    many = {Subscription("public", "wells", print): equal(2, b"a", None) for _ in range(5)}
    trusted = {Subscription("public", "wells", print): None for _ in range(3)}
    made = dispatcher({**many, **trusted})
    for number in (1, 2):
        event = insert(number)
        seen = {view.subscription: view.see(event) for view in made.views(event)}
        assert len({id(seen[each]) for each in many}) == len({id(seen[each]) for each in trusted}) == 1
        assert len({id(each) for each in seen.values()}) == 2 and event not in seen.values()
    late = Subscription("public", "wells", print)
    made.add(late)
    made.activate(lambda subscription, relation: View(subscription, relation, equal(2, b"a", None)))
    event = insert(3)
    seen = {view.subscription: view.see(event) for view in made.views(event)}
    assert seen[late] is not None and seen[late].previous is None
    assert {str(seen[each].previous) for each in many} == {"e:0/2:1"}  # type: ignore[union-attr]


def test_nothing_of_a_change_is_kept_behind_the_next_one() -> None:
    """With very many groups the last event of each would be the whole history of the table."""
    owners = [str(number).encode() for number in range(20)]
    predicates = {Subscription("public", "wells", print): equal(2, owner, None) for owner in owners}
    made = dispatcher(dict(predicates))
    for number, owner in enumerate(owners):
        event = insert(number + 1, owner)
        assert [view.see(event) is not None for view in made.views(event)] == [True]
    groups = [view.group for view in made.views_of(7)]
    assert len({id(group) for group in groups}) == 20
    assert sum(group is not None and (group.event, group.shown) != (None, None) for group in groups) == 1


def test_problems_are_said_once_a_minute_with_their_number() -> None:
    problems = Problems()
    problems.note("public.wells", "division by zero")
    assert problems.news(100.0, 60.0) == [("public.wells", "division by zero", 1)]
    problems.note("public.wells", "division by zero")
    problems.note("public.wells", "another")
    assert problems.news(159.0, 60.0) == [("public.wells", "another", 1)]
    assert problems.news(160.0, 60.0) == [("public.wells", "division by zero", 2)]
    assert problems.news(500.0, 60.0) == []
    assert "2 changes of public.wells were withheld" in problems.notes[0]
    for number in range(1000):
        problems.note("public.wells", f"reason {number}")
    assert len(problems.counts) == 100
