"""Facts: what the catalog said a moment ago, shared by those who subscribe at about the same time.

Reads a clock, asks nothing by itself. Without it each of a hundred thousand subscriptions would ask the server a dozen
questions. It is safe since nobody relies on it for long: rights, and what the publications send, are read again at
their interval for everybody, and whoever would be refused by what is shared here is asked about anew. A table that
was altered or made again meanwhile, or has other policies, is noticed by its state, which is asked for each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

__all__ = ["Facts"]

_LEAST, _MOST, _TIMES = 0.1, 1.0, 10
"""An answer is shared for ten times as long as it took, within these seconds."""

_T = TypeVar("_T")


class Facts:
    """Answers of the catalog, by question.

    Attributes:
        shared: how often an answer was given to one more than had asked for it.
    """

    def __init__(self) -> None:
        self.shared = 0
        self._states: dict[Hashable, Hashable] = {}
        self._known: dict[Hashable, tuple[float, Any]] = {}
        """Until when an answer is shared, and the answer."""

    def get(self, question: Hashable, ask: Callable[[], _T]) -> _T:
        """The answer, asked for now unless it was a moment ago. An error is nobody else's."""
        now = time.monotonic()
        known = self._known.get(question)
        if known is not None and now < known[0]:
            self.shared += 1
            answer: _T = known[1]
            return answer
        answer = ask()
        asked_for = time.monotonic() - now
        self._known[question] = (now + min(_MOST, max(_LEAST, _TIMES * asked_for)), answer)
        return answer

    def look(self, table: Hashable, state: Hashable) -> None:
        """The state of a table now: when it is another one than before, everything is asked for anew."""
        if self._states.get(table, state) != state:
            self.forget()
        self._states[table] = state

    def forget(self) -> None:
        """Ask for everything anew."""
        self._known = {}
