"""Where does each microsecond of a change go?

Captured frames of a real server go through the inner path in memory, again and again with one stage more: the
difference of two stages is what the stage costs. Nothing is traced, so nothing is slowed. The first stages are the
loop's own steps written down here; from "the loop's own steps" on it is the loop itself. The cost of taking frames
from libpq is measured apart, on a connection whose socket is full.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import captured
import contest
import wal

from cdc.connection import ReplicationConnection
from cdc.events import RowChange
from cdc.pgoutput import RelationMessage
from cdc.testing import Sandbox

ROWS = 100_000
TARGETS: dict[str, contest.Target] = {}
Frames = list[memoryview]


def walked(frames: Frames) -> None:
    for _ in frames:
        pass


def copied(frames: Frames) -> None:
    for frame in frames:
        bytes(frame)


def received(frames: Frames) -> None:
    path = captured.Path(nothing)
    receive = path.stream.receive
    for frame in frames:
        item = receive(frame)
        if isinstance(item, RelationMessage):
            path.define(item)


def routed(frames: Frames) -> None:
    path = captured.Path(nothing)
    receive, views_of = path.stream.receive, path.dispatcher.views
    for frame in frames:
        item = receive(frame)
        if isinstance(item, RowChange):
            for _ in views_of(item):
                pass
        elif isinstance(item, RelationMessage):
            path.define(item)


def seen(frames: Frames) -> None:
    path = captured.Path(nothing)
    receive, views_of = path.stream.receive, path.dispatcher.views
    for frame in frames:
        item = receive(frame)
        if isinstance(item, RowChange):
            for view in views_of(item):
                view.see(item)
        elif isinstance(item, RelationMessage):
            path.define(item)


def called(frames: Frames) -> None:
    path = captured.Path(nothing)
    receive, views_of = path.stream.receive, path.dispatcher.views
    for frame in frames:
        item = receive(frame)
        if isinstance(item, RowChange):
            for view in views_of(item):
                event = view.see(item)
                if event is not None:
                    view.subscription.handler(event)
        elif isinstance(item, RelationMessage):
            path.define(item)


def handled(frames: Frames, handler: Callable[[Any], object]) -> None:
    """What the loop does, batch by batch."""
    path = captured.RealPath(handler)
    for at in range(0, len(frames), 256):
        path.take(frames[at : at + 256])


def nothing(event: object) -> None:
    """A handler that returns."""


def splits(event: RowChange) -> None:
    row = event.new if event.new is not None else event.old
    _ = row.cells  # type: ignore[union-attr]


def reads_key(event: RowChange) -> None:
    row = event.new if event.new is not None else event.old
    row["id"]  # type: ignore[index]


def reads_two(event: RowChange) -> None:
    new = event.new
    if new is None:
        event.old["id"]  # type: ignore[index]
    else:
        new["id"]
        new["depth"]


def reads_all(event: RowChange) -> None:
    row = event.new if event.new is not None else event.old
    dict(row)  # type: ignore[call-overload]


STAGES: dict[str, Callable[[Frames], None]] = {
    "walk the frames": walked,
    "bytes of the frame": copied,
    "make the event": received,
    "find the views": routed,
    "see": seen,
    "call the handler": called,
    "the loop's own steps": partial(handled, handler=nothing),
    "split": partial(handled, handler=splits),
    "read the key": partial(handled, handler=reads_key),
    "read one more": partial(handled, handler=reads_two),
    "read all": partial(handled, handler=reads_all),
}


def timed(stage: Callable[[Frames], None], frames: Frames) -> float:
    gc.collect()
    begun = time.process_time()
    stage(frames)
    return time.process_time() - begun


def taken(dsn: str, slot: str, asked: dict[str, str], rows: int) -> tuple[float, float]:
    """Seconds of reading the socket and of taking frames, for all rows; pauses let the socket fill."""
    connection = ReplicationConnection(dsn)
    connection.start(wal.start_command(slot, asked))
    reading = taking = 0.0
    seen = 0
    while seen < rows:
        time.sleep(0.0005)
        begun = time.process_time()
        connection.read()
        reading += time.process_time() - begun
        begun = time.process_time()
        batches = deque(iter(lambda: connection.frames(256), []))
        taking += time.process_time() - begun
        seen += sum(1 for batch in batches for frame in batch if frame[0] == 0x77 and frame[25] in b"IUD")
    connection.close()
    return reading, taking


def main() -> None:
    """Print the stages, or one JSON object."""
    parser = contest.options(__doc__ or "", rows=ROWS)
    parser.add_argument("--shape", choices=[*wal.SIZES, "mixed"], default="100", help="transactions (default 100)")
    chosen = parser.parse_args()
    with Sandbox() as server, wal.recorded(server, chosen.shape, chosen.rows) as (db, dsn, rows):
        asked = {"proto_version": "1", "publication_names": "wells", "messages": "true"}
        frames = captured.frames(captured.messages(db))
        turns: dict[str, Callable[[], float]] = {
            name: lambda stage=stage: timed(stage, frames) for name, stage in STAGES.items()
        }
        totals = contest.median(contest.take_turns(turns, chosen.rounds))

        def one() -> tuple[float, float]:
            with wal.turn(db) as slot:
                return taken(dsn, slot, asked, rows)

        live = contest.take_turns({"taken": one}, chosen.rounds)["taken"]
        figures = contest.circumstances(server.version) | {"shape": chosen.shape}
    reads = contest.median({"read the socket": [each[0] for each in live], "take the frames": [e[1] for e in live]})
    figures |= {_name(name): contest.short(seconds / rows * 1e6) for name, seconds in reads.items()}
    before = 0.0
    for name, seconds in totals.items():
        begin = before if name != "read all" else totals["split"]
        figures[_name(name)] = contest.short((seconds - begin) / rows * 1e6)
        before = seconds
    contest.finish(__file__, chosen, parser, figures, TARGETS)


def _name(stage: str) -> str:
    return stage.replace(" ", "_").replace("'", "") + "_microseconds"


if __name__ == "__main__":
    main()
