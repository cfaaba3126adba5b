"""The command: rounds of each fault, in a few lanes, and a table of what they came to.

Touches `.chaos/` in the project's folder: the files of rounds that went wrong stay there.
"""

from __future__ import annotations

import argparse
import fcntl
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from cdc.errors import CdcError
from tests.chaos.defects import DEFECTS
from tests.chaos.ground import Ground
from tests.chaos.plan import FAULTS, draw
from tests.chaos.round import Round
from tests.chaos.verdict import Verdict

__all__ = ["main"]

FOLDER = Path(__file__).resolve().parent.parent.parent / ".chaos"
_TICK = 60.0
"""Seconds between two lines that say how far it is."""
_GROUNDS = 5
"""Servers that a lane may use up."""


@dataclass(slots=True)
class _Sum:
    """What the rounds of one fault came to."""

    rounds: int = 0
    total: Verdict = field(default_factory=Verdict)

    def add(self, verdict: Verdict) -> None:
        self.rounds += 1
        for name in ("changes", "missing", "told", "disordered", "duplicated", "explained"):
            setattr(self.total, name, getattr(self.total, name) + getattr(verdict, name))
        self.total.wrong += verdict.wrong


class _Run:
    """All rounds that were asked for."""

    def __init__(self, faults: list[str], seeds: range, version: str | None, defect: str | None, folder: Path) -> None:
        self.sums = {fault: _Sum() for fault in faults}
        self.version, self.defect, self.folder = version, defect, folder
        self.stopping = threading.Event()
        self.failed = False
        self._waiting: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        # Round by round, so that a run that is interrupted has had some of each.
        for seed in seeds:
            for fault in faults:
                self._waiting.put((seed, fault))
        self._mutex = threading.Lock()

    def lane(self) -> None:
        """One round after the other, until none is left. A server that cannot be used any more is replaced."""
        for _ in range(_GROUNDS):
            try:
                with Ground(self.version) as ground:
                    self._rounds(ground)
                return
            except Exception:
                with self._mutex:
                    self.failed = True
                    traceback.print_exc()

    def _rounds(self, ground: Ground) -> None:
        while not self.stopping.is_set():
            try:
                seed, fault = self._waiting.get_nowait()
            except queue.Empty:
                return
            folder = self.folder / f"{fault}-{seed}"
            begun = time.monotonic()
            try:
                verdict = Round(ground, draw(seed, fault), folder, self.defect).run()
            except BaseException:
                print(f"The round {self._again(seed, fault)} could not be carried out:", file=sys.stderr)
                raise
            with self._mutex:
                self.sums[fault].add(verdict)
                if not verdict.is_good:
                    self.failed = True
                    seconds = time.monotonic() - begun
                    print(f"{fault}, seed {seed}, {seconds:.0f} s: {verdict}\n  its files: {folder}")
                    print(f"  again: {self._again(seed, fault)}", flush=True)

    def _again(self, seed: int, fault: str) -> str:
        version = "" if self.version is None else f" --version {self.version}"
        defect = "" if self.defect is None else f" --defect {self.defect}"
        return f"python -m tests.chaos --seed {seed} --fault {fault}{version}{defect}"

    def table(self) -> str:
        """A line for each fault."""
        heads = ("rounds", "changes", "missing", "out of order", "duplicated", "explained", "told of", "wrong")
        lines = ["fault".ljust(21) + "".join(head.rjust(14) for head in heads)]
        for fault, each in self.sums.items():
            total = each.total
            numbers = (
                each.rounds, total.changes, total.missing, total.disordered, total.duplicated, total.explained,
                total.told, len(total.wrong),
            )  # fmt: skip
            lines.append(fault.ljust(21) + "".join(f"{number:14,}" for number in numbers))
        return "\n".join(lines)

    @property
    def done(self) -> int:
        """How many rounds are over."""
        return sum(each.rounds for each in self.sums.values())


def main() -> int:
    """Read the command line, run, report; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="The crash ledger.")
    parser.add_argument("--rounds", type=int, default=1, help="rounds of each fault (1)")
    parser.add_argument("--seed", type=int, default=1, help="the first round's seed; the next ones count on (1)")
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="this fault only; may be given again")
    parser.add_argument("--version", help="the major version of PostgreSQL, as `cdc sandbox --version` has it")
    parser.add_argument("--jobs", type=int, default=3, help="how many rounds at a time (3)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for the files of rounds that went wrong (.chaos)")
    parser.add_argument("--defect", choices=DEFECTS, help="spoil the consumer on purpose")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.jobs < 1:
        parser.error("--rounds and --jobs are at least 1")
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("The crash ledger runs in this folder already.", file=sys.stderr)
            return 2
        for left in folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
        seeds = range(arguments.seed, arguments.seed + arguments.rounds)
        run = _Run(
            arguments.fault or [name for name, each in FAULTS.items() if each.awaits is None],
            seeds,
            arguments.version,
            arguments.defect,
            folder,
        )
        try:
            return _execute(run, arguments.jobs, len(seeds) * len(run.sums))
        except CdcError as error:
            print(error, file=sys.stderr)
            return 2


def _execute(run: _Run, jobs: int, rounds: int) -> int:
    """Run the lanes to their end, or until Ctrl-C or SIGTERM; then the rounds at hand are finished."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: run.stopping.set())
    begun = told = time.monotonic()
    lanes = [threading.Thread(target=run.lane, name=f"lane-{number}") for number in range(min(jobs, rounds))]
    for lane in lanes:
        lane.start()
    while any(lane.is_alive() for lane in lanes):
        time.sleep(0.2)
        if time.monotonic() - told >= _TICK:
            told = time.monotonic()
            print(f"{run.done} of {rounds} rounds, {told - begun:.0f} s", flush=True)
    print(f"\n{run.table()}\n\n{run.done} of {rounds} rounds, {time.monotonic() - begun:.0f} s", flush=True)
    if run.done < rounds and not run.stopping.is_set():
        run.failed = True
    return 1 if run.failed else 128 + signal.SIGINT if run.stopping.is_set() else 0
