"""The command: a trial of each kind of consumer, and what it came to.

Exit code 1: a read was stale, or what makes such a run worth something did not happen; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import logging
import sys

from cdc.errors import CdcError
from tests.stress.defects import DEFECTS
from tests.stress.trial import KINDS, server, trial

__all__ = ["main"]


def main() -> int:
    """Read the command line, run, report; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description="The stress of the fenced cache.")
    parser.add_argument("--reads", type=int, default=50_000, help="altogether (50,000)")
    parser.add_argument("--seed", type=int, default=1, help="of the writers, the readers and the delays (1)")
    parser.add_argument("--kind", choices=[*KINDS, "both"], default="both", help="of the consumer (both)")
    parser.add_argument("--defect", choices=DEFECTS, help="spoil the cache on purpose")
    parser.add_argument("--first", action="store_true", help="end at the first stale read")
    parser.add_argument("--version", help="the major version of PostgreSQL, as `cdc sandbox --version` has it")
    arguments = parser.parse_args()
    if arguments.reads < 1:
        parser.error("--reads is at least 1")
    logging.getLogger("cdc").setLevel(logging.ERROR)  # Each cut of the stream is a warning.
    good = True
    try:
        with server(arguments.version) as sandbox:
            kinds = KINDS if arguments.kind == "both" else (arguments.kind,)
            for kind in kinds:
                reads = -(-arguments.reads // len(kinds))
                outcome = trial(kind, sandbox, reads, arguments.seed, arguments.defect, first=arguments.first)
                print(outcome, flush=True)
                good = good and outcome.is_good
    except CdcError as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if good else 1
