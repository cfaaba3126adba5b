"""The command: every fault in turn, and a table of who found it.

A fault that nobody finds, or that does not apply any more, is an error. So is one that is found where there is none.
"""

from __future__ import annotations

import argparse
import queue
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from cdc.testing import Sandbox
from tests.mutants.faults import FAULTS
from tests.mutants.trial import Fault, Outcome, try_fault

__all__ = ["main"]

_NONE = Fault("no fault at all", "cdc/predicate.py", "", "", verdicts=10_000, level="both")
_SEED = "mutants"


def main() -> int:
    """Read the command line, try the faults, report; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description="Deliberate faults, and who finds them."
    )
    parser.add_argument("--fault", action="append", help="those with this in their name only; may be given again")
    parser.add_argument("--seed", default=_SEED, help=f"of the oracle ({_SEED})")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (2)")
    arguments = parser.parse_args()
    wanted = arguments.fault or [""]
    faults = [fault for fault in FAULTS if any(word in fault.name for word in wanted)]
    if not faults:
        print(
            f"no fault is called {' or '.join(wanted)}; there are: {', '.join(each.name for each in FAULTS)}",
            file=sys.stderr,
        )
        return 2
    begun, survivors = time.monotonic(), []
    width = max(len(fault.name) for fault in faults) + 2
    for outcome in _outcomes([_NONE, *faults], arguments.seed, arguments.jobs):
        good = outcome.killed is False if outcome.fault is _NONE else outcome.killed is True
        if not good:
            survivors.append(outcome)
        word = {True: "found", False: "not found", None: "ERROR"}[outcome.killed]
        mark = "" if good else "  <-- wrong"
        print(
            f"{outcome.fault.name:<{width}}{word:<11}{outcome.seconds:>5.0f} s  {outcome.told[:150]}{mark}", flush=True
        )
    killed = len(faults) - sum(outcome.fault is not _NONE for outcome in survivors)
    print(f"\n{killed} of {len(faults)} faults found, {time.monotonic() - begun:.0f} s")
    return 1 if survivors else 0


def _outcomes(faults: list[Fault], seed: str, jobs: int) -> Iterator[Outcome]:
    """The outcomes, in the order of the faults; each lane has a server of its own, since roles are a server's."""
    free: queue.SimpleQueue[str] = queue.SimpleQueue()

    def one(fault: Fault) -> Outcome:
        server = free.get()
        try:
            return try_fault(fault, seed, server)
        finally:
            free.put(server)

    with ExitStack() as stack:
        for _ in range(jobs):
            free.put(stack.enter_context(Sandbox(settings={"fsync": False})).dsn)
        yield from stack.enter_context(ThreadPoolExecutor(jobs)).map(one, faults)
