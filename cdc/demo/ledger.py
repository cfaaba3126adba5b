"""The ledger: what each subscriber has been told, counted and kept while it happens.

Its methods are the handlers of the demo. They run on the consumer's thread and are quick: they count, keep the rows
by `event.apply`, and leave all words to the view. Touches the clock.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import cdc
from cdc.demo.setting import NORTH

__all__ = ["Change", "Ledger", "Line", "Told", "percentile"]

Change = tuple[str, int]
"""A change in short: the kind (`I`, `U`, `D`, `T`) and the transaction's id."""


@dataclass(slots=True)
class Told:
    """What one subscriber was told.

    Attributes:
        rows: the subscriber's own copy of the table, kept by `event.apply` and nothing else.
        delivered: number of changes.
        effects: number of changes by operation and effect.
        foreign: changes that show a project which this subscriber must not see.
    """

    rows: dict[Any, cdc.Row] = field(default_factory=dict)
    delivered: int = 0
    effects: Counter[tuple[str, cdc.Effect | None]] = field(default_factory=Counter)
    foreign: int = 0

    def take(self, event: cdc.Change) -> None:
        """Count a change and keep the rows in step."""
        self.delivered += 1
        self.effects[event.event_type, None if isinstance(event, cdc.Truncate) else event.effect] += 1
        event.apply(self.rows)

    def total(self, effect: cdc.Effect) -> int:
        """Number of changes with this effect, by whatever operation."""
        return sum(count for (_, each), count in self.effects.items() if each is effect)

    def updates(self, effect: cdc.Effect) -> int:
        """Number of UPDATEs with this effect."""
        return self.effects["UPDATE", effect]


@dataclass(slots=True)
class Line:
    """One change as all subscribers saw it.

    Attributes:
        event: as the trusted subscriber sees it.
        seconds: from commit to handler.
        effects: what it meant to each of the other subscribers who were told, by name.
    """

    event: cdc.Change
    seconds: float
    effects: dict[str, cdc.Effect | None] = field(default_factory=dict)


class Ledger:
    """The handlers of the three subscribers, and what they note.

    Attributes:
        told: by the subscriber's name: `trusted`, `user`, `anon`.
        delivered: every change in the order in which the trusted subscriber had it.
        latencies: seconds from commit to handler, one for each of them.
        lines: the newest changes, for the view.
        recent: ids of wells that changed lately, for the readers.
        gaps: reasons of gaps in the stream; there should be none.
    """

    def __init__(self) -> None:
        self.told = {name: Told() for name in ("trusted", "user", "anon")}
        self.delivered: list[Change] = []
        self.latencies = array("d")
        self.lines: deque[Line] = deque(maxlen=400)
        self.recent: deque[int] = deque(maxlen=200)
        self.gaps: list[str] = []

    def trusted(self, event: cdc.Event) -> None:
        """The handler that sees everything."""
        now = time.time()
        if isinstance(event, cdc.Gap):
            self.gaps.append(event.reason)
        if not isinstance(event, cdc.Change):
            return
        self.told["trusted"].take(event)
        self.delivered.append((event.event_type[0], event.xid))
        # Commit time is the server's clock. Here that is the same machine's.
        seconds = now - event.commit_time.timestamp()
        self.latencies.append(seconds)
        self.lines.append(Line(event, seconds))
        if not isinstance(event, cdc.Truncate):
            self.recent.append(event.key)

    def user(self, event: cdc.Event) -> None:
        """The handler of the user who may see the wells of one project."""
        self._subject("user", event, NORTH)

    def anon(self, event: cdc.Event) -> None:
        """The handler of the user for whom there is no policy."""
        self._subject("anon", event, None)

    def _subject(self, name: str, event: cdc.Event, allowed: UUID | None) -> None:
        if isinstance(event, cdc.Gap):
            self.gaps.append(event.reason)
        if not isinstance(event, cdc.Change):
            return
        told = self.told[name]
        told.take(event)
        if isinstance(event, cdc.Truncate):
            return
        shown = (row for row in (event.old, event.new) if row is not None)
        told.foreign += any(row["project_id"] != allowed for row in shown)
        if self.lines and self.lines[-1].event.position == event.position:
            self.lines[-1].effects[name] = event.effect


def percentile(samples: array[float], share: float) -> float | None:
    """The value below which `share` (0 to 1) of the samples lie; None when there are none."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None
