"""Attempts: what happens to an event that a handler could not take.

It is handed over again as often as the subscription's terms say, with a pause before each attempt; then the consumer
ends, or the event is parked. The steps are the loop's, and run on any thread that has a waiter. The stream waits
meanwhile, so that order stays; status updates go on.
"""

from __future__ import annotations

import asyncio
import random
import time
from asyncio import CancelledError
from collections.abc import Callable, Generator, Iterable
from inspect import isawaitable
from typing import Any

from cdc.collector import events_of
from cdc.committed_transaction import CommittedTransaction
from cdc.errors import ConfigurationError, HandlerError
from cdc.events import Gap, GapKind, SchemaChange
from cdc.log import log
from cdc.lot import Lot
from cdc.parked import Parked
from cdc.subscription import Subscription
from cdc.transaction import Placed
from cdc.waiting import Await, Call, Step, Steps, Wait

__all__ = ["Attempts", "Unfinished", "described", "is_cancelled", "name_of"]

_TOLD_ONCE = frozenset({GapKind.TABLE_REPLACED, GapKind.RIGHTS, GapKind.SUBJECT_EXPIRED})
_LOOK = 0.5
"""Seconds after which a pause looks whether somebody stopped the consumer, where nobody wakes it."""


class Unfinished(Exception):
    """The consumer was stopped between two attempts. The event counts as not delivered, and comes again."""


class Attempts:
    """Tries again, and parks.

    Args:
        lot: where events are parked.
        is_stopping: whether somebody asked the consumer to end.
        is_kept: whether the slot outlives the consumer, so that what was not acknowledged comes again.
    """

    def __init__(self, lot: Lot, is_stopping: Callable[[], bool], is_kept: bool = True) -> None:
        self._lot = lot
        self._is_stopping = is_stopping
        self._is_kept = is_kept

    def failed(self, subscription: Subscription, event: Any, error: BaseException) -> Steps:
        """A handler raised: try again, then do what the terms say. The event counts as finished behind these steps.

        Raises HandlerError when the terms are to stop, `Unfinished` when the consumer is stopped meanwhile, CdcError
        when the event can be parked nowhere.
        """
        terms, tries = subscription.terms, subscription.terms.retries + 1
        for attempt in range(1, tries):
            self._tell(subscription, event, error, f"attempt {attempt} of {tries}")
            yield from self._pause(subscription, event, terms.backoff.wait(attempt, random.random()))
            if subscription.closed:
                return
            failure = yield from self._attempt(subscription, event)
            if failure is None:
                yield from self._taken(subscription, event)
                return
            error = failure
        subscription._trouble = None
        if terms.on_error == "stop":
            raise _handler_error(subscription, event, error, self._is_kept) from error
        for each in events_of(event):
            yield Call(self._lot.park, (subscription, each, error, tries))

    def settled(self, subscription: Subscription, event: Any) -> Steps | None:
        """The handler of a subscription that has parked events took one: what that means to those."""
        kept = subscription._parked
        if not kept:
            return None
        found = []
        for each in events_of(event):
            itself, outdated = kept.itself(each), kept.outdated(each)
            if itself is not None or outdated:
                found.append((itself, outdated, str(getattr(each, "position", None))))
        return self._settle(subscription, found) if found else None

    def serve(self, requests: Iterable[Parked], subscriptions: Iterable[Subscription]) -> Steps:
        """Hand parked events over again that somebody asked for. Between two transactions."""
        named = {each.name: each for each in subscriptions if each.parks}
        for parked in requests:
            subscription = named.get(parked.subscription)
            if subscription is None or self._is_stopping():
                continue
            if subscription.lane is not None and len(subscription.lane):
                continue  # Its handler may be at work. The next look finds the request again.
            yield from self.again(parked, subscription)

    def again(self, parked: Parked, subscription: Subscription) -> Steps:
        """Make the attempt that somebody asked for. Between two transactions."""
        allowed: bool = yield Call(self._lot.may_retry, (parked, subscription))
        if not allowed:
            return
        try:
            event: Any = yield Call(self._lot.event, (parked,))
        except ConfigurationError as error:
            yield Call(self._lot.failed, (parked, error))
            return
        subscription._at_work = event
        failure = yield from self._attempt(subscription, _alone(subscription, event))
        subscription._at_work = None
        if failure is not None:
            yield Call(self._lot.failed, (parked, failure))
            return
        kept = subscription._parked
        outdated = set() if kept is None else kept.outdated(event) - {parked.id}
        yield Call(self._lot.settle, (subscription, parked.id, outdated, parked.position))
        log.info("parked.taken", id=parked.id, subscription=subscription.name, position=parked.position)

    def _taken(self, subscription: Subscription, event: Any) -> Steps:
        subscription._trouble = None
        left = self.settled(subscription, event)
        if left is not None:
            yield from left

    def _settle(self, subscription: Subscription, found: list[tuple[str | None, set[str], str]]) -> Steps:
        for itself, outdated, position in found:
            yield Call(self._lot.settle, (subscription, itself, outdated, position))

    def _attempt(self, subscription: Subscription, event: Any) -> Generator[Step, Any, BaseException | None]:
        """Call the handler once; what it raised, or None."""
        try:
            result = subscription.handler(event)
            if result is not None and isawaitable(result):
                yield Await(result)
        except CancelledError as error:
            if is_cancelled():
                raise
            return error
        except Exception as error:
            return error
        return None

    def _tell(self, subscription: Subscription, event: Any, error: BaseException, which: str) -> None:
        reason = f"{type(error).__name__}: {error}"
        log.warning("handler.failed", subscription=subscription.name, handed=described(event), reason=reason, at=which)
        subscription._trouble = f"handler {name_of(subscription)} failed on {described(event)} ({which}: {reason})"

    def _pause(self, subscription: Subscription, event: Any, seconds: float) -> Steps:
        deadline = time.monotonic() + seconds
        while not self._is_stopping() and (left := deadline - time.monotonic()) > 0 and not subscription.closed:
            yield Wait((), min(left, _LOOK))
        if self._is_stopping():
            log.warning("event.unfinished", subscription=subscription.name, handed=described(event))
            raise Unfinished(described(event))


