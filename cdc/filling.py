"""Filling: reads the tables of stores beside the stream, and merges their rows between two transactions.

Part of the loop; it yields the same steps. It does what `snapshotting` does, by the rules at the head of `chunk`, with
larger chunks whose rows stay lines. A store hears of every change itself, so nothing is noted by another subscription,
and nothing is remembered across processes: a fill that was not completed begins anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from itertools import islice

from cdc.delivery import Delivery
from cdc.dispatcher import Dispatcher
from cdc.errors import SubscriptionError
from cdc.fill import Fill
from cdc.housekeeping import Housekeeping
from cdc.keeping import Keeping
from cdc.line_reader import LineReader
from cdc.log import log
from cdc.lsn import Lsn
from cdc.part_reading import Parts
from cdc.predicate import TRUE
from cdc.session import Session
from cdc.snapshot import Texts
from cdc.storing.feed import Feed
from cdc.storing.line import cells_of
from cdc.storing.line_chunk import LineChunk
from cdc.storing.moving import Moving
from cdc.storing.telling import Filled
from cdc.stream import Stream
from cdc.target import Target
from cdc.transaction import Transaction
from cdc.waiting import Call, Steps

__all__ = ["Filling"]

CHUNK_ROWS = 200_000
"""Rows that are read at once. They stay in memory anyway."""
_SLICE = 2_000
"""Rows that are judged before the stream has its turn."""
_AGAIN = 500
"""Single keys that are read at once."""
_NOTED = 50_000
"""Changes that are noted while a chunk is read."""


class Filling:
    """Fills stores, one after the other.

    Args:
        target: what the sessions connect to.
        dispatcher: knows who has begun.
        delivery: lets stores tell of what was read.
        house: knows the transactions that may not be visible yet.
        wake: ends a wait of the loop, from any thread.
        files: the files of stores.
    """

    def __init__(
        self,
        target: Target,
        dispatcher: Dispatcher,
        delivery: Delivery,
        house: Housekeeping,
        wake: Callable[[], None],
        files: Keeping,
    ) -> None:
        self._dispatcher = dispatcher
        self._delivery = delivery
        self._house = house
        self._files = files
        self._resumed: dict[Feed, tuple[int, Texts]] = {}
        """Those that go on from their files: in which round, and behind which key."""
        self._reader = LineReader(target.publications)
        self._parts = Parts(self._reader, "cdc-store", house, wake)
        self._feeds: dict[Feed, None] = {}
        self._fills: dict[Feed, Fill] = {}

    @property
    def is_busy(self) -> bool:
        """Whether there is something to do between two batches."""
        if self._fills:
            return True
        return any(each.closed or _is_due(each.store) for each in list(self._feeds))

    def is_ready(self, stream: Stream) -> bool:
        """Whether the next turn will do something, so that nothing need be waited for."""
        fill = self._first
        if fill is None or stream.transaction is not None:
            return fill is None and self.is_busy
        if fill.part is not None:
            return self._parts.is_reached
        return fill.future is None and time.monotonic() >= fill.retry_at

    def patience(self, usual: float) -> float:
        """Seconds to wait for a frame, where the loop would wait for `usual`."""
        fill = self._first
        if fill is None:
            return usual
        return self._parts.patience(fill, usual)

    def begin(self) -> None:
        """A stream has started: what was read for another one is of no use."""
        for fill in self._fills.values():
            if fill.future is not None:
                self._parts.cancel()
            fill.drop_chunk()

    def add(self, feed: Feed, session: Session) -> None:
        """A store begins here."""
        self._feeds[feed] = None
        after = self._files.begin(feed, session)
        if after is not None:
            self._resumed[feed] = (feed.store.round, after)

    def steps(self, session: Session, stream: Stream) -> Steps:
        """What can be done now; called between two batches."""
        self._look()
        fill = self._first
        if fill is None:
            return
        now = time.monotonic()
        if fill.future is not None and fill.future.done():
            yield from self._received(fill, session, now)
        if stream.transaction is not None or self._first is not fill or fill.round != fill.feed.store.round:
            return
        if fill.part is not None:
            yield from self._merge(fill, session, stream, now)
        elif fill.future is None and now >= fill.retry_at and not self._dispatcher.has_waiting:
            self._ask(fill, session, now)

    def fail(self, error: BaseException) -> None:
        """The loop is over."""
        for each in self._dispatcher.readers:
            if isinstance(each, Feed):
                each.store.fail(error)

    def close(self) -> None:
        """End what is being read, and give back the thread and the connection."""
        self._parts.close()

    def notes(self) -> list[str]:
        """How far the fills are, in words."""
        return [fill.in_words for fill in list(self._fills.values())]

    @property
    def _first(self) -> Fill | None:
        return next(iter(self._fills.values()), None)

    def _look(self) -> None:
        """See who is gone, and who wants to be filled."""
        for feed in list(self._feeds):
            store, fill = feed.store, self._fills.get(feed)
            if feed.closed:
                self._drop(feed)
                self._files.close(feed)
                del self._feeds[feed]
                continue
            if store.stale:
                store.want(store.stale)
            if fill is None:
                if store.wanted or store.holes:
                    self._start(feed)
            elif fill.round != store.round:
                self._drop(feed)
                self._start(feed)

    def _start(self, feed: Feed) -> None:
        store = feed.store
        fill = self._fills[feed] = Fill(feed, store.round, ends=not store.wanted, subscription=feed)
        begun, after = self._resumed.pop(feed, (None, ()))
        if begun == store.round:
            fill.after, fill.ends = after or None, not after
        self._files.moved(feed, fill.after, None)
        store.note = fill.note
        if store.wanted:
            log.info("store.begun", store=feed.name, reason=store.wanted)

    def _drop(self, feed: Feed) -> None:
        fill = self._fills.pop(feed, None)
        if fill is not None:
            if fill.future is not None and not fill.future.cancel():
                self._parts.cancel()
            fill.drop_chunk()
            feed.store.note = None

    # A chunk.

    def _ask(self, fill: Fill, session: Session, now: float) -> None:
        """Open the window, unless it is open, and let the chunk be read."""
        store = fill.feed.store
        asked = dict(islice(store.holes.items(), _AGAIN)) if fill.ends else {}
        store.asked = set(asked)
        limit = 0 if fill.ends else CHUNK_ROWS
        fill.keys = self._reader.keys = None if store.lens is None else store.lens.keys
        self._parts.ask(fill, session, now, fill.after, list(asked.values()), limit, _NOTED)

    def _received(self, fill: Fill, session: Session, now: float) -> Steps:
        """A chunk was read, or not."""
        part, store = self._parts.received(fill, now), fill.feed.store
        if part is None:
            return
        roles = self._dispatcher.roles(part.message.schema, part.message.table)
        relation = yield Call(session.relation, (part.message, roles))
        lens = store.lens
        if lens is None or fill.round != store.round:
            return
        if lens.relation != relation:
            # The stream will tell of it before the next change, or has not come to it yet.
            if fill.after is not None or fill.ends:
                store.want("the table looks different")
                return
            try:
                lens = session.admission.judge.lens(fill.feed, relation)
            except SubscriptionError:
                if fill.feed.subject is None:
                    raise
                lens = lens.blind(relation)
        # Slots were found by the keys of then, which may have been of other types.
        is_other = lens.keys is not fill.keys and isinstance(part.rows, dict)
        chunk = LineChunk(part.snapshot, lens, list(part.rows.values()) if is_other else part.rows)
        self._parts.take(fill, part, chunk)
        store.read += len(part.rows)

    def _merge(self, fill: Fill, session: Session, stream: Stream, now: float) -> Steps:
        """Take rows in when the stream is where it has to be."""
        part, window = fill.part, fill.window
        assert part is not None and window is not None and window.chunk is not None
        if not self._parts.reached(fill, session, stream, now):
            return
        chunk, store = window.chunk, fill.feed.store
        if chunk.reshaped:
            fill.drop_chunk()
            return
        store.gather(chunk.lens)
        transaction = Transaction(stream.epoch, 0, Lsn(stream.standby.finished_lsn - 1), part.microseconds)
        changes = store.merge(_slice(chunk, part.microseconds), (transaction, 1))
        yield from self._tell(fill.feed, Filled(store.table, changes), bool(changes))
        if chunk.rows or fill.round != store.round:
            return
        for slot in store.asked:
            store.holes.pop(slot, None)
        store.asked = set()
        fill.move(part)
        self._files.moved(fill.feed, fill.after, part.ground)
        fill.drop_chunk()
        if fill.ends and not store.holes:
            yield from self._complete(fill)

    def _complete(self, fill: Fill) -> Steps:
        feed, store = fill.feed, fill.feed.store
        whole = store.wanted
        self._drop(feed)
        yield from self._tell(feed, Filled(store.table))
        if whole:
            log.info("store.filled", store=feed.name, rows=len(store), reason=whole)
        store.look()

    def _tell(self, feed: Feed, filled: Filled, told: bool = True) -> Steps:
        left = self._delivery.between(feed, filled) if told and not feed.closed else None
        if left is not None:
            yield from left


def _is_due(store: Moving) -> bool:
    return bool(store.stale or store.wanted or store.holes)


def _slice(chunk: LineChunk, microseconds: int) -> dict[Hashable, bytes]:
    """Rows that may be shown: all of the chunk where every row may, else of its next ones. They leave the chunk."""
    lens = chunk.lens
    if lens.sees_all:
        rows, chunk.rows = chunk.rows, {}
        return rows
    taken = list(islice(chunk.rows.items(), _SLICE))
    for slot, _ in taken:
        del chunk.rows[slot]
    return {slot: line for slot, line in taken if lens.shows(cells_of(line), microseconds) == TRUE}
