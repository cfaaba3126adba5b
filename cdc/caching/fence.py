"""The fence of a cache: which loaded values may be used, and which are older than a change that was received.

Pure: no I/O, no clock, no lock; the cache that owns it holds one. The stream delivers a commit before new
snapshots can see it, so a load that follows a change may still read the value from before. A change therefore
leaves a tombstone: the key and the transaction's id. A load of a key with tombstones is used only when its
snapshot sees every one of these transactions; LSNs cannot decide that, because visibility does not follow
commit order. A tombstone goes once any snapshot of that server has seen its transaction: all later ones do.

A value that somebody else has read may be older than that snapshot. So what has gone is remembered for a while, and
when that is forgotten, too, a snapshot that saw it: the horizon. What does not show all that it shows is refused.
The manual: "pg_current_snapshot", "Transaction IDs".
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

__all__ = ["Fence", "Snapshot"]

_EPOCH = 1 << 32
_REMEMBERED = 4096
"""Changes that were seen visible and are remembered all the same, at least the newest of them."""
_LOOKS = 2


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

    @property
    def certain(self) -> Snapshot:
        """What it sees for certain.

        On a standby no running ids are listed, and a transaction that writes is not among its own. Where something was
        running and nothing is listed, only what is below xmin is sure to be finished.
        """
        return self if self.running or self.xmin == self.xmax else Snapshot(self.xmin, self.xmin, frozenset())

    def sees(self, xid: int) -> bool:
        """Whether a committed transaction of this 32-bit id is visible; the id is taken next to xmax."""
        full = self.xmax - self.xmax % _EPOCH + xid
        if full > self.xmax + _EPOCH // 2:
            full -= _EPOCH
        elif full < self.xmax - _EPOCH // 2:
            full += _EPOCH
        return full < self.xmin or (full < self.xmax and full not in self.running)

    def shows_all(self, end: int) -> bool:
        """Whether every transaction with a 64-bit id below `end` is over."""
        return self.xmax >= end and all(xid >= end for xid in self.running)

    def covers(self, older: Snapshot) -> bool:
        """Whether it sees everything that the other one sees."""
        return self.xmax >= older.xmax and all(xid >= older.xmax or xid in older.running for xid in self.running)


class _Changes:
    """Transactions, by the key that they have changed."""

    __slots__ = ("everyone", "keys", "size")

    def __init__(self) -> None:
        self.everyone: set[int] = set()
        self.keys: dict[Hashable, set[int]] = {}
        self.size = 0

    def of(self, key: Hashable) -> set[int]:
        """Those that concern a key."""
        return self.everyone.union(self.keys.get(key, ()))


class Fence:
    """Tombstones of changes that were received and have not been seen visible yet, and what is known of earlier ones.

    Attributes:
        horizon: a snapshot that sees every change that was forgotten; None when none is known that does.
    """

    def __init__(self) -> None:
        self._everyone: set[int] = set()
        self._keys: dict[Hashable, set[int]] = {}
        self.horizon: Snapshot | None = None
        self._blind = _LOOKS
        self._shown = self._shown_before = _Changes()
        self._turned: Snapshot | None = None
        """What had been seen when the older ones of those that are remembered were put aside."""

    def change(self, key: Hashable, xid: int) -> None:
        """A change of one key was received."""
        self._keys.setdefault(key, set()).add(xid)

    def change_all(self, xid: int) -> None:
        """A change that concerns every key was received."""
        self._everyone.add(xid)

    def pending(self, key: Hashable) -> frozenset[int]:
        """The transactions that a load of this key has to see."""
        return frozenset(self._everyone.union(self._keys.get(key, ())))

    def admits(self, key: Hashable, snapshot: Snapshot) -> bool:
        """Whether a value that was read in this snapshot, whenever that was, is as new as all that was received."""
        certain = snapshot.certain
        if self.horizon is None or not certain.covers(self.horizon):
            return False
        known = self.pending(key) | self._shown.of(key) | self._shown_before.of(key)
        return all(certain.sees(xid) for xid in known)

    def __bool__(self) -> bool:
        return bool(self._everyone or self._keys)

    def seen(self, snapshot: Snapshot) -> None:
        """Drop the tombstones of all transactions that this snapshot sees. It is not older than the last one."""
        shown = self._shown
        if self._everyone:
            gone = {xid for xid in self._everyone if snapshot.sees(xid)}
            self._everyone -= gone
            shown.everyone |= gone
            shown.size += len(gone)
        if self._keys:
            sees = {xid: snapshot.sees(xid) for xids in self._keys.values() for xid in xids}
            left = {}
            for key, xids in self._keys.items():
                gone = {xid for xid in xids if sees[xid]}
                if gone:
                    shown.keys.setdefault(key, set()).update(gone)
                    shown.size += len(gone)
                if len(gone) < len(xids):
                    left[key] = xids - gone
            self._keys = left
        if self._blind:
            self._blind -= 1
            if not self._blind:
                self.horizon = self._turned = snapshot
                self._shown, self._shown_before = _Changes(), _Changes()
        elif shown.size > _REMEMBERED:
            self.horizon, self._turned = self._turned, snapshot
            self._shown, self._shown_before = _Changes(), shown

    @property
    def is_blind(self) -> bool:
        """Whether another look is wanted."""
        return bool(self._blind)

    def blind(self) -> None:
        """Something is different that no transaction is known of: what was read before is not to be used.

        The look that is under way at this moment, if any, may have begun before.
        """
        self.horizon, self._blind = None, _LOOKS

    def clear(self) -> None:
        """Forget everything, as when another server answers."""
        self._everyone.clear()
        self._keys.clear()
        self.blind()