def name_of(subscription: Subscription) -> str:
    """What the handler is called in messages."""
    return str(getattr(subscription.handler, "__qualname__", repr(subscription.handler)))


def described(event: Any) -> str:
    """An event, or a list of them, in a few words."""
    return f"{len(event)} events from {event[0]!r} on" if isinstance(event, list) else repr(event)


def _alone(subscription: Subscription, event: Any) -> Any:
    """The event as the only one of what the handler takes at once."""
    terms = subscription.terms
    if terms.batch is not None or terms.debounce is not None:
        return [event]
    if terms.transaction and isinstance(event, Placed):
        return CommittedTransaction.of(event._place[0], (event,))
    return event


def is_cancelled() -> bool:
    """Whether a CancelledError is meant for the task that we run in, and not a handler's own."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # A thread without an event loop: nobody can cancel it.
        return False
    return task is not None and task.cancelling() > 0


def _handler_error(subscription: Subscription, event: Any, error: BaseException, is_kept: bool) -> HandlerError:
    tries = subscription.terms.retries + 1
    name, what = name_of(subscription), type(error).__name__ + (f" at the last of {tries} attempts" * (tries > 1))
    if isinstance(event, SchemaChange) or (isinstance(event, Gap) and event.kind in _TOLD_ONCE):
        return HandlerError(
            f"handler {name} raised {what}: {error}; {event!r} is not told again: see to what it means to your data "
            "before you go on"
        )
    if not is_kept:
        return HandlerError(
            f"handler {name} raised {what}: {error}; {described(event)} does not come again, as its temporary slot "
            "goes with the consumer: name a slot to have it again"
        )
    return HandlerError(
        f"handler {name} raised {what}: {error}; {described(event)} is not acknowledged and comes again"
    )
