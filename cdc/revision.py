"""Revision: what becomes of subscriptions when rights change, at the place where they do.

Part of the loop; it yields the same steps. A row of cdc.rights is no event for users: the judge takes it, the views on
its table are made anew before the next frame, and whoever may see something else from there on is told by a `Gap`. The
same is done when the server was asked again and rights are others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Hashable, Iterable, Mapping

from cdc.caching.inflow import Inflow
from cdc.connecting import Connecting
from cdc.delivery import Delivery
from cdc.dispatcher import Dispatcher
from cdc.events import Gap, GapKind, Insert, RowChange, Truncate
from cdc.housekeeping import Housekeeping
from cdc.log import log
from cdc.progress import Progress
from cdc.relation import Relation
from cdc.rewriting import Rewriting
from cdc.session import Session
from cdc.stream import Stream
from cdc.subscription import Subscription
from cdc.waiting import Call, Steps

__all__ = ["Revision"]

Sights = Mapping[Subscription, tuple[Hashable, str | None]]


class Revision:
    """Applies changed rights, and tells whom they concern.

    Args:
        link: has the session.
        dispatcher: knows the views.
        delivery: hands events to handlers.
        house: is told that the duties are due.
        progress: knows the place of the last change.
        caches: the caches, by the subscription that clears them.

    Attributes:
        rewriting: is told of rewrites of tables, which come by the same way.
    """

    def __init__(
        self,
        link: Connecting,
        dispatcher: Dispatcher,
        delivery: Delivery,
        house: Housekeeping,
        progress: Progress,
        caches: Mapping[Subscription, Inflow],
    ) -> None:
        self.rewriting = Rewriting(dispatcher, delivery, house, progress, caches)
        self._link = link
        self._dispatcher = dispatcher
        self._delivery = delivery
        self._house = house
        self._progress = progress

    def define(self, session: Session, stream: Stream, relation: Relation) -> Steps:
        """A relation was announced: make its views, by the rights that were read for it. One of ours shows nothing."""
        if relation.schema == "cdc":
            if relation.table == "rights":
                self._dispatcher.attend(relation.oid, self)
            elif relation.table == "rewrites":
                self._dispatcher.attend(relation.oid, self.rewriting)
            return
        judge = session.admission.judge
        news = relation.oid in judge.changed
        before = self._sights(session, {relation.oid}, [relation]) if news else {}
        self._dispatcher.define(relation, session.admission.view)
        self._delivery.fresh.add(relation.oid)
        if news:
            judge.changed.discard(relation.oid)
            self._link.distrust(session, {relation.oid})
            yield from self._tell(stream, before)

    def see(self, event: RowChange | Truncate) -> None:
        """A change of cdc.rights arrives. It is for no handler; what it means is done behind it, before the next."""
        if isinstance(event, Insert):
            self.row(event)

    def row(self, row: Insert) -> None:
        """A row of cdc.rights arrives, maybe once more."""
        session = self._link.session
        if session is not None and session.admission.judge.put(row):
            self._house.rights_changed = True
            self._house.late_at = 0.0

    def steps(self, session: Session, stream: Stream) -> Steps:
        """Rights have changed: judge by them from here on."""
        self._house.rights_changed = False
        yield from self.rewriting.steps(stream)
        admission = session.admission
        with session.busy():
            yield Call(admission.judge.settle)
        changed = admission.judge.take_changed()
        if not changed:
            return
        self._link.distrust(session, changed)
        relations = [relation for relation in self._dispatcher.relations if relation.oid in changed]
        before = self._sights(session, changed, relations)
        log.info("rights.changed", tables=", ".join(sorted({f"{each.schema}.{each.table}" for each in before})))
        admission.review(changed)
        for relation in relations:
            self._dispatcher.define(relation, admission.view)
        yield from self._tell(stream, before)

    def _sights(self, session: Session, oids: Container[int], relations: Iterable[Relation]) -> Sights:
        """What each subject may see of these tables, and why not; `relations` are those that were announced."""
        named = (part for each in relations for part in self._dispatcher.named(each.schema, each.table))
        parts = dict.fromkeys([*named, *session.admission.concerned(oids)])
        return {part: (part._sight, part.denied) for part in parts if part.subject is not None}

    def _tell(self, stream: Stream, before: Sights) -> Steps:
        """Tell those who may see something else than before."""
        denied: Counter[tuple[str, str]] = Counter()
        last = self._progress.last
        place = None if stream.transaction is None else self._progress.handed
        for part, (sight, reason) in before.items():
            name = f"{part.schema}.{part.table}"
            if part.denied is not None and part.denied != reason:
                denied[name, part.denied] += 1
            if part._sight != sight and not part.reader.closed:
                told = f"rights: {part} may see other rows or columns of {name} from here on"
                gap = Gap(told, last, part.reader.previous, GapKind.RIGHTS, (name,), last)
                yield from self._delivery.resync(part.reader, gap, place)
        for (name, why), count in denied.items():
            log.warning("subscription.denied", table=name, reason=why, subscriptions=count)
