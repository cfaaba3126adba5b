"""The vital signs of a consumer: what its health is made of, from all who know something of it.

Does no I/O and never waits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from cdc.health import Health, Status, slot_verdict, verdict_of
from cdc.loop import Loop
from cdc.lsn import Lsn
from cdc.subscription import Subscription
from cdc.target import Target

__all__ = ["health_of"]

_IN_ORDER = "rights are those of the change's position, by cdc.rights; roles are read every few seconds"
_NEWEST = "rights are the newest ones, read every few seconds, not those of the change's position"


def health_of(loop: Loop, target: Target, readers: Sequence[Subscription], withheld: Sequence[str] = ()) -> Health:
    """Whether a consumer is well, and if not, why; `withheld` says which rows could not be judged. Never waits."""
    link, session = loop.link, loop.link.session
    standby = session.stream.standby if session is not None and session.stream is not None else None
    history, now = link.history, datetime.now(UTC)
    colour, reasons = verdict_of(link.status, history.attempts, _problems(loop, target), history.restless(now))
    wal = loop.wal.budget
    colour, reasons = slot_verdict(colour, reasons, wal, loop.progress.gap)
    return Health(
        colour=colour,
        status=link.status,
        reasons=reasons,
        notes=(*_notes(loop, target, readers), *withheld),
        slot=session.slot.name if session is not None else target.slot,
        received_lsn=standby.finished_lsn if standby is not None else Lsn(0),
        confirmed_lsn=standby.confirmed_lsn if standby is not None else Lsn(0),
        lag_bytes=max(0, standby.server_lsn - standby.finished_lsn) if standby is not None else 0,
        reconnects=history.losses,
        attempts=history.attempts,
        losses_within_an_hour=history.losses_within_an_hour(now),
        not_live_since=link.herald.not_live_since,
        failure=history.last,
        failures=history.failures,
        parked=loop.lot.count,
        wal=wal,
    )


def _problems(loop: Loop, target: Target) -> tuple[str, ...]:
    link, lot = loop.link, loop.lot
    now = time.monotonic()
    failure = link.history.last
    problems = [each for each in (None if failure is None else failure.reason, target.wait.problem) if each is not None]
    if link.status is not Status.STOPPED:
        problems += loop.link.polling.reasons()
        loop.watch.look(now)
        problems += loop.watch.reasons(now)
    if lot.count:
        problems.append(f"parked events: {lot.count}; `cdc parked list` shows them")
    if lot.problem is not None:
        problems.append(lot.problem)
    if link.session is not None and (problem := link.session.admission.judge.book.standing.problem) is not None:
        problems.append(problem)
    if link.recorder is not None and link.recorder.problem is not None:
        problems.append(link.recorder.problem)
    return (*problems, *loop.lanes.problems)


def _notes(loop: Loop, target: Target, subscriptions: Sequence[Subscription]) -> tuple[str, ...]:
    notes = []
    denied = sum(1 for each in subscriptions if each.denied is not None)
    if target.slot is not None and target.state is None:
        notes.append("state=None: nothing is remembered, so a re-created slot goes unnoticed")
    if any(each.subject is not None for each in subscriptions):
        session = loop.link.session
        in_order = session is not None and session.admission.judge.book.standing.oid is not None
        notes.append(_IN_ORDER if in_order else _NEWEST)
    if denied:
        notes.append(f"{denied} subscriptions see nothing at the moment; their `denied` says why")
    return (*notes, *_notes_of_caches(loop), *loop.rewriting.notes, *loop.snapshots.notes())


def _notes_of_caches(loop: Loop) -> list[str]:
    caches = list(dict.fromkeys(inflow.cache for inflow in list(loop.caches.values())))
    waiting = [since for cache in caches if (since := cache.not_live_for) is not None]
    notes = [
        f"cache of {each.table}: by= failed, so everything was dropped: {each.problem}"
        for each in caches
        if each.problem
    ]
    notes += [
        f"cache of {each.table}: nothing is kept, since policies of {each.subject.role} cannot be decided"
        for each in caches
        if each.subject is not None and not each.keeps
    ]
    if waiting:
        interval = min(cache.polling_interval for cache in caches)
        notes.append(f"caches: not live for {max(waiting):.0f} s; entries older than {interval:g} s are read again")
    return notes
