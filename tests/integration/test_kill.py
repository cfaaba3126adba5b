"""kill -9 of a consumer in the middle of the demo's load: every committed change is in its file, in order."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

from cdc.demo.process import WriterProcess
from cdc.demo.setting import prepare
from cdc.demo.truth import Truth
from cdc.testing import Sandbox
from tests.harness import until

PROGRAM = textwrap.dedent(
    """
    import sys, cdc
    KINDS = {"INSERT": "I", "UPDATE": "U", "DELETE": "D", "TRUNCATE": "T"}
    with open(sys.argv[2], "a") as file:
        consumer = cdc.Consumer(sys.argv[1], slot="killed")

        @consumer.on("wells")
        def append(event):
            at, kind = event.position, KINDS[event.event_type]
            print(at.commit_lsn, at.ordinal, kind, event.xid, file=file, flush=True)

        consumer.run()
    """
)


def test_kill_minus_nine_in_the_demos_load(tmp_path: Path) -> None:
    """The witness is a second slot whose messages are told apart by their first byte, not by our decoder."""
    program, output = tmp_path / "program.py", tmp_path / "changes"
    program.write_text(PROGRAM)
    output.touch()
    with Sandbox(supabase=True) as server:
        setting = prepare(server)
        arguments = [sys.executable, str(program), setting.dsn, str(output)]
        with Truth(setting.dsn) as truth:
            consumer = subprocess.Popen(arguments)
            try:
                until(lambda: "killed" in slots(truth))
                with WriterProcess(setting.owner_dsn) as writer:
                    for _ in range(3):
                        size = output.stat().st_size
                        until(lambda size=size: output.stat().st_size > size + 2000)
                        consumer.kill()
                        consumer.wait()
                        time.sleep(0.3)  # the writer goes on meanwhile
                        consumer = subprocess.Popen(arguments)
                    size = output.stat().st_size
                    until(lambda size=size: output.stat().st_size > size + 2000)
                assert writer.failure is None
                committed = truth.committed()
                until(lambda: len(distinct(output)) >= len(committed), timeout=60)
            finally:
                consumer.terminate()
                consumer.wait()
    assert distinct(output) == committed
    lines = output.read_text().splitlines()
    assert len(lines) >= len(committed) > 300
    print(f"{len(committed)} committed, {len(lines) - len(committed)} delivered again after three kills")


def distinct(path: Path) -> list[tuple[str, int]]:
    """Kind and xid of each change in the file; one that came again counts once. First times are in order."""
    changes = {}
    for line in path.read_text().splitlines():
        if len(parts := line.split()) == 4:
            high, low = parts[0].split("/")
            changes[int(high, 16) << 32 | int(low, 16), int(parts[1])] = (parts[2], int(parts[3]))
    assert list(changes) == sorted(changes)
    return list(changes.values())


def slots(truth: Truth) -> list[str]:
    rows = truth._connection.execute("SELECT slot_name FROM pg_replication_slots").fetchall()
    return [name for (name,) in rows]
