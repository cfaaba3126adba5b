"""The WAL budget: what a slot keeps of the server's WAL, how fast that grows, and when it will be too much.

Pure: no I/O, no clock; the time of a look is an argument. The manual: "pg_replication_slots", "max_slot_wal_keep_size".
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

__all__ = ["Usage", "WalBudget", "WalWatch", "bytes_in_words", "seconds_in_words"]

_LOOKS = 7
_UNLIMITED = 10 << 30
"""Bytes that a slot may keep before they are worth a word, on a server that sets no limit."""
_SOON, _VERY_SOON = 3600.0, 600.0
_LITTLE, _VERY_LITTLE = 0.25, 0.10


@dataclass(frozen=True, slots=True)
class Usage:
    """One look at a slot.

    Attributes:
        retained_bytes: WAL that the server keeps for it; None when it is lost.
        safe_bytes: WAL that can still be written before it may be lost; None when there is no limit, or it is lost.
        wal_status: `"reserved"`, `"extended"`, `"unreserved"` or `"lost"`.
    """

    retained_bytes: int | None
    safe_bytes: int | None
    wal_status: str | None


@dataclass(frozen=True, slots=True)
class WalBudget:
    """What a slot keeps of the WAL, and where that leads.

    Attributes:
        retained_bytes, safe_bytes, wal_status: see `Usage`.
        rate: bytes a second by which what is kept grows (below 0: shrinks); None before there were two looks.
        lost_in: seconds until `max_slot_wal_keep_size` is reached at this rate; None when it is not in sight.
    """

    retained_bytes: int | None
    safe_bytes: int | None
    wal_status: str | None
    rate: float | None = None
    lost_in: float | None = None

    @property
    def is_critical(self) -> bool:
        """Whether the slot is lost, or may be lost soon."""
        if self.wal_status in ("unreserved", "lost"):
            return True
        return self._left < _VERY_LITTLE or (self.lost_in is not None and self.lost_in < _VERY_SOON)

    @property
    def warning(self) -> str | None:
        """What is worrying, in words; None when nothing is."""
        if self.wal_status == "lost":
            return "the slot is lost: the server has removed WAL that it still needed"
        kept = bytes_in_words(self.retained_bytes)
        if self.wal_status == "unreserved":
            return f"the slot keeps {kept} of WAL, more than max_slot_wal_keep_size: it is lost at the next checkpoint"
        if self.lost_in is not None and self.lost_in < _SOON:
            return (
                f"the slot keeps {kept} of WAL, and reaches max_slot_wal_keep_size in {seconds_in_words(self.lost_in)}"
            )
        if self._left < _LITTLE:
            return f"the slot keeps {kept} of WAL; {bytes_in_words(self.safe_bytes)} more, and it may be lost"
        if self.safe_bytes is None and (self.retained_bytes or 0) >= _UNLIMITED:
            return f"the slot keeps {kept} of WAL, and max_slot_wal_keep_size sets no limit: the disk may fill up"
        return None

    @property
    def _left(self) -> float:
        """The part of the budget that is left, from 0 to 1; 1 without a limit."""
        if self.safe_bytes is None:
            return 1.0
        whole = self.safe_bytes + (self.retained_bytes or 0)
        return max(0.0, self.safe_bytes / whole) if whole > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return {
            "retained_bytes": self.retained_bytes,
            "safe_bytes": self.safe_bytes,
            "wal_status": self.wal_status,
            "bytes_per_second": None if self.rate is None else round(self.rate),
            "lost_in_seconds": None if self.lost_in is None else round(self.lost_in),
        }


class WalWatch:
    """Remembers the last looks at one slot. The rate is that between the oldest of them and the newest.

    Attributes:
        budget: what the last look showed; None before the first.
    """

    def __init__(self) -> None:
        self.budget: WalBudget | None = None
        self._looks: deque[tuple[float, int]] = deque(maxlen=_LOOKS)

    def look(self, usage: Usage, now: float) -> WalBudget:
        """Take in what was seen at `now`, in seconds of any steady clock."""
        rate = lost_in = None
        if usage.retained_bytes is None:
            self._looks.clear()
        else:
            self._looks.append((now, usage.retained_bytes))
            then, before = self._looks[0]
            if now > then:
                rate = (usage.retained_bytes - before) / (now - then)
        if rate is not None and rate > 0 and usage.safe_bytes is not None:
            lost_in = max(0, usage.safe_bytes) / rate
        self.budget = WalBudget(usage.retained_bytes, usage.safe_bytes, usage.wal_status, rate, lost_in)
        return self.budget


def bytes_in_words(size: float | None) -> str:
    """A number of bytes as a person reads it: `"1.5 GB"`, in powers of 1024 as PostgreSQL counts; `"-"` for None."""
    if size is None:
        return "-"
    if abs(size) < 1024:
        return f"{size:.0f} bytes"
    units = ("kB", "MB", "GB", "TB")
    power = 1
    while abs(size) >= 1024 ** (power + 1) and power < len(units):
        power += 1
    return f"{size / 1024**power:.1f} {units[power - 1]}"


def seconds_in_words(seconds: float | None) -> str:
    """A time to come as a person reads it: `"50 s"`, `"12 min"`, `"3 h"`, `"4 days"`; `"-"` for None."""
    if seconds is None:
        return "-"
    for most, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"
