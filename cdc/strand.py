"""Strands: steps that go on beside those of the loop, on a thread or in a task of their own.

Touches threads and tasks; what the steps are and how they wait is the matter of `waiting`. What they raise is their own
matter, too.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

__all__ = ["Strand", "TaskStrand", "ThreadStrand"]


class ThreadStrand:
    """Runs on a thread of its own, once `begin` was called.

    Args:
        name: what it is for.
        run: what it does.
        wake: ends a wait that is under way in it, from any thread.
        close: gives back what it waits with.
    """

    def __init__(self, name: str, run: Callable[[], None], wake: Callable[[], None], close: Callable[[], None]) -> None:
        self.name = name
        self.wake = wake
        self._run, self._close = run, close
        # A daemon: a handler that never returns must not keep the process.
        self._thread = threading.Thread(target=self._work, name=f"cdc {name}", daemon=True)

    def begin(self) -> None:
        """Let it go."""
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and nothing of it is left."""
        return not self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether the caller is a part of it."""
        return threading.current_thread() is self._thread

    def abandon(self) -> None:
        """Nobody waits for its end: a thread cannot be ended from outside, and goes with the process at the latest."""

    def _work(self) -> None:
        try:
            self._run()
        finally:
            self._close()


class TaskStrand:
    """Runs in a task of its own; `steps` is what it does. See `ThreadStrand`."""

    def __init__(
        self, name: str, steps: Coroutine[Any, Any, None], wake: Callable[[], None], close: Callable[[], None]
    ) -> None:
        self.name = name
        self.wake = wake
        # It begins when the task that made it waits for the first time.
        self._task = asyncio.get_running_loop().create_task(steps, name=f"cdc {name}")
        self._task.add_done_callback(lambda _: close())

    def begin(self) -> None:
        """See `ThreadStrand.begin`."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._task.done()

    @property
    def is_current(self) -> bool:
        """Whether the caller is a part of it."""
        try:
            return asyncio.current_task() is self._task
        except RuntimeError:  # On a thread without an event loop.
            return False

    def abandon(self) -> None:
        """Nobody waits for its end: cancel it."""
        self._task.cancel()


Strand: TypeAlias = ThreadStrand | TaskStrand
