"""Rewriting: what becomes of caches and stores when DDL has changed rows without a change of each.

Part of the loop; it yields the same steps. A row of cdc.rewrites is no event for users. Caches are cleared as it
arrives, behind the changes that stand before it; stores, and those who keep a cache elsewhere clear, are told by a
`Gap` before the next frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cdc.caching.inflow import Inflow
from cdc.delivery import Delivery
from cdc.dispatcher import Dispatcher
from cdc.events import Gap, GapKind, Insert, RowChange, Truncate
from cdc.housekeeping import Housekeeping
from cdc.log import log
from cdc.progress import Progress
from cdc.rewrites import rewrites_problem
from cdc.session import Session
from cdc.stream import Stream
from cdc.subscription import Subscription
from cdc.waiting import Steps

__all__ = ["Rewriting"]


class _Rewrite(NamedTuple):
    """A row of cdc.rewrites; without a table it means any."""

    oid: int | None
    schema: str | None
    table: str | None
    command: str

    @property
    def label(self) -> str:
        return "any table" if self.oid is None else f"{self.schema}.{self.table}"

    def concerns(self, subscription: Subscription) -> bool:
        """By its OID, or by the name that it has by then: another table may have taken the subscription's."""
        if self.oid is None or subscription._oid in (self.oid, None):
            return True
        return (subscription.schema, subscription.table) == (self.schema, self.table)


class Rewriting:
    """Applies rewrites of tables.

    Args:
        dispatcher: knows the subscriptions.
        delivery: hands events to handlers.
        house: is told that the duties are due, and looks whether rewrites are noticed.
        progress: knows the place of the last change.
        caches: the caches, by the subscription that clears them.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        delivery: Delivery,
        house: Housekeeping,
        progress: Progress,
        caches: Mapping[Subscription, Inflow],
    ) -> None:
        self._dispatcher = dispatcher
        self._delivery = delivery
        self._house = house
        self._progress = progress
        self._caches = caches
        self._told: list[_Rewrite] = []
        self._problem: str | None = None
        house.looks.append(self._look)

    @property
    def notes(self) -> list[str]:
        """Why rewrites go unnoticed, when that matters to somebody."""
        if self._problem is None or not self._has_readers:
            return []
        return [f"DDL that changes rows is noticed only when the table changes next: {self._problem}"]

    def see(self, event: RowChange | Truncate) -> None:
        """A change of cdc.rewrites arrives. It is for no handler; caches are cleared before the next frame."""
        if not isinstance(event, Insert) or event.new is None:
            return
        rewrite = _Rewrite(*(event.new[name] for name in ("table", "schema", "name", "command")))
        log.info("table.rewritten", table=rewrite.label, command=rewrite.command)
        for subscription, cache in list(self._caches.items()):
            if rewrite.concerns(subscription):
                cache.clear(event.xid)
        self._told.append(rewrite)
        self._house.rights_changed = True
        self._house.late_at = 0.0

    def steps(self, stream: Stream) -> Steps:
        """Tell stores, and those who keep a cache elsewhere clear."""
        told, self._told = self._told, []
        place = None if stream.transaction is None else self._progress.handed
        for rewrite in told:
            reason = f"{rewrite.label} was rewritten by {rewrite.command}, without a change of each row"
            for each in filter(rewrite.concerns, self._readers):
                name = (f"{each.schema}.{each.table}",)
                last = self._progress.last
                gap = Gap(reason, last, each.previous, GapKind.TABLE_REWRITTEN, name, last)
                yield from self._delivery.resync(each, gap, place)

    @property
    def _readers(self) -> list[Subscription]:
        """Those who are told by an event."""
        return [each for each in self._dispatcher.readers if each.first and each not in self._caches]

    @property
    def _has_readers(self) -> bool:
        return bool(self._caches) or bool(self._readers)

    def _look(self, session: Session) -> None:
        if self._has_readers:
            self._problem = rewrites_problem(session.control, session.saved.publications)
