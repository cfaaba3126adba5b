"""The fence of a cache: which loaded values may be used, and which are older than a change that was received.

Pure: no I/O, no clock, no lock; the cache that owns it holds one. The stream delivers a commit before new
snapshots can see it, so a load that follows a change may still read the value from before. A change therefore
leaves a tombstone: the key and the transaction's id. A load of a key with tombstones is used only when its
snapshot sees every one of these transactions; LSNs cannot decide that, because visibility does not follow
commit order. A tombstone goes once any snapshot of that server has seen its transaction: all later ones do.
The manual: "pg_current_snapshot", "Transaction IDs".
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

__all__ = ["Fence", "Snapshot"]

_EPOCH = 1 << 32


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A pg_snapshot: what one snapshot sees.

    Attributes:
        xmin: every 64-bit transaction id below it is finished.
        xmax: no id from it upwards is seen.
        running: ids in between that were still running.
    """

    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """The snapshot that PostgreSQL prints as `text`, such as `"10:20:10,14"`."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(xid) for xid in running.split(",") if xid))

    def sees(self, xid: int) -> bool:
        """Whether a committed transaction of this 32-bit id is visible; the id is taken next to xmax."""
        full = self.xmax - self.xmax % _EPOCH + xid
        if full > self.xmax + _EPOCH // 2:
            full -= _EPOCH
        elif full < self.xmax - _EPOCH // 2:
            full += _EPOCH
        return full < self.xmin or (full < self.xmax and full not in self.running)


class Fence:
    """Tombstones of changes that were received and have not been seen visible yet."""

    def __init__(self) -> None:
        self._everyone: set[int] = set()
        self._keys: dict[Hashable, set[int]] = {}

    def change(self, key: Hashable, xid: int) -> None:
        """A change of one key was received."""
        self._keys.setdefault(key, set()).add(xid)

    def change_all(self, xid: int) -> None:
        """A change that concerns every key was received."""
        self._everyone.add(xid)

    def pending(self, key: Hashable) -> frozenset[int]:
        """The transactions that a load of this key has to see."""
        return frozenset(self._everyone.union(self._keys.get(key, ())))

    def __bool__(self) -> bool:
        return bool(self._everyone or self._keys)

    def seen(self, snapshot: Snapshot) -> None:
        """Drop the tombstones of all transactions that this snapshot sees."""
        self._everyone = {xid for xid in self._everyone if not snapshot.sees(xid)}
        sees = {xid: snapshot.sees(xid) for xids in self._keys.values() for xid in xids}
        left = ((key, {xid for xid in xids if not sees[xid]}) for key, xids in self._keys.items())
        self._keys = {key: xids for key, xids in left if xids}

    def clear(self) -> None:
        """Forget everything, as when another server answers."""
        self._everyone.clear()
        self._keys.clear()
