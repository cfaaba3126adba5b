"""Collectors: what is due when, and what it looks like. No clock: the times are arguments."""

from __future__ import annotations

from typing import Any

import pytest

import cdc
from cdc.collector import NEVER, NOW, Collector, Entry, Mark, Portion, collector_of, events_of
from cdc.events import Gap, Insert
from cdc.lsn import Lsn
from cdc.prepared import Prepared
from cdc.terms import Terms
from cdc.transaction import Transaction, commit_time

GAP = Gap("lost")


def transaction(commit_lsn: int) -> Transaction:
    return Transaction("k3v9", commit_lsn, Lsn(commit_lsn), 0)


def insert(commit_lsn: int, ordinal: int) -> Insert:
    event = Insert.__new__(Insert)
    event._place, event._previous = (transaction(commit_lsn), ordinal), None
    return event


class Filling:
    """A collector, and the events that were put into it."""

    def __init__(self, **terms: Any) -> None:
        self.collector: Collector = collector_of(Terms(**terms))
        self.number = 0

    def add(self, event: Any, at: float = 0.0) -> None:
        self.number += 1
        belongs = event._place[0] if isinstance(event, Insert) else None
        self.collector.add(Entry(event, belongs, Mark(self.number, None, Lsn(0), Lsn(0)), at))

    def taken(self, now: float = 0.0) -> list[Portion]:
        portions = []
        while self.collector.due <= now:
            portions.append(self.collector.take())
        return portions


def test_without_terms_each_event_comes_by_itself() -> None:
    filling = Filling(queue=3)
    assert filling.collector.due == NEVER
    filling.add("a")
    filling.add("b")
    assert filling.collector.due == NOW
    assert [(portion.event, portion.mark.number, portion.size) for portion in filling.taken()] == [
        ("a", 1, 1),
        ("b", 2, 1),
    ]
    assert filling.collector.oldest is None


def test_a_batch_is_due_when_it_is_full_or_its_first_event_has_lingered() -> None:
    filling = Filling(batch=3, linger=0.5)
    filling.add("a", at=10.0)
    filling.add("b", at=10.4)
    assert filling.collector.due == 10.5
    filling.add("c", at=10.4)
    filling.add("d", at=10.45)
    assert filling.collector.due == NOW
    assert [portion.event for portion in filling.taken(10.4)] == [["a", "b", "c"]]
    assert filling.collector.due == 10.95 and filling.collector.oldest == Mark(4, None, Lsn(0), Lsn(0))


def test_a_burst_is_due_behind_its_quiet_and_at_last_in_any_case() -> None:
    filling = Filling(debounce=1.0)
    filling.add("a", at=100.0)
    assert filling.collector.due == 101.0
    filling.add("b", at=100.9)
    assert filling.collector.due == 101.9
    for tenth in range(20, 95, 5):
        filling.add("more", at=100 + tenth / 10)
    assert filling.collector.due == 110.0
    (portion,) = filling.taken(110.0)
    assert portion.event[:2] == ["a", "b"] and portion.size == 17 and portion.mark.number == 1


@pytest.mark.parametrize("terms", [{"batch": 9, "linger": 60.0}, {"debounce": 60.0}])
def test_what_is_hurried_is_due_and_what_comes_after_it_is_not(terms: dict[str, Any]) -> None:
    filling = Filling(**terms)
    filling.add("a")
    filling.collector.hurry()
    assert [portion.event for portion in filling.taken()] == [["a"]]
    filling.add("b")
    assert filling.collector.due == 60.0


def test_a_transaction_is_due_when_another_begins() -> None:
    filling = Filling(transaction=True)
    filling.add(insert(100, 1))
    filling.add(insert(100, 4))
    assert filling.collector.due == NEVER
    filling.add(insert(200, 1))
    (portion,) = filling.taken()
    whole = portion.event
    assert isinstance(whole, cdc.CommittedTransaction) and portion.size == len(whole) == 2
    assert (whole.xid, whole.commit_time, str(whole.position)) == (100, commit_time(0), "k3v9:0/64:4")
    assert filling.collector.due == NEVER


def test_a_transaction_is_due_when_its_commit_was_handed_out() -> None:
    filling = Filling(transaction=True)
    filling.add(insert(100, 1))
    filling.collector.reach(Lsn(100))  # Its commit record begins here, as that of another stream's start may.
    assert filling.collector.due == NEVER
    filling.collector.reach(Lsn(130))
    assert [len(portion.event) for portion in filling.taken()] == [1]


def test_several_whole_transactions_come_one_by_one() -> None:
    filling = Filling(transaction=True)
    for commit, ordinal in ((100, 1), (200, 1), (200, 2), (300, 7)):
        filling.add(insert(commit, ordinal))
    filling.collector.reach(Lsn(330))
    assert [len(portion.event) for portion in filling.taken()] == [1, 2, 1]


def test_a_gap_between_two_transactions_comes_by_itself() -> None:
    filling = Filling(transaction=True)
    filling.add(insert(100, 1))
    filling.collector.reach(Lsn(130))
    filling.add(GAP)
    filling.add(insert(200, 1))
    assert [type(portion.event).__name__ for portion in filling.taken()] == ["CommittedTransaction", "Gap"]


def test_a_gap_in_the_middle_of_a_transaction_ends_it() -> None:
    filling = Filling(transaction=True)
    filling.add(insert(100, 1))
    filling.add(GAP)
    (portion,) = filling.taken()
    assert portion.event.events[1] is GAP and str(portion.event.position) == "k3v9:0/64:1"


def test_a_prepared_one_that_is_told_again_does_not_cut_a_transaction() -> None:
    """The connection was lost in the middle of it; before the rest comes what stands before it."""
    filling = Filling(transaction=True)
    prepared = Prepared("one", 7, Lsn(90), commit_time(0))
    filling.add(insert(100, 1))
    filling.add(prepared)
    filling.add(insert(100, 2))
    (told,) = filling.taken()
    assert told.event is prepared and told.mark.number == 1, "what it holds back begins with the transaction"
    filling.collector.reach(Lsn(130))
    (portion,) = filling.taken()
    assert [event._place[1] for event in portion.event] == [1, 2] and portion.mark.number == 1


def test_what_is_cleared_is_gone() -> None:
    for terms in ({"queue": 1}, {"batch": 2}, {"debounce": 1.0}, {"transaction": True}):
        filling = Filling(**terms)
        filling.add(insert(100, 1))
        filling.collector.reach(Lsn(130))
        filling.collector.hurry()
        filling.collector.clear()
        assert (len(filling.collector), filling.collector.due, filling.collector.oldest) == (0, NEVER, None)


def test_the_single_events_of_what_a_handler_got() -> None:
    one = insert(100, 1)
    assert list(events_of(one)) == [one]
    assert list(events_of([one, GAP])) == [one, GAP]
    assert list(events_of(cdc.CommittedTransaction.of(transaction(100), (one,)))) == [one]
