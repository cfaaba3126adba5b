"""Losing the connection: how long to wait before the next attempt, and what is remembered of the failures.

Pure: no clock, no sleep. The random number and the time are arguments.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cdc.errors import ConfigurationError, FailureKind, kind_of

__all__ = ["MANY", "Backoff", "Failure", "History"]

MANY = 5
"""Failed attempts after which the connection is not taken to come back by itself soon."""
_KEPT = 20
"""Failures that are remembered."""
_HOUR = timedelta(hours=1)
_RESTLESS = 5
"""Lost connections within an hour that are still taken for chance."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter.

    Attributes:
        first: seconds before the first new attempt.
        longest: seconds that the wait grows to, doubling each time.
        jitter: part of the wait, from 0 to 1, that is taken off at random, so that clients spread out.

    Raises ConfigurationError for a value out of these bounds.
    """

    first: float = 2.0
    longest: float = 32.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        for name, most in (("first", math.inf), ("longest", math.inf), ("jitter", 1.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                bounds = "a part from 0 to 1" if name == "jitter" else "a number of seconds"
                raise ConfigurationError(f"backoff: {name} is {bounds}, not {value!r}")

    def wait(self, attempt: int, chance: float) -> float:
        """Seconds before attempt number `attempt`, from 1; `chance` is a random number from 0 to 1."""
        whole: float = min(self.longest, self.first * 2.0 ** min(attempt - 1, 30))
        return whole * (1 - self.jitter * chance)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the connection was lost, an attempt to have it again failed, or the consumer ended.

    Attributes:
        kind: what failed.
        reason: the same in words.
        at: when, in UTC.
        attempt: number of the attempt since the connection was lost; 0 when it was lost, or the consumer ended.
    """

    kind: FailureKind
    reason: str
    at: datetime
    attempt: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return {
            "kind": self.kind.value,
            "reason": self.reason,
            "at": self.at.isoformat(timespec="milliseconds"),
            "attempt": self.attempt,
        }


class History:
    """The failures of a connection, newest last, and how often it was lost of late.

    Attributes:
        last: the failure since the stream was live; None when there is none.
        attempts: failed attempts to connect since it was lost.
        losses: how often it was lost.
    """

    def __init__(self) -> None:
        self.last: Failure | None = None
        self.attempts = 0
        self.losses = 0
        self._kept: deque[Failure] = deque(maxlen=_KEPT)
        self._lost_at: deque[datetime] = deque(maxlen=1000)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The last failures, oldest first; being live again does not wipe them out."""
        return tuple(self._kept)

    def lost(self, error: BaseException, at: datetime) -> Failure:
        """The connection was lost."""
        self.losses += 1
        self._lost_at.append(at)
        return self.failed(error, at)

    def failed(self, error: BaseException, at: datetime, attempt: int = 0) -> Failure:
        """An attempt to connect failed, or the consumer ended."""
        self.last = Failure(kind_of(error), str(error) or type(error).__name__, at, attempt)
        self._kept.append(self.last)
        return self.last

    def live(self) -> None:
        """The stream is live again."""
        self.last, self.attempts = None, 0

    def losses_within_an_hour(self, now: datetime) -> int:
        """How often the connection was lost in the last hour; counts to 1000."""
        return sum(1 for at in tuple(self._lost_at) if now - at <= _HOUR)

    def restless(self, now: datetime) -> str | None:
        """In words, that the connection does not last; None when it does."""
        number = self.losses_within_an_hour(now)
        return f"the connection was lost {number} times within an hour" if number > _RESTLESS else None
