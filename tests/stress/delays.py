"""Delays: the library's own locks and waits, each of them now and then a little late.

What is wrapped stays what it is: a real lock is acquired, a real event is awaited. In the modules of the cache the
names `threading` and `time` stand for these ones while they are installed; nothing else is changed.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Delays"]

_sleep = time.sleep
_ELSEWHERE = ("cdc.loader", "cdc.async_loader", "cdc.async_cache")


class Delays:
    """Sleeps at random, for a moment or for up to 2 ms.

    Args:
        seed: of what is drawn.

    Attributes:
        count: how often somebody was held up.
        locks: how many locks were wrapped.
        pauses: how often the library itself paused, before it looks again whether a change is visible.
    """

    def __init__(self, seed: int, share: float = 0.01, longest: float = 0.002) -> None:
        self.count = self.locks = self.pauses = 0
        self._random = random.Random(seed)
        self._share, self._longest = share, longest

    def __call__(self, times: float = 1.0) -> None:
        """Maybe hold up whoever calls; `times` as often as usual."""
        drawn = self._random.random()
        share = self._share * times
        if drawn < share:
            self.count += 1
            _sleep(drawn / share * self._longest)
        elif drawn < share * 4:
            _sleep(0)  # Let another thread have its turn.

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While it lasts, caches and their loader make delayed locks; it has to begin before they are made."""
        modules = [
            module
            for name, module in sorted(sys.modules.items())
            if name.startswith("cdc.caching") or name in _ELSEWHERE
        ]
        places = [
            (module, name, real)
            for module in modules
            for name, real in (("threading", threading), ("time", time))
            if getattr(module, name, None) is real
        ]
        shims = {"threading": _Threading(self), "time": _Time(self)}
        for module, name, _ in places:
            setattr(module, name, shims[name])
        try:
            yield
        finally:
            for module, name, real in places:
                setattr(module, name, real)


class _Threading:
    """The module `threading`, with delayed locks."""

    def __init__(self, delays: Delays) -> None:
        self._delays = delays

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)

    def Lock(self) -> Any:  # its name there
        return _Lock(self._delays, threading.Lock())

    def RLock(self) -> Any:
        return _Lock(self._delays, threading.RLock())

    def Condition(self, lock: Any = None) -> Any:
        return threading.Condition(_Lock(self._delays, threading.Lock()) if lock is None else lock)

    def Event(self) -> Any:
        return _Event(self._delays)


class _Time:
    """The module `time`; who sleeps is counted, and sleeps a little longer at times."""

    def __init__(self, delays: Delays) -> None:
        self._delays = delays

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        self._delays.pauses += 1
        _sleep(seconds)
        self._delays(10)


class _Lock:
    """A lock; before it is taken, while it is held and behind it there may be a delay."""

    def __init__(self, delays: Delays, lock: Any) -> None:
        self._delays, self._lock = delays, lock
        delays.locks += 1

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        self._delays()
        taken = bool(self._lock.acquire(blocking, timeout))
        if taken:
            self._delays(0.2)
        return taken

    def release(self) -> None:
        self._lock.release()
        self._delays()

    def locked(self) -> bool:
        return bool(self._lock.locked())

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class _Event(threading.Event):
    """An event; who waits may come late, and go on late."""

    def __init__(self, delays: Delays) -> None:
        super().__init__()
        self._delays = delays

    def wait(self, timeout: float | None = None) -> bool:
        self._delays(5)
        happened = super().wait(timeout)
        self._delays(5)
        return happened

    def set(self) -> None:
        self._delays(5)
        super().set()
