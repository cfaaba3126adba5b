"""A question to the server: how long it may go without an answer.

Asks nothing itself. Who waits for the answer calls `look` every now and then, and `heard` whenever something comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cdc.errors import ConnectionFailed
from cdc.log import log

__all__ = ["Question"]

_GRACE = 1.0
"""Seconds that an answer may take although the consumer was told to stop: as a rule it is there at once."""
_IN_DOUBT = 6
"""So many times as long it may take when nobody can tell whether the server is at work on it."""


class Question:
    """One question that was asked at this moment.

    Args:
        seconds: how long nothing may be heard before somebody has a look at the server.
        is_at_work: whether the server is at work on it; None when nobody can tell. It may take its time.
        is_over: whether the consumer was told to stop.
    """

    def __init__(self, seconds: float, is_at_work: Callable[[], bool | None], is_over: Callable[[], bool]) -> None:
        self._seconds = seconds
        self._is_at_work = is_at_work
        self._is_over = is_over
        self.heard()

    def heard(self) -> None:
        """The server has said something."""
        self._since = time.monotonic()
        self._look_at = self._since + self._seconds

    def look(self) -> None:
        """Raise ConnectionFailed when no answer is to be expected, or nobody waits for it any more."""
        now = time.monotonic()
        if now - self._since > _GRACE and self._is_over():
            raise ConnectionFailed("the consumer was stopped before the server had answered")
        if now < self._look_at:
            return
        at_work = self._is_at_work()
        if at_work is False or (at_work is None and now - self._since > _IN_DOUBT * self._seconds):
            log.warning("server.silent", seconds=round(time.monotonic() - self._since, 1))
            raise ConnectionFailed("the server does not answer any more")
        self._look_at = time.monotonic() + self._seconds
