"""Delivery: handing events to handlers, in their order, and waiting for those that are coroutines.

No I/O and no clock; the waiter performs the steps. A subscription with a lane gets its events there, and the lane's
driver calls the handler. What becomes of an event whose handler raises is the matter of `attempts`.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from dataclasses import replace
from inspect import isawaitable
from typing import Any

from cdc.attempts import Attempts, is_cancelled
from cdc.dispatcher import Dispatcher
from cdc.errors import GapError
from cdc.events import Gap, GapKind, Prepared, Truncate
from cdc.holding import PreparedEnd
from cdc.lanes import Lanes
from cdc.log import log
from cdc.message import Message
from cdc.progress import Progress
from cdc.relation import Relation
from cdc.subscription import Subscription
from cdc.transaction import Place, commit_time
from cdc.view import View
from cdc.waiting import Await, Steps

__all__ = ["Delivery"]


class Delivery:
    """Hands events to the handlers of those who see them.

    Attributes:
        fresh: OIDs of relations that were announced since their last change was delivered.
        resyncs: subscriptions that were told of a gap, and whose tables are to be read anew.
        lanes: the lanes of the subscriptions that have one.

    Args:
        dispatcher: knows the views.
        progress: what was finished.
        on_gap: `"stop"`, `"deliver"` or `"resync"`.
        attempts: tries again, and parks.
        wake: ends a wait of the loop, from any thread.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        progress: Progress,
        on_gap: str,
        attempts: Attempts,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.fresh: set[int] = set()
        self.resyncs: set[Subscription] = set()
        self.lanes = Lanes(progress, self.call, wake)
        self._dispatcher = dispatcher
        self._progress = progress
        self._on_gap = on_gap
        self._attempts = attempts

    def call(self, subscription: Subscription, event: Any) -> Steps | None:
        """Call a handler. None when it has finished with the event; else the steps that are left.

        Every handler is called from here, also those of lanes, on whatever thread. What it gets counts as finished
        behind these steps; `events_of` (see `collector`) gives the single events of it.
        """
        subscription._at_work = event
        try:
            result = subscription.handler(event)
        except (Exception, CancelledError) as error:
            return self._failed(subscription, event, error)
        if result is None or not isawaitable(result):
            subscription._at_work = None
            return None if subscription._parked is None else self._attempts.settled(subscription, event)
        return self._await(subscription, event, result)

    def _await(self, subscription: Subscription, event: Any, pending: Awaitable[Any]) -> Steps:
        """Await what an asynchronous handler returned."""
        try:
            yield Await(pending)
        except CancelledError as error:
            if is_cancelled():
                raise
            yield from self._failed(subscription, event, error)
            return
        except Exception as error:
            yield from self._failed(subscription, event, error)
            return
        subscription._at_work = None
        left = self._attempts.settled(subscription, event)
        if left is not None:
            yield from left

    def _failed(self, subscription: Subscription, event: Any, error: BaseException) -> Steps:
        """A handler raised: what the subscription's terms say."""
        yield from self._attempts.failed(subscription, event, error)
        subscription._at_work = None

    def truncates(self, truncates: list[Truncate]) -> Steps:
        """One TRUNCATE, which may concern several relations."""
        for event in truncates:
            if event._relation.oid in self.fresh:
                yield from self.schema(event._place, event._relation)
            for view in self._dispatcher.views(event):
                seen = view.see(event)
                if seen is not None:
                    self._progress.dirty = True
                    yield from self._hand(view.reader, seen, event._place)
            self._progress.handed = event._place

    def message(self, message: Message, epoch: str) -> Steps:
        """A logical message; one that was handed out before the connection was lost is not told again."""
        if self._progress.has_heard(message, epoch):
            return
        for listener in self._dispatcher.listeners(message.prefix):
            self._progress.dirty = True
            yield from self._hand(listener, listener.link_message(message), message._place)
        self._progress.hear(message, epoch)

    def schema(self, place: Place, relation: Relation) -> Steps:
        """Before the first change since the relation was announced: tell how it differs from what it was.

        Raises GapError when another table has taken its name, and the consumer stops at gaps.
        """
        self.fresh.discard(relation.oid)
        yield from self._name_lost(place, relation)
        for view in self._dispatcher.views_of(relation.oid):
            yield from self.tell_schema(view, place)

    def tell_schema(self, view: View, place: Place) -> Steps:
        """Tell one subscription how its table differs from what it was."""
        event = view.see_schema(place)
        if isinstance(event, Gap):
            yield from self.resync(view.reader, self._other_table(event), place)
        elif event is not None:
            yield from self._hand(view.reader, event, place)

    def resync(self, subscription: Subscription, gap: Gap, place: Place | None = None) -> Steps:
        """Tell a subscription of a gap; its table is read anew when it asked for that."""
        if subscription._in_parts:
            gap = replace(gap, resync=True)
            self.resyncs.add(subscription)
        yield from self._hand(subscription, gap, place)

    def between(self, subscription: Subscription, event: Any) -> Steps | None:
        """Hand an event out that stands between two transactions. None when nothing is left to do."""
        lane = subscription.lane
        return self.call(subscription, event) if lane is None else self.lanes.put(subscription, lane, event, None)

    def end(self, subscription: Subscription, event: Any) -> Steps:
        """Hand out the last event of a subscription that was closed. What waits in its lane goes."""
        lane = subscription.lane
        left = self.call(subscription, event) if lane is None else self.lanes.put(subscription, lane, event, None, True)
        if left is not None:
            yield from left

    def _name_lost(self, place: Place, relation: Relation) -> Steps:
        """Tell those who go by the name that the table had before: its changes go past them from here on."""
        for each in self._dispatcher.renamed(relation):
            seen = each._seen
            if seen is None or seen[0].oid != relation.oid or str(seen[0]) == str(relation) or each._name_lost:
                continue
            if not each.named:
                continue  # A pattern means whatever has such a name: the table leaves, and may join under the new one.
            each._name_lost = True
            reason = f"table {seen[0]} is called {relation} from here on"
            gap = Gap(reason, previous=each.reader.previous, tables=(str(seen[0]),))
            yield from self._hand(each.reader, self._other_table(gap), place)

    def check(self, gap: Gap) -> None:
        """Raise GapError when the consumer stops at gaps."""
        if self._on_gap == "stop":
            raise GapError(f"changes are missing: {gap.reason}. Bring your data up to date and start anew", gap)

    def _other_table(self, gap: Gap) -> Gap:
        last = self._progress.last
        gap = replace(gap, last=last, position=last, kind=GapKind.TABLE_REPLACED)
        self.check(gap)
        self._progress.gap = gap
        log.warning("gap", reason=gap.reason, last=str(gap.last))
        return gap

    def prepared(self, end: PreparedEnd) -> Steps:
        """Tell the trusted subscribers of the tables that a prepared transaction changes.

        What was rolled back while nobody read comes without its changes: that is told to all of them.
        """
        time = commit_time(end.microseconds)
        event = Prepared(end.gid, end.held.xid, end.lsn, time, end.rolled_back)
        tables = end.held.tables
        concerned = [each.reader for table in sorted(tables) for each in self._dispatcher.named(*table)]
        if end.rolled_back and not tables:
            concerned = [each.reader for each in self._dispatcher.subscriptions]
        concerned.sort(key=lambda reader: reader._order)
        for reader in dict.fromkeys(concerned):
            if reader.sees_all and not reader.asked:
                yield from self._hand(reader, event)

    def gap(self, gap: Gap) -> Steps:
        """Tell every subscription that changes may be missing here; caches first."""
        last = self._progress.last or gap.last
        if gap.kind is not GapKind.TEMPORARY_SLOT:
            self._progress.gap = gap
        for subscription in sorted(self._dispatcher.readers, key=lambda each: not each.first):
            yield from self.resync(subscription, replace(gap, last=last, previous=subscription.previous))

    def _hand(self, subscription: Subscription, event: Any, place: Place | None = None) -> Steps:
        """Hand an event out that stands at `place`; None: between two transactions."""
        lane = subscription.lane
        left = self.call(subscription, event) if lane is None else self.lanes.put(subscription, lane, event, place)
        if left is not None:
            yield from left
