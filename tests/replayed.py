"""Compares what was delivered live with what a replay of its recording delivers; makes and damages recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cdc
from cdc import Lsn, recording
from cdc.holding import Committed, PreparedEnd
from cdc.pgoutput import RelationMessage, describe
from cdc.recording import MAGIC, Batch, End, Record, Recording, Told, packed
from cdc.spool import MemoryOrFile
from cdc.stream import Stream
from cdc.testing import Replay, async_replay, replay
from cdc.values import Types
from tests.harness import Running


class Recorded(Running):
    """A consumer that is recorded from its opening to its close."""

    def __init__(self, path: Path, kind: str, dsn: str, *arguments: Any, **options: Any) -> None:
        super().__init__(kind, dsn, *arguments, **options)
        self.recorder = self.consumer.record(path)

    @property
    def printed(self) -> list[Any]:
        """What its handlers received."""
        return [printed(event) for event in self.events]


def printed(event: Any) -> tuple[Any, ...]:
    """All that there is of an event."""
    if isinstance(event, cdc.Gap | cdc.Prepared):
        return type(event).__name__, event.to_json(), event
    described = (event.relation, event.position, event.previous, event.xid, event.commit_time)
    if isinstance(event, cdc.SchemaChange):
        return type(event).__name__, event.to_json(), *described, event.old_relation, event.changed
    if isinstance(event, cdc.Truncate):
        return type(event).__name__, event.to_json(), *described, event.cascade, event.restart_identity
    rows = [row and (list(row.cells), dict(row), list(row.shape.columns)) for row in (event.old, event.new)]
    return type(event).__name__, event.to_json(), *described, repr(rows), event.effect, event.key, event.old_key


def replayed(path: Path, *tables: str, prepare: Callable[[Replay], Any] | None = None, **options: Any) -> list[Any]:
    """What the handlers of a replay receive."""
    events: list[Any] = []
    again = replay(path)
    if prepare is not None:
        prepare(again)
    for table in tables or ("wells",):
        again.subscribe(table, lambda event: events.append(printed(event)), **options)
    again.run()
    return events


async def replayed_async(path: Path, table: str = "wells") -> list[Any]:
    """The same, with a coroutine function as the handler."""
    events: list[Any] = []

    async def handle(event: cdc.Event) -> None:
        events.append(printed(event))

    again = async_replay(path)
    again.on(table)(handle)
    await again.run()
    return events


# Recordings that are made without a server, of frames that real servers sent.


def made_of(frames: Iterable[bytes], streaming: str, path: Path) -> Path:
    """A recording of these frames, each of them a batch of its own."""
    talk = Stream("ep", Lsn(0), None, 10.0, MemoryOrFile(1 << 20))
    records: list[Record] = []
    named: dict[int, tuple[str, str]] = {}

    def receive(frame: bytes) -> None:
        item = talk.receive(frame)
        if isinstance(item, RelationMessage):
            key = tuple(column.name for column in item.columns if column.name == "id")
            records.append(Told(replace(item, xid=None), key, item.oid, (), ()))
            named[item.oid] = (item.schema, item.table)
            talk.define(describe(item, Types(), key))
        elif isinstance(item, Committed):
            for held in talk.deliver(item):
                for each in held:
                    receive(each)
        elif isinstance(item, PreparedEnd):
            talk.told(item)

    number = 0
    for number, frame in enumerate(frames, 1):
        records.append(Batch(number, number, (frame,)))
        receive(frame)
    tables = tuple((schema, table, oid) for oid, (schema, table) in named.items())
    return written(path, [header(tables, streaming), *records, End("closed", number)])


def header(tables: tuple[tuple[str, str, int], ...], streaming: str = "on") -> recording.Conversation:
    """The header of such a recording."""
    return recording.Conversation(
        "run", 0, 180000, "1", 1, "ingest", False, True, "deliver", ("wells",), streaming, True, False, False, "ep",
        Lsn(0), None, None, None, (), tables, (),
    )  # fmt: skip


def written(path: Path, records: Iterable[Record]) -> Path:
    """A file of these records."""
    path.write_bytes(MAGIC + b"".join(map(packed, records)))
    return path


def changed(path: Path, change: Callable[[list[Any]], None], renumber: bool = False) -> Path:
    """Another recording, of which the list of records was changed; its frames may get numbers that fit again."""
    records = list(Recording(path))
    change(records)
    if renumber:
        number = 0
        for index, record in enumerate(records):
            if isinstance(record, Batch):
                records[index] = replace(record, number=number + 1)
                number += len(record.frames)
            elif isinstance(record, End):
                records[index] = replace(record, frames=number)
    return written(path.with_name("changed"), records)
