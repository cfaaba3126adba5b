"""Progress: up to where the stream was handed out, up to where it was handled, and who waits for it.

Pure but for a mutex: waiters come from any thread, the loop tells what it has handed out. What is handed out is
finished, unless it still waits in a lane; then everything before the oldest such event is. What was handed out is not
handed out again in this process; what is finished is saved and confirmed.
"""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future

from cdc.collector import Mark
from cdc.events import Gap
from cdc.lane import Lane
from cdc.lsn import Lsn, Position
from cdc.message import Message
from cdc.standby import Standby
from cdc.transaction import Place

__all__ = ["Heard", "Progress"]

Heard = tuple[Lsn, Lsn, Lsn]
"""Commit LSN and LSN of the last transactional message; LSN of the last other one."""


class Progress:
    """What was handed out and what is finished, and the futures of those who wait for an LSN.

    Attributes:
        handed: place of the last change that was handed out to everybody who sees it.
        dirty: whether something was finished since the position was saved.
        gap: the last gap that handlers were told of, until somebody says that it is mended.
        lanes: the lanes that have had events.
        standby: knows how far the conversation of the moment is; None before the first.
    """

    __slots__ = ("_failure", "_heard", "_mutex", "_numbers", "_waiters", "dirty", "gap", "handed", "lanes", "standby")

    def __init__(self) -> None:
        self.handed: Place | None = None
        self._heard = ("", Lsn(0), Lsn(0), Lsn(0))
        """Epoch; commit LSN and LSN of the last transactional message; LSN of the last other one."""
        self.dirty = False
        self.gap: Gap | None = None
        self.lanes: tuple[Lane, ...] = ()
        self.standby: Standby | None = None
        self._mutex = threading.Lock()
        self._numbers = itertools.count()
        self._waiters: list[tuple[Lsn, Future[None]]] = []
        self._failure: BaseException | None = None

    def mark(self) -> Mark:
        """What is finished once the lanes are empty: what an event that is handed out now holds back."""
        standby = self.standby
        assert standby is not None
        return Mark(next(self._numbers), self.handed, standby.finished_lsn, standby.safe_lsn)

    @property
    def oldest(self) -> Mark | None:
        """What was finished before the oldest unfinished event of all lanes; None when every event is finished."""
        marks = [mark for lane in self.lanes if (mark := lane.oldest) is not None]
        return min(marks, key=lambda mark: mark.number, default=None)

    @property
    def is_settled(self) -> bool:
        """Whether every event is finished but those of iterations that were left, which nobody can finish."""
        return all(lane.is_left or lane.oldest is None for lane in self.lanes)

    def handed_out(self, epoch: str) -> Position | None:
        """The last position handed out; None when nothing was in this epoch."""
        return _position(self.handed, epoch)

    def finished(self, epoch: str) -> tuple[Position | None, Lsn]:
        """The last finished position, None when nothing was finished in this epoch, and the LSN to confirm with it."""
        # In this order: what is finished in between is then in neither of them.
        oldest = self.oldest
        standby = self.standby
        assert standby is not None
        if oldest is None:
            return _position(self.handed, epoch), standby.safe_lsn
        return _position(self._before(oldest), epoch), min(oldest.safe_lsn, standby.safe_lsn)

    def position(self, epoch: str) -> Position | None:
        """The last finished position; None when nothing was finished in this epoch."""
        oldest = self.oldest
        return _position(self.handed if oldest is None else self._before(oldest), epoch)

    def _before(self, oldest: Mark) -> Place | None:
        """Where to go on so that the oldest unfinished event comes again.

        That may be in the middle of a transaction that another lane has finished as a whole: as a whole it comes again.
        """
        place = oldest.place
        if place is None or oldest.handed_lsn > place[0].commit_lsn:
            return place
        epoch, commit_lsn = place[0].epoch, place[0].commit_lsn
        wholes = (lane.whole for lane in self.lanes)
        if any(each is not None and each.epoch == epoch and each.commit_lsn >= commit_lsn for each in wholes):
            return place[0], 0
        return place

    @property
    def last(self) -> Position | None:
        """The last position handed out, of whatever epoch."""
        return None if self.handed is None else self.handed_out(self.handed[0].epoch)

    def has_heard(self, message: Message, epoch: str) -> bool:
        """Whether this process has handed out the message before; messages come in the order of these LSNs."""
        heard, commit_lsn, lsn, at_once = self._heard
        if heard != epoch:
            return False
        if message._place is None:
            return message.lsn <= at_once
        return (message._place[0].commit_lsn, message.lsn) <= (commit_lsn, lsn)

    def heard(self, epoch: str) -> Heard | None:
        """Which messages of this epoch were handed out last; grows with each. None before the first."""
        return self._heard[1:] if self._heard[0] == epoch else None

    def hear(self, message: Message, epoch: str) -> None:
        """The message was handed out to everybody who listens."""
        heard, *lsns = self._heard
        commit_lsn, lsn, at_once = lsns if heard == epoch else (Lsn(0), Lsn(0), Lsn(0))
        if message._place is None:
            at_once = message.lsn
        else:
            commit_lsn, lsn = message._place[0].commit_lsn, message.lsn
            self.handed = message._place
        self._heard = (epoch, commit_lsn, lsn, at_once)

    def begin_anew(self) -> None:
        """Know nothing of what was handed out, as another process."""
        self.handed, self._heard = None, ("", Lsn(0), Lsn(0), Lsn(0))

    @property
    def is_awaited(self) -> bool:
        """Whether anybody still waits."""
        if not self._waiters:
            return False
        with self._mutex:
            self._waiters = [waiter for waiter in self._waiters if not waiter[1].cancelled()]
            return bool(self._waiters)

    def wait_for(self, lsn: Lsn) -> Future[None]:
        """A future that is done when everything up to `lsn` was handled; it fails when the loop ends."""
        future: Future[None] = Future()
        with self._mutex:
            failure = self._failure
            if failure is None:
                self._waiters.append((lsn, future))
        if failure is not None:
            future.set_exception(failure)
        return future

    def reached(self) -> None:
        """Tell those who wait for what is finished by now."""
        oldest, standby = self.oldest, self.standby
        if standby is None:
            return
        lsn = standby.finished_lsn if oldest is None else min(oldest.handed_lsn, standby.finished_lsn)
        with self._mutex:
            done = [future for wanted, future in self._waiters if wanted <= lsn]
            self._waiters = [waiter for waiter in self._waiters if waiter[0] > lsn]
        for future in done:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    def fail(self, error: BaseException) -> None:
        """The loop is over: nobody needs to wait any longer, now or later."""
        with self._mutex:
            self._failure = error
            waiters, self._waiters = self._waiters, []
        for _, future in waiters:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)


def _position(place: Place | None, epoch: str) -> Position | None:
    if place is None or place[0].epoch != epoch:
        return None
    transaction, ordinal = place
    return transaction.position(ordinal)
