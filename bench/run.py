"""Runs every benchmark, one after the other, and prints one table.

`--rows` makes a quick look: it is the number of rows of `end_to_end.py`, and the others do in proportion. Only a run
of full size saves its figures under `results/`. A missed target is shown and is no failure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cache
import contest
import decode
import delivery
import end_to_end
import fanout
import latency
import load
import memory
import policy
import profile_path
import snapshot
import store

SCRIPTS: tuple[ModuleType, ...] = (
    end_to_end,
    latency,
    load,
    memory,
    delivery,
    decode,
    policy,
    profile_path,
    snapshot,
    store,
    fanout,
    cache,
)
LEAST = 100


def run(script: ModuleType, share: float, rounds: int) -> contest.Figures | None:
    """The figures of one script, None when it failed; what it says of that is not held back."""
    path = Path(str(script.__file__))
    print(f"{path.stem} …", file=sys.stderr, flush=True)
    rows = max(LEAST, round(script.ROWS * share))
    command = [sys.executable, str(path), "--rows", str(rows), "--rounds", str(rounds), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        return None
    figures: contest.Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def verdict(missed: int, failed: list[str]) -> str:
    """The last line."""
    said = "every target met" if not missed else f"{missed} targets missed"
    return said + (f"; failed: {', '.join(failed)}" if failed else "")


def main() -> None:
    """Run all; exit with 1 only when a script failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=end_to_end.ROWS, help=f"default {end_to_end.ROWS}")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant (default 5)")
    chosen = parser.parse_args()
    table, missed, failed = contest.new_table("benchmarks"), 0, []
    versions: contest.Figures = {}
    for script in SCRIPTS:
        name = Path(str(script.__file__)).stem
        figures = run(script, chosen.rows / end_to_end.ROWS, chosen.rounds)
        if figures is None:
            failed.append(name)
            continue
        versions |= {key: figures[key] for key in (*contest.circumstances(), "postgresql")}
        missed += contest.missed(figures, script.TARGETS)
        contest.add_rows(table, name, figures, script.TARGETS)
        table.add_section()
    contest.console().print(table)
    print(", ".join(f"{name} {value}" for name, value in versions.items()))
    print(verdict(missed, failed))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
