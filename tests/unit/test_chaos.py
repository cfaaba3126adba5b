"""The crash ledger's judgement, from invented lines; its plans; its sink."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.arrivals import Arrivals
from tests.chaos.ledger import Entry, Ledger, Outcome, change
from tests.chaos.plan import FAULTS, draw
from tests.chaos.sink import Sink, lines
from tests.chaos.verdict import Verdict, judge

START: dict[str, Any] = {"start": 1, "former": "none"}
KILLED: dict[str, Any] = {"start": 2, "former": "killed"}
ORDERLY: dict[str, Any] = {"start": 2, "former": "in order"}
GAP: dict[str, Any] = {"gap": "the slot is gone", "last": None, "previous": None}


def ledger() -> Ledger:
    """Three transactions of two changes each, by two sessions, and one that was rolled back."""
    made = Ledger()
    for session, number, order in ((1, 1, 1), (2, 1, 1), (1, 2, 2)):
        entry = made.open(session, number)
        place = len(made.entries)
        entry.xid, entry.outcome, entry.order = 700 + place, Outcome.COMMITTED, order
        entry.before, entry.after = 1000 * place, 1000 * place + 500
        entry.changes = [change("wells", "INSERT", 10 * place + n, None, f"{place}/{n}") for n in (1, 2)]
    undone = made.open(2, 2)
    undone.xid, undone.outcome = 799, Outcome.ROLLED_BACK
    return made


def line(place: int, ordinal: int, previous: str | None, **other: Any) -> dict[str, Any]:
    fields = {"table": "wells", "operation": "INSERT", "xid": 700 + place, "position": at(place, ordinal)}
    fields |= {"previous": previous, "key": 10 * place + ordinal, "old_key": None, "value": f"{place}/{ordinal}"}
    return fields | other


def at(place: int, ordinal: int) -> str:
    return f"k:0/{1000 * place + 100:X}:{ordinal}"


def all_lines() -> list[dict[str, Any]]:
    places = [(place, ordinal) for place in (1, 2, 3) for ordinal in (1, 2)]
    former = [None, *(at(*place) for place in places)]
    return [line(*place, previous) for place, previous in zip(places, former, strict=False)]


def verdict(*sink: dict[str, Any], **options: Any) -> Verdict:
    return judge(ledger(), Arrivals(sink), **options)


def relinked(sink: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same lines with `previous` as their order has it."""
    former = [None, *(each["position"] for each in sink)]
    return [each | {"previous": previous} for each, previous in zip(sink, former, strict=False)]


def test_all_is_well() -> None:
    assert verdict(START, *all_lines()) == Verdict(changes=6)


def test_rows_that_are_read_anew() -> None:
    """Behind a gap with `resync` a list holds what was read and what came later; reads are linked, too."""
    read = {"read": "k:0/900:1", "previous": at(1, 1), "table": "wells", "key": 7, "value": "read"}
    sink = [START, line(1, 1, None), GAP | {"resync": True}, read, line(3, 1, "k:0/900:1")]
    arrivals = Arrivals(sink)
    assert (arrivals.kept["wells"], arrivals.wrong) == ({7: "read", 31: "3/1"}, [])
    assert Arrivals([*sink[:-1], line(3, 1, at(1, 1))]).wrong


def test_what_is_lost() -> None:
    found = verdict(START, *relinked(all_lines()[:3] + all_lines()[4:]))
    assert (found.missing, found.is_good) == (1, False)
    found = verdict(START, *relinked(all_lines()[:2] + all_lines()[4:]))
    assert (found.missing, found.is_good) == (2, False)


def test_a_repeated_prefix_behind_a_kill_is_explained() -> None:
    sink = all_lines()
    found = verdict(START, *sink[:4], KILLED, *relinked(sink[2:]))
    assert (found.duplicated, found.explained, found.is_good) == (2, 2, True)


def test_a_repetition_behind_a_good_end_is_not() -> None:
    sink = all_lines()
    found = verdict(START, *sink[:4], ORDERLY, *relinked(sink[2:]))
    assert (found.duplicated, found.explained, found.is_good) == (2, 0, False)


def test_a_repetition_goes_on_behind_a_good_end() -> None:
    """The second life had not come to what the first one had last."""
    sink = all_lines()
    found = verdict(START, *sink[:5], KILLED, *relinked(sink[:2]), ORDERLY, *relinked(sink[2:]))
    assert (found.duplicated, found.explained, found.is_good) == (5, 5, True)


def test_a_repetition_within_a_life_is_not_explained() -> None:
    sink = all_lines()
    found = verdict(START, *relinked([*sink[:4], sink[3], *sink[4:]]))
    assert (found.duplicated, found.explained, found.is_good) == (1, 0, False)


