"""Defects on purpose: caches that are stale, to prove that a run finds them out.

Each replaces something in the classes of the cache while it lasts; it has to begin before caches are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import cdc
from cdc.caching.cache import Cache
from cdc.caching.fence import Fence, Snapshot
from cdc.events import RowChange
from cdc.loader import Loader, snapshot_of

__all__ = ["CORE", "DEFECTS", "spoiled"]


def _no_fence(patch: pytest.MonkeyPatch) -> None:
    """No change leaves a tombstone."""
    patch.setattr(Fence, "pending", lambda fence, key: frozenset())


def _newest_only(patch: pytest.MonkeyPatch) -> None:
    """A key keeps the newest transaction only."""

    def change(fence: Fence, key: Any, xid: int) -> None:
        fence._keys[key] = {xid}

    patch.setattr(Fence, "change", change)


def _running_seen(patch: pytest.MonkeyPatch) -> None:
    """What was running when the snapshot was taken counts as seen."""

    def sees(snapshot: Snapshot, xid: int) -> bool:
        return xid < snapshot.xmax % (1 << 32)

    patch.setattr(Snapshot, "sees", sees)


def _any_snapshot(patch: pytest.MonkeyPatch) -> None:
    """The first snapshot that is taken clears every tombstone."""
    patch.setattr(Fence, "seen", lambda fence, snapshot: fence.clear())


def _overtaken(patch: pytest.MonkeyPatch) -> None:
    """A load that a change overtook is kept."""

    def drop(cache: Any, slot: Any) -> None:
        cache._entries.pop(slot, None)

    patch.setattr(Cache, "_drop", drop)
    patch.setattr(Cache, "_drop_all", lambda cache: cache._entries.clear())


def _late_snapshot(patch: pytest.MonkeyPatch) -> None:
    """The snapshot that is asked is not that of the value, but a later one."""

    def fenced(loader: Loader, load: Any, key: Any) -> Any:
        return loader.bare(lambda connection, key: (load(connection, key), snapshot_of(connection)), key)

    patch.setattr(Loader, "fenced", fenced)


class _FlushedUpTo:
    """In the place of a snapshot: whatever the server has flushed counts as seen."""

    def __init__(self, flushed: cdc.Lsn, commits: dict[int, cdc.Lsn]) -> None:
        self._flushed, self._commits = flushed, commits

    def sees(self, xid: int) -> bool:
        return xid not in self._commits or self._commits[xid] <= self._flushed


def _lsn(patch: pytest.MonkeyPatch) -> None:
    """WAL positions are compared, not transactions."""
    commits: dict[int, cdc.Lsn] = {}
    receive = Cache.receive

    def recorded(cache: Cache, event: Any) -> None:
        if isinstance(event, RowChange):
            commits[event.xid] = event.position.commit_lsn
        receive(cache, event)

    def fenced(loader: Loader, load: Any, key: Any) -> Any:
        def both(connection: Any, key: Any) -> Any:
            flushed = cdc.current_lsn(connection)
            return load(connection, key), _FlushedUpTo(flushed, commits)

        return loader.bare(both, key)

    patch.setattr(Cache, "receive", recorded)
    patch.setattr(Loader, "fenced", fenced)


_PATCHES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "no-fence": _no_fence,
    "lsn": _lsn,
    "newest-only": _newest_only,
    "running-seen": _running_seen,
    "any-snapshot": _any_snapshot,
    "overtaken": _overtaken,
    "late-snapshot": _late_snapshot,
}
DEFECTS = tuple(_PATCHES)
CORE = ("no-fence", "newest-only", "running-seen", "any-snapshot", "overtaken")
"""Those that lie in the pure core."""


@contextmanager
def spoiled(defect: str | None) -> Iterator[None]:
    """While it lasts, caches have the defect, if any."""
    with pytest.MonkeyPatch.context() as patch:
        if defect is not None:
            _PATCHES[defect](patch)
        yield
