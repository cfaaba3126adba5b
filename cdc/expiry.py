"""Expiry: whose subject is valid until when.

Pure but for a mutex: subscriptions are watched from any thread, the loop asks which of them are over. The time is given
by whoever asks, in seconds since 1970, as a token's `exp` counts them.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from datetime import UTC, datetime

from cdc.errors import SubscriptionError
from cdc.rls import Subject
from cdc.subscription import Subscription

__all__ = ["Expiry", "check_fresh", "ended_at"]

_SLACK = 64


class Expiry:
    """Knows the next subject that expires.

    Attributes:
        next: when that is at the earliest; infinite when none does.
    """

    def __init__(self) -> None:
        self.next = math.inf
        self._mutex = threading.Lock()
        self._watched: set[Subscription] = set()
        self._heap: list[tuple[float, int, Subscription]] = []
        self._numbers = itertools.count()

    def watch(self, subscription: Subscription) -> None:
        """Look at its subject from now on; also when that was renewed. Nothing happens when it never expires."""
        if subscription.expires is None:
            return
        with self._mutex:
            self._watched.add(subscription)
            self._push(subscription, subscription.expires)

    def forget(self, subscription: Subscription) -> None:
        """It was closed."""
        with self._mutex:
            self._watched.discard(subscription)
            if len(self._heap) > 2 * len(self._watched) + _SLACK:
                self._heap = [entry for entry in self._heap if entry[2] in self._watched]
                heapq.heapify(self._heap)
                self._look()

    def over(self, now: float) -> list[Subscription]:
        """Those whose subject is not valid any more at `now`; they are not named again."""
        found = []
        with self._mutex:
            while self._heap and self._heap[0][0] <= now:
                subscription = heapq.heappop(self._heap)[2]
                if subscription not in self._watched:
                    continue
                expires = subscription.expires
                if expires is not None and expires > now:
                    self._push(subscription, expires)
                    continue
                self._watched.discard(subscription)
                if expires is not None:
                    found.append(subscription)
            self._look()
        return found

    def _push(self, subscription: Subscription, expires: float) -> None:
        heapq.heappush(self._heap, (expires, next(self._numbers), subscription))
        self._look()

    def _look(self) -> None:
        self.next = self._heap[0][0] if self._heap else math.inf


def check_fresh(subject: Subject | None, now: float) -> None:
    """Raise SubscriptionError for a subject that has expired."""
    if subject is not None and subject.expires is not None and subject.expires <= now:
        raise SubscriptionError(f"the subject expired at {_time(subject.expires)}: take a renewed token")


def ended_at(expires: float) -> str:
    """When a subject expired, in words."""
    return f"the subject expired at {_time(expires)}"


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g} s"