def test_a_repetition_under_another_position_is_a_duplicate() -> None:
    sink = all_lines()
    found = verdict(START, *relinked([*sink[:2], sink[1] | {"position": at(1, 3)}, *sink[2:]]))
    assert (found.duplicated, found.explained, found.is_good) == (1, 0, False)
    again = [each | {"position": at(4, number)} for number, each in enumerate(sink[:2], 1)]
    found = verdict(START, *relinked(sink + again))
    assert (found.duplicated, found.explained, found.is_good) == (2, 0, False)


def test_a_position_means_one_change() -> None:
    sink = all_lines()
    found = verdict(START, *sink[:4], KILLED, *relinked([sink[3] | {"value": "other"}, *sink[4:]]))
    assert not found.is_good and "came again as" in found.wrong[0]


def test_what_is_out_of_order() -> None:
    sink = all_lines()
    found = verdict(START, *relinked([sink[1], sink[0], *sink[2:]]))
    assert found.disordered and not found.is_good
    found = verdict(START, *relinked([*sink[2:4], *sink[:2], *sink[4:]]))
    assert found.disordered and not found.is_good


def test_an_order_that_only_the_positions_keep() -> None:
    """Two commits of one session under each other's LSN: what the writer saw of the log tells."""
    sink = [each | {"xid": {701: 703, 703: 701}.get(each["xid"], each["xid"])} for each in all_lines()]
    content = {701: all_lines()[0:2], 703: all_lines()[4:6]}
    swapped = []
    for each in sink:
        other = content.get(each["xid"])
        pick = None if other is None else other[int(each["position"].rpartition(":")[2]) - 1]
        swapped.append(each if pick is None else each | {"key": pick["key"], "value": pick["value"]})
    found = verdict(START, *swapped)
    assert any("another order" in each for each in found.wrong)
    assert any("said to have committed" in each for each in found.wrong)


def test_what_was_rolled_back_must_not_arrive() -> None:
    extra = line(4, 1, at(3, 2), xid=799)
    assert any("rolled back" in each for each in verdict(START, *all_lines(), extra).wrong)


def test_a_link_to_another_position_is_wrong() -> None:
    sink = all_lines()
    assert not verdict(START, sink[0], sink[1] | {"previous": None}, *sink[2:]).is_good


def test_what_is_missing_at_a_gap_was_told() -> None:
    sink = all_lines()
    after = [each | {"position": each["position"].replace("k:", "other:")} for each in sink[4:]]
    after[0]["previous"], after[1]["previous"] = sink[1]["position"], after[0]["position"]
    found = verdict(START, *sink[:2], GAP, *after)
    assert (found.missing, found.told, found.is_good) == (0, 2, True)
    assert verdict(START, *sink[:2], *after).missing == 2


def test_a_gap_elsewhere_explains_nothing() -> None:
    sink = all_lines()
    found = verdict(START, *sink[:2], *relinked(sink[4:])[:0], *[sink[4] | {"previous": at(1, 2)}, sink[5]], GAP)
    assert (found.missing, found.told) == (2, 0)


def test_what_a_fault_took_away_has_to_be_told() -> None:
    sink = [*all_lines()[:2], all_lines()[4] | {"previous": at(1, 2)}, all_lines()[5]]
    windows = [(1900, 2600)]
    assert verdict(START, *sink, windows=windows).missing == 2
    assert verdict(START, *sink, GAP, windows=windows).told == 2


def test_an_id_that_a_crash_gave_twice() -> None:
    """The first one of that id was rolled back; what arrives belongs to the second."""
    made = ledger()
    made.entries.insert(0, Entry(3, 1, xid=702, outcome=Outcome.ROLLED_BACK))
    assert judge(made, Arrivals([START, *all_lines()])).is_good


@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_seed_gives_the_same_plan(fault: str) -> None:
    random.seed(1)
    plan = draw(7, fault)
    random.seed(2)
    assert draw(7, fault) == plan
    assert any(draw(seed, fault) != plan for seed in range(8, 20))
    assert plan.injections or plan.lives or fault == "none"


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "sink"
    Sink(path).write(number=1)
    with path.open("ab") as file:
        file.write(b'{"number": 2')
    assert list(lines(path)) == [{"number": 1}]
    sink = Sink(path)
    sink.write(number=3)
    assert list(lines(path)) == [{"number": 1}, {"number": 3}]
    # A write that stops in the middle: the line is whole the next time.
    end = sink.size + 5
    write, os.write = os.write, lambda file, data: write(file, data[:5]) if sink.size < end else fail()
    try:
        with pytest.raises(OSError, match="full"):
            sink.write(number=4)
    finally:
        os.write = write
    assert not path.read_bytes().endswith(b"\n")
    sink.write(number=4)
    assert [each["number"] for each in lines(path)] == [1, 3, 4]


def fail() -> int:
    raise OSError("the disk is full")
