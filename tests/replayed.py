"""Compares what was delivered live with what a replay of its recording delivers, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cdc
from cdc.testing import Replay, async_replay, replay
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
