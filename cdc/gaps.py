"""Gaps: tells every subscription that changes may be missing, at the place in the stream where they are.

Part of the loop; it yields the same steps. Most gaps lie before everything that a new stream brings. A publication that
was made again is another matter: PostgreSQL 18 streams what was changed before it was dropped, too, and a list that
was emptied too early would keep those rows. Such a gap is told when the stream is behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cdc.boundary import Boundary
from cdc.delivery import Delivery
from cdc.events import Gap, GapKind
from cdc.housekeeping import Housekeeping
from cdc.log import log
from cdc.lsn import Lsn, Position
from cdc.progress import Progress
from cdc.session import Session
from cdc.stream import Stream
from cdc.waiting import Call, Steps

__all__ = ["Gaps"]

_ELSEWHERE = (GapKind.OTHER_SERVER, GapKind.OTHER_TIMELINE)
"""Gaps behind which transactions are others."""

Until = Callable[[Callable[[], bool], Session, Stream], Steps]
"""Does nothing but the duties until a condition holds."""


class Gaps:
    """Tells of gaps.

    Args:
        house: saves nothing while a gap is not told.
        boundary: lets subscriptions begin before they are told.
        delivery: calls the handlers.
        progress: what was finished.
        until: waits.
    """

    def __init__(
        self, house: Housekeeping, boundary: Boundary, delivery: Delivery, progress: Progress, until: Until
    ) -> None:
        self._house = house
        self._boundary = boundary
        self._delivery = delivery
        self._progress = progress
        self._until = until
        self._late: tuple[Gap, Lsn] | None = None

    def begin(self, session: Session, stream: Stream) -> Steps:
        """A stream has started: tell of the gap before it, or remember to."""
        gap, ends, self._late = session.slot.gap, session.slot.gap_ends, None
        if gap is not None:
            self._house.holds = True
            if ends is not None and stream.standby.finished_lsn < ends:
                self._late = (gap, ends)
                yield from self._boundary.steps(session, None)
                self._boundary.begin_caches(False)  # What they hold may be from before the gap.
                self._progress.wait_for(ends)  # The server is asked how far the stream is.
                return
            yield from self.tell(session, gap)
            session.untold = None
        if self._house.holds:
            yield from self._finish(session, stream)

    def is_due(self, lsn: Lsn) -> bool:
        """Whether a gap is to be told before what commits at `lsn` or behind. Ask between two transactions."""
        return self._late is not None and lsn >= self._late[1]

    def steps(self, session: Session, stream: Stream) -> Steps:
        """Tell of the gap that is due."""
        assert self._late is not None
        (gap, _), self._late = self._late, None
        position = Position(stream.epoch, Lsn(stream.standby.finished_lsn), 0)
        yield from self.tell(session, replace(gap, position=position))
        session.untold = None
        yield from self._finish(session, stream)

    def tell(self, session: Session, gap: Gap) -> Steps:
        """Tell everybody now, also those who wait to begin."""
        log.warning("gap", kind=gap.kind.value, reason=gap.reason, last=str(gap.last))
        elsewhere = gap.kind in _ELSEWHERE
        if elsewhere:
            self._house.unseen.clear()
        self._house.unseen |= yield Call(session.invisible)
        yield from self._boundary.steps(session, None)
        self._boundary.begin_caches(elsewhere)
        yield from self._delivery.gap(gap)

    def _finish(self, session: Session, stream: Stream) -> Steps:
        """Behind a gap: nothing that follows is handed out or saved before what came before is finished."""
        for lane in self._progress.lanes:
            lane.hurry()
        yield from self._until(lambda: self._progress.is_settled, session, stream)
        if self._progress.oldest is None:
            self._house.holds = False
            yield Call(self._house.save, (session, stream))
