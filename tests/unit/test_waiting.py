"""The two ways to wait: what ends a wait, and what stays of it."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from cdc.waiting import AsyncWaiter, Await, BlockingWaiter, Breathe, Call, Nap, Steps, Wait

Pair = tuple[socket.socket, socket.socket]
LONG = 10.0


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    here.setblocking(False)
    yield here, there
    here.close()
    there.close()


def blocking(steps: Steps, before: Callable[[BlockingWaiter], object] = id) -> None:
    waiter = BlockingWaiter()
    try:
        before(waiter)
        waiter.run(steps)
    finally:
        waiter.close()


def in_loop(steps: Steps, before: Callable[[AsyncWaiter], object] = id) -> None:
    async def main() -> None:
        waiter = AsyncWaiter()
        try:
            before(waiter)
            await waiter.run(steps)
        finally:
            waiter.close()

    asyncio.run(main())


Run = Callable[..., None]
BOTH = pytest.mark.parametrize("run", [blocking, in_loop])


def waits(sockets: Sequence[int], timeout: float, took: list[float], times: int = 1) -> Steps:
    for _ in range(times):
        begun = time.monotonic()
        yield Wait(sockets, timeout)
        took.append(time.monotonic() - begun)


@BOTH
def test_a_wait_ends_at_its_timeout(run: Run, pair: Pair) -> None:
    took: list[float] = []
    run(waits((pair[0].fileno(),), 0.05, took, times=3))
    assert all(each <= 0.5 for each in took)
    assert sum(took) >= 0.1


@BOTH
def test_a_shorter_timeout_counts_though_a_longer_one_came_before(run: Run, pair: Pair) -> None:
    took: list[float] = []

    def steps() -> Steps:
        pair[1].send(b"x")
        yield from waits((pair[0].fileno(),), LONG, took)
        pair[0].recv(1)
        yield from waits((pair[0].fileno(),), 0.05, took)

    run(steps())
    assert max(took) < 2


@BOTH
def test_a_wait_ends_when_a_socket_becomes_readable(run: Run, pair: Pair) -> None:
    took: list[float] = []
    timer = threading.Timer(0.05, pair[1].send, (b"x",))
    timer.start()
    run(waits((pair[0].fileno(),), LONG, took))
    timer.join()
    assert took[0] < 2


@BOTH
def test_every_message_ends_a_wait_and_none_ends_two(run: Run, pair: Pair) -> None:
    """A reader that stays must neither miss what comes next nor see again what was read."""
    here, there = pair
    waited, got = [], []

    def echo() -> None:
        for _ in range(200):
            assert there.recv(1)
            time.sleep(0.0005)
            there.send(b"x")

    def steps() -> Steps:
        for number in range(200):
            here.send(b"?")
            yield Wait((here.fileno(),), LONG)
            waited.append(number)
            got.append(here.recv(1))
            yield Breathe()

    thread = threading.Thread(target=echo)
    thread.start()
    run(steps())
    thread.join()
    assert len(waited) == len(got) == 200


@BOTH
@pytest.mark.parametrize("early", [True, False])
def test_a_wake_ends_the_wait_that_is_under_way_or_the_next_one(run: Run, pair: Pair, early: bool) -> None:
    took: list[float] = []

    def before(waiter: BlockingWaiter | AsyncWaiter) -> None:
        if early:
            waiter.wake()
        else:
            threading.Timer(0.05, waiter.wake).start()

    run(waits((pair[0].fileno(),), LONG, took), before)
    assert took[0] < 2


@BOTH
def test_a_wake_ends_one_wait_only(run: Run, pair: Pair) -> None:
    took: list[float] = []
    run(waits((pair[0].fileno(),), 0.2, took, times=3), lambda waiter: waiter.wake())
    assert sum(took) >= 0.2


@BOTH
def test_the_number_of_a_closed_socket_may_come_back_as_another_one(run: Run) -> None:
    """As after a reconnect. A reader left behind would keep the new socket from ever being looked at."""
    took: list[float] = []
    kept: list[socket.socket] = []

    def steps() -> Steps:
        first, other = socket.socketpair()
        number = first.fileno()
        other.send(b"x")
        yield Wait((number,), LONG)
        first.recv(1)
        yield Wait((number,), 0.05)
        yield Call(first.close)
        other.close()
        here, there = socket.socketpair()
        if here.fileno() != number:
            os.dup2(here.fileno(), number)
        timer = threading.Timer(0.05, there.send, (b"x",))
        timer.start()
        yield from waits((number,), LONG, took)
        kept.extend((here, there))
        if here.fileno() != number:
            yield Call(os.close, (number,))

    run(steps())
    for each in kept:
        each.close()
    assert took[0] < 2


# What only an event loop has.


class Counting(asyncio.SelectorEventLoop):
    """Counts its rounds, and how often a reader is added or removed."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = self.added = self.removed = 0

    def _run_once(self) -> None:
        self.rounds += 1
        super()._run_once()  # type: ignore[misc]

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        self.added += 1
        super().add_reader(fd, callback, *args)

    def remove_reader(self, fd: Any) -> bool:
        self.removed += 1
        return super().remove_reader(fd)


