"""How long to wait before the next attempt to connect.

Pure: no clock, no sleep. The random number is an argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cdc.errors import ConfigurationError

__all__ = ["Backoff"]


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
