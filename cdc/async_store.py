"""A store for asyncio: the same, with a `wait_live` that is awaited."""

from __future__ import annotations

import asyncio

from cdc.storing.store import Store

__all__ = ["AsyncStore"]


class AsyncStore(Store):
    """A `Store` whose `wait_live` is a coroutine; handlers of its changes may be coroutine functions."""

    async def wait_live(self, timeout: float = 60.0) -> None:  # type: ignore[override]  # awaited, not waited for
        """See `Store.wait_live`."""
        future = asyncio.wrap_future(self._when_live())
        try:
            await asyncio.wait_for(asyncio.shield(future), timeout)
        except TimeoutError:
            future.add_done_callback(lambda done: done.cancelled() or done.exception())  # Nobody else looks at it.
            raise self._not_live(timeout) from None
