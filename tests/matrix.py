"""Runs the integration tests on each major version of PostgreSQL: `make matrix`, or `make matrix VERSIONS="14 16"`.

The servers are those of `cdc sandbox --version`, downloaded once into the user's cache. The tests of a version are
dealt out to a few runs of pytest, so that the processors are in use to the end. What the runs print is in `.matrix/`;
at the end there is one line for each version, and the exit code is 0 only if nothing failed.

The consumers for threads and for asyncio differ in how they wait, not in what they say to a server. So a version tries
one of them, the next version the other one; `python -m tests.matrix --kinds both` tries both on each. `make test` tries
both on the default version, which is the newest: `--older` leaves that out. Likewise, tests of what no version changes
run on the oldest and the newest of the versions only, unless `--all` is given. What fails beside the others on a busy
machine is run once more by itself; both outcomes are printed.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cdc.errors import CdcError
from cdc.testing.downloads import RELEASES, download, major_version

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".matrix"
SHARES = 3
"""How many runs the tests of one version are dealt out to."""

ELSEWHERE = {
    "test_bench.py",
    "test_demo.py",
    "test_docs.py",
    "test_mutants.py",
    "test_oracle.py",
    "test_sandbox.py",
    "test_sandbox_command.py",
    "test_sandbox_versions.py",
    "test_web_workers.py",
}
"""Tests of what stands round the server, which is the same on any: `make test` runs them on the default version.

The oracle has a command that takes versions: `make oracle`."""

ON_THE_ENDS = {
    "test_batches.py",
    "test_cache.py",
    "test_cache_doors.py",
    "test_cache_not_live.py",
    "test_constructs.py",
    "test_explain.py",
    "test_filters_oracle.py",
    "test_filters_stream.py",
    "test_invalidate.py",
    "test_iteration.py",
    "test_lanes.py",
    "test_mistakes.py",
    "test_operators_documents.py",
    "test_operators_patterns.py",
    "test_operators_property.py",
    "test_operators_random.py",
    "test_operators_texts.py",
    "test_parked_command.py",
    "test_parking.py",
    "test_policies_command.py",
    "test_policies_of_scalars.py",
    "test_polling.py",
    "test_positions.py",
    "test_redis_invalidate.py",
    "test_replay.py",
    "test_replay_terms.py",
    "test_retries.py",
    "test_rls_documents.py",
    "test_session_functions_run.py",
    "test_store_file.py",
    "test_store_shown.py",
    "test_store_use.py",
    "test_stress.py",
    "test_subject_expiry.py",
    "test_subject_renewal.py",
}
"""Tests of what handlers get and of functions that have been the same for years: on the oldest and the newest only."""

_COUNT = re.compile(r"(\d+) (passed|failed|error|skipped)")
_LAST = re.compile(r"^=*\s*(\d+ \w+(?:, \d+ \w+)*) in \d.*$", re.MULTILINE)
_FAILED = re.compile(r"^(?:FAILED|ERROR) \S+::.*$", re.MULTILINE)
_SUMMARY = re.compile(r"^(?:FAILED|ERROR|SKIPPED) .*$", re.MULTILINE)


@dataclass
class Run:
    """One run of pytest.

    Attributes:
        version: the major version of PostgreSQL.
        programs: the folder of its programs.
        share: a number, different for each run of a version.
        files: the test files, or single tests.
        alone: whether these are tests that failed beside others, and are run once more by themselves.
        kinds: of which kinds of consumers: "both", "blocking" or "asyncio".
        seconds: how long it took, once it has ended.
        code: its exit code, once it has ended; 0 when all is well.
    """

    version: int
    programs: Path
    share: int
    files: Sequence[Path | str]
    kinds: str = "both"
    alone: bool = False
    seconds: float = 0
    code: int | None = None
    _begun: float = field(default=0, repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """What it prints."""
        return LOGS / f"{self.version}-{self.share}{'-alone' * self.alone}.log"

    @property
    def temporary(self) -> Path:
        """The folder for the files of its tests."""
        return LOGS / f"tmp-{self.version}-{self.share}"

    def again(self) -> Run | None:
        """Its failed tests, to be run by themselves; None when none failed, or it ended otherwise than by failures."""
        failed = [line.split(" ", 1)[1].split(" - ")[0] for line in _FAILED.findall(self.text())]
        if self.code != 1 or not failed:
            return None
        return Run(self.version, self.programs, self.share, failed, alone=True)

    def start(self) -> None:
        """Start pytest on this version."""
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--timeout",
            "100",
            "--show-capture",
            "no",
            "--durations",
            "10",
        ]
        command += [
            "-p",
            "no:cacheprovider",
            "--kinds",
            self.kinds,
            "--basetemp",
            str(self.temporary),
            *map(str, self.files),
        ]
        self._begun = time.monotonic()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | {"CDC_PG_BIN": str(self.programs)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def ended(self) -> bool:
        """Tell whether it has ended, and note how."""
        assert self._process is not None
        self.code = self._process.poll()
        if self.code is None:
            return False
        self.seconds = time.monotonic() - self._begun
        shutil.rmtree(self.temporary, ignore_errors=True)
        return True

    def stop(self) -> None:
        """End it, as Ctrl-C does: its servers go too."""
        assert self._process is not None
        for number, seconds in ((signal.SIGINT, 30), (signal.SIGKILL, 10)):
            if self.ended():
                return
            self._process.send_signal(number)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
        self.ended()

    def counts(self) -> Counter[str]:
        """How many of its tests "passed", "failed" and so on, from the last line that it printed."""
        last = _LAST.findall(self.text())[-1:]
        return Counter({kind: int(number) for number, kind in _COUNT.findall("".join(last))})

    def text(self) -> str:
        """All that it has printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def plan(version: int, pattern: str, kinds: str, is_between: bool = False) -> list[Run]:
    """Deal out the tests of a version: each file, the longest first, to the run that has the least so far.

    `is_between` says that an older version and a newer one are tried, too.
    """
    if kinds == "in turn":
        kinds = ("blocking", "asyncio")[version % 2]
    programs = download(version, lambda line: print(line, flush=True)).folder
    tests = [path for path in (ROOT / "tests" / "integration").glob(pattern) if path.name not in ELSEWHERE]
    if is_between:
        tests = [path for path in tests if path.name not in ON_THE_ENDS]
    dealt: list[list[Path]] = [[] for _ in range(SHARES)]
    for path in sorted(tests, key=_size, reverse=True):
        min(dealt, key=lambda files: sum(map(_size, files))).append(path)
    return [Run(version, programs, number, files, kinds) for number, files in enumerate(dealt, 1) if files]


