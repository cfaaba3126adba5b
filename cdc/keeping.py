"""Keeping: saves the files of stores, before each position that is saved and about once a second.

Part of the loop. What is in a file is at least what the slot's position has; see `keeper`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cdc.housekeeping import Housekeeping
from cdc.keeper import Keeper
from cdc.progress import Progress
from cdc.session import Session
from cdc.snapshot import Texts
from cdc.storing.feed import Feed
from cdc.waiting import Call, Steps

__all__ = ["Keeping"]


class Keeping:
    """Knows the files.

    Args:
        house: calls before each position that is saved.
        progress: what was handed out.
        is_stopping: whether the loop is to end.
    """

    def __init__(self, house: Housekeeping, progress: Progress, is_stopping: Callable[[], bool]) -> None:
        self.keepers: dict[Feed, Keeper] = {}
        self._progress = progress
        self._is_stopping = is_stopping
        house.before_save.append(self.save)

    def begin(self, feed: Feed, session: Session) -> Texts | None:
        """A store begins: with its file, or by reading its table. See `Keeper.begin`."""
        keeper = self.keepers.get(feed)
        if keeper is None:
            feed.store.want("it begins")
            return None
        return keeper.begin(session, self._progress.handed_out(session.saved.epoch))

    def moved(self, feed: Feed, after: Texts | None, ground: str | None) -> None:
        """Rows of the table were read up to a key; with the first of them, what they rest on."""
        keeper = self.keepers.get(feed)
        if keeper is not None:
            keeper.after = after
            keeper.ground = ground or keeper.ground

    @property
    def is_busy(self) -> bool:
        """Whether there is something to save."""
        if not self.keepers:
            return False
        now = time.monotonic()
        return any(keeper.is_due(now) for keeper in list(self.keepers.values()))

    def steps(self, session: Session) -> Steps:
        """Save what is due."""
        now = time.monotonic()
        for keeper in list(self.keepers.values()):
            if keeper.is_due(now):
                with session.busy():
                    yield Call(keeper.save, (session, self._progress.handed_out(session.saved.epoch)))

    def save(self, session: Session) -> None:
        """Save every file: all of it at the end."""
        handed = self._progress.handed_out(session.saved.epoch)
        for keeper in list(self.keepers.values()):
            keeper.save(session, handed, self._is_stopping())

    def notes(self) -> list[str]:
        """Which files are not up to date, in words."""
        found = ((feed, keeper.problem) for feed, keeper in list(self.keepers.items()))
        return [f"{feed.name}: {problem}" for feed, problem in found if problem is not None]

    def close(self, feed: object = None) -> None:
        """Give back every file, or the one of a store."""
        for each in list(self.keepers) if feed is None else [feed]:
            keeper = self.keepers.pop(each, None)  # type: ignore[call-overload]
            if keeper is not None:
                keeper.close()
