"""When to let frames gather before the next read.

Pure: no clock; `now` is an argument. The server sends each change by itself, and each wake-up for one costs more than
the change. At some thousand transactions a second, a moment's sleep after each read saves a third of the
processor's time. Below that nobody would gain by it, and it would be felt. Far above it, a reader that has work is not
woken for each change, and sleep would only make it late.
"""

from __future__ import annotations

__all__ = ["Pace"]

_BUSY, _FLOOD = 15_000.0, 50_000.0
"""Frames a second between which it naps; a transaction of one row has three, and often a keepalive or two."""
_NAP = 0.001
_WINDOW = 0.02
"""Seconds over which frames are counted; a pace over less would take a single transaction for load."""


class Pace:
    """Measures how fast frames come."""

    def __init__(self) -> None:
        self._frames = 0
        self._since = 0.0
        self._nap = 0.0

    def nap(self, frames: int, now: float) -> float:
        """Seconds to nap after `frames` have come since the last call; 0.0 for none."""
        self._frames += frames
        elapsed = now - self._since
        if elapsed >= _WINDOW:
            self._nap = _NAP if _BUSY <= self._frames / elapsed <= _FLOOD else 0.0
            self._frames, self._since = 0, now
        return self._nap
