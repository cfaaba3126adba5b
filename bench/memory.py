"""How much memory does one large transaction cost, and how fast does it come through the spool?

A private PostgreSQL holds one transaction. A fresh process of its own reads it with a consumer and reports its peak of
resident memory above what it had before it connected; once with `streaming="off"`, where the server sends the
transaction after it has committed, and once with `streaming="on"`, where the consumer spools it before that. The
contestants take turns; pg_recvlogical reads the same WAL with the same options.

The server streams what does not fit into its logical_decoding_work_mem. That is the default of 64 MB for a
transaction of the default size, and 64 kB for a smaller one, which it would not stream else; it is among the
figures. The consumer's own bound, `spool_memory`, has its default.

The spool's clock runs from the first streamed frame to the handler of the last row. Its ratio is
against pg_recvlogical's whole run, as that only writes to /dev/null.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import contest
import end_to_end
import psycopg
import wal

import cdc
from cdc.connection import ReplicationConnection
from cdc.testing import Sandbox

MODES = ("off", "on")
Outcome = dict[str, float | None]
ROWS = 1_000_000
TARGETS = {f"streaming_{mode}_peak_mebibytes": contest.Target(64, at_most=True) for mode in MODES}


# The child's process.


def resident(field: str) -> float:
    """A line of the kernel's about this process, in MiB: VmRSS now, VmHWM at most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"the kernel says nothing of {field}")


def reset_peak() -> None:
    """Let the kernel forget the peak until now, where it allows that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # Then imports count, too: their peak is hardly above what stays of them.


class FirstStreamed:
    """Notes when the first frame of a streamed transaction was taken; looks at frames until then only."""

    def __init__(self) -> None:
        self.at: float | None = None
        self._frames = ReplicationConnection.frames
        taken = self._frames

        def frames(connection: ReplicationConnection, *arguments: Any) -> Any:
            found = taken(connection, *arguments)
            if self.at is None and any(bytes(frame[25:26]) == b"S" for frame in found if frame[0] == 0x77):
                self.at = time.perf_counter()
            return found

        ReplicationConnection.frames = frames  # type: ignore[method-assign]


def child(dsn: str, slot: str, mode: str, rows: int) -> None:
    """Read the transaction; print what it took."""
    first = FirstStreamed()
    done = threading.Event()
    left = rows

    def handler(event: cdc.Change) -> None:
        nonlocal left
        event.new["id"]  # type: ignore[index]
        left -= 1
        if not left:
            done.set()

    reset_peak()
    start = resident("VmRSS")
    begun = time.perf_counter()
    with cdc.Consumer(dsn, slot=slot, state=None, streaming=mode) as consumer:
        consumer.subscribe("wells", handler)
        consumer.start()
        if not done.wait(600):
            raise SystemExit(f"{left} rows have not arrived")
        ended = time.perf_counter()
        above = resident("VmHWM") - start
    streamed = None if first.at is None else ended - first.at
    print(json.dumps({"peak": above, "start": start, "seconds": ended - begun, "streamed": streamed}))


# The parent's process.


def run(dsn: str, mode: str, rows: int, slot: str) -> Outcome:
    """A fresh process."""
    command = [sys.executable, __file__, "--child", dsn, slot, mode, str(rows)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    outcome: Outcome = json.loads(done.stdout.splitlines()[-1])
    return outcome


def recvlogical(task: end_to_end.Task, slot: str) -> Outcome:
    return {"seconds": end_to_end.recvlogical(task, slot)}


def contestants(server: Sandbox, db: psycopg.Connection, dsn: str, rows: int) -> dict[str, Callable[[], Outcome]]:
    """For each mode a consumer, and pg_recvlogical with what that consumer asks for."""
    end = str(cdc.current_lsn(db))
    found: dict[str, Callable[[], Outcome]] = {}
    for mode in MODES:
        asked = wal.consumers_options(db, dsn, streaming=mode)
        if (asked.get("streaming", "off") == "off") is not (mode == "off"):
            raise SystemExit(f"the consumer with streaming={mode!r} asked the server for {asked}")
        task = end_to_end.Task(server, dsn, asked, end, rows)
        found[f"recvlogical_{mode}"] = partial(in_turn, db, partial(recvlogical, task))
        found[mode] = partial(in_turn, db, partial(run, dsn, mode, rows))
    return found


def in_turn(db: psycopg.Connection, read: Callable[[str], Outcome]) -> Outcome:
    with wal.turn(db) as slot:
        return read(slot)


def summed(mode: str, rows: int, own: list[Outcome], bare: list[Outcome]) -> contest.Figures:
    """Medians of the rounds; the largest peak of all."""
    seconds = statistics.median(each["seconds"] or 0 for each in own)
    alone = statistics.median(each["seconds"] or 0 for each in bare)
    figures: contest.Figures = {
        f"streaming_{mode}_peak_mebibytes": round(statistics.median(each["peak"] or 0 for each in own), 1),
        f"streaming_{mode}_largest_peak_mebibytes": round(max(each["peak"] or 0 for each in own), 1),
        f"streaming_{mode}_rows_per_second": contest.short(rows / seconds),
        f"streaming_{mode}_ratio": round(alone / seconds, 3),
        f"recvlogical_{mode}_rows_per_second": contest.short(rows / alone),
    }
    streamed = [each["streamed"] for each in own if each["streamed"] is not None]
    if streamed:
        figures["spool_rows_per_second"] = contest.short(rows / statistics.median(streamed))
    return figures


def main() -> None:
    """Read the transaction in each mode; print one table, and one JSON object if asked."""
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
    parser = contest.options(__doc__ or "", rows=ROWS, rows_help="rows of the transaction")
    chosen = parser.parse_args()
    memory = "64MB" if chosen.rows >= parser.get_default("rows") else "64kB"
    with Sandbox(settings={"logical_decoding_work_mem": memory}) as server:
        figures = contest.circumstances(server.version) | {"logical_decoding_work_mem": memory}
        with wal.recorded(server, "one", chosen.rows) as (db, dsn, _):
            outcomes = contest.take_turns(contestants(server, db, dsn, chosen.rows), chosen.rounds)
    for mode in MODES:
        figures |= summed(mode, chosen.rows, outcomes[mode], outcomes[f"recvlogical_{mode}"])
    contest.finish(__file__, chosen, parser, figures, TARGETS)
    return None


if __name__ == "__main__":
    main()
