"""The lanes of a consumer: what is put into them, who takes it out, and what becomes of them at the end.

Part of the loop; it yields the same steps. A lane without a queue is driven by the loop itself; one with a queue by a
thread or a task of its own, which begins with its first event; an iteration by whoever asks it for events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from cdc.attempts import Unfinished
from cdc.collector import NEVER
from cdc.errors import CdcError
from cdc.lane import Driver, Lane
from cdc.log import log
from cdc.progress import Progress
from cdc.strand import Strand
from cdc.subscription import Subscription
from cdc.transaction import Place
from cdc.waiting import Breathe, Spawn, Steps, Wait

__all__ = ["Lanes"]

_GRACE = 10.0
"""Seconds that the end of a consumer waits for handlers of queues that are at work."""
_LONG = 60.0
_SOON = 0.01
_SAY_EVERY = 60.0


class Lanes:
    """Every lane of one consumer.

    Args:
        progress: what is unfinished in the lanes holds back what is finished.
        call: hands an event to the handler of a subscription; see `Delivery.call`.
        wake: ends a wait of the loop, from any thread.

    Attributes:
        stop: asks the loop to end; called when a lane has failed.
        failure: what ended the consumer.
        is_ending: whether no handler is to be called any more.
        is_over: whether nothing will be handed out any more.
        is_awaited: whether the loop waits for room, or for all to be finished.
    """

    def __init__(
        self, progress: Progress, call: Callable[[Subscription, Any], Steps | None], wake: Callable[[], None]
    ) -> None:
        self.stop: Callable[[], None] = wake
        self.failure: BaseException | None = None
        self.is_ending = False
        self.is_over = False
        self.is_awaited = False
        self._progress = progress
        self._call = call
        self._wake = wake
        self._subscriptions: dict[Lane, Subscription] = {}
        self._strands: list[Strand] = []
        self._said: dict[Lane, float] = {}
        self._mutex = threading.Lock()

    def put(
        self, subscription: Subscription, lane: Lane, event: Any, place: Place | None, last: bool = False
    ) -> Steps | None:
        """Hand an event out to a lane, maybe its last. None when nothing else is to be done now; else the steps."""
        begins = lane not in self._subscriptions
        if begins:
            self.begin(subscription, lane)
        now = time.monotonic()
        due = lane.put(event, place, self._progress.mark(), now, last)
        if begins and lane.driver is Driver.OWN:
            return self._spawn(subscription, lane)
        return self._drain(lane) if due <= now and lane.driver is Driver.LOOP else None

    def begin(self, subscription: Subscription, lane: Lane) -> None:
        """Let a lane hold back what is finished."""
        self._subscriptions[lane] = subscription
        with self._mutex:  # An iteration may be made on any thread.
            self._progress.lanes = (*self._progress.lanes, lane)
        lane.changed = lambda: self._changed(lane)

    @property
    def stalled(self) -> list[Lane]:
        """The lanes for which the loop has to wait."""
        return [lane for lane in self._progress.lanes if lane.stalls]

    @property
    def problems(self) -> tuple[str, ...]:
        """What health has to say of them."""
        full = [
            f"the queue of {lane.name!r} is full: {len(lane)} events wait for its handler, and the stream for them"
            for lane in self.stalled
        ]
        left = [
            f"the iteration {lane.name!r} was left before its last event was finished: nothing behind it is confirmed"
            for lane in self._progress.lanes
            if lane.is_left
        ]
        return (*full, *left)

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Where events are that nobody has finished with yet, in words."""
        sizes = ((lane.name, len(lane)) for lane in self._progress.lanes)
        return tuple(f"not finished in {name!r}: {size} events" for name, size in sizes if size)

    @property
    def is_inside(self) -> bool:
        """Whether the caller is a handler of a lane."""
        return any(strand.is_current for strand in self._strands)

    def say_stalled(self) -> None:
        """Log which lanes the loop waits for, now and then."""
        now = time.monotonic()
        for lane in self.stalled:
            if now - self._said.get(lane, -_SAY_EVERY) >= _SAY_EVERY:
                self._said[lane] = now
                log.warning("queue.full", subscription=lane.name, waiting=len(lane))

    def patience(self) -> float:
        """Seconds until the loop has something to hand over to a lane's handler."""
        lanes = [lane.due for lane in self._progress.lanes if lane.driver is Driver.LOOP]
        return max(0.0, min(lanes, default=NEVER) - time.monotonic())

    def due(self) -> Steps:
        """What the loop has to do for lanes between two batches."""
        standby = self._progress.standby
        for lane in self._progress.lanes:
            if standby is not None:
                lane.reach(standby.finished_lsn)
            if lane.driver is Driver.LOOP:
                yield from self._drain(lane)
            if lane.is_forsaken and not lane.is_closed:
                lane.leave()
                self._subscriptions[lane].close()
            if lane.is_closed and lane.oldest is None:
                self._forget(lane)

    def hurry(self) -> Steps:
        """Let what waits be handed over now, as when the connection was lost."""
        for lane in self._progress.lanes:
            lane.hurry()
            if lane.driver is Driver.LOOP:
                yield from self._drain(lane)

    def end(self) -> Steps:
        """Let handlers finish what they have at hand, for a bounded time; what waits behind comes again."""
        self.is_ending = True
        for lane in self._progress.lanes:
            lane.wake_driver()
        deadline = time.monotonic() + _GRACE
        while self._working and time.monotonic() < deadline:
            yield Wait((), _SOON)
        for strand in self._working:
            log.warning("handler.left", subscription=strand.name, seconds=_GRACE)
            strand.abandon()

    def over(self, failure: BaseException | None) -> None:
        """The consumer has ended: iterations end, too."""
        self.is_ending = self.is_over = True
        self.failure = self.failure or failure
        for lane in self._progress.lanes:
            lane.wake_driver()

    def check(self) -> None:
        """Raise what a handler of a lane has raised."""
        failure = self.failure
        if failure is None:
            return
        if isinstance(failure, Exception):
            raise failure
        raise CdcError(f"the consumer was ended by {type(failure).__name__}") from failure

    def next(self, lane: Lane) -> Steps:
        """For an iteration: wait until there is something more, or the consumer ends."""
        while not (self.is_over or lane.is_closed or self.take(lane)):
            yield Wait((), _until(lane))

    def take(self, lane: Lane) -> bool:
        """For an iteration: what it had is finished; whether there is something more."""
        lane.finish()
        subscription = self._subscriptions.get(lane)
        if subscription is not None and _is_over(subscription):
            self._drop(lane)
        return not self.is_ending and lane.take(time.monotonic()) is not None

    @property
    def _working(self) -> list[Strand]:
        return [strand for strand in self._strands if not strand.is_over]

    def _spawn(self, subscription: Subscription, lane: Lane) -> Steps:
        strand: Strand = yield Spawn(self._drive(subscription, lane), lane.name)
        self._strands = [*self._working, strand]
        lane.wake_driver = strand.wake
        strand.begin()

    def _drive(self, subscription: Subscription, lane: Lane) -> Steps:
        """Take events out and hand them over, on a thread or in a task of the lane's own."""
        try:
            while not (self.is_ending or lane.is_closed):
                portion = lane.take(time.monotonic())
                if portion is None:
                    yield Wait((), _until(lane))
                else:
                    yield from self._hand_over(subscription, lane, portion.event)
                    yield Breathe()
        except BaseException as error:
            self._failed(error)

    def _drain(self, lane: Lane) -> Steps:
        """Hand over what is due."""
        while (portion := lane.take(time.monotonic())) is not None:
            yield from self._hand_over(self._subscriptions[lane], lane, portion.event)

    def _drop(self, lane: Lane) -> None:
        """The subject has expired, which the loop will tell the handler: what waits is not for him any more."""
        lane.forget()
        self._wake()

    def _hand_over(self, subscription: Subscription, lane: Lane, event: Any) -> Steps:
        if _is_over(subscription):
            self._drop(lane)
            lane.finish()
            return
        left = self._call(subscription, event)
        if left is not None:
            yield from left
        lane.finish()

    def _failed(self, error: BaseException) -> None:
        """A handler has raised: the consumer ends as if it had been called by the loop."""
        abandoned = isinstance(error, Unfinished) or (self.is_ending and not isinstance(error, Exception))
        if not abandoned:
            self.failure = self.failure or error
            self.stop()

    def _changed(self, lane: Lane) -> None:
        """Events were finished, or there is room again."""
        progress = self._progress
        progress.dirty = True
        if (self.is_awaited and not lane.stalls) or (progress.is_awaited and not len(lane)):
            self._wake()

    def _forget(self, lane: Lane) -> None:
        with self._mutex:
            self._progress.lanes = tuple(each for each in self._progress.lanes if each is not lane)
        self._subscriptions.pop(lane, None)
        self._said.pop(lane, None)


def _is_over(subscription: Subscription) -> bool:
    """Whether its subject has expired, and it is still to be closed."""
    expires = subscription.expires
    return expires is not None and not subscription.closed and expires <= time.time()


def _until(lane: Lane) -> float:
    """Seconds until the next portion may be due."""
    return min(_LONG, max(0.0, lane.due - time.monotonic()))