def _size(path: Path) -> int:
    return path.stat().st_size


def execute(runs: list[Run], jobs: int, seconds: float) -> None:
    """Run them all, so many at a time; what is not done after `seconds` is stopped, and has failed."""
    deadline = time.monotonic() + seconds
    waiting = list(runs)
    running: list[Run] = []
    try:
        while (waiting or running) and time.monotonic() < deadline:
            while waiting and len(running) < jobs:
                waiting[0].start()
                running.append(waiting.pop(0))
            time.sleep(0.2)
            for run in [run for run in running if run.ended()]:
                running.remove(run)
                print(f"PostgreSQL {run.version}, part {run.share}: {run.seconds:.0f} s", flush=True)
        for run in running + waiting:
            print(f"PostgreSQL {run.version}, part {run.share}: not done in time", flush=True)
    finally:
        for run in running:
            run.stop()


def report(runs: list[Run], again: list[Run]) -> int:
    """Print what failed or was skipped and a line for each version; return the exit code."""
    for run in runs:
        for line in _SUMMARY.findall(run.text()):
            print(f"PostgreSQL {run.version}: {line}")
    print(f"\n{'PostgreSQL':<12}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for version in dict.fromkeys(run.version for run in runs):
        mine = [run for run in runs if run.version == version]
        found = sum((run.counts() for run in mine), Counter[str]())
        failed = found["failed"] + found["error"]
        seconds = sum(run.seconds for run in mine)
        logs = [str(run.log.relative_to(ROOT)) for run in mine if run.code != 0 and run.log.exists()]
        see = f"   see {', '.join(logs)}" if logs else ""
        print(f"{version:<12}{found['passed']:>8}{failed:>8}{found['skipped']:>9}{seconds:>9.0f}{see}")
    mended = {(run.version, run.share) for run in again if run.code == 0}
    for run in again:
        outcome = "passed" if run.code == 0 else "failed again"
        print(f"PostgreSQL {run.version}, by themselves {outcome}: {', '.join(map(str, run.files))}")
    return int(any(run.code != 0 and (run.version, run.share) not in mended for run in runs))


def measure(runs: list[Run], jobs: int, seconds: float) -> int:
    """Run and report, without anything from a former time; return the exit code."""
    for left in LOGS.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        elif left.suffix == ".log":
            left.unlink()
    begun = time.monotonic()
    try:
        execute(runs, jobs, seconds)
        again = [run for run in (each.again() for each in runs) if run is not None]
        execute(again, 1, seconds)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    code = report(runs, again)
    print(f"\n{time.monotonic() - begun:.0f} s in all")
    return code


def main() -> int:
    """Read the command line, run and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("versions", nargs="*", default=list(RELEASES), help="major versions; all, if none is given")
    parser.add_argument(
        "--kinds", choices=["in turn", "both"], default="in turn", help="kinds of consumers on a version (in turn)"
    )
    parser.add_argument("--jobs", type=int, default=4, help="how many runs of pytest at a time (4)")
    parser.add_argument("--tests", default="test_*.py", metavar="PATTERN", help="the test files (test_*.py)")
    parser.add_argument("--all", action="store_true", help="all tests on the versions between the ends, too")
    parser.add_argument("--older", action="store_true", help="not the newest, which `make test` tries with both kinds")
    parser.add_argument("--minutes", type=float, default=35, help="what is not done by then has failed (35)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        versions = [major_version(version) for version in arguments.versions]
        runs = [
            run
            for version in versions
            if not (arguments.older and version == max(map(major_version, RELEASES)))
            for run in plan(
                version, arguments.tests, arguments.kinds, not arguments.all and min(versions) < version < max(versions)
            )
        ]
    except CdcError as error:
        print(error, file=sys.stderr)
        return 2
    LOGS.mkdir(exist_ok=True)
    with (LOGS / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("The matrix runs in this folder already.", file=sys.stderr)
            return 2
        return measure(runs, arguments.jobs, 60 * arguments.minutes)


if __name__ == "__main__":
    raise SystemExit(main())
