"""The two ways to wait: blocking, for threads, and asyncio.

The loop is one generator that yields what it needs: `Wait` for the socket, `Call` for something that blocks,
`Await` for a coroutine of a handler, `Breathe` between two batches. A waiter performs these steps and sends
the results back. That is all in which threads and asyncio differ.
"""

from __future__ import annotations

import asyncio
import math
import select
import socket
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cdc.errors import ConfigurationError

__all__ = ["AsyncWaiter", "Await", "BlockingWaiter", "Breathe", "Call", "Nap", "Step", "Steps", "Wait"]


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until one of the sockets is readable, somebody calls `wake`, or `timeout` seconds are over."""

    sockets: Sequence[int]
    timeout: float


@dataclass(frozen=True, slots=True)
class Call:
    """Run something that may block for a while; its result is sent back."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Await:
    """Await what a handler returned."""

    awaitable: Awaitable[Any]


@dataclass(frozen=True, slots=True)
class Breathe:
    """A moment for others between two batches."""


@dataclass(frozen=True, slots=True)
class Nap:
    """Sleep for a moment, `seconds`, which is far below what anybody would wake it for."""

    seconds: float


Step = Wait | Call | Await | Breathe | Nap
Steps = Generator[Step, Any, None]


class BlockingWaiter:
    """Performs the steps on the calling thread."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._there.setblocking(False)

    def wake(self) -> None:
        """End a wait that is under way, from any thread."""
        # The pipe may be full: then it is awake. Or closed: then nobody waits.
        with suppress(OSError):
            self._there.send(b"\0")

    def run(self, steps: Steps) -> None:
        """Perform every step until the generator ends; its exceptions pass through."""
        try:
            self._drive(steps, next(steps))
        except StopIteration:
            return
        except BaseException as error:
            # An interrupt may have come between two steps: let the generator end in good order then, too.
            with suppress(BaseException):
                self._drive(steps, steps.throw(error))
            raise

    def _drive(self, steps: Steps, step: Step) -> None:
        while True:
            try:
                outcome = self._perform(step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(outcome)

    def close(self) -> None:
        """Give back the sockets."""
        self._here.close()
        self._there.close()

    def _perform(self, step: Step) -> Any:
        if isinstance(step, Wait):
            return self._wait(step)
        if isinstance(step, Call):
            return step.function(*step.arguments)
        if isinstance(step, Nap):
            return time.sleep(step.seconds)
        if isinstance(step, Await):
            _close(step.awaitable)
            raise ConfigurationError("the handler returned an awaitable: use AsyncConsumer for coroutine handlers")
        return None

    def _wait(self, step: Wait) -> None:
        poll = select.poll()
        own = self._here.fileno()
        for descriptor in (own, *step.sockets):
            poll.register(descriptor, select.POLLIN)
        if any(descriptor == own for descriptor, _ in poll.poll(math.ceil(step.timeout * 1000))):
            with suppress(BlockingIOError):
                while self._here.recv(4096):
                    pass


def _close(awaitable: Awaitable[Any]) -> None:
    """Close a coroutine that nobody will await, so that Python does not warn about it."""
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()


class AsyncWaiter:
    """Performs the steps in a task of the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        # Of its own: loads of caches may fill the event loop's threads.
        self._thread = ThreadPoolExecutor(1, "cdc-calls")

    def wake(self) -> None:
        """End a wait that is under way, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    async def run(self, steps: Steps) -> None:
        """Perform every step until the generator ends; its exceptions pass through."""
        try:
            step = next(steps)
            while True:
                try:
                    outcome = await self._perform(step)
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration:
            return

    def close(self) -> None:
        """Give back the thread."""
        self._thread.shutdown(wait=False)

    async def _perform(self, step: Step) -> Any:
        if isinstance(step, Wait):
            return await self._wait(step)
        if isinstance(step, Call):
            return await self._loop.run_in_executor(self._thread, step.function, *step.arguments)
        if isinstance(step, Await):
            return await step.awaitable
        return await asyncio.sleep(step.seconds if isinstance(step, Nap) else 0)

    async def _wait(self, step: Wait) -> None:
        for descriptor in step.sockets:
            self._loop.add_reader(descriptor, self._woken.set)
        timer = self._loop.call_later(step.timeout, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()
            for descriptor in step.sockets:
                self._loop.remove_reader(descriptor)
            self._woken.clear()
