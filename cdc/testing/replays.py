"""Replays: a recorded stream takes the place of the server, and the handlers are the same.

Reads the recording. A `Replay` is a `Consumer` and an `AsyncReplay` an `AsyncConsumer`, with the same loop, stream,
views and delivery, so that handlers receive what they would have received then: the same classes, positions, previous
links, rows and times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import psycopg

from cdc.consumer import AsyncConsumer, Consumer
from cdc.consuming import Consuming
from cdc.errors import ConfigurationError
from cdc.events import Event
from cdc.lsn import Position
from cdc.recording import Conversation, Recording
from cdc.replayed import ReplayLoop
from cdc.rls import Subject
from cdc.state import Saved
from cdc.subscription import Handler, Subscription
from cdc.transaction import commit_time
from cdc.waiting import BlockingWaiter, Steps

__all__ = ["AsyncReplay", "Replay", "async_replay", "replay"]


def replay(path: str | Path, *, until: Position | str | None = None, on_gap: str | None = None) -> Replay:
    """A consumer of what was recorded in a file; it ends where the recording ends.

    Args:
        path: the file that `consumer.record` wrote.
        until: position of the last change that is handed out; default: all that the recorded consumer handed out.
        on_gap: as in `Consumer`; default: as it was recorded.

    Raises ConfigurationError when the file cannot be read or is no recording. `run` raises CdcError where the file is
    damaged, and what the recorded consumer raised: GapError, HandlerError, DecodeError.
    """
    return Replay(path, until, on_gap)


def async_replay(path: str | Path, *, until: Position | str | None = None, on_gap: str | None = None) -> AsyncReplay:
    """The same for asyncio: handlers may be coroutine functions. See `replay`."""
    return AsyncReplay(path, until, on_gap)


class _Replaying(Consuming):
    """What both kinds of replay share: a recording where the server would be."""

    def __init__(
        self,
        path: str | Path,
        until: Position | str | None = None,
        on_gap: str | None = None,
        on_run: Callable[[], None] | None = None,
    ) -> None:
        self.recording = Recording(path)
        first = next(iter(self.recording), None)
        if not isinstance(first, Conversation):
            raise ConfigurationError(f"the recording {path} is empty: no connection was made while it was open")
        super().__init__(
            "",
            publication=first.publications,
            slot=None if first.temporary else first.slot,
            state=None,
            on_gap=on_gap or first.on_gap,
            streaming=first.streaming,
            two_phase=first.two_phase,
            binary=first.binary,
        )
        self._forgetful = False
        self.first = first
        if first.remembers:
            self._target = replace(self._target, state=_Remembered())
        last = Position.parse(until) if isinstance(until, str) else until
        self._loop: ReplayLoop = ReplayLoop(self._target, self._dispatcher, self.recording, last, on_run)

    @property
    def at(self) -> datetime:
        """When the frames arrived that are replayed now, by the clock of the machine that recorded them."""
        return commit_time(self._loop.reading.at)

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables of the recording, as `subscribe` takes them; those of schema cdc are never delivered."""
        return tuple(_name(*table) for table in sorted(self._loop.tables) if table[0] != "cdc")

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of the replay, in words; complete when it is over."""
        said = [] if self.recording.note is None else [f"{self.recording.path}: {self.recording.note}"]
        for name in self.first.decoders:
            if name not in self._decoders:
                said.append(f"a decoder was registered for {name}: register_type gives it to the replay, too")
        for each in self.subscriptions:
            if each.undecided:
                said.append(f"{each!r}: {each.undecided} changes could not be judged and were withheld")
        return tuple(said)

    def record(self, path: str | Path) -> NoReturn:
        """Refused: it is recorded already."""
        raise ConfigurationError("a replay cannot be recorded: copy its recording instead")

    def _subscription(
        self,
        table: str,
        handler: Handler,
        operations: Iterable[str] | None,
        filter: str | None,
        subject: Subject | None,
        *more: Any,
        **options: Any,
    ) -> Subscription:
        if subject is not None:
            raise ConfigurationError(
                f"a recording holds no roles, grants and policies, so that a replay cannot decide what {subject!r} "
                "may see: subscribe without a subject"
            )
        return super()._subscription(table, handler, operations, filter, None, *more, **options)

    def _cached(self, table: str, *arguments: Any, **options: Any) -> NoReturn:
        raise ConfigurationError(f"cache of {table}: a recording has no server from which a cache could load")


class Replay(_Replaying, Consumer):
    """A consumer whose stream is a recording. Made by `cdc.testing.replay`; use it as a `Consumer`.

    `run()` returns at the end of the recording. Subscriptions take no subject, and there are no caches.

    Attributes:
        recording: the file.
        first: the header of its first conversation.
    """

    def events(self, table: str, **options: Any) -> Iterator[Event]:
        """The events of a table, one after the other; takes the options of `subscribe`.

        Other subscriptions of this replay have theirs at the same time.
        """
        waiting: deque[Event] = deque()
        self.subscribe(table, waiting.append, **options)
        return self._events(waiting)

    def _events(self, waiting: deque[Event]) -> Iterator[Event]:
        self._open()
        waiter = BlockingWaiter()
        steps = self._loop.steps()
        try:
            for _ in _performed(waiter, steps):
                while waiting:
                    yield waiting.popleft()
            yield from waiting
        finally:
            self._loop.is_stopping = True
            for _ in _performed(waiter, steps):
                waiting.clear()
            waiter.close()
            self._close()


class AsyncReplay(_Replaying, AsyncConsumer):
    """An `AsyncConsumer` whose stream is a recording. Made by `cdc.testing.async_replay`."""


def _name(schema: str, table: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in (schema, table))


def _performed(waiter: BlockingWaiter, steps: Steps) -> Iterator[None]:
    """Perform every step; a moment for the caller behind each."""
    try:
        step = next(steps)
        while True:
            try:
                outcome = waiter._perform(step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
            yield
    except StopIteration:
        return


class _Remembered:
    """Stands for the place where the recorded consumer kept its position; nothing is kept."""

    def load(self, connection: psycopg.Connection[Any], slot: str) -> Saved | None:
        return None

    def save(self, connection: psycopg.Connection[Any], slot: str, saved: Saved) -> None:
        pass

    def way_out(self, slot: str) -> str:
        return "replay another recording"
