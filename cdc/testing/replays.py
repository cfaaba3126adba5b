"""Replays: a recorded stream takes the place of the server, and the handlers are the same.

Reads the recording. A `Replay` is a `Consumer` and an `AsyncReplay` an `AsyncConsumer`, with the same loop, stream,
views and delivery, so that handlers receive what they would have received then: the same classes, positions, previous
links, rows and times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import psycopg

from cdc.async_consumer import AsyncConsumer
from cdc.consumer import Consumer
from cdc.errors import ConfigurationError
from cdc.listener import Listener
from cdc.lsn import Position
from cdc.recording import Conversation, Recording
from cdc.replaying import ReplayLoop
from cdc.settings import check_record, check_until
from cdc.state import Saved
from cdc.subscribing import Subscribing
from cdc.subscription import Handler, Subscription
from cdc.terms import Options
from cdc.transaction import commit_time

__all__ = ["AsyncReplay", "Replay", "async_replay", "replay"]


def replay(path: str | Path, *, until: Position | str | None = None, on_gap: str | None = None) -> Replay:
    """A consumer of what was recorded in a file; it ends where the recording ends.

    Args:
        path: the file that `consumer.record` wrote.
        until: position of the last change that is handed out; default: all that the recorded consumer handed out.
        on_gap: `"stop"` or `"deliver"`, as in `Consumer`; default: as it was recorded, and deliver for resync.

    Raises ConfigurationError when the file cannot be read or is no recording. `run` raises CdcError where the file is
    damaged, and what the recorded consumer raised: GapError, HandlerError, DecodeError.
    """
    return Replay(path, until, on_gap)


def async_replay(path: str | Path, *, until: Position | str | None = None, on_gap: str | None = None) -> AsyncReplay:
    """The same for asyncio: handlers may be coroutine functions. See `replay`."""
    return AsyncReplay(path, until, on_gap)


class _Replaying(Subscribing):
    """What both kinds of replay share: a recording where the server would be."""

    def __init__(
        self,
        path: str | Path,
        until: Position | str | None = None,
        on_gap: str | None = None,
        on_run: Callable[[], None] | None = None,
    ) -> None:
        check_record(path)
        last = check_until(until)
        if on_gap == "resync":
            raise ConfigurationError(
                "a recording has no server from which a table could be read anew: on_gap='deliver' tells a replay's "
                "handlers of gaps"
            )
        self.recording = Recording(path)
        first = next(iter(self.recording), None)
        if not isinstance(first, Conversation):
            raise ConfigurationError(f"the recording {path} is empty: no connection was made while it was open")
        super().__init__(
            "",
            publication=first.publications,
            slot=None if first.temporary else first.slot,
            state=None,
            on_gap=on_gap or ("deliver" if first.on_gap == "resync" else first.on_gap),
            streaming=first.streaming,
            two_phase=first.two_phase,
            binary=first.binary,
        )
        self.first = first
        if first.remembers:
            self._target = replace(self._target, state=_Remembered())
        self._loop: ReplayLoop = ReplayLoop(
            self._target, self._dispatcher, self.recording, last, on_run, lambda: self._wake()
        )

    @property
    def at(self) -> datetime:
        """When the frames arrived that are replayed now, by the clock of the machine that recorded them."""
        return commit_time(self._loop.link.reading.at)

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables of the recording, as `subscribe` takes them; those of schema cdc are never delivered."""
        return tuple(_name(*table) for table in sorted(self._loop.link.outline.tables) if table[0] != "cdc")

    @property
    def has_messages(self) -> bool:
        """Whether logical messages were recorded, so that `on_message` can have them."""
        return any(self._loop.link.outline.messages)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of the replay, in words; complete when it is over."""
        said = [] if self.recording.note is None else [f"{self.recording.path}: {self.recording.note}"]
        for name in self.first.decoders:
            if name not in self._decoders:
                said.append(f"a decoder was registered for {name}: register_type gives it to the replay, too")
        asked = self._loop.link.outline.messages
        if self._dispatcher.listens and not all(asked):
            said.append(f"logical messages were asked for in {sum(asked)} of {len(asked)} recorded connections")
        for each in self.subscriptions:
            if each.undecided:
                said.append(f"{each!r}: {each.undecided} changes could not be judged and were withheld")
        return tuple(said)

    def record(self, path: str | Path) -> NoReturn:
        """Refused: it is recorded already."""
        raise ConfigurationError("a replay cannot be recorded: copy its recording instead")

    def _subscription(self, tables: str | Sequence[str], handler: Handler, options: Options) -> Subscription:
        if options.get("subject") is not None:
            raise ConfigurationError(
                f"a recording holds no roles, grants and policies, so that a replay cannot decide what "
                f"{options['subject']!r} may see: subscribe without a subject"
            )
        _check_terms(options)
        return super()._subscription(tables, handler, options)

    def _listener(self, prefixes: Sequence[str], handler: Handler, options: Options) -> Listener:
        _check_terms(options)
        return super()._listener(prefixes, handler, options)

    def _parked(self) -> NoReturn:
        raise _parks_nothing()

    def _retry_parked(self, id: str, force: bool) -> NoReturn:
        raise _parks_nothing()

    def _drop_parked(self, id: str) -> NoReturn:
        raise _parks_nothing()

    def _cached(self, table: str, *arguments: Any, **options: Any) -> NoReturn:
        raise ConfigurationError(f"cache of {table}: a recording has no server from which a cache could load")


class Replay(_Replaying, Consumer):
    """A consumer whose stream is a recording. Made by `cdc.testing.replay`; use it as a `Consumer`.

    `run()` returns at the end of the recording. Subscriptions take no subject, and there are no caches.

    Attributes:
        recording: the file.
        first: the header of its first conversation.
    """


class AsyncReplay(_Replaying, AsyncConsumer):
    """An `AsyncConsumer` whose stream is a recording. Made by `cdc.testing.async_replay`."""


def _name(schema: str, table: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in (schema, table))


def _check_terms(options: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for what needs a server."""
    if options.get("on_error") == "park":
        raise _parks_nothing()
    if options.get("snapshot"):
        raise ConfigurationError(
            "a recording holds what was streamed, not the rows that a table had: snapshot=True has nothing to read in "
            "a replay. Leave it out"
        )


def _parks_nothing() -> ConfigurationError:
    return ConfigurationError(
        "a replay has no server that could keep parked events: on_error='park' and what is parked belong to the "
        "consumer itself. Leave it out: a replay ends at the event that a handler did not take"
    )


class _Remembered:
    """Stands for the place where the recorded consumer kept its position; nothing is kept."""

    def load(self, connection: psycopg.Connection[Any], slot: str) -> Saved | None:
        return None

    def save(self, connection: psycopg.Connection[Any], slot: str, saved: Saved) -> None:
        pass

    def way_out(self, slot: str) -> str:
        return "replay another recording"
