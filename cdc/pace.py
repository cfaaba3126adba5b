"""When to let frames gather before the next read.

Pure: no clock; `now` is an argument. The server sends each change by itself. A reader that is faster than the server
would wake up for every one of them, and each wake-up costs more than the change. So under load the loop naps for a
moment that nobody notices; at an ordinary pace it never does.
"""

from __future__ import annotations

__all__ = ["Pace"]

_BUSY = 20_000.0
"""Frames a second from which on it naps; a transaction of one row has three."""
_NAP = 0.0001
_SMOOTHING = 0.2


class Pace:
    """Measures how fast frames come."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._at = 0.0

    def nap(self, frames: int, now: float) -> float:
        """Seconds to nap after `frames` have come since the last call; 0.0 for none."""
        elapsed, self._at = now - self._at, now
        rate = frames / elapsed if elapsed > 0 else _BUSY
        self._rate += (rate - self._rate) * _SMOOTHING
        return _NAP if self._rate > _BUSY else 0.0
