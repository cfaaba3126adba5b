"""Landmarks: places in the stream of which it is known what the user's handlers had been told up to there.

Pure: no I/O, no clock. Who keeps positions with his own data knows those of the events that he got, and no others. So
what may be confirmed with such a position has to end where one was told. With lanes, handlers finish at different
times: a landmark is set now and then, and counts once everything that was handed out before it is finished.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from cdc.collector import Mark
from cdc.lsn import Lsn, Position
from cdc.progress import Progress

__all__ = ["Landmarks"]

_MOST = 10_000
_EVERY = 0.5
"""Seconds between two of them."""


class _Landmark(NamedTuple):
    mark: Mark
    told: Position | None


class Landmarks:
    """The landmarks of one consumer. `progress` knows what is unfinished."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        # Of too many the oldest go: then less is confirmed for a while.
        self._set: deque[_Landmark] = deque(maxlen=_MOST)
        self._set_at = 0.0

    def finished(self, told: Position | None, now: float) -> tuple[Position | None, Lsn]:
        """The last position told up to which everything is finished, and the LSN to confirm with it.

        Call it between two changes. The position is None when it is not known; then nothing more may be confirmed.

        Args:
            told: the last position that any of the user's handlers was told of by now.
            now: the time, in seconds of a steady clock.
        """
        progress, standby = self._progress, self._progress.standby
        assert standby is not None
        oldest = progress.oldest
        if oldest is None:
            self._set.clear()
            return told, standby.safe_lsn
        if now - self._set_at >= _EVERY:
            self._set_at = now
            self._set.append(_Landmark(progress.mark(), told))
        while len(self._set) > 1 and self._set[1].mark.number < oldest.number:
            self._set.popleft()
        if not self._set or self._set[0].mark.number > oldest.number:
            return None, standby.confirmed_lsn
        passed = self._set[0]
        return passed.told, max(min(passed.mark.safe_lsn, standby.safe_lsn), standby.confirmed_lsn)
