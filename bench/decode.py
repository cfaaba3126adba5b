"""How many messages a second does the decoder take, and rows the stream, when all of them are in memory already?

A private PostgreSQL makes every kind of message, once with text cells and once with binary ones. `…_decoded` is the
decoder alone. `…_untouched` is the way of a frame through the stream to an event that nobody reads, `…_key` one whose
key is read, `…_all` one whose every cell becomes a Python object. An update or delete is named after its old
row: `k` the key only, `o` the whole old row, none at all.
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

import cdc
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
"""
CHANGED = ("insert", "update", "update_k", "update_o", "delete_k", "delete_o")


def kind(message: bytes) -> str | None:
    """What a message is called here."""
    names = {b"B": "begin", b"C": "commit", b"R": "relation", b"T": "truncate", b"I": "insert"}
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


def decoder() -> Callable[[bytes], object]:
    """The decoder's only entry."""
    made = getattr(pgoutput, "Decoder", None)
    return pgoutput.decode if made is None else made().decode


def decoded(messages: Sequence[bytes]) -> float:
    gc.collect()
    decode = decoder()
    begun = time.perf_counter()
    for message in messages:
        decode(message)
    return time.perf_counter() - begun


def untouched(event: cdc.Change) -> None:
    """What nobody reads."""


def key(event: cdc.Change) -> None:
    new: Any = event.new
    (event.old if new is None else new)["id"]


def every(event: cdc.Change) -> None:
    for row in (event.new, event.old):
        if row is not None:
            dict(row)


READS: dict[str, Callable[[Any], None]] = {"untouched": untouched, "key": key, "all": every}


def received(prelude: list[memoryview], frames: list[memoryview], read: Callable[[Any], None]) -> float:
    """The time of the frames behind Begin and Relation messages."""
    gc.collect()
    path = captured.Path(read)
    for frame in prelude:
        item = path.stream.receive(frame)
        if isinstance(item, pgoutput.RelationMessage):
            path.define(item)
    receive = path.stream.receive
    begun = time.perf_counter()
    for frame in frames:
        read(receive(frame))
    return time.perf_counter() - begun


def contestants(messages: Messages, form: str, count: int) -> dict[str, Callable[[], float]]:
    """What takes turns on messages with cells in one form."""
    found: dict[str, Callable[[], float]] = {}
    begin = next(each for each in messages if kind(each[1]) == "begin")
    prelude = captured.frames([begin, *(each for each in messages if kind(each[1]) == "relation")])
    for name in ("begin", "commit", "relation", "truncate", *CHANGED):
        some = chosen_of(messages, name, count)
        messages_only = partial(decoded, [data for _, data in some])
        if name not in CHANGED:
            found |= {f"{name}_decoded": messages_only} if form == "text" else {}
        else:
            found[f"{name}_{form}_decoded"] = messages_only
            frames = captured.frames(some)
            found |= {f"{name}_{form}_{word}": partial(received, prelude, frames, read) for word, read in READS.items()}
    return {name: run for name, run in found.items() if _works(run)}


def _works(run: Callable[[], float]) -> bool:
    """Whether this version takes such messages at all."""
    try:
        run()
    except cdc.UnsupportedMessage:
        return False
    return True


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
