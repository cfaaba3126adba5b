"""The two ways to wait: blocking, for threads, and asyncio.

The loop is one generator that yields what it needs: `Wait` for the socket, `Call` for something that blocks,
`Await` for a coroutine of a handler, `Breathe` between two batches, `Spawn` for steps that go on beside it. A waiter
performs these steps and sends the results back. That is all in which threads and asyncio differ.
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
from typing import Any, TypeAlias

from cdc.errors import ConfigurationError
from cdc.strand import TaskStrand, ThreadStrand

__all__ = [
    "AsyncWaiter",
    "Await",
    "BlockingWaiter",
    "Breathe",
    "Call",
    "Nap",
    "Spawn",
    "Step",
    "Steps",
    "Wait",
]


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


@dataclass(frozen=True, slots=True)
class Spawn:
    """Let other steps go on beside these, on a thread or in a task of their own; a `Strand` is sent back."""

    steps: Steps
    name: str


Step: TypeAlias = "Wait | Call | Await | Breathe | Nap | Spawn"
Steps: TypeAlias = Generator[Step, Any, None]


_TURN = 0.001
"""Seconds after which others in the event loop get their turn."""


class _Watch:
    """Which of some sockets are readable; kept as long as the sockets are the same."""

    def __init__(self, sockets: Sequence[int] = ()) -> None:
        self.sockets = sockets
        self._poll = select.poll()
        for descriptor in sockets:
            self._poll.register(descriptor, select.POLLIN)

    def readable(self, timeout: float = 0) -> list[int]:
        """Those that are readable, or not open, after `timeout` seconds at most.

        poll(2) is told the numbers at every call, so it does not matter whether a number is another socket by now.
        """
        return [descriptor for descriptor, _ in self._poll.poll(math.ceil(timeout * 1000))]


class BlockingWaiter:
    """Performs the steps on the calling thread."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._there.setblocking(False)
        self._watch = _Watch()

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
        if isinstance(step, Spawn):
            waiter = BlockingWaiter()
            return ThreadStrand(step.name, lambda: waiter.run(step.steps), waiter.wake, waiter.close)
        if isinstance(step, Await):
            _close(step.awaitable)
            raise ConfigurationError("the handler returned an awaitable: use AsyncConsumer for coroutine handlers")
        return None

    def _wait(self, step: Wait) -> None:
        own = self._here.fileno()
        wanted = (own, *step.sockets)
        if wanted != self._watch.sockets:
            self._watch = _Watch(wanted)
        if own in self._watch.readable(step.timeout):
            with suppress(BlockingIOError):
                while self._here.recv(4096):
                    pass


def _close(awaitable: Awaitable[Any]) -> None:
    """Close a coroutine that nobody will await, so that Python does not warn about it."""
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()


class AsyncWaiter:
    """Performs the steps in a task of the running event loop.

    The event loop's readers and the timer stay from one wait to the next, as making them anew costs more than a
    change does.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._waits = False
        self._watch = _Watch()
        self._readers: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._turn_at = 0.0
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
        """Give back the readers, the timer and the thread."""
        self._read(())
        if self._timer is not None:
            self._timer.cancel()
        self._thread.shutdown(wait=False)

    async def _perform(self, step: Step) -> Any:
        if isinstance(step, Wait):
            return await self._wait(step)
        if isinstance(step, Breathe):
            return await self._breathe()
        if isinstance(step, Call):
            # It may close a socket and open one of the same number.
            self._read(())
            return await self._loop.run_in_executor(self._thread, step.function, *step.arguments)
        if isinstance(step, Await):
            return await step.awaitable
        if isinstance(step, Spawn):
            waiter = AsyncWaiter()
            return TaskStrand(step.name, waiter.run(step.steps), waiter.wake, waiter.close)
        return await asyncio.sleep(step.seconds)

    async def _breathe(self) -> None:
        """Let others have a turn, unless they just had one."""
        if self._loop.time() - self._turn_at >= _TURN:
            await asyncio.sleep(0)
            self._turn_at = self._loop.time()

    async def _wait(self, step: Wait) -> None:
        if step.sockets != self._watch.sockets:
            self._watch = _Watch(step.sockets)
        self._read(step.sockets)
        self._wake_by(self._loop.time() + step.timeout)
        self._waits = True
        try:
            await self._woken.wait()
        finally:
            self._waits = False
            self._woken.clear()
            self._turn_at = self._loop.time()

    def _read(self, sockets: Sequence[int]) -> None:
        """Have a reader for each of these sockets, and no other."""
        for descriptor in self._readers.difference(sockets):
            self._loop.remove_reader(descriptor)
            self._readers.remove(descriptor)
        for descriptor in sockets:
            if descriptor not in self._readers:
                self._loop.add_reader(descriptor, self._readable, descriptor)
                self._readers.add(descriptor)

    def _readable(self, descriptor: int) -> None:
        """The event loop calls it in each of its rounds for as long as the socket is readable.

        In the round in which the task reads the socket, that is once too often: hence the look. And it must not go on
        while nobody waits, as when a handler awaits something: then the next wait adds the reader again.
        """
        if descriptor not in self._watch.readable():
            return
        if self._waits:
            self._woken.set()
        else:
            self._loop.remove_reader(descriptor)
            self._readers.remove(descriptor)

    def _wake_by(self, deadline: float) -> None:
        """Have a timer that ends the wait at the deadline or, as it may be of a former wait, before."""
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._time_over)

    def _time_over(self) -> None:
        self._timer = None
        self._woken.set()
