"""When to let frames gather before the next read.

Pure: no clock; `now` is an argument. The server sends each change by itself, and each wake-up for one costs more than
the change. At some thousand transactions a second, a moment's sleep after each read can save a third of the
processor's time. Below that nobody would gain by it, and it would be felt. Where much is there to be read, a reader is
not woken for each change anyway, and sleep would only make it late.
"""

from __future__ import annotations

__all__ = ["Pace"]

_BUSY, _FLOOD = 15_000.0, 50_000.0
"""Frames a second between which it naps; a transaction of one row has three, and often a keepalive or two."""
_MANY = 64
"""Frames a read that tell of a backlog: libpq reads 16 kB at a time, a hundred small rows or so."""
_CALM = 0.5
"""Seconds without naps when there is a backlog."""
_NAP = 0.001
_WINDOW = 0.02
"""Seconds over which frames are counted; a pace over less would take a single transaction for load."""


class Pace:
    """Measures how fast frames come."""

    def __init__(self) -> None:
        self._frames = self._reads = 0
        self._since = self._calm_until = self._nap = 0.0

    def nap(self, frames: int, now: float) -> float:
        """Seconds to nap after a read of `frames`, of whatever number, at `now`; 0.0 for none."""
        self._frames += frames
        self._reads += 1
        elapsed = now - self._since
        if elapsed >= _WINDOW:
            if self._frames >= _MANY * self._reads:
                self._calm_until = now + _CALM
            busy = _BUSY <= self._frames / elapsed <= _FLOOD
            self._nap = _NAP if busy and now >= self._calm_until else 0.0
            self._frames, self._reads, self._since = 0, 0, now
        return self._nap
