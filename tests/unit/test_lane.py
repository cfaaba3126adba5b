"""Lanes: what is unfinished, when the loop has to wait, who is woken; and progress over several lanes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cdc.collector import NEVER, NOW, Mark
from cdc.lane import Driver, Lane, lane_of
from cdc.lsn import Lsn, Position
from cdc.progress import Progress
from cdc.standby import Standby
from cdc.terms import Terms
from cdc.transaction import Place, Transaction


def lane(**terms: Any) -> Lane:
    made = lane_of("one", Terms(**terms))
    assert made is not None
    return made


def place(number: int) -> Place:
    return Transaction("k3v9", number, Lsn(number * 100), 0), 1


def put(where: Lane, *numbers: int) -> None:
    for number in numbers:
        where.put(number, place(number), Mark(number, place(number - 1), Lsn(number * 100), Lsn(number * 100)), 0.0)


def test_who_needs_a_lane() -> None:
    assert lane_of("one", Terms()) is None
    assert lane_of("one", Terms(retries=3)) is None
    assert lane(batch=3).driver is lane(debounce=1.0).driver is lane(transaction=True).driver is Driver.LOOP
    assert lane(queue=3).driver is lane(queue=3, batch=3).driver is Driver.OWN


def test_an_event_is_unfinished_until_its_handler_has_finished() -> None:
    one = lane(queue=5)
    put(one, 1, 2)
    assert len(one) == 2 and one.oldest is not None and one.oldest.number == 1
    portion = one.take(0.0)
    assert portion is not None and portion.event == 1
    assert one.take(0.0) is None and one.due == NEVER, "one at a time"
    assert len(one) == 2 and one.oldest.number == 1
    one.finish()
    assert len(one) == 1 and one.oldest is not None and one.oldest.number == 2
    one.take(0.0)
    one.finish()
    one.finish()
    assert len(one) == 0 and one.oldest is None


def test_a_full_lane_stalls_the_loop_until_half_of_it_is_free() -> None:
    one = lane(queue=4)
    told: list[bool] = []
    one.changed = lambda: told.append(one.stalls)
    put(one, 1, 2, 3)
    assert not one.stalls
    put(one, 4)
    assert one.stalls
    one.take(0.0)
    one.finish()
    assert one.stalls, "three of four wait still"
    one.take(0.0)
    assert not one.stalls and told[-1] is False
    put(one, 5, 6)
    assert one.stalls


def test_a_lane_takes_what_comes_though_it_is_full() -> None:
    one = lane(queue=1)
    put(one, 1, 2, 3)
    assert len(one) == 3


def test_a_full_lane_does_not_wait_for_its_list_to_be_full() -> None:
    one = lane(queue=2, batch=500, linger=60.0)
    put(one, 1)
    assert one.due == 60.0
    put(one, 2)
    assert one.due == NOW and one.stalls
    portion = one.take(0.0)
    assert portion is not None and portion.event == [1, 2]


def test_a_transaction_that_is_larger_than_the_lane_does_not_stall() -> None:
    one = lane(queue=2, transaction=True)
    mark = Mark(0, None, Lsn(0), Lsn(0))
    for ordinal in range(5):
        one.put(ordinal, (place(1)[0], ordinal), mark, 0.0)
    assert not one.stalls
    one.reach(Lsn(101))
    one.put("next", place(2), mark, 0.0)
    assert one.stalls and one.take(0.0) is not None
    assert not one.stalls


def test_the_driver_is_woken_once_when_it_waits() -> None:
    one = lane(queue=9)
    woken: list[int] = []
    one.wake_driver = lambda: woken.append(1)
    put(one, 1)
    assert not woken, "it has not looked yet"
    one.take(0.0)
    one.finish()
    assert one.take(0.0) is None
    put(one, 2, 3)
    assert len(woken) == 1


def test_the_driver_of_lists_is_woken_for_the_first_event_and_for_the_last() -> None:
    one = lane(queue=9, batch=3, linger=60.0)
    woken: list[int] = []
    one.wake_driver = lambda: woken.append(1)
    assert one.take(0.0) is None
    put(one, 1)
    assert len(woken) == 1 and one.take(0.0) is None
    put(one, 2)
    assert len(woken) == 1
    put(one, 3)
    assert len(woken) == 2


def test_a_closed_lane_forgets_what_waits_and_finishes_what_is_at_hand() -> None:
    one = lane(queue=2)
    put(one, 1, 2, 3)
    one.take(0.0)
    one.close()
    put(one, 4)
    assert len(one) == 1 and not one.stalls
    one.finish()
    assert one.oldest is None


def test_a_lane_that_was_left_holds_what_was_not_finished() -> None:
    one = lane(queue=2)
    put(one, 1, 2)
    one.take(0.0)
    one.leave()
    one.finish()
    assert one.is_left and one.oldest is not None and one.oldest.number == 1
    other = lane(queue=2)
    other.leave()
    assert not other.is_left and other.is_closed


class Lanes(RuleBasedStateMachine):
    """What is finished is a contiguous prefix, whatever lanes do; compared with a plain list of what is open."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = Progress()
        self.progress.standby = self.standby = Standby(Lsn(1), 1.0)
        kinds: list[dict[str, Any]] = [{"queue": 2}, {"batch": 3, "linger": 5.0}, {"transaction": True}]
        self.lanes = [lane(**terms) for terms in kinds]
        self.progress.lanes = tuple(self.lanes)
        self.open: list[set[tuple[int, int]]] = [set(), set(), set()]
        self.hands: list[set[tuple[int, int]]] = [set(), set(), set()]
        self.handed: list[tuple[int, int]] = []
        self.commit, self.ordinal, self.now = 0, 0, 0.0
        self.began = False

    @rule(sees=st.sets(st.integers(0, 2)))
    def change(self, sees: set[int]) -> None:
        """A change is handed out to some of them."""
        if not self.began:
            self.commit, self.ordinal, self.began = self.commit + 1, 0, True
        self.ordinal += 1
        at = (Transaction("k3v9", self.commit, Lsn(self.commit * 100), 0), self.ordinal)
        for number in sees:
            self.lanes[number].put((self.commit, self.ordinal), at, self.progress.mark(), self.now)
            self.open[number].add((self.commit, self.ordinal))
        self.progress.handed = at
        self.handed.append((self.commit, self.ordinal))

    @precondition(lambda self: self.began)
    @rule()
    def commits(self) -> None:
        self.standby.committed(Lsn(self.commit * 100 + 50))
        self.began = False
        for each in self.lanes:
            each.reach(self.standby.finished_lsn)

    @rule(number=st.integers(0, 2))
    def take(self, number: int) -> None:
        portion = self.lanes[number].take(self.now)
        if portion is not None:
            events = [portion.event] if isinstance(portion.event, tuple) else portion.event
            assert set(events) <= self.open[number]
            assert list(events) == sorted(events)[: len(events)]
            assert min(events) == min(self.open[number]), "the oldest comes first"
            self.hands[number] = set(events)

    @rule(number=st.integers(0, 2))
    def finish(self, number: int) -> None:
        self.lanes[number].finish()
        self.open[number] -= self.hands[number]
        self.hands[number] = set()

    @rule()
    def time_goes_by(self) -> None:
        self.now += 3.0

    @invariant()
    def finished_is_the_longest_prefix_without_an_open_event(self) -> None:
        open_events = set().union(*self.open)
        prefix = list(itertools.takewhile(lambda event: event not in open_events, self.handed))
        position, lsn = self.progress.finished("k3v9")
        expected = Position("k3v9", Lsn(prefix[-1][0] * 100), prefix[-1][1]) if prefix else None
        assert position == expected
        if open_events:
            assert lsn <= min(open_events)[0] * 100, "the server sends the transaction again"
        else:
            assert lsn == self.standby.safe_lsn
        assert self.progress.handed_out("k3v9") == (
            Position("k3v9", Lsn(self.handed[-1][0] * 100), self.handed[-1][1]) if self.handed else None
        )


@pytest.fixture(autouse=True)
def plain_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cdc.collector.CommittedTransaction.of", classmethod(lambda cls, transaction, events: list(events))
    )


TestLanes = Lanes.TestCase
TestLanes.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
