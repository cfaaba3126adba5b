"""What a function depends on besides its arguments, and how it says that it has no result.

Pure: no I/O, no clock: the time of the decision is put into `Moment` by whoever judges a change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import tzinfo
from enum import Enum
from typing import Final

__all__ = ["UNSENT", "Collation", "Context", "Failed", "Moment", "Undecided"]


class _Unsent(Enum):
    """The datum of a cell that the server did not send: it may be anything, NULL and an error among it."""

    UNSENT = "unsent"


UNSENT: Final = _Unsent.UNSENT


class Failed(Exception):
    """PostgreSQL would raise an error here, as for a division by zero. The message never quotes a value."""


class Undecided(Exception):
    """Python cannot tell what PostgreSQL would say. The message is the reason, and never quotes a value."""


class Collation(Enum):
    """What Python can do with texts under a collation."""

    CODE_POINT = "by code point"
    """C and its like: equality, order and case as Python has them for ASCII."""
    LINGUISTIC = "linguistic"
    """Deterministic: texts are equal when their bytes are; their order is the server's secret."""
    PLAIN_CASE = "linguistic, in a language in which i and I are each other's case"
    """Of a column: its texts are compared as `LINGUISTIC`, with `Context.plain_case`."""
    NONDETERMINISTIC = "nondeterministic"
    """Different bytes may be equal: nothing can be decided."""


class Moment:
    """When a change is judged, and what went wrong last. Mutable; one for all that are judged together.

    Attributes:
        microseconds: time of the change's commit, in microseconds since 2000-01-01 UTC: what `now()` gives.
        problem: why an outcome was `ERROR` last, in words.
    """

    __slots__ = ("microseconds", "problem")

    def __init__(self) -> None:
        self.microseconds = 0
        self.problem: str | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What a function depends on besides its arguments.

    Attributes:
        collation: that of the call, as its node's `inputcollid` says.
        zone: the session's TimeZone; None when it is not known, so that what needs it is `Undecided`.
        moment: when it is judged.
        utf8: whether the database's encoding is UTF8.
        plain_case: whether I and i are each other's case under a linguistic collation: in every language but Turkish
            and Azeri. Not known is False.
    """

    collation: Collation = Collation.LINGUISTIC
    zone: tzinfo | None = None
    moment: Moment = field(default_factory=Moment)
    utf8: bool = True
    plain_case: bool = False
