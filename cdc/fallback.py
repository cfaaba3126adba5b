"""The fallback: what a consumer does for stores and caches while there is no stream. Touches nothing."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.errors import CdcError, ConfigurationError, FailureKind, SubscriptionError
from cdc.settings import check_polling

__all__ = ["Fallback"]

_WITHOUT_A_STREAM = {
    FailureKind.RIGHT,
    FailureKind.SLOT,
    FailureKind.GAP,
    FailureKind.FULL,
    FailureKind.AUTHENTICATION,
}
"""What may keep a stream away from a role that may read tables all the same."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """What was asked for.

    Attributes:
        polls: whether the consumer polls where it would end otherwise, and begins without a stream.
        interval: seconds from one poll to the next.
        rows: rows that a table may have at most to be polled.
    """

    polls: bool = False
    interval: float = 5.0
    rows: int = 100_000

    @classmethod
    def of(cls, fallback: object, interval: float, rows: object, on_gap: str | None) -> Fallback:
        """From a consumer's settings. Raises ConfigurationError for one that cannot be."""
        check_polling(interval)
        if fallback not in (None, "poll"):
            raise ConfigurationError(f"fallback is 'poll' or None, not {fallback!r}")
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
            raise ConfigurationError(f"polling_rows is a number of rows from 1, not {rows!r}")
        if fallback is not None and on_gap == "stop":
            raise ConfigurationError(
                "fallback='poll' goes on where changes may be missing, and on_gap='stop' ends there: take "
                "on_gap='deliver' or 'resync', or leave out one of the two"
            )
        return cls(fallback is not None, interval, rows)

    def on_gap(self, asked: str | None, is_temporary: bool) -> str:
        """What is done at a gap, where that was asked for or not."""
        return asked or ("deliver" if is_temporary or self.polls else "stop")

    def covers(self, error: CdcError, wal_level: str) -> bool:
        """Whether the consumer goes on by polling although this error keeps the stream away.

        A mistake of the user's that a stream has nothing to do with ends it as ever.
        """
        if not self.polls or isinstance(error, SubscriptionError):
            return False
        if error.failure is FailureKind.CONFIGURATION:
            return wal_level != "logical"
        return error.failure in _WITHOUT_A_STREAM
