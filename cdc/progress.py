"""Progress: up to where the stream was handled, and who waits for it.

Pure but for a mutex: waiters come from any thread, the loop tells what it has finished.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future

from cdc.events import Gap
from cdc.lsn import Lsn, Position
from cdc.transaction import Place

__all__ = ["Progress"]


class Progress:
    """What was finished, as a position, and the futures of those who wait for an LSN.

    Attributes:
        finished: place of the last change that every handler has finished.
        dirty: whether something was delivered since the position was saved.
        gap: the last gap that handlers were told of, until somebody says that it is mended.
    """

    def __init__(self) -> None:
        self.finished: Place | None = None
        self.dirty = False
        self.gap: Gap | None = None
        self._mutex = threading.Lock()
        self._waiters: list[tuple[Lsn, Future[None]]] = []
        self._failure: BaseException | None = None

    def position(self, epoch: str) -> Position | None:
        """The last finished position; None when nothing was finished in this epoch."""
        if self.finished is None or self.finished[0].epoch != epoch:
            return None
        transaction, ordinal = self.finished
        return transaction.position(ordinal)

    @property
    def last(self) -> Position | None:
        """The last finished position, of whatever epoch."""
        return None if self.finished is None else self.position(self.finished[0].epoch)

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

    def reached(self, lsn: Lsn) -> None:
        """Everything up to `lsn` was handled."""
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
