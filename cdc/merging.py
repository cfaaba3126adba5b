"""Merging: hands the rows of a chunk over, between two transactions of the stream.

Part of the loop; it yields the same steps. A row's position is one byte before the end of what the stream has handed
out: behind the last commit, before the next one, and never that of a change, as no record of the WAL begins there.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from cdc.chunk import Chunk
from cdc.delivery import Delivery
from cdc.events import Effect, Read
from cdc.lsn import Lsn
from cdc.progress import Progress
from cdc.session import Session
from cdc.snapshot import Part
from cdc.stream import Stream
from cdc.transaction import Transaction
from cdc.underway import Reading
from cdc.waiting import Steps

__all__ = ["Merging"]

_SLICE = 256
"""Rows that are handed over before the stream has its turn."""


class Merging:
    """Hands rows over.

    Attributes:
        at: where rows were handed over last, and how many.

    Args:
        delivery: calls the handlers.
        progress: told that something was delivered.
        is_stopping: whether the loop is to end.
    """

    def __init__(self, delivery: Delivery, progress: Progress, is_stopping: Callable[[], bool]) -> None:
        self.at = (0, 0)
        self._delivery = delivery
        self._progress = progress
        self._is_stopping = is_stopping

    def hand_over(self, reading: Reading, session: Session, stream: Stream, chunk: Chunk, part: Part) -> Steps:
        """Hand over a slice of the chunk; what is left stays in it, and goes on following the stream."""
        view = session.admission.view(reading.subscription, chunk.relation)
        view.remember()
        lsn = stream.standby.finished_lsn - 1
        ordinal = self.at[1] if self.at[0] == lsn else 0
        transaction = Transaction(stream.epoch, 0, Lsn(lsn), part.microseconds)
        if not reading.is_begun:
            reading.is_begun = True
            yield from self._delivery.tell_schema(view, (transaction, ordinal + 1))
        self._progress.dirty = True
        for key, row in list(islice(chunk.rows.items(), _SLICE)):
            if self._is_stopping():
                return
            ordinal += 1
            self.at = (lsn, ordinal)
            seen = view.see(Read((transaction, ordinal), chunk.relation, None, row, Effect.ENTER))
            if seen is not None:
                left = self._delivery.between(reading.subscription, seen)
                if left is not None:
                    yield from left
                reading.progress.rows += 1
            del chunk.rows[key]
            if self._delivery.lanes.stalled:
                return
