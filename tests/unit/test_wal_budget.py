"""The WAL budget: rate, forecast, and what is worth a warning."""

from __future__ import annotations

import pytest

from cdc import Colour, Gap
from cdc.health import slot_verdict
from cdc.wal_budget import Usage, WalBudget, WalWatch, bytes_in_words, seconds_in_words

MB, GB = 1 << 20, 1 << 30


def test_the_rate_is_that_between_the_oldest_look_and_the_newest() -> None:
    watch = WalWatch()
    assert watch.look(Usage(10 * MB, 90 * MB, "reserved"), 100.0).rate is None
    budget = watch.look(Usage(20 * MB, 80 * MB, "reserved"), 110.0)
    assert (budget.rate, budget.lost_in) == (MB, 80.0)
    for number in range(3, 20):
        budget = watch.look(Usage(20 * MB, 80 * MB, "reserved"), 100.0 + 10 * number)
    assert (budget.rate, budget.lost_in) == (0, None)
    assert watch.budget is budget


def test_a_slot_that_keeps_less_and_less_has_no_forecast() -> None:
    watch = WalWatch()
    watch.look(Usage(20 * MB, 80 * MB, "reserved"), 0.0)
    budget = watch.look(Usage(10 * MB, 90 * MB, "reserved"), 10.0)
    assert (budget.rate, budget.lost_in, budget.warning) == (-MB, None, None)


def test_two_looks_at_the_same_moment_and_a_lost_slot() -> None:
    watch = WalWatch()
    watch.look(Usage(20 * MB, 80 * MB, "reserved"), 5.0)
    assert watch.look(Usage(30 * MB, 70 * MB, "reserved"), 5.0).rate is None
    lost = watch.look(Usage(None, None, "lost"), 6.0)
    assert lost.rate is None and lost.is_critical and "lost" in str(lost.warning)
    assert watch.look(Usage(10 * MB, 90 * MB, "reserved"), 7.0).rate is None


@pytest.mark.parametrize(
    ("budget", "critical", "words"),
    [
        (WalBudget(10 * MB, 90 * MB, "reserved"), False, None),
        (WalBudget(80 * MB, 20 * MB, "extended"), False, "keeps 80.0 MB of WAL; 20.0 MB more"),
        (WalBudget(95 * MB, 5 * MB, "extended"), True, "5.0 MB more"),
        (WalBudget(MB, 99 * MB, "reserved", 1.0, 3599.0), False, "reaches max_slot_wal_keep_size in 60 min"),
        (WalBudget(MB, 99 * MB, "reserved", 1.0, 599.0), True, "in 10 min"),
        (WalBudget(MB, 99 * MB, "reserved", 1.0, 3601.0), False, None),
        (WalBudget(99 * MB, -MB, "unreserved"), True, "at the next checkpoint"),
        (WalBudget(None, None, "lost"), True, "the slot is lost"),
        (WalBudget(9 * GB, None, "extended"), False, None),
        (WalBudget(10 * GB, None, "extended"), False, "sets no limit"),
    ],
)
def test_warnings(budget: WalBudget, critical: bool, words: str | None) -> None:
    assert budget.is_critical is critical
    assert budget.warning is None if words is None else words in str(budget.warning)
    colour, reasons = slot_verdict(Colour.GREEN, (), budget, None)
    expected = Colour.RED if critical else Colour.GREEN if words is None else Colour.YELLOW
    assert colour is expected and len(reasons) == (words is not None)


def test_a_gap_never_makes_health_better() -> None:
    gap = Gap("the slot is gone")
    assert slot_verdict(Colour.GREEN, (), None, gap) == (
        Colour.YELLOW,
        ("changes may be missing: the slot is gone",),
    )
    assert slot_verdict(Colour.RED, ("stopped",), None, gap)[0] is Colour.RED
    assert slot_verdict(Colour.RED, (), WalBudget(80 * MB, 20 * MB, "extended"), gap)[0] is Colour.RED


def test_words() -> None:
    sizes = {None: "-", 0: "0 bytes", 1023: "1023 bytes", 1024: "1.0 kB", 3 * MB // 2: "1.5 MB", 5 << 40: "5.0 TB"}
    assert {size: bytes_in_words(size) for size in sizes} == sizes
    assert bytes_in_words(1 << 52) == "4096.0 TB" and bytes_in_words(-2 * MB) == "-2.0 MB"
    times = {None: "-", 5: "5 s", 600: "10 min", 7200: "2 h", 200_000: "2 days"}
    assert {seconds: seconds_in_words(seconds) for seconds in times} == times
