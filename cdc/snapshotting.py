"""Snapshotting: reads tables beside the stream and hands their rows over between two transactions.

Part of the loop; it yields the same steps. One chunk at a time is read, by a thread of its own, and merged by the
rules at the head of `chunk`. A subscription of this room's own on the table notes what the stream brings meanwhile, so
that the path of a change knows nothing of snapshots. How far each one has come is a bookmark; see `marks`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any

import psycopg

from cdc.bookmark import Bookmark
from cdc.chunk import Chunk, Key, Window
from cdc.delivery import Delivery
from cdc.dispatcher import Dispatcher
from cdc.errors import CdcError, ConnectionFailed
from cdc.events import Gap
from cdc.housekeeping import Housekeeping
from cdc.log import log
from cdc.marks import Marks
from cdc.merging import Merging
from cdc.progress import Progress
from cdc.reading import Reading, texts
from cdc.row import Row
from cdc.session import Session, Target
from cdc.snapshot import ChunkReader, Part
from cdc.snapshot_progress import SnapshotProgress
from cdc.stream import Stream
from cdc.subscription import Subscription
from cdc.waiting import Call, Steps

__all__ = ["Snapshotting"]

CHUNK_ROWS = 2_000
"""Rows that are read at once, and so kept in memory."""
_SLICE = 256
"""Rows that are handed over before the stream has its turn."""
_AGAIN = 200
"""Keys that are read once more with one chunk."""
_PING_EVERY = 0.02
_NUDGE_AFTER = 0.2
_RETRY_INVISIBLE = 0.05
_RETRY_FAILED = 1.0
_SAY_AFTER = 5.0


class Snapshotting:
    """Reads the tables of those subscriptions that begin with their rows, one after the other.

    Args:
        target: what the sessions connect to.
        dispatcher: where the notes come from.
        delivery: hands the rows over.
        house: knows the transactions that may not be visible yet.
        progress: told that something was delivered.
        wake: ends a wait of the loop, from any thread.
        is_stopping: whether the loop is to end.
    """

    def __init__(
        self,
        target: Target,
        dispatcher: Dispatcher,
        delivery: Delivery,
        house: Housekeeping,
        progress: Progress,
        wake: Callable[[], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._target = target
        self._dispatcher = dispatcher
        self._delivery = delivery
        self._merging = Merging(delivery, progress, is_stopping)
        self._house = house
        self._wake = wake
        self._marks = Marks(target)
        self._reader = ChunkReader(target.publications)
        self._thread: ThreadPoolExecutor | None = None
        self._readings: list[Reading] = []
        self._reached = False
        """Whether the stream is where the chunk's rows may be handed over."""
        house.before_save.append(self.save)

    # What the loop asks.

    @property
    def is_busy(self) -> bool:
        """Whether there is something to do between two batches."""
        return bool(self._readings or self._delivery.resyncs)

    def is_ready(self, stream: Stream) -> bool:
        """Whether the next turn will do something, so that nothing need be waited for."""
        reading = self._readings[0] if self._readings else None
        if reading is None or stream.transaction is not None:
            return False
        if reading.part is not None:
            return self._reached
        return reading.future is None and time.monotonic() >= reading.retry_at

    def patience(self, usual: float) -> float:
        """Seconds to wait for a frame, where the loop would wait for `usual`."""
        if not self._readings:
            return usual
        return min(usual, _PING_EVERY if self._readings[0].part is not None else _RETRY_INVISIBLE)

    def is_own(self, subscription: Subscription) -> bool:
        """Whether it is a subscription of this room's own."""
        return any(reading.noter is subscription for reading in self._readings)

    def begin(self, session: Session) -> Steps:
        """A stream has started: what was read for another one is of no use; at first, find the bookmarks."""
        for reading in self._readings:
            if reading.future is not None:
                self._reader.cancel()
            reading.drop_chunk()
        if not self._marks.is_loaded:
            yield Call(self._marks.load, (session, self._dispatcher.subscriptions))
        for subscription in self._marks.outlived(session.saved.epoch):
            self._restart(subscription, session)

    def add(self, subscription: Subscription, session: Session) -> None:
        """A subscription begins here."""
        mark = None if subscription.first else self._marks.begin(subscription, session.saved.epoch)
        if mark is None:
            return
        self._merging.at = max(self._merging.at, (mark.lsn, mark.ordinal))
        if not mark.done:
            self._start(subscription, mark)
        elif subscription.snapshot is not None:
            subscription.snapshot.begin(mark.rows, mark.chunks)
            subscription.snapshot.finish()

    def steps(self, session: Session, stream: Stream) -> Steps:
        """What can be done now; called between two batches."""
        yield from self._tell_untold()
        while self._delivery.resyncs:
            self._restart(self._delivery.resyncs.pop(), session)
        if not self._readings:
            return
        reading = self._readings[0]
        if reading.subscription.closed:
            self._end(reading)
            return
        now = time.monotonic()
        if reading.future is not None and reading.future.done():
            yield from self._received(reading, session, now)
        if stream.transaction is not None:
            return
        if reading.part is not None:
            yield from self._merge(reading, session, stream, now)
        elif reading.future is None and now >= reading.retry_at and not self._dispatcher.has_waiting:
            self._ask(reading, session, now)

    def save(self, session: Session) -> None:
        """Save the bookmarks that have moved; called before each position that is saved."""
        for subscription in filter(self._marks.knows, self._delivery.resyncs):
            self._marks.put(subscription.name, self._marks.fresh(subscription, session.saved.epoch))
        for reading in self._readings:
            again = texts(reading.again)
            if again != reading.mark.again:
                reading.mark = self._marks.put(reading.subscription.name, replace(reading.mark, again=again))
        self._marks.save(session)

    def fail(self, error: BaseException) -> None:
        """The loop is over."""
        for reading in self._readings:
            reading.progress.fail(error)
        for subscription in self._dispatcher.subscriptions:
            if subscription.snapshot is not None:
                subscription.snapshot.fail(error)

    def close(self) -> None:
        """End what is being read, and give back the thread and the connection."""
        self._reader.cancel()
        if self._thread is not None:
            self._thread.submit(self._reader.close)
            self._thread.shutdown(wait=False)

    def notes(self) -> list[str]:
        """How far the snapshots are that are not complete, in words."""
        return [f"{each.subscription.name}: {each.progress.in_words}" for each in list(self._readings)]

    # The life of a snapshot.

    def _tell_untold(self) -> Steps:
        """A former process ended between making a slot anew and telling of the gap."""
        untold, self._marks.unmarked = self._marks.unmarked, []
        for each in untold:
            if each not in self._delivery.resyncs and not each.closed:
                yield from self._delivery.resync(each, Gap("the slot was made anew, and a former process ended before"))

    def _restart(self, subscription: Subscription, session: Session) -> None:
        """Read the table from its beginning."""
        if not self._marks.knows(subscription):
            return
        for reading in [each for each in self._readings if each.subscription is subscription]:
            self._drop(reading)
        mark = self._marks.fresh(subscription, session.saved.epoch)
        self._start(subscription, self._marks.put(subscription.name, mark))

    def _start(self, subscription: Subscription, mark: Bookmark) -> None:
        if subscription.snapshot is None:
            subscription.snapshot = SnapshotProgress()
        progress = subscription.snapshot
        progress.begin(mark.rows, mark.chunks)
        progress.waiting_for = "the snapshots of other subscriptions" if self._readings else None
        again: dict[Key, None] = {tuple(text.encode() for text in key): None for key in mark.again}
        noter = Subscription(subscription.schema, subscription.table, _nobody, first=True, name="cdc snapshot")
        noter._sent, noter._oid, noter._attached = subscription._sent, subscription._oid, subscription._attached
        reading = Reading(subscription, mark, noter, progress, again)
        noter.handler = reading.note
        self._readings.append(reading)
        self._dispatcher.add(noter)
        log.info(
            "snapshot.resumed" if mark.after else "snapshot.begun", name=subscription.name, table=_table(subscription)
        )

    def _end(self, reading: Reading) -> None:
        """It is complete, or nobody wants it any more."""
        self._drop(reading)
        if reading.subscription.closed:
            reading.progress.fail(CdcError("the subscription was closed"))
        if self._readings:
            self._readings[0].progress.waiting_for = None

    def _drop(self, reading: Reading) -> None:
        reading.drop_chunk()
        self._readings.remove(reading)
        reading.noter.closed = True
        self._dispatcher.remove(reading.noter)

    # A chunk.

    def _ask(self, reading: Reading, session: Session, now: float) -> None:
        """Open the window, unless it is open, and let the chunk be read."""
        if reading.window is None or reading.window.is_too_long:
            reading.window = Window(self._house.unseen)
            reading.since = now
        mark, of = reading.mark, reading.subscription
        reading.asked = list(islice(reading.again, _AGAIN))
        again = texts(reading.asked)
        self._thread = self._thread or ThreadPoolExecutor(1, "cdc-snapshot")
        reading.future = self._thread.submit(
            self._reader.read, session.dsn, of.schema, of.table, mark.after, again, CHUNK_ROWS
        )
        reading.future.add_done_callback(lambda _: self._wake())

    def _received(self, reading: Reading, session: Session, now: float) -> Steps:
        """A chunk was read, or not."""
        future, reading.future = reading.future, None
        assert future is not None
        if future.cancelled():
            return
        window = reading.window
        try:
            part = future.result()
        except (ConnectionFailed, psycopg.OperationalError, psycopg.InterfaceError) as error:
            locked = isinstance(error, psycopg.errors.LockNotAvailable)
            self._later(reading, "a lock on the table" if locked else f"the server: {error}", now, _RETRY_FAILED)
            return
        if window is None:
            return
        invisible = () if part.is_standby else window.see(part.snapshot)
        if invisible:
            listed = ", ".join(map(str, sorted(invisible)[:5]))
            self._later(reading, f"transactions that are not visible yet: {listed}", now, _RETRY_INVISIBLE)
            return
        roles = self._dispatcher.roles(part.message.schema, part.message.table)
        relation = yield Call(session.relation, (part.message, roles))
        if reading.mark.oid not in (None, relation.oid):
            # Another table has the name now, which the stream will tell, too.
            reading.mark = Bookmark(reading.mark.epoch, reading.mark.wanted, oid=relation.oid)
            reading.drop_chunk()
            return
        shape = relation.whole
        window.take(Chunk(part.snapshot, relation, (Row.of_cells(shape, cells) for cells in part.rows)))
        reading.part = part
        self._reached = False
        self._house.unseen = {xid for xid in self._house.unseen if not part.snapshot.sees(xid)}

    def _later(self, reading: Reading, reason: str, now: float, seconds: float) -> None:
        if reading.progress.waiting_for is None and now - reading.since > _SAY_AFTER:
            log.warning("snapshot.waits", name=reading.subscription.name, reason=reason)
        if now - reading.since > _RETRY_FAILED / 4:
            reading.progress.waiting_for = reason
        reading.retry_at = now + seconds

    def _merge(self, reading: Reading, session: Session, stream: Stream, now: float) -> Steps:
        """Hand rows over when the stream is where it has to be."""
        part, window = reading.part, reading.window
        assert part is not None and window is not None and window.chunk is not None
        if not self._reached:
            self._reached = stream.standby.finished_lsn >= part.lsn
            if not self._reached:
                self._approach(reading, part, session, stream, now)
                return
            reading.progress.waiting_for = None
        if window.chunk.reshaped:
            reading.drop_chunk()
            return
        yield from self._merging.hand_over(reading, session, stream, window.chunk, part)
        if not window.chunk.rows and not reading.subscription.closed:
            yield from self._finish_chunk(reading, window.chunk, part, session)

    def _approach(self, reading: Reading, part: Part, session: Session, stream: Stream, now: float) -> None:
        """Ask the server how far the stream is; where it waits for WAL that nobody flushes, have that flushed."""
        if now - reading.since > _RETRY_FAILED / 4:
            reading.progress.waiting_for = f"the stream, which has to be handled up to {part.lsn}"
        if now - reading.pinged_at >= _PING_EVERY:
            reading.pinged_at = now
            stream.standby.ask_keepalive()
            session.feedback()
        if reading.nudged_at < reading.since:
            reading.nudged_at = max(now, reading.since)
        elif now - reading.nudged_at >= _NUDGE_AFTER and self._thread is not None:
            reading.nudged_at = now
            self._thread.submit(self._reader.nudge)

    def _finish_chunk(self, reading: Reading, chunk: Chunk, part: Part, session: Session) -> Steps:
        for key in reading.asked:
            reading.again.pop(key, None)
        progress = reading.progress
        progress.chunks += 1
        done = part.ends and not reading.again
        reading.mark = replace(
            reading.mark,
            done=done,
            oid=chunk.relation.oid,
            after=part.last or reading.mark.after,
            again=texts(reading.again),
            rows=progress.rows,
            chunks=progress.chunks,
            lsn=self._merging.at[0],
            ordinal=self._merging.at[1],
        )
        self._marks.put(reading.subscription.name, reading.mark)
        reading.drop_chunk()
        if done:
            self._end(reading)
            yield Call(self.save, (session,))
            log.info("snapshot.done", name=reading.subscription.name, rows=progress.rows, chunks=progress.chunks)
            progress.finish()


def _nobody(event: Any) -> None:
    """A handler that is about to be replaced."""


def _table(subscription: Subscription) -> str:
    return f"{subscription.schema}.{subscription.table}"
