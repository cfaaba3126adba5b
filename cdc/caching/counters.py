"""Counters: what a cache has done so far. Touches nothing."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """What a cache has done so far.

    Attributes:
        hits: fetches that were answered from memory.
        misses: fetches that were not.
        loads: calls of a `load`.
        invalidations: changes that were received.
        discarded: loaded values that were thrown away because a change overtook them.
    """

    hits: int = 0
    misses: int = 0
    loads: int = 0
    invalidations: int = 0
    discarded: int = 0
