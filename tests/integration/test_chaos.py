"""The crash ledger finds what it is there for: consumers with a defect on purpose are caught, a sound one is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.ground import Ground
from tests.chaos.plan import Injection, draw
from tests.chaos.round import Round
from tests.chaos.verdict import Verdict

KILLED = replace(
    draw(1, "kill-consumer"), asynchronous=False, terms={}, injections=(Injection("kill-consumer", 300, 0.1, 1),)
)
"""The consumer is killed behind some lines."""
CALM = replace(draw(1, "none"), asynchronous=False, terms={})


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with Ground() as ground:
        yield ground


def test_a_sound_consumer_passes(ground: Ground, tmp_path: Path) -> None:
    verdict = Round(ground, KILLED, tmp_path / "round").run()
    assert verdict.is_good, verdict
    assert verdict.changes > 300 and not (tmp_path / "round").exists()


def test_a_consumer_that_confirms_too_early_is_caught(ground: Ground, tmp_path: Path) -> None:
    """The server forgets what no handler has had, and a kill takes it away for good."""
    verdict = Round(ground, KILLED, tmp_path / "round", "early").run()
    assert verdict.missing > 0 and not verdict.is_good
    kept = {path.name for path in (tmp_path / "round").iterdir()}
    assert {"plan.json", "ledger.jsonl", "sink.jsonl", "verdict.txt", "consumer-1.log", "server.log"} <= kept


@pytest.mark.parametrize("defect", ["lose", "repeat", "again", "alter", "reorder"])
def test_a_consumer_with_a_defect_is_caught(ground: Ground, tmp_path: Path, defect: str) -> None:
    verdict = Round(ground, CALM, tmp_path / "round", defect).run()
    assert not verdict.is_good
    assert found(verdict)[defect], verdict


def found(verdict: Verdict) -> dict[str, bool]:
    """Whether each defect is called by its name."""
    return {
        "lose": verdict.missing > 0,
        "repeat": verdict.duplicated > verdict.explained,
        "again": verdict.duplicated > verdict.explained == 0,
        "alter": any("came again as" in each for each in verdict.wrong),
        "reorder": verdict.disordered > 0,
    }


def test_a_gap_that_nobody_is_told_of_is_caught(ground: Ground, tmp_path: Path) -> None:
    plan = replace(draw(1, "drop-slot"), terms={})
    verdict = Round(ground, plan, tmp_path / "sound").run()
    assert verdict.is_good, verdict
    verdict = Round(ground, plan, tmp_path / "round", "no-gap").run()
    assert verdict.missing > 0 and "nobody was told that changes may be missing" in verdict.wrong


def test_the_command_says_how_to_run_a_bad_round_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--fault", "none", "--seed", "7", "--defect", "lose"]
    root = Path(__file__).resolve().parent.parent.parent
    run = subprocess.run(
        [*command, "--folder", str(tmp_path)], cwd=root, capture_output=True, text=True, timeout=90, check=False
    )
    assert run.returncode == 1, run.stderr
    assert "python -m tests.chaos --seed 7 --fault none" in run.stdout
    assert (tmp_path / "none-7" / "plan.json").exists()
    table = run.stdout.splitlines()
    assert any(line.split()[:2] == ["none", "1"] for line in table)
