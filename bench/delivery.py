"""What does it cost to hand a change over by a queue, in lists, or to a loop, next to a direct call?

A private PostgreSQL is filled once. Consumers take turns on copies of one slot; their handlers do the same: they read
the key of each change and count. One is called directly, one through a queue (a thread of its own), two get lists of
500, on the loop and through a queue, one gets whole transactions, and one is a `for` loop. A ratio is the direct one's
time divided by the other's: rows per second, so more is better, and 1 is as fast.

A second row of contestants has a handler that waits a millisecond in each call, as for another system's answer; there
lists show what they are for. Its rows are fewer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import contest
import wal

import cdc
from cdc.testing import Sandbox

ROWS = 100_000
SHAPE = "100"
QUEUE = 10_000
WAIT = 0.001
SLOW_SHARE = 50
"""The waiting handlers get one row for so many of the others."""
MODES: dict[str, dict[str, Any]] = {
    "direct": {},
    "queue": {"queue": QUEUE},
    "batch": {"batch": 500},
    "queue_batch": {"queue": QUEUE, "batch": 500},
    "transaction": {"transaction": True},
}
TARGETS: dict[str, contest.Target] = {"batch_ratio": contest.Target(0.8)}


class Counted:
    """A handler that reads keys, and knows when it has had all rows."""

    def __init__(self, rows: int, wait: float) -> None:
        self.left = rows
        self._wait = wait

    def one(self, event: Any) -> None:
        """Read the key of one change."""
        self._count(event)
        self._pause()

    def many(self, events: Any) -> None:
        """Read the keys of several."""
        for event in events:
            self._count(event)
        self._pause()

    def _count(self, event: cdc.Change) -> None:
        event.key  # noqa: B018
        self.left -= 1

    def _pause(self) -> None:
        if self._wait:
            time.sleep(self._wait)


def handled(dsn: str, rows: int, end: str, mode: str, wait: float, slot: str) -> float:
    """Seconds until a handler has had every row, connecting included."""
    counted, options = Counted(rows, wait), MODES[mode]
    lists = "batch" in options or "transaction" in options
    begun = time.perf_counter()
    with cdc.Consumer(dsn, slot=slot, state=None) as consumer:
        consumer.subscribe("wells", counted.many if lists else counted.one, **options)
        consumer.start()
        consumer.wait_for(end, timeout=600)
        taken = time.perf_counter() - begun
    if counted.left:
        raise SystemExit(f"{mode}: {counted.left} rows have not arrived")
    return taken


def looped(dsn: str, rows: int, end: str, wait: float, slot: str) -> float:
    """The same by a `for` loop."""
    counted = Counted(rows, wait)
    begun = time.perf_counter()
    with cdc.Consumer(dsn, slot=slot, state=None) as consumer:
        for event in consumer.events("wells", queue=QUEUE):
            counted.one(event)
            if not counted.left:
                return time.perf_counter() - begun
    raise SystemExit(f"iteration: {counted.left} rows have not arrived")


def measure(server: Sandbox, rows: int, rounds: int, wait: float, kind: str) -> contest.Figures:
    """The figures of handlers that wait for `wait` seconds in each call."""
    with wal.recorded(server, SHAPE, rows) as (db, dsn, written):
        end = str(cdc.current_lsn(db))

        def one(run: Callable[[str], float]) -> float:
            with wal.turn(db) as slot:
                return run(slot)

        runs: dict[str, Callable[[str], float]] = {
            mode: partial(handled, dsn, written, end, mode, wait) for mode in MODES
        }
        runs["iteration"] = partial(looped, dsn, written, end, wait)
        turns = {name: partial(one, run) for name, run in runs.items()}
        taken = contest.median(contest.take_turns(turns, rounds))
    figures: contest.Figures = {}
    for name, seconds in taken.items():
        figures[f"{kind}{name}_rows_per_second"] = contest.short(written / seconds)
        if name != "direct":
            figures[f"{kind}{name}_ratio"] = round(taken["direct"] / seconds, 3)
    return figures


def main() -> None:
    """Measure both kinds of handlers; print one table, and one JSON object if asked."""
    parser = contest.options(__doc__ or "", rows=ROWS)
    chosen = parser.parse_args()
    with Sandbox(settings={"max_replication_slots": 20}) as server:
        figures = contest.circumstances(server.version)
        figures |= measure(server, chosen.rows, chosen.rounds, 0.0, "")
        figures |= measure(server, max(100, chosen.rows // SLOW_SHARE), chosen.rounds, WAIT, "waiting_")
    contest.finish(__file__, chosen, parser, figures, TARGETS)


if __name__ == "__main__":
    main()
