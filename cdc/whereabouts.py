"""Whereabouts: which server the stream comes from at the moment, and how far it is, for whoever loads beside it.

May be asked from any thread; waits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from cdc.health import Status
from cdc.loop import Loop
from cdc.lsn import Lsn
from cdc.target import Target

__all__ = ["Whereabouts"]


class Whereabouts:
    """A `Place` for the loads of caches."""

    def __init__(self, loop: Loop, target: Target, wake: Callable[[], None]) -> None:
        self._loop = loop
        self._target = target
        self._wake = wake

    def server(self) -> tuple[str, object]:
        """See `Place.server`."""
        session = self._loop.link.session
        return (self._target.dsn if session is None else session.dsn), session

    def received(self) -> Lsn:
        """Up to where changes have been received, and caches have moved.

        Behind a gap the stream begins where it begins, and that is nowhere before everybody was told.
        """
        link = self._loop.link
        session, status = link.session, link.status
        if session is None or session.stream is None or session.untold is not None:
            return Lsn(0)
        if session.slot.gap is not None and status is not Status.LIVE:
            return Lsn(0)
        return session.stream.standby.finished_lsn

    def hurry(self, lsn: Lsn) -> Callable[[], object]:
        """See `Source.hurry`."""
        future = self._loop.progress.wait_for(lsn)
        self._wake()
        return future.cancel
