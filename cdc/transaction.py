"""The transaction of a change, and what places a change in the stream.

Touches nothing. The manual: "Logical Replication Message Formats", Begin.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeAlias

from cdc.lsn import Lsn, Position

__all__ = ["Place", "Placed", "Transaction", "commit_time", "microseconds_of"]

_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def commit_time(microseconds: int) -> datetime:
    """The time that pgoutput sends as microseconds since 2000-01-01, as an aware datetime in UTC."""
    return _POSTGRES_EPOCH + timedelta(microseconds=microseconds)


def microseconds_of(seconds: float) -> int:
    """The microseconds since 2000-01-01 of a time that is given in seconds since 1970-01-01, as time.time() does."""
    return int((seconds - _POSTGRES_EPOCH.timestamp()) * 1_000_000)


class Transaction(NamedTuple):
    """The transaction of a change, as its Begin message announces it.

    Attributes:
        epoch: token of the slot's life.
        xid: the transaction's 32-bit id.
        commit_lsn: LSN of its commit record.
        commit_microseconds: commit time in microseconds since 2000-01-01 UTC.
    """

    epoch: str
    xid: int
    commit_lsn: Lsn
    commit_microseconds: int

    def position(self, ordinal: int) -> Position:
        """The position of a change of this transaction."""
        return Position(self.epoch, self.commit_lsn, ordinal)


Place: TypeAlias = tuple[Transaction, int]
"""Where a change stands: its transaction, and its ordinal in it, from 1."""


class Placed:
    """What all events of a transaction share: where they stand and what came before them."""

    __slots__ = ("_place", "_previous")

    _place: Place
    _previous: Place | None

    @property
    def position(self) -> Position:
        """The identity of this change."""
        transaction, ordinal = self._place
        return transaction.position(ordinal)

    @property
    def previous(self) -> Position | None:
        """The position delivered to this subscription before; None at its start."""
        if self._previous is None:
            return None
        transaction, ordinal = self._previous
        return transaction.position(ordinal)

    @property
    def xid(self) -> int:
        """The 32-bit id of the transaction that made the change."""
        return self._place[0].xid

    @property
    def commit_time(self) -> datetime:
        """When the transaction committed, by the server's clock; aware, in UTC."""
        return commit_time(self._place[0].commit_microseconds)
