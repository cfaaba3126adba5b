"""Reading a table in parts, beside the stream: what snapshots and the fills of stores have in common.

Part of the loop. A part is read by a thread of its own, and may be used when its snapshot shows whatever was handed
out before, and when the stream has been handled up to what the snapshot shows; see the head of `chunk`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import psycopg

from cdc.chunk import Follower, Window
from cdc.errors import ConnectionFailed
from cdc.housekeeping import Housekeeping
from cdc.log import log
from cdc.session import Session
from cdc.snapshot import ChunkReader, Part, Texts
from cdc.stream import Stream
from cdc.subscription import Subscription

__all__ = ["PartReading", "Parts"]

_C = TypeVar("_C", bound=Follower)

_WAITS_AFTER = 0.25
"""Seconds after which a part that does not come counts as waited for."""
_SAY_AFTER = 5.0
_PING_EVERY = 0.02
_NUDGE_AFTER = 0.2
_RETRY_INVISIBLE = 0.05
_RETRY_FAILED = 1.0


@dataclass(slots=True, kw_only=True, eq=False)
class PartReading(ABC, Generic[_C]):
    """What is read of one table: the part at hand, and what it waits for."""

    subscription: Subscription
    window: Window[_C] | None = None
    writers: frozenset[str] | None = None
    """Transactions that were changing the table when it was first read, before it was published: see `awaits`."""
    future: Future[Part] | None = None
    part: Part | None = None
    retry_at: float = 0.0
    since: float = 0.0
    """When the part was asked for."""
    pinged_at: float = 0.0
    nudged_at: float = 0.0
    is_said: bool = False
    """Whether it was logged what it waits for."""

    @abstractmethod
    def wait(self, reason: str | None) -> None:
        """What the next part waits for, in words; None when it does not."""

    def awaits(self, part: Part) -> frozenset[str]:
        """Those who may have changed the table before it was published, and had not ended before this part was read.

        Such a change is not streamed, though its transaction commits later.
        """
        self.writers = part.writers if self.writers is None else self.writers & part.writers
        return self.writers

    def later(self, reason: str, now: float, seconds: float) -> None:
        """The part could not be read, and is asked for again after some seconds."""
        if not self.is_said and now - self.since > _SAY_AFTER:
            self.is_said = True
            log.warning("snapshot.waits", name=self.subscription.name, reason=reason)
        if now - self.since > _WAITS_AFTER:
            self.wait(reason)
        self.retry_at = now + seconds

    def drop_chunk(self) -> None:
        """What was read is of no use any more."""
        if self.future is not None:
            self.future.cancel()
        self.window = self.future = self.part = None


class Parts:
    """Reads parts, one at a time.

    Args:
        reader: reads them.
        name: of its thread.
        house: knows the transactions that may not be visible yet.
        wake: ends a wait of the loop, from any thread.

    Attributes:
        is_reached: whether the stream is where the rows of the part at hand may be handed over.
    """

    def __init__(self, reader: ChunkReader, name: str, house: Housekeeping, wake: Callable[[], None]) -> None:
        self.is_reached = False
        self._reader = reader
        self._name = name
        self._house = house
        self._wake = wake
        self._thread: ThreadPoolExecutor | None = None

    def patience(self, reading: PartReading[_C], usual: float) -> float:
        """Seconds to wait for a frame, where the loop would wait for `usual`."""
        return min(usual, _PING_EVERY if reading.part is not None else _RETRY_INVISIBLE)

    def ask(
        self,
        reading: PartReading[_C],
        session: Session,
        now: float,
        after: Texts | None,
        again: Sequence[Texts],
        rows: int,
        noted: int,
    ) -> None:
        """Open the window, unless it is open, and let a part be read; see `ChunkReader.read` and `Window`."""
        if reading.window is None or reading.window.is_too_long:
            reading.window = Window(self._house.unseen, noted)
            reading.since = now
        self._thread = self._thread or ThreadPoolExecutor(1, self._name)
        of = reading.subscription
        reading.future = self._thread.submit(self._reader.read, session.dsn, of.schema, of.table, after, again, rows)
        reading.future.add_done_callback(lambda _: self._wake())

    def received(self, reading: PartReading[_C], now: float) -> Part | None:
        """The part that was read; None when it is to be asked for again, or is of no use any more."""
        future, reading.future = reading.future, None
        assert future is not None
        if future.cancelled():
            return None
        try:
            part = future.result()
        except (ConnectionFailed, psycopg.OperationalError, psycopg.InterfaceError) as error:
            locked = isinstance(error, psycopg.errors.LockNotAvailable)
            reading.later("a lock on the table" if locked else f"the server: {error}", now, _RETRY_FAILED)
            return None
        if reading.window is None:
            return None
        if reading.awaits(part):
            reading.later("transactions that began to change the table before", now, _RETRY_INVISIBLE)
            return None
        invisible = () if part.is_standby else reading.window.see(part.snapshot)
        if invisible:
            listed = ", ".join(map(str, sorted(invisible)[:5]))
            reading.later(f"transactions that are not visible yet: {listed}", now, _RETRY_INVISIBLE)
            return None
        return part

    def take(self, reading: PartReading[_C], part: Part, chunk: _C) -> None:
        """Its rows follow the stream from here on."""
        assert reading.window is not None
        reading.window.take(chunk)
        reading.part = part
        self.is_reached = False
        self._house.unseen = {xid for xid in self._house.unseen if not part.snapshot.sees(xid)}

    def reached(self, reading: PartReading[_C], session: Session, stream: Stream, now: float) -> bool:
        """Whether its rows may be handed over; if not, the server is asked how far the stream is."""
        part = reading.part
        if self.is_reached or part is None:
            return self.is_reached
        self.is_reached = stream.standby.finished_lsn >= part.lsn
        if self.is_reached:
            reading.wait(None)
        else:
            self._approach(reading, part, session, stream, now)
        return self.is_reached

    def cancel(self) -> None:
        """End a read that is under way."""
        self._reader.cancel()

    def close(self) -> None:
        """End what is being read, and give back the thread and the connection."""
        self._reader.cancel()
        if self._thread is not None:
            self._thread.submit(self._reader.close)
            self._thread.shutdown(wait=False)

    def _approach(self, reading: PartReading[_C], part: Part, session: Session, stream: Stream, now: float) -> None:
        """Ask the server how far the stream is; where it waits for WAL that nobody flushes, have that flushed."""
        if now - reading.since > _WAITS_AFTER:
            reading.wait(f"the stream, which has to be handled up to {part.lsn}")
        if now - reading.pinged_at >= _PING_EVERY:
            reading.pinged_at = now
            stream.standby.ask_keepalive()
            session.feedback()
        if reading.nudged_at < reading.since:
            reading.nudged_at = max(now, reading.since)
        elif now - reading.nudged_at >= _NUDGE_AFTER and self._thread is not None:
            reading.nudged_at = now
            self._thread.submit(self._reader.nudge)
