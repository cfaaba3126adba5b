"""How many messages a second of processor time do the decoder and the stream take, when all are in memory already?

A private PostgreSQL makes the messages, once with text cells and once with binary ones. Two paths take them:
`decoder_…` is `cdc.pgoutput.Decoder`, for those who have messages from elsewhere, which splits every row;
`stream_…` is the consumer's own, from a frame to an event. `…_untouched` means that nobody reads the row, `…_key` that
its key is read, `…_all` that every cell becomes a Python object. An update or delete is named after its old row:
`k` the key only, `o` the whole old row, none at all.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import captured
import contest
import psycopg
import wal

from cdc import pgoutput
from cdc.testing import Sandbox

ROWS = 20_000
TARGETS: dict[str, contest.Target] = {}
Messages = list[tuple[int, bytes]]
WHOLE = """
CREATE TABLE whole (LIKE wells INCLUDING ALL);
ALTER TABLE whole REPLICA IDENTITY FULL;
ALTER PUBLICATION wells ADD TABLE whole;
"""
CHANGES = """
INSERT INTO whole SELECT * FROM wells;
UPDATE wells SET depth = depth + 1;
UPDATE wells SET id = -id;
UPDATE whole SET depth = depth + 1;
DELETE FROM wells;
DELETE FROM whole;
TRUNCATE wells, whole;
SELECT pg_logical_emit_message(true, 'bench', 'a message')
"""
CONTROLS = ("begin", "commit", "relation", "truncate", "message")
CHANGED = ("insert", "update", "update_k", "update_o", "delete_k", "delete_o")


def kind(message: bytes) -> str | None:
    """What a message is called here."""
    names = {b"B": "begin", b"C": "commit", b"R": "relation", b"T": "truncate", b"M": "message", b"I": "insert"}
    if message[:1] in (b"U", b"D"):
        name = "update" if message[:1] == b"U" else "delete"
        return name if message[5:6] == b"N" else f"{name}_{chr(message[5]).lower()}"
    return names.get(message[:1])


def capture(db: psycopg.Connection, binary: bool) -> Messages:
    return captured.messages(db, **({"binary": "true"} if binary else {}))


def chosen_of(messages: Messages, name: str, count: int) -> Messages:
    """`count` messages of a kind; a kind of which the server sends few is repeated."""
    found = [each for each in messages if kind(each[1]) == name]
    return (found * (count // len(found) + 1))[:count]


# What is timed.


def untouched(rows: Sequence[Any]) -> None:
    """What nobody reads."""


def key(rows: Sequence[Any]) -> None:
    for row in rows:
        if row is not None:
            row["id"]
            return


def every(rows: Sequence[Any]) -> None:
    for row in rows:
        if row is not None:
            dict(row)


READS: dict[str, Callable[[Sequence[Any]], None]] = {"untouched": untouched, "key": key, "all": every}


def decoded(prelude: Messages, messages: Sequence[bytes], read: Callable[[Sequence[Any]], None] | None) -> float:
    """The time of the messages behind Begin and Relation ones; `read` None: they have no rows."""
    decode = pgoutput.Decoder().decode
    for _, message in prelude:
        decode(message)
    gc.collect()
    begun = time.process_time()
    if read is None:
        for message in messages:
            decode(message)
    else:
        for message in messages:
            found: Any = decode(message)
            read((getattr(found, "new", None), getattr(found, "old", None)))
    return time.process_time() - begun


def received(prelude: Messages, frames: list[memoryview], read: Callable[[Sequence[Any]], None]) -> float:
    """The same for frames."""
    path = captured.Path(id)
    for frame in captured.frames(prelude):
        item = path.stream.receive(frame)
        if isinstance(item, pgoutput.RelationMessage):
            path.define(item)
    receive = path.stream.receive
    gc.collect()
    begun = time.process_time()
    for frame in frames:
        event: Any = receive(frame)
        read((event.new, event.old))
    return time.process_time() - begun


def contestants(messages: Messages, form: str, count: int) -> dict[str, Callable[[], float]]:
    """What takes turns on messages with cells in one form."""
    found: dict[str, Callable[[], float]] = {}
    begin = next(each for each in messages if kind(each[1]) == "begin")
    prelude = [begin, *(each for each in messages if kind(each[1]) == "relation")]
    for name in (*(CONTROLS if form == "text" else ()), *CHANGED):
        some = chosen_of(messages, name, count)
        alone = [data for _, data in some]
        if name in CONTROLS:
            found[f"decoder_{name}"] = partial(decoded, prelude, alone, None)
            continue
        frames = captured.frames(some)
        for word, read in READS.items():
            found[f"decoder_{name}_{form}_{word}"] = partial(decoded, prelude, alone, read)
            found[f"stream_{name}_{form}_{word}"] = partial(received, prelude, frames, read)
    return found


def main() -> None:
    """Time every kind; print one table, and one JSON object if asked."""
    parser = contest.options(__doc__ or "", rows=ROWS, rows_help="messages of each kind")
    chosen = parser.parse_args()
    runs: dict[str, Callable[[], float]] = {}
    with Sandbox() as server, wal.recorded(server, "one", chosen.rows) as (db, _, _):
        for statement in (WHOLE + CHANGES).strip().split("\n"):
            db.execute(statement)
        for form in ("text", "binary"):
            runs |= contestants(capture(db, form == "binary"), form, chosen.rows)
        figures = contest.circumstances(server.version)
    taken = contest.median(contest.take_turns(runs, chosen.rounds))
    for name, seconds in taken.items():
        figures[f"{name}_events_per_second"] = contest.short(chosen.rows / seconds)
    contest.finish(__file__, chosen, parser, figures, TARGETS)


if __name__ == "__main__":
    main()
