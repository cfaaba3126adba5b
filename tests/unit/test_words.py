"""LSNs, positions, fences, predicates, views: the small pure pieces."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cdc
from cdc.caching.fence import Fence, Snapshot
from cdc.predicate import FALSE, NULL, TRUE, UNKNOWN, Predicate, Verdict, equal, every, some, verdict
from cdc.subscription import operations_of


@given(st.integers(0, 2**64 - 1))
def test_an_lsn_prints_and_parses(number: int) -> None:
    assert cdc.Lsn.parse(str(cdc.Lsn(number))) == number


def test_lsn_text() -> None:
    assert str(cdc.Lsn(0x16B3748)) == f"{cdc.Lsn(0x16B3748)}" == "0/16B3748"
    assert repr(cdc.Lsn(0x116B3748)) == "Lsn('0/116B3748')"
    for wrong in ("", "16B3748", "0/", "0/123456789", "g/1"):
        with pytest.raises(ValueError, match="not an LSN"):
            cdc.Lsn.parse(wrong)


def test_positions_are_ordered_within_an_epoch_only() -> None:
    one, two = cdc.Position.parse("e:0/64:2"), cdc.Position.parse("e:0/64:10")
    assert one < two and two > one and one <= one and two >= one and str(two) == "e:0/64:10"
    other = cdc.Position.parse("f:0/64:2")
    assert one != other
    for compare in (lambda: one < other, lambda: one <= other, lambda: one > other, lambda: one >= other):
        with pytest.raises(ValueError, match="two epochs"):
            compare()
    for wrong in ("", "e:0/1", ":0/1:1", "e:0/1:x", "e:0/1:-1", "e:zz:1"):
        with pytest.raises(ValueError):
            cdc.Position.parse(wrong)


def test_a_snapshot_sees_what_is_finished() -> None:
    snapshot = Snapshot.parse("10:20:12,15")
    assert [snapshot.sees(xid) for xid in (9, 11, 12, 15, 19, 20, 21)] == [True, True, False, False, True, False, False]
    assert Snapshot.parse("7:7:").sees(6)


def test_a_snapshot_widens_32_bit_ids_next_to_its_xmax() -> None:
    wrap = 1 << 32
    just_after = Snapshot.parse(f"{wrap - 5}:{wrap + 10}:")
    assert just_after.sees(wrap - 10) and just_after.sees(3) and not just_after.sees(10)
    just_before = Snapshot.parse(f"{wrap - 20}:{wrap - 10}:")
    assert not just_before.sees(3), "an id that was given out after the counter went round is not seen yet"


def test_a_fence_keeps_every_transaction_until_it_was_seen() -> None:
    fence = Fence()
    fence.change("a", 10)
    fence.change("a", 12)
    fence.change_all(11)
    assert fence.pending("a") == {10, 11, 12} and fence.pending("b") == {11}
    fence.seen(Snapshot.parse("11:13:11"))
    assert fence.pending("a") == {11} and fence
    fence.seen(Snapshot.parse("13:13:"))
    assert not fence and not fence.pending("a")


VALUES = {TRUE: True, FALSE: False, NULL: None}


def sql_and(one: bool | None, two: bool | None) -> bool | None:
    if one is False or two is False:
        return False
    return None if one is None or two is None else True


@pytest.mark.parametrize(("left", "right"), list(itertools.product((TRUE, FALSE, NULL), repeat=2)))
def test_three_valued_logic(left: int, right: int) -> None:
    one, two = (Predicate(lambda cells, outcome=outcome: outcome, frozenset()) for outcome in (left, right))
    assert VALUES[every([one, two]).test([])] is sql_and(VALUES[left], VALUES[right])
    negated = sql_and(*(None if VALUES[side] is None else not VALUES[side] for side in (left, right)))
    assert VALUES[some([one, two]).test([])] is (None if negated is None else not negated)


def test_unknown_is_a_set_of_outcomes() -> None:
    def fixed(outcome: int) -> Predicate:
        return Predicate(lambda cells: outcome, frozenset())

    assert every([fixed(FALSE), fixed(UNKNOWN)]).test([]) == FALSE
    assert some([fixed(TRUE), fixed(UNKNOWN)]).test([]) == TRUE
    assert verdict(every([fixed(TRUE), fixed(UNKNOWN)]).test([])) is Verdict.UNDECIDED
    assert verdict(every([fixed(NULL), fixed(UNKNOWN)]).test([])) is Verdict.NO
    assert verdict(some([fixed(NULL), fixed(UNKNOWN)]).test([])) is Verdict.UNDECIDED
    assert (verdict(TRUE), verdict(FALSE), verdict(NULL)) == (Verdict.YES, Verdict.NO, Verdict.NO)


def test_equality_with_null_and_with_what_was_not_sent() -> None:
    plain = equal(0, b"1", None)
    assert [plain.test([cell]) for cell in (b"1", b"2", None, cdc.UNCHANGED)] == [TRUE, FALSE, NULL, UNKNOWN]
    read = equal(0, 1, int)
    assert [read.test([cell]) for cell in (b"01", b"2", None, cdc.UNCHANGED, b"x")] == [
        TRUE,
        FALSE,
        NULL,
        UNKNOWN,
        UNKNOWN,
    ]


def test_operations() -> None:
    assert operations_of(None) is None
    assert operations_of("insert") == {"INSERT"}
    with pytest.raises(cdc.SubscriptionError, match="none"):
        operations_of([])


def test_backoff_doubles_from_2_to_32_seconds() -> None:
    assert [cdc.Backoff().wait(attempt, 0) for attempt in range(1, 8)] == [2, 4, 8, 16, 32, 32, 32]
    assert cdc.Backoff().wait(10_000, 1) == pytest.approx(25.6)


@pytest.mark.parametrize("wrong", [{"first": "1"}, {"first": -1}, {"longest": True}, {"jitter": 5}])
def test_a_wait_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(cdc.ConfigurationError, match=f"backoff: {next(iter(wrong))} is "):
        cdc.Backoff(**wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"backoff": 3}, "backoff is a cdc.Backoff, as cdc.Backoff(first=1.0), not 3"),
        ({"spool_folder": 3}, "spool_folder: 3 is not a folder"),
        ({"state": "none"}, "'none' is none of them"),
        ({"state": True}, "'True' is none of them"),
    ],
)
def test_settings_of_another_kind_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(cdc.ConfigurationError, match=re.escape(said)):
        cdc.Consumer("", slot="s", **wrong)


def test_what_is_no_text_is_no_lsn() -> None:
    with pytest.raises(ValueError, match="None is not an LSN"):
        cdc.Lsn.parse(None)  # type: ignore[arg-type]
