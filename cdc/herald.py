"""The herald: knows what the consumer does at the moment, and tells those who asked when that changes.

Part of the loop, which tells between two steps; so handlers of status changes are called in order, on the loop's
thread or task, and never from `health()`.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from inspect import isawaitable

from cdc.attempts import is_cancelled
from cdc.health import Status, StatusChange
from cdc.log import log
from cdc.reconnect import Failure
from cdc.waiting import Await, Steps

__all__ = ["Herald", "StatusHandler"]

StatusHandler = Callable[[StatusChange], Awaitable[None] | None]


class Herald:
    """What the consumer does, and the changes that are still to be told.

    Attributes:
        status: what the consumer does at the moment.
        handlers: who wants to hear of changes.
        not_live_since: since when it has not been live; None when it is.
    """

    def __init__(self) -> None:
        self.status = Status.OFFLINE
        self.handlers: list[StatusHandler] = []
        self.not_live_since: datetime | None = datetime.now(UTC)
        self._changes: deque[StatusChange] = deque()

    def change(self, status: Status, failure: Failure | None = None, error: BaseException | None = None) -> None:
        """The consumer does something else from now on, because of a failure if there is one."""
        if status is self.status:
            return
        now = datetime.now(UTC)
        self._changes.append(StatusChange(status, self.status, now, failure, error))
        self.status = status
        if status is Status.LIVE:
            self.not_live_since = None
        elif self.not_live_since is None:
            self.not_live_since = now

    def tell(self) -> Steps:
        """Call the handlers. One that raises is logged, and ends nothing."""
        while self._changes:
            change = self._changes.popleft()
            for handler in tuple(self.handlers):
                try:
                    result = handler(change)
                    if isawaitable(result):
                        yield Await(result)
                except (Exception, CancelledError) as error:
                    if isinstance(error, CancelledError) and is_cancelled():
                        raise
                    name = getattr(handler, "__qualname__", repr(handler))
                    log.error("status.handler_failed", handler=name, status=change.status.value, reason=repr(error))
