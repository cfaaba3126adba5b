"""The baton: threads of which one runs at a time, and a test says which. So interleavings can be drawn and repeated.

A thread gives the baton back before each lock that it takes and wherever it waits. While it is installed, the names
`threading` and `time` in the modules of the cache stand for these ones; their clock is the baton's own.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Baton", "Runner"]

_LIMIT = 20.0


class _Ended(BaseException):
    """Thrown into a thread that is not wanted any more."""


class Runner:
    """A function on a thread of its own, which runs while it has the baton.

    Attributes:
        is_done: whether it has returned or raised.
        value: what it has returned.
        error: what it has raised.
    """

    def __init__(self, baton: Baton, function: Callable[[], Any]) -> None:
        self.is_done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._baton, self._function, self._is_wanted = baton, function, True
        self._go = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Let it run until it gives the baton back."""
        if not self.is_done:
            self._go.release()
            assert self._baton.back.acquire(timeout=_LIMIT), "a thread waits for something that nobody gives"

    def end(self) -> None:
        """Throw it out where it waits."""
        self._is_wanted = False
        self.step()
        self._thread.join(_LIMIT)

    def give_back(self) -> None:
        """Called on its own thread: let others run."""
        self._baton.back.release()
        self._go.acquire()
        if not self._is_wanted:
            raise _Ended

    def _run(self) -> None:
        self._go.acquire()
        self._baton.current.runner = self
        try:
            if self._is_wanted:
                self.value = self._function()
        except BaseException as error:
            self.error = error
        self.is_done = True
        self._baton.back.release()


class Baton:
    """Hands the right to run around.

    Attributes:
        now: the time by its own clock, in seconds.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.back = threading.Semaphore(0)
        self.current = threading.local()
        self._runners: list[Runner] = []
        self._places: list[tuple[Any, str, Any]] = []

    def clock(self) -> float:
        """The time; no two moments are the same."""
        self.now += 1e-6
        return self.now

    def start(self, function: Callable[[], Any]) -> Runner:
        """A new thread for the function; it has not run yet."""
        runner = Runner(self, function)
        self._runners.append(runner)
        return runner

    def turn(self) -> None:
        """On a runner's thread: let others run. Elsewhere: nothing."""
        runner = getattr(self.current, "runner", None)
        # Whoever is thrown out goes without a stop.
        if runner is not None and runner._is_wanted:
            runner.give_back()

    def install(self) -> None:
        """Let the cache's modules have this clock and these locks; has to come before caches are made."""
        shims = {"threading": _Threading(self), "time": _Time(self)}
        for name, module in sorted(sys.modules.items()):
            if name.startswith("cdc.caching"):
                for word, real in (("threading", threading), ("time", time)):
                    if getattr(module, word, None) is real:
                        self._places.append((module, word, real))
                        setattr(module, word, shims[word])

    def close(self) -> None:
        """End every thread, and put the modules back."""
        for module, word, real in self._places:
            setattr(module, word, real)
        for runner in self._runners:
            runner.end()


class _Threading:
    def __init__(self, baton: Baton) -> None:
        self._baton = baton

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)

    def Lock(self) -> Any:
        return _Lock(self._baton, threading.Lock())

    def RLock(self) -> Any:
        return _Lock(self._baton, threading.RLock())

    def Event(self) -> Any:
        return _Event(self._baton)


class _Time:
    def __init__(self, baton: Baton) -> None:
        self._baton = baton

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return self._baton.clock()

    def sleep(self, seconds: float) -> None:
        until = self._baton.now + seconds
        self._baton.turn()
        self._baton.now = max(self._baton.now, until)


class _Lock:
    """Nobody gives the baton back while he holds it, so it is always free."""

    def __init__(self, baton: Baton, lock: Any) -> None:
        self._baton, self._lock = baton, lock

    def __enter__(self) -> bool:
        self._baton.turn()
        return bool(self._lock.acquire(timeout=_LIMIT))

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return self.__enter__()

    def release(self) -> None:
        self._lock.release()


class _Event(threading.Event):
    def __init__(self, baton: Baton) -> None:
        super().__init__()
        self._baton = baton

    def wait(self, timeout: float | None = None) -> bool:
        while not self.is_set():
            self._baton.turn()
        return True