def counted(steps: Callable[[Counting], Steps]) -> Counting:
    with asyncio.Runner(loop_factory=Counting) as runner:

        async def main() -> Counting:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, Counting)
            waiter = AsyncWaiter()
            try:
                await waiter.run(steps(loop))
            finally:
                waiter.close()
            return loop

        return runner.run(main())


@pytest.mark.parametrize("step", [lambda: Await(asyncio.sleep(0.3)), lambda: Nap(0.3)])
def test_unread_data_does_not_keep_the_event_loop_busy_while_nobody_waits(pair: Pair, step: Any) -> None:
    here, there = pair
    rounds: list[int] = []

    def steps(loop: Counting) -> Steps:
        yield Wait((here.fileno(),), 0.01)
        there.send(b"unread")
        before = loop.rounds
        yield step()
        rounds.append(loop.rounds - before)
        yield Wait((here.fileno(),), LONG)
        assert here.recv(10) == b"unread"

    counted(steps)
    assert rounds[0] < 10


def test_readers_stay_from_one_wait_to_the_next_and_end_with_the_waiter(pair: Pair) -> None:
    here, there = pair

    def steps(loop: Counting) -> Steps:
        for _ in range(50):
            there.send(b"x")
            yield Wait((here.fileno(),), LONG)
            here.recv(1)
            yield Breathe()
        assert loop.removed == 0

    loop = counted(steps)
    assert (loop.added, loop.removed) == (1, 1)


def test_readers_are_gone_before_a_call(pair: Pair) -> None:
    here, there = pair

    def steps(loop: Counting) -> Steps:
        there.send(b"x")
        yield Wait((here.fileno(),), LONG)
        removed = yield Call(lambda: loop.removed)
        assert removed == 1
        yield Wait((here.fileno(),), LONG)

    assert counted(steps).added == 2


def test_a_pause_without_sockets_watches_none(pair: Pair) -> None:
    here, there = pair

    def steps(loop: Counting) -> Steps:
        yield Wait((here.fileno(),), 0.01)
        there.send(b"x")
        before = loop.rounds
        yield Wait((), 0.1)
        assert loop.rounds - before < 10

    counted(steps)


def test_others_have_their_turn_though_the_loop_never_waits() -> None:
    async def main() -> int:
        waiter, turns = AsyncWaiter(), 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        def steps() -> Steps:
            deadline = time.monotonic() + 0.1
            while time.monotonic() < deadline:
                yield Breathe()

        task = asyncio.create_task(other())
        await waiter.run(steps())
        task.cancel()
        waiter.close()
        return turns

    assert 10 <= asyncio.run(main()) <= 200
