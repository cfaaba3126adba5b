"""The boundary: what happens between two transactions, and only there.

Part of the loop; it yields the same steps. New subscriptions begin, and renewed subjects take effect: so each
subscriber sees a whole transaction as one and the same subject. A subject that has expired ends at any moment.

Whoever is renewed and may see something else from there on is told by a `Gap`, before the next change: the rows that he
keeps are those of the rights that he had.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import psycopg

from cdc.caching.clearing import clearing_of
from cdc.caching.inflow import Inflow
from cdc.connecting import Connecting
from cdc.delivery import Delivery
from cdc.dispatcher import Dispatcher
from cdc.errors import ConnectionFailed
from cdc.events import Gap, GapKind
from cdc.expiry import Expiry, check_fresh, ended_at
from cdc.health import Status
from cdc.housekeeping import Housekeeping
from cdc.log import log
from cdc.progress import Progress
from cdc.relation import Relation
from cdc.rls import Subject
from cdc.session import Session
from cdc.sight import sight
from cdc.snapshotting import Snapshotting
from cdc.stream import Stream
from cdc.subscription import Subscription
from cdc.waiting import Call, Steps

__all__ = ["Boundary"]

_BEGINNING = "changes arrive from here on: what was cached before may be older"


@dataclass(frozen=True, slots=True)
class _Renewal:
    """A subject that was accepted for a subscription, and the tables that a pattern found and it cannot have."""

    subscription: Subscription
    subject: Subject
    refused: Mapping[Subscription, str]


class Boundary:
    """Lets subscriptions begin, be renewed and expire.

    Args:
        link: has the session.
        dispatcher: knows the subscriptions.
        delivery: hands them events.
        house: knows the transactions that may not be visible yet.
        snapshots: reads the tables of those who begin with their rows.
        caches: the caches, by the subscription that clears them.
        progress: what was handed out.

    Attributes:
        expiry: whose subject is valid until when.
    """

    def __init__(
        self,
        link: Connecting,
        dispatcher: Dispatcher,
        delivery: Delivery,
        house: Housekeeping,
        snapshots: Snapshotting,
        caches: Mapping[Subscription, Inflow],
        progress: Progress,
    ) -> None:
        self.expiry = Expiry()
        self._link = link
        self._dispatcher = dispatcher
        self._delivery = delivery
        self._house = house
        self._snapshots = snapshots
        self._caches = caches
        self._progress = progress
        self._mutex = threading.Lock()
        self._renewals: list[_Renewal] = []

    @property
    def is_due(self) -> bool:
        """Whether somebody waits for it."""
        return bool(self._renewals) or self._dispatcher.has_waiting

    @property
    def is_over(self) -> bool:
        """Whether a subject has expired."""
        return self.expiry.next <= time.time()

    def patience(self, usual: float) -> float:
        """Seconds to wait for a frame, where the loop would wait for `usual`: no subject outlives its time."""
        return max(0.0, min(usual, self.expiry.next - time.time()))

    def renew(self, subscription: Subscription, subject: Subject) -> None:
        """Check a renewed subject now, and let it take effect at the next boundary. From any thread.

        Raises SubscriptionError when it cannot be had, ConnectionFailed when that cannot be found out.
        """
        check_fresh(subject, time.time())
        session = self._link.session
        if session is None:
            subscription.subject = subject
            return
        if self._link.status is Status.STOPPED:
            raise ConnectionFailed(f"the consumer is stopped: {subscription} cannot be renewed")
        try:
            refused = session.admission.check_renewed(subscription, subject)
        except psycopg.OperationalError as error:
            raise ConnectionFailed(f"the connection was lost while {subscription} was checked: {error}") from None
        with self._mutex:
            subscription._renewed = subject
            self._renewals.append(_Renewal(subscription, subject, refused))
        self.expiry.watch(subscription)

    def steps(self, session: Session, stream: Stream | None) -> Steps:
        """Between two transactions: let those begin who wait, and renewed subjects take effect."""
        if self._dispatcher.has_waiting:
            yield from self._activate(session)
        if self._renewals and self._is_between(stream):
            with self._mutex:
                renewals, self._renewals = self._renewals, []
            for renewal in renewals:
                yield from self._renew(session, renewal)

    def begin_caches(self, elsewhere: bool) -> None:
        """Behind a gap caches begin anew. What they may not see yet is kept in mind, unless it is of another server."""
        for cache in list(self._caches.values()):
            cache.begin(self._house.unseen, elsewhere)

    def expire(self) -> Steps:
        """Close the subscriptions whose subject has expired, and tell their handlers: nothing follows."""
        for subscription in self.expiry.over(time.time()):
            if not subscription.closed and subscription.expires is not None:
                reason = ended_at(subscription.expires)
                log.info("subject.expired", subscription=subscription.name)
                subscription._end(reason)
                last = self._progress.last
                gap = Gap(reason, last, subscription.previous, GapKind.SUBJECT_EXPIRED)
                yield from self._delivery.end(subscription, gap)

    def _activate(self, session: Session) -> Steps:
        for subscription in self._dispatcher.activate(session.admission.view):
            cache = self._caches.get(subscription)
            if cache is not None:
                cache.begin(self._house.unseen)
                cache.set_live(self._link.status is Status.LIVE)
            self._snapshots.add(subscription, session)
            clearing = clearing_of(subscription.handler)
            if clearing is not None and clearing.clears_at_start:
                gap = Gap(_BEGINNING, self._progress.last, subscription.previous, GapKind.BEGINNING)
                yield from self._delivery.resync(subscription, gap)
        for relation in self._dispatcher.relations:  # Those that joined the publication since a family was checked.
            newcomers = self._dispatcher.newcomers(relation.schema, relation.table)
            if newcomers:
                yield Call(session.join, (newcomers, relation))
                self._dispatcher.define(relation, session.admission.view)

    def _is_between(self, stream: Stream | None) -> bool:
        """Whether no transaction was handed out in part, as when the connection was lost in the middle of one."""
        handed = self._progress.handed
        if stream is None or handed is None or handed[0].epoch != stream.epoch:
            return True
        return stream.standby.finished_lsn > handed[0].commit_lsn

    def _renew(self, session: Session, renewal: _Renewal) -> Steps:
        subscription, subject = renewal.subscription, renewal.subject
        if subscription.closed:
            return
        admission, parts = session.admission, list(subscription.parts)
        relations = {part: self._relation(session, part) for part in parts}
        before = _sights(session, relations)
        same = subscription.subject == subject
        subscription.subject = subject
        if subscription._renewed is subject:
            subscription._renewed = None
        for part in parts:
            part.subject, part.refused = subject, renewal.refused.get(part)
        self._dispatcher.rebind(admission.view, [subscription])
        for part in parts:
            known = relations[part]
            if known is not None:
                admission.view(part, known)
        after = _sights(session, relations)
        changed = [part for part in parts if (before[part] != after[part] if part in before else not same)]
        if changed:
            yield from self._tell(subscription, changed)

    def _relation(self, session: Session, part: Subscription) -> Relation | None:
        """Its table as the stream described it last, else as the catalog did."""
        name = (part.schema, part.table)
        found = [each for each in self._dispatcher.relations if (each.schema, each.table) == name]
        return found[0] if found else session.admission.checked(part)

    def _tell(self, subscription: Subscription, parts: Iterable[Subscription]) -> Steps:
        last = self._progress.last
        tables = tuple(sorted(f"{part.schema}.{part.table}" for part in parts))
        reason = "rights: the subject was renewed, and may see other rows or columns from here on"
        gap = Gap(reason, last, subscription.previous, GapKind.RIGHTS, tables, last)
        log.info("rights.renewed", subscription=subscription.name, tables=", ".join(tables))
        yield from self._delivery.resync(subscription, gap)


def _sights(session: Session, relations: Mapping[Subscription, Relation | None]) -> dict[Subscription, Hashable]:
    """What each may see; those whose table is not known are left out."""
    judge = session.admission.judge
    return {part: sight(judge, part, relation) for part, relation in relations.items() if relation is not None}
