"""Iterations: a subscription whose events are taken by the user's own loop.

An event is finished when the next one is asked for. The lane between is that of any slow subscriber: a full one keeps
the stream waiting, and what was not finished comes again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from cdc.errors import ConfigurationError
from cdc.lane import Lane
from cdc.lanes import Lanes
from cdc.subscription import Subscription
from cdc.waiting import AsyncWaiter, BlockingWaiter

__all__ = ["AsyncEvents", "Events"]


class _Taking:
    """What both iterations share.

    Attributes:
        subscription: the subscription whose events these are.
    """

    def __init__(self, subscription: Subscription, lanes: Lanes) -> None:
        lane = subscription.lane
        assert lane is not None
        self.subscription = subscription
        self._lane: Lane = lane
        self._lanes = lanes
        self._is_busy = False
        lanes.begin(subscription, lane)

    def finish(self) -> None:
        """The event at hand is finished, though the next one is not asked for yet."""
        self._lane.finish()

    def close(self) -> None:
        """End the subscription. An event that is not finished comes again when the consumer is started anew.

        So does everything behind it: until then, the position stays before it. Idempotent.
        """
        self._lane.leave()
        self.subscription.close()

    def __del__(self) -> None:
        # Nobody can ask for more. No mutex may be taken here; the loop does the rest.
        self._lane.is_forsaken = True

    def _enter(self) -> None:
        if self._is_busy:
            raise ConfigurationError(f"the iteration {self._lane.name!r} is waited for already: one loop for each")
        self._is_busy = True

    def _taken(self) -> Any:
        """What was taken; None at the end. Raises what ended the consumer."""
        portion = self._lane.at_hand
        if portion is not None:
            return portion.event
        if self._lanes.is_over:
            self._lanes.check()
        return None


class Events(_Taking):
    """The events of one subscription, for a `for` loop; made by `Consumer.events`.

    Asking for the next event says that the one before is finished. The first one starts the consumer if need be.
    """

    def __init__(self, subscription: Subscription, lanes: Lanes, begin: Callable[[], None]) -> None:
        super().__init__(subscription, lanes)
        self._begin = begin

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        """The next event, list or transaction. Raises what ended the consumer."""
        self._begin()
        self._enter()
        try:
            if not self._lanes.take(self._lane):
                self._wait()
        finally:
            self._is_busy = False
        event = self._taken()
        if event is None:
            raise StopIteration
        return event

    def _wait(self) -> None:
        waiter = BlockingWaiter()
        self._lane.wake_driver = waiter.wake
        try:
            waiter.run(self._lanes.next(self._lane))
        finally:
            waiter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncEvents(_Taking):
    """The events of one subscription, for an `async for` loop; made by `AsyncConsumer.events`. See `Events`."""

    def __init__(self, subscription: Subscription, lanes: Lanes, begin: Callable[[], Awaitable[None]]) -> None:
        super().__init__(subscription, lanes)
        self._begin = begin

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """The next event, list or transaction. Raises what ended the consumer."""
        await self._begin()
        self._enter()
        try:
            if not self._lanes.take(self._lane):
                await self._wait()
        finally:
            self._is_busy = False
        event = self._taken()
        if event is None:
            raise StopAsyncIteration
        return event

    async def _wait(self) -> None:
        waiter = AsyncWaiter()
        self._lane.wake_driver = waiter.wake
        try:
            await waiter.run(self._lanes.next(self._lane))
        finally:
            waiter.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
