"""Places in the write-ahead log: `Lsn`, a byte position, and `Position`, the identity of one change.

Touches nothing. The manual: "pg_lsn Type" and "Write-Ahead Logging Internals".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Lsn", "Position"]

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


class Lsn(int):
    """A log sequence number: a byte position in the WAL, from 0 to 2**64 - 1.

    It is an int that prints as PostgreSQL writes it: `str(Lsn(23804744))` is `"0/16B3B48"`.
    """

    @classmethod
    def parse(cls, text: str) -> Lsn:
        """The Lsn that PostgreSQL writes as `text`, such as `"0/16B3748"`. Raises ValueError otherwise."""
        match = _LSN.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"{text!r} is not an LSN; one looks like 0/16B3748")
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn('{self}')"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


@dataclass(frozen=True, slots=True)
class Position:
    """The identity of one change: which life of the slot, which commit, which change of that commit.

    Positions are ordered within an epoch. Comparing two epochs raises ValueError: their WAL positions have
    nothing to do with each other.

    Attributes:
        epoch: the token of the slot's life; a slot that was created again has another one.
        commit_lsn: LSN of the transaction's commit record, as its Begin message announces it.
        ordinal: number of the change in its transaction, from 1.
    """

    epoch: str
    commit_lsn: Lsn
    ordinal: int

    @classmethod
    def parse(cls, text: str) -> Position:
        """The Position printed as `text`, such as `"k3v9:0/16B3748:3"`. Raises ValueError otherwise."""
        parts = text.strip().split(":")
        if len(parts) != 3 or not parts[0] or not parts[2].isascii() or not parts[2].isdigit():
            raise ValueError(f"{text!r} is not a position; one looks like k3v9:0/16B3748:3")
        return cls(parts[0], Lsn.parse(parts[1]), int(parts[2]))

    def __str__(self) -> str:
        return f"{self.epoch}:{self.commit_lsn}:{self.ordinal}"

    def __lt__(self, other: Position) -> bool:
        return self._order(other) < other._order(self)

    def __le__(self, other: Position) -> bool:
        return self._order(other) <= other._order(self)

    def __gt__(self, other: Position) -> bool:
        return self._order(other) > other._order(self)

    def __ge__(self, other: Position) -> bool:
        return self._order(other) >= other._order(self)

    def _order(self, other: Position) -> tuple[int, int]:
        if self.epoch != other.epoch:
            raise ValueError(f"positions of two epochs cannot be compared: {self} and {other}")
        return (self.commit_lsn, self.ordinal)
