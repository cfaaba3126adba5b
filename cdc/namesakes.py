"""Namesakes: of which subscriptions something is kept under their name, so that two cannot have the same.

Pure. Parked events and the progress of a snapshot are kept by name, across runs.
"""

from __future__ import annotations

from cdc.subscription import Subscription

__all__ = ["Namesakes"]


class Namesakes:
    """The open subscriptions of which something is kept, by what it is and by their name."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Subscription] = {}

    def of(self, subscription: Subscription) -> list[Subscription]:
        """Those with this name."""
        found = (self._kept.get((kind, subscription.name)) for kind in ("parked", "parts"))
        return [each for each in found if each is not None]

    def add(self, subscription: Subscription) -> None:
        """It was subscribed."""
        for kind, keeps in (("parked", subscription.parks), ("parts", subscription._in_parts)):
            if keeps:
                self._kept[kind, subscription.name] = subscription

    def discard(self, subscription: Subscription) -> None:
        """It was closed."""
        for kind in ("parked", "parts"):
            if self._kept.get((kind, subscription.name)) is subscription:
                del self._kept[kind, subscription.name]
