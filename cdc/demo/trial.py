"""The trial: one run of the demo from the private PostgreSQL to the evidence.

Begin to read here. Touches what it starts: a server, two slots, a writer process, threads. All of it is gone at the
end.
"""

from __future__ import annotations

from collections.abc import Callable

import cdc
from cdc.demo.ledger import Ledger, percentile
from cdc.demo.process import WriterProcess
from cdc.demo.readers import Readers
from cdc.demo.scene import Scene
from cdc.demo.setting import ANON, PUBLICATION, SLOT, USER, prepare
from cdc.demo.truth import Truth
from cdc.demo.verify import Evidence
from cdc.testing import Sandbox

__all__ = ["run_trial"]

_PATIENCE = 60.0
"""Seconds to wait until the last change was handled."""


def run_trial(watch: Callable[[Scene], None]) -> Evidence:
    """Let writer, consumer and readers work for as long as `watch` looks on; then ask the database.

    Raises cdc.CdcError when the demo cannot begin; what breaks later is part of the evidence.
    """
    with Sandbox(supabase=True) as server:
        setting = prepare(server)
        consumer = cdc.Consumer(setting.dsn, publication=PUBLICATION, slot=SLOT)
        with Truth(setting.dsn) as truth, consumer:
            ledger = Ledger()
            consumer.subscribe("wells", ledger.trusted)
            consumer.subscribe("wells", ledger.user, subject=USER.subject)
            consumer.subscribe("wells", ledger.anon, subject=ANON.subject)
            wells = consumer.cache("wells", ttl=300, by="id")

            consumer.start()
            consumer.wait_for(truth.lsn())  # live from here on, so the cache serves
            writer = WriterProcess(setting.owner_dsn)
            readers = Readers(wells, consumer, setting.owner_dsn, ledger.recent)
            with writer, readers:
                watch(Scene(truth.version(), consumer, wells, ledger, readers, writer))

            troubles = _troubles(consumer, truth, ledger, readers, writer)
            return _evidence(truth, ledger, wells, readers, troubles)


def _troubles(
    consumer: cdc.Consumer, truth: Truth, ledger: Ledger, readers: Readers, writer: WriterProcess
) -> list[str]:
    """Wait until everything that was written is handled, and stop; what broke, in words."""
    reason = _finish(consumer, truth)
    troubles = [f"gap: {gap}" for gap in ledger.gaps]
    if writer.failure is not None:
        troubles.append(f"the writer: {writer.failure}")
    if reason is not None:
        troubles.append(f"the consumer: {reason}")
    # Readers fail with the consumer; that needs to be said only once.
    troubles += [failure for failure in readers.failures if reason is None or reason not in failure]
    return troubles


def _finish(consumer: cdc.Consumer, truth: Truth) -> str | None:
    """Let the consumer handle the rest and stop; why that failed, in words, or None."""
    reason = None
    try:
        consumer.wait_for(truth.lsn(), _PATIENCE)
    except (cdc.CdcError, TimeoutError) as error:
        reason = str(error)
    try:
        consumer.stop()
    except cdc.CdcError as error:
        reason = str(error)
    return reason


def _evidence(truth: Truth, ledger: Ledger, wells: cdc.Cache, readers: Readers, troubles: list[str]) -> Evidence:
    return Evidence(
        committed=truth.committed(),
        delivered=ledger.delivered,
        told=ledger.told,
        table=truth.table(),
        allowed={person.name: truth.seen_by(person) for person in (USER, ANON)},
        reads=readers.reads,
        reads_after_wait=readers.reads_after_wait,
        stale=readers.stale,
        backward=readers.backward,
        hits=wells.counters.hits,
        misses=wells.counters.misses,
        invalidations=wells.counters.invalidations,
        p50=percentile(ledger.latencies, 0.5),
        p99=percentile(ledger.latencies, 0.99),
        troubles=troubles,
    )
