"""Snapshotting: reads tables beside the stream and hands their rows over between two transactions.

Part of the loop; it yields the same steps. One chunk at a time is read, by a thread of its own, and merged by the
rules at the head of `chunk`. A subscription of this room's own on the table notes what the stream brings meanwhile, so
that the path of a change knows nothing of snapshots. How far each one has come is a bookmark; see `marks`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

from cdc.bookmark import Bookmark
from cdc.chunk import Chunk
from cdc.delivery import Delivery
from cdc.dispatcher import Dispatcher
from cdc.errors import CdcError
from cdc.events import Gap
from cdc.housekeeping import Housekeeping
from cdc.log import log
from cdc.marks import Marks
from cdc.merging import Merging
from cdc.part_reading import Parts
from cdc.progress import Progress
from cdc.row import Row
from cdc.session import Session
from cdc.snapshot import ChunkReader, Part
from cdc.stream import Stream
from cdc.subscription import Subscription
from cdc.target import Target
from cdc.underway import Reading, texts
from cdc.waiting import Call, Steps

__all__ = ["Snapshotting"]

CHUNK_ROWS = 2_000
"""Rows that are read at once, and so kept in memory."""
_SLICE = 256
"""Rows that are handed over before the stream has its turn."""
_AGAIN = 200
"""Keys that are read once more with one chunk."""
_SAVE_EVERY = 1.0
_NOTED = 20_000
"""Changes that are noted while a chunk is read."""
_LOOK_AGAIN = 0.05


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
        self._progress = progress
        self._marks = Marks(target)
        self._parts = Parts(ChunkReader(target.publications), "cdc-snapshot", house, wake)
        self._readings: list[Reading] = []
        self._ending: list[tuple[int, Reading]] = []
        """Those whose last rows handlers have not finished yet, with the number of the first event behind them."""
        self._saved_at = 0.0
        house.before_save.append(self.save)

    # What the loop asks.

    @property
    def is_busy(self) -> bool:
        """Whether there is something to do between two batches."""
        return bool(self._readings or self._ending or self._delivery.resyncs or self._marks.is_due)

    def is_ready(self, stream: Stream) -> bool:
        """Whether the next turn will do something, so that nothing need be waited for."""
        reading = self._readings[0] if self._readings else None
        if reading is None or stream.transaction is not None or self._delivery.lanes.stalled:
            return False
        if reading.part is not None:
            return self._parts.is_reached
        return reading.future is None and time.monotonic() >= reading.retry_at

    def patience(self, usual: float) -> float:
        """Seconds to wait for a frame, where the loop would wait for `usual`."""
        if not self._readings:
            return min(usual, _LOOK_AGAIN) if self._ending else usual
        return self._parts.patience(self._readings[0], usual)

    def is_own(self, subscription: Subscription) -> bool:
        """Whether it is a subscription of this room's own."""
        return any(reading.noter is subscription for reading in self._readings)

    def look(self, session: Session) -> None:
        """Find the bookmarks. Raises ConfigurationError when they are needed and cannot be had."""
        if not self._marks.is_loaded:
            self._marks.load(session, self._dispatcher.subscriptions)

    def begin(self, session: Session) -> Steps:
        """A stream has started: what was read for another one is of no use."""
        for reading in self._readings:
            if reading.future is not None:
                self._parts.cancel()
            reading.drop_chunk()
        yield Call(self.look, (session,))
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
        if self._house.holds:
            return
        yield from self._tell_untold()
        while self._delivery.resyncs:
            self._restart(self._delivery.resyncs.pop(), session)
        now = time.monotonic()
        if self._ending:
            yield from self._finish(session)
        if self._marks.is_due and now - self._saved_at >= _SAVE_EVERY:
            self._saved_at = now
            yield Call(self.save, (session,))
        if not self._readings or self._delivery.lanes.stalled:
            return
        reading = self._readings[0]
        if reading.subscription.closed:
            self._end(reading)
            return
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
                reading.mark = replace(reading.mark, again=again)
                self._marks.put_behind(reading.subscription.name, reading.mark, self._progress.mark().number)
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
        self._parts.close()

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
        self._ending = [pair for pair in self._ending if pair[1].subscription is not subscription]
        mark = self._marks.fresh(subscription, session.saved.epoch)
        self._start(subscription, self._marks.put(subscription.name, mark))

    def _start(self, subscription: Subscription, mark: Bookmark) -> None:
        reading = Reading.of(subscription, mark)
        reading.progress.waiting_for = "the snapshots of other subscriptions" if self._readings else None
        self._readings.append(reading)
        self._dispatcher.add(reading.noter)
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
        reading.asked = list(islice(reading.again, _AGAIN))
        self._parts.ask(reading, session, now, reading.mark.after, texts(reading.asked), CHUNK_ROWS, _NOTED)

    def _received(self, reading: Reading, session: Session, now: float) -> Steps:
        """A chunk was read, or not."""
        part = self._parts.received(reading, now)
        if part is None:
            return
        roles = self._dispatcher.roles(part.message.schema, part.message.table)
        relation = yield Call(session.relation, (part.message, roles))
        if reading.mark.oid not in (None, relation.oid):
            # Another table has the name now, which the stream will tell, too.
            reading.mark = Bookmark(reading.mark.epoch, reading.mark.wanted, oid=relation.oid)
            reading.drop_chunk()
            return
        shape = relation.whole
        chunk = Chunk(part.snapshot, relation, (Row.of_cells(shape, cells) for cells in part.rows))
        self._parts.take(reading, part, chunk)

    def _merge(self, reading: Reading, session: Session, stream: Stream, now: float) -> Steps:
        """Hand rows over when the stream is where it has to be."""
        part, window = reading.part, reading.window
        assert part is not None and window is not None and window.chunk is not None
        if not self._parts.reached(reading, session, stream, now):
            return
        if window.chunk.reshaped:
            reading.drop_chunk()
            return
        yield from self._merging.hand_over(reading, session, stream, window.chunk, part)
        if not window.chunk.rows and not reading.subscription.closed:
            yield from self._finish_chunk(reading, window.chunk, part, session)

    def _finish_chunk(self, reading: Reading, chunk: Chunk, part: Part, session: Session) -> Steps:
        reading.move(part, chunk.relation.oid, self._merging.at)
        number = self._progress.mark().number
        self._marks.put_behind(reading.subscription.name, reading.mark, number)
        reading.drop_chunk()
        if reading.mark.done:
            self._end(reading)
            self._ending.append((number, reading))
            yield from self._finish(session)

    def _finish(self, session: Session) -> Steps:
        """Tell of those whose handlers have finished with every row."""
        done = [each for number, each in self._ending if self._marks.has_finished(each.subscription, number)]
        if not done:
            return
        self._ending = [(number, each) for number, each in self._ending if each not in done]
        yield Call(self.save, (session,))
        for each in done:
            progress = each.progress
            log.info("snapshot.done", name=each.subscription.name, rows=progress.rows, chunks=progress.chunks)
            progress.finish()
        if self._target.on_gap == "resync" and not self._readings and not self._ending:
            self._progress.gap = None


def _table(subscription: Subscription) -> str:
    return f"{subscription.schema}.{subscription.table}"
