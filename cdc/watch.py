"""The watch: which handlers are at work on one event for long, or fail on it again and again.

No I/O; the time is an argument. The ticker looks from time to time, so that calling a handler needs no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cdc.attempts import described, name_of
from cdc.subscription import Subscription

__all__ = ["Watch"]

_LONG = 5.0
"""Seconds with one event after which health tells of it."""


class Watch:
    """Looks after the handlers of these subscriptions. May be called from any thread."""

    def __init__(self, subscriptions: Callable[[], list[Subscription]]) -> None:
        self._subscriptions = subscriptions
        self._since: dict[Subscription, tuple[Any, float]] = {}

    def look(self, now: float) -> None:
        """Note who is at work, and since when."""
        known, since = self._since, {}
        for each in self._subscriptions():
            event = each._at_work
            if event is not None:
                before = known.get(each)
                since[each] = before if before is not None and before[0] is event else (event, now)
        self._since = since

    def reasons(self, now: float) -> tuple[str, ...]:
        """What is to be said of it, in words."""
        told = []
        for each, (event, since) in self._since.items():
            if each._at_work is not event or each._trouble is not None:
                continue
            if now - since >= _LONG:
                told.append(f"handler {name_of(each)} has been at work on {described(event)} for {now - since:.0f} s")
        troubles = [each._trouble for each in self._subscriptions() if each._trouble is not None]
        return (*troubles, *told)
