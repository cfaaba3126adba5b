"""Defects on purpose: caches that are stale, to prove that a run finds them out.

Each replaces something in the classes of the cache while it lasts; it has to begin before caches are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cdc.async_loader import AsyncLoader
from cdc.caching.cache import Cache
from cdc.caching.entries import Fills
from cdc.caching.fence import Fence, Snapshot
from cdc.caching.inflow import Inflow
from cdc.events import RowChange
from cdc.loader import Loader, snapshot_of
from cdc.loading import NOW
from cdc.lsn import Lsn

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
    patch.setattr(Fills, "overtake", lambda fills, slot: None)
    patch.setattr(Fills, "overtake_all", lambda fills: None)


def _late_snapshot(patch: pytest.MonkeyPatch) -> None:
    """The snapshot that is asked is not one from before the value, but a later one."""

    def fenced(loader: Loader, load: Any, key: Any) -> Any:
        return loader.bare(lambda connection, key: (load(connection, key), snapshot_of(connection)), key)

    async def awaited(loader: AsyncLoader, load: Any, key: Any, subject: Any = None) -> Any:
        async def both(connection: Any, key: Any) -> Any:
            value = await load(connection, key)
            return value, Snapshot.parse((await (await connection.execute(NOW)).fetchone())[0])

        return await loader.bare(both, key)

    patch.setattr(Loader, "fenced", fenced)
    patch.setattr(AsyncLoader, "fenced", awaited)


class _FlushedUpTo:
    """In the place of a snapshot: whatever the server has flushed counts as seen."""

    def __init__(self, flushed: Lsn, commits: dict[int, Lsn]) -> None:
        self._flushed, self._commits = flushed, commits

    def sees(self, xid: int) -> bool:
        return xid not in self._commits or self._commits[xid] <= self._flushed


def _lsn(patch: pytest.MonkeyPatch) -> None:
    """WAL positions are compared, not transactions."""
    commits: dict[int, Lsn] = {}
    receive, seen = Inflow.receive, Fence.seen
    flushed = "SELECT pg_current_wal_flush_lsn()::text"

    def recorded(inflow: Inflow, event: Any) -> None:
        if isinstance(event, RowChange):
            commits[event.xid] = event.position.commit_lsn
        receive(inflow, event)

    def fenced(loader: Loader, load: Any, key: Any) -> Any:
        def both(connection: Any, key: Any) -> Any:
            row = connection.execute(flushed).fetchone()
            return load(connection, key), _FlushedUpTo(Lsn.parse(row[0]), commits)

        return loader.bare(both, key)

    async def awaited(loader: AsyncLoader, load: Any, key: Any, subject: Any = None) -> Any:
        async def both(connection: Any, key: Any) -> Any:
            row = await (await connection.execute(flushed)).fetchone()
            return await load(connection, key), _FlushedUpTo(Lsn.parse(row[0]), commits)

        return await loader.bare(both, key)

    patch.setattr(Inflow, "receive", recorded)
    patch.setattr(Loader, "fenced", fenced)
    patch.setattr(AsyncLoader, "fenced", awaited)
    patch.setattr(Fence, "seen", lambda fence, snapshot: isinstance(snapshot, Snapshot) and seen(fence, snapshot))


def _any_put(patch: pytest.MonkeyPatch) -> None:
    """What somebody else has read is kept, whatever its snapshot shows."""
    patch.setattr(Fence, "admits", lambda fence, key, snapshot: True)


def _put_by_pending(patch: pytest.MonkeyPatch) -> None:
    """What somebody else has read is held against the changes that are not visible yet, not against earlier ones."""

    def admits(fence: Fence, key: Any, snapshot: Snapshot) -> bool:
        return all(snapshot.sees(xid) for xid in fence.pending(key))

    patch.setattr(Fence, "admits", admits)


def _any_age(patch: pytest.MonkeyPatch) -> None:
    """While the stream is not live, entries of any age are served."""
    look = Cache._look

    def any_age(cache: Cache, slot: Any, *floor: Any) -> Any:
        live, cache._live = cache._live, True
        try:
            return look(cache, slot, *floor)
        finally:
            cache._live = live

    patch.setattr(Cache, "_look", any_age)


_PATCHES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "no-fence": _no_fence,
    "lsn": _lsn,
    "newest-only": _newest_only,
    "running-seen": _running_seen,
    "any-snapshot": _any_snapshot,
    "overtaken": _overtaken,
    "late-snapshot": _late_snapshot,
    "any-put": _any_put,
    "put-by-pending": _put_by_pending,
    "any-age": _any_age,
}
DEFECTS = tuple(_PATCHES)
CORE = ("no-fence", "newest-only", "running-seen", "any-snapshot", "overtaken", "any-put", "put-by-pending", "any-age")
"""Those that lie in the pure core."""


@contextmanager
def spoiled(defect: str | None) -> Iterator[None]:
    """While it lasts, caches have the defect, if any."""
    with pytest.MonkeyPatch.context() as patch:
        if defect is not None:
            _PATCHES[defect](patch)
        yield
