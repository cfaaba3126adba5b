"""Delivery: handing events to handlers, in their order, and waiting for those that are coroutines.

No I/O and no clock; the waiter performs the steps. A handler that raises ends the consumer: its change is not
acknowledged and comes again.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from inspect import isawaitable
from typing import Any

from cdc.dispatcher import Dispatcher
from cdc.errors import GapError, HandlerError
from cdc.events import Gap, Prepared, Truncate
from cdc.holding import PreparedEnd
from cdc.log import log
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

    Args:
        dispatcher: knows the views.
        progress: what was finished.
        on_gap: `"stop"`, `"deliver"` or `"resync"`.
    """

    def __init__(self, dispatcher: Dispatcher, progress: Progress, on_gap: str) -> None:
        self.fresh: set[int] = set()
        self.resyncs: set[Subscription] = set()
        self._dispatcher = dispatcher
        self._progress = progress
        self._on_gap = on_gap

    def call(self, subscription: Subscription, event: Any) -> Steps | None:
        """Call a handler. None when it has finished with the event; else the steps that are left.

        Every handler is called from here. An event counts as finished behind these steps.
        """
        try:
            result = subscription.handler(event)
        except Exception as error:
            return self._failed(subscription, event, error)
        if result is None or not isawaitable(result):
            return None
        return self._await(subscription, event, result)

    def _await(self, subscription: Subscription, event: Any, pending: Awaitable[Any]) -> Steps:
        """Await what an asynchronous handler returned."""
        try:
            yield Await(pending)
        except Exception as error:
            yield from self._failed(subscription, event, error)

    def _failed(self, subscription: Subscription, event: Any, error: Exception) -> Steps:
        """A handler raised: what the subscription's terms say."""
        raise _handler_error(subscription, event, error) from error
        yield

    def truncates(self, truncates: list[Truncate]) -> Steps:
        """One TRUNCATE, which may concern several relations."""
        for event in truncates:
            if event._relation.oid in self.fresh:
                yield from self.schema(event._place, event._relation)
            for view in self._dispatcher.views(event):
                seen = view.see(event)
                if seen is not None:
                    self._progress.dirty = True
                    yield from self._hand(view.subscription, seen)
            self._progress.finished = event._place

    def schema(self, place: Place, relation: Relation) -> Steps:
        """Before the first change since the relation was announced: tell how it differs from what it was.

        Raises GapError when another table has taken its name, and the consumer stops at gaps.
        """
        self.fresh.discard(relation.oid)
        yield from self._name_lost(relation)
        for view in self._dispatcher.views_of(relation.oid):
            yield from self.tell_schema(view, place)

    def tell_schema(self, view: View, place: Place) -> Steps:
        """Tell one subscription how its table differs from what it was."""
        event = view.see_schema(place)
        if isinstance(event, Gap):
            yield from self.resync(view.subscription, self._other_table(event))
        elif event is not None:
            yield from self._hand(view.subscription, event)

    def resync(self, subscription: Subscription, gap: Gap) -> Steps:
        """Tell a subscription of a gap; its table is read anew when it asked for that."""
        if not subscription.first and (self._on_gap == "resync" or subscription.terms.snapshot):
            gap = replace(gap, resync=True)
            self.resyncs.add(subscription)
        yield from self._hand(subscription, gap)

    def _name_lost(self, relation: Relation) -> Steps:
        """Tell those who go by the name that the table had before: its changes go past them from here on."""
        for each in self._dispatcher.subscriptions:
            seen = each._seen
            if seen is None or seen[0].oid != relation.oid or str(seen[0]) == str(relation) or each._name_lost:
                continue
            each._name_lost = True
            gap = Gap(f"table {seen[0]} is called {relation} from here on", previous=each.previous)
            yield from self._hand(each, self._other_table(gap))

    def check(self, gap: Gap) -> None:
        """Raise GapError when the consumer stops at gaps."""
        if self._on_gap == "stop":
            raise GapError(f"changes are missing: {gap.reason}. Bring your data up to date and start anew", gap)

    def _other_table(self, gap: Gap) -> Gap:
        gap = replace(gap, last=self._progress.last)
        self.check(gap)
        log.warning("gap", reason=gap.reason, last=str(gap.last))
        return gap

    def prepared(self, end: PreparedEnd) -> Steps:
        """Tell the trusted subscribers of the tables that a prepared transaction changes.

        What was rolled back while nobody read comes without its changes: that is told to all of them.
        """
        time = commit_time(end.microseconds)
        event = Prepared(end.gid, end.held.xid, end.lsn, time, end.rolled_back)
        tables = end.held.tables
        for each in self._dispatcher.subscriptions:
            concerned = (each.schema, each.table) in tables or (end.rolled_back and not tables)
            if concerned and each.sees_all and not each.asked:
                yield from self._hand(each, event)

    def gap(self, gap: Gap) -> Steps:
        """Tell every subscription that changes may be missing here; caches first."""
        for subscription in sorted(self._dispatcher.subscriptions, key=lambda each: not each.first):
            event = Gap(gap.reason, self._progress.last or gap.last, subscription.previous)
            yield from self.resync(subscription, event)

    def _hand(self, subscription: Subscription, event: Any) -> Steps:
        left = self.call(subscription, event)
        if left is not None:
            yield from left


def _handler_error(subscription: Subscription, event: Any, error: Exception) -> HandlerError:
    name = getattr(subscription.handler, "__qualname__", repr(subscription.handler))
    return HandlerError(
        f"handler {name} raised {type(error).__name__}: {error}; {event!r} is not acknowledged and comes again"
    )
