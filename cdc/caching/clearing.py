"""Caches that are not ours: what a handler has to be that keeps one clear of old values.

Pure. Such a handler is called before others, hears of everything that concerns its table, and is told by a `Gap` when
it begins that nothing from before can be relied on. A publication that leaves something out cannot feed it.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from cdc.relation import Relation

__all__ = ["Clearing", "clearing_of"]


class Clearing(Protocol):
    """A handler that removes entries from a cache.

    Attributes:
        clears: True.
        clears_at_start: whether it wants to be told by a `Gap` that it begins.
    """

    clears: bool
    clears_at_start: bool

    def check(self, relation: Relation) -> None:
        """Raise SubscriptionError when keys cannot be made of rows of this table."""


def clearing_of(handler: Any) -> Clearing | None:
    """The handler, when it keeps a cache clear; else None."""
    return cast("Clearing", handler) if getattr(handler, "clears", False) is True else None
