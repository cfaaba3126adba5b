"""The scene: all that happens while the demo runs, and a glance at it in numbers.

Reads counters of the consumer, the cache, the readers and the writer; never waits for any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cdc
from cdc.demo.ledger import Ledger, Line, Told, percentile
from cdc.demo.process import WriterProcess
from cdc.demo.readers import Readers

__all__ = ["Glance", "Scene"]

_RECENT = 1000
"""Changes whose latency is shown while the demo runs."""


@dataclass(frozen=True, slots=True)
class Glance:
    """How things stand at one moment.

    Attributes:
        elapsed, seconds: how long the demo has run, and how long it will.
        version: the server's version.
        health: the consumer's health.
        delivered: changes that the trusted subscriber had.
        told: what each subscriber was told, by name.
        lines: the newest changes.
        hits, misses, invalidations: what the cache did.
        reads, reads_after_wait, stale: what the readers did.
        p50, p99: seconds from commit to handler, of the newest changes.
        transactions, rollbacks: what the writer did.
        saying: what the writer did last.
    """

    elapsed: float
    seconds: float
    version: str
    health: cdc.Health
    delivered: int
    told: dict[str, Told]
    lines: Sequence[Line]
    hits: int
    misses: int
    invalidations: int
    reads: int
    reads_after_wait: int
    stale: int
    p50: float | None
    p99: float | None
    transactions: int
    rollbacks: int
    saying: Sequence[str]


@dataclass(frozen=True, slots=True)
class Scene:
    """Everybody who takes part."""

    version: str
    consumer: cdc.Consumer
    cache: cdc.Cache
    ledger: Ledger
    readers: Readers
    writer: WriterProcess

    @property
    def broken(self) -> bool:
        """Whether somebody who should work has given up, so that there is nothing more to see."""
        stopped = self.consumer.health().status is cdc.Status.STOPPED
        return stopped or not self.writer.running or bool(self.readers.failures)

    def glance(self, elapsed: float, seconds: float) -> Glance:
        """How things stand now."""
        ledger, counters = self.ledger, self.cache.counters
        latencies = ledger.latencies[-_RECENT:]
        return Glance(
            elapsed=elapsed,
            seconds=seconds,
            version=self.version,
            health=self.consumer.health(),
            delivered=len(ledger.delivered),
            told=ledger.told,
            lines=list(ledger.lines),
            hits=counters.hits,
            misses=counters.misses,
            invalidations=counters.invalidations,
            reads=self.readers.reads,
            reads_after_wait=self.readers.reads_after_wait,
            stale=self.readers.stale,
            p50=percentile(latencies, 0.5),
            p99=percentile(latencies, 0.99),
            transactions=self.writer.transactions,
            rollbacks=self.writer.rollbacks,
            saying=list(self.writer.lines),
        )
