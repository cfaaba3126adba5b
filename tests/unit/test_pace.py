"""When the loop naps: at some thousand transactions a second, neither below nor far above."""

from __future__ import annotations

import pytest

from cdc.pace import Pace


def naps(frames: int, every: float, pace: Pace | None = None) -> float:
    """The share of the reads, each of so many frames, that are followed by a nap; the first fifth left out."""
    pace, count = pace or Pace(), 3000
    slept = [pace.nap(frames, 1000.0 + number * every) > 0 for number in range(count)]
    return sum(slept[count // 5 :]) / (count - count // 5)


@pytest.mark.parametrize(
    ("frames", "every"), [(3, 1 / 5), (3, 1 / 200), (5, 1 / 2000), (1, 1 / 6000), (100, 1 / 50), (1, 10.0)]
)
def test_an_ordinary_pace_never_naps(frames: int, every: float) -> None:
    assert naps(frames, every) == 0


@pytest.mark.parametrize(("frames", "every"), [(4, 1 / 5000), (1, 1 / 20000), (12, 1 / 2000), (32, 1 / 1000)])
def test_load_naps_after_each_read(frames: int, every: float) -> None:
    assert naps(frames, every) == 1


@pytest.mark.parametrize(("frames", "every"), [(250, 1 / 1000), (100, 1 / 1000), (3, 1 / 30000)])
def test_a_backlog_never_naps(frames: int, every: float) -> None:
    assert naps(frames, every) == 0


def test_the_parts_of_one_transaction_are_no_load() -> None:
    """Two reads within microseconds of each other, 2,000 times a second."""
    pace = Pace()
    for number in range(400):
        now = 1000.0 + number / 2000
        assert pace.nap(1, now) == 0
        assert pace.nap(2, now + 0.00002) == 0


def test_the_first_change_after_load_is_not_late() -> None:
    pace = Pace()
    assert naps(4, 1 / 5000, pace=pace) > 0
    assert pace.nap(3, 1100.0) == 0
    assert pace.nap(3, 1100.001) == 0


def test_a_single_large_read_is_no_backlog() -> None:
    """The server was kept from sending for a moment."""
    pace = Pace()
    assert naps(20, 1 / 1000, pace=pace) == 1
    assert pace.nap(100, 1003.0) > 0
    assert pace.nap(20, 1003.001) > 0


def test_a_backlog_that_comes_no_faster_than_load_does_not_nap_for_long() -> None:
    """On a busy machine, say: few frames a read, and many as soon as it naps."""
    pace, now, slept, frames = Pace(), 1000.0, 0.0, 3
    while now < 1010.0:
        nap = pace.nap(frames, now)
        frames = 100 if nap else 3
        slept += nap
        now += nap + frames / 40_000
    assert 0 < slept < 0.2
