"""The fenced cache under stress: no read is stale, and the same run finds stale reads when the fence is spoiled."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc.testing import Sandbox
from tests.stress.defects import DEFECTS
from tests.stress.trial import server, trial

READS = 25_000
"""By each kind of consumer; `make stress` has more."""
FOUND_SOON = [defect for defect in DEFECTS if "put" not in defect]
"""Those of `put` take longer; the state machine finds them."""


@pytest.fixture(scope="module")
def waiting() -> Iterator[Sandbox]:
    """A server with commits that are streamed before they are visible."""
    with server() as sandbox:
        yield sandbox


def test_no_read_is_stale_under_stress(kind: str, waiting: Sandbox) -> None:
    outcome = trial(kind, waiting, READS, seed=1, limit=60)
    assert outcome.tally.stale == 0, outcome
    assert outcome.tally.reads >= READS, outcome
    assert outcome.is_good, outcome


@pytest.mark.parametrize("defect", FOUND_SOON)
def test_the_same_run_finds_stale_reads_when_the_fence_is_spoiled(kind: str, waiting: Sandbox, defect: str) -> None:
    outcome = trial(kind, waiting, 10 * READS, seed=1, defect=defect, limit=30, first=True)
    assert outcome.tally.stale > 0 and not outcome.is_good, outcome


def test_the_command_fails_when_a_read_is_stale() -> None:
    command = [sys.executable, "-m", "tests.stress", "--kind", "blocking", "--defect", "no-fence", "--first"]
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=90, check=False)
    assert run.returncode == 1, run.stderr
    assert "stale: book" in run.stdout
