"""`cdc demo` as a process, and a trial in which something breaks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from cdc.caching.inflow import Inflow
from cdc.demo.process import WriterProcess
from cdc.demo.scene import Scene
from cdc.demo.setting import Person, prepare
from cdc.demo.trial import run_trial
from cdc.demo.verify import Evidence, verify
from cdc.demo.writer import Writer
from cdc.testing import Sandbox

ROOT = Path(__file__).parents[2]
PROGRAM = "from cdc.daemon import main; main()"


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for temporary files that every user can enter; it must be empty at the end of a test."""
    folder = Path(tempfile.mkdtemp(prefix="cdc-test-", dir="/tmp"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def launch(scratch: Path, *arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.getenv("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "TMPDIR": str(scratch)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "demo", *arguments],
        text=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_demo_proves_itself(scratch: Path) -> None:
    process = launch(scratch, "--seconds", "3", "--json")
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, output + errors
    result = json.loads(output.splitlines()[-1])
    assert len(output.splitlines()) == 1
    assert result["ok"] is True
    assert result["problems"] == []
    assert result["delivered"] == result["committed"] > 100
    assert result["invalidations"] == result["committed"]
    assert set(result["by_subject"]) == {"user", "anon"}
    assert result["by_subject"]["anon"] == 0 < result["by_subject"]["user"] < result["committed"]
    assert result["denied"] == 2 * result["committed"] - sum(result["by_subject"].values())
    assert min(result["enters"], result["leaves"]) >= 1
    assert result["enters"] + result["leaves"] < result["by_subject"]["user"]
    assert 0 < result["reads_after_wait"] < result["reads"]
    assert 0 < result["hits"] < result["reads"]
    assert result["stale_reads"] == result["backward_reads"] == 0
    assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p99"]
    assert "changes delivered" in errors
    assert list(scratch.iterdir()) == []


def test_demo_for_people_ends_with_a_table(scratch: Path) -> None:
    process = launch(scratch, "--seconds", "1")
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, output + errors
    assert "Every committed change was delivered" in output
    assert "All as promised" in output
    assert "cdc tail wells" in output
    assert "✗" not in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_demo_ends_cleanly_in_the_middle(scratch: Path, number: int, code: int) -> None:
    process = launch(scratch, "--seconds", "60")
    assert process.stderr is not None
    for line in process.stderr:
        if "changes delivered" in line:
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, output + errors
    assert "Traceback" not in errors
    assert output == ""
    assert list(scratch.iterdir()) == []
    assert children, "the demo had no writer and no server"
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--seconds", "soon"], ["--fast"]])
def test_wrong_usage_is_said_at_once(scratch: Path, arguments: list[str]) -> None:
    process = launch(scratch, *arguments)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert arguments[0] in errors


def look_away(scene: Scene) -> None:
    """Watch until the checkers have read something."""
    wait_until(lambda: scene.readers.reads_after_wait > 3 and len(scene.ledger.delivered) > 200)


def kill_writer(scene: Scene) -> None:
    look_away(scene)
    scene.writer._process.kill()
    wait_until(lambda: scene.broken)


def break_handler(scene: Scene) -> None:
    look_away(scene)
    scene.ledger.lines = None  # type: ignore[assignment]
    wait_until(lambda: scene.broken)


def stop_consumer(scene: Scene) -> None:
    look_away(scene)
    scene.consumer.stop()
    wait_until(lambda: scene.broken)


def spoil_copy(scene: Scene) -> None:
    look_away(scene)
    scene.ledger.told["trusted"].rows[-1] = next(iter(scene.ledger.told["trusted"].rows.values()))


def forget_a_change(scene: Scene) -> None:
    look_away(scene)
    del scene.ledger.delivered[100]


@pytest.mark.parametrize(
    ("sabotage", "problem"),
    [
        (kill_writer, "the writer: it ended with exit code -9"),
        (break_handler, "the consumer: handler Ledger.trusted raised AttributeError"),
        (stop_consumer, "the consumer: the consumer was stopped"),
        (spoil_copy, "Well -1 is in the copy and should not be"),
        (forget_a_change, "1 changes were committed and never delivered"),
    ],
)
def test_what_breaks_on_the_way_is_told(sabotage: Callable[[Scene], None], problem: str) -> None:
    problems = problems_of(run_trial(sabotage))
    assert [each for each in problems if problem in each], problems


def test_cache_that_is_not_cleared_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inflow, "receive", lambda inflow, event: None)
    problems = problems_of(run_trial(look_away))
    assert [each for each in problems if "older than a write that the reader had waited for" in each], problems


def test_rights_that_are_not_applied_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Person, "subject", None)
    problems = " ".join(problems_of(run_trial(look_away)))
    assert "showed a well to somebody who may not see it" in problems
    assert "The user sees every well" in problems
    assert "No change was withheld" in problems
    assert "anon's copy is not the same as a SELECT as anon" in problems


def test_lost_connection_loses_nothing() -> None:
    def cut(scene: Scene) -> None:
        look_away(scene)
        with psycopg.connect(scene.consumer._target.dsn, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'cdc_demo'"
            )
        wait_until(lambda: scene.consumer.health().reconnects == 1)
        delivered = len(scene.ledger.delivered)
        wait_until(lambda: len(scene.ledger.delivered) > delivered + 100)

    assert problems_of(run_trial(cut)) == []


def test_writer_does_what_it_says() -> None:
    """One of each kind, without any consumer: the table's size follows what the writer has said."""
    said: list[str] = []
    stopping = threading.Event()
    stopping.set()
    with Sandbox(supabase=True) as server, psycopg.connect(prepare(server).owner_dsn, autocommit=True) as connection:
        Writer(connection, said.append).work(stopping)
        [(rows, outside)] = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE project_id IS NULL) FROM wells"
        ).fetchall()
    kinds = [line.split(":")[0] for line in said]
    assert kinds == ["COPY", "INSERT", "UPDATE", "UPDATE", "UPDATE", "UPDATE", "DELETE", "ROLLBACK", "SAVEPOINT"]
    number = {
        kind: int(re.findall(r"(\d+) (?:wells?|changes)", line)[0]) for kind, line in zip(kinds, said, strict=True)
    }
    assert rows == number["COPY"] + number["INSERT"] - number["DELETE"] + 2
    assert outside == 0


def test_writer_process_ends_when_the_demo_lets_go() -> None:
    with Sandbox(supabase=True) as server, WriterProcess(prepare(server).owner_dsn) as writer:
        assert writer.running
        wait_until(lambda: writer.transactions > 10)
    assert not writer.running
    assert writer.failure is None
    assert writer.rollbacks >= 1


def problems_of(evidence: Evidence) -> list[str]:
    return [check.problem for check in verify(evidence) if check.problem is not None]


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
