"""Waiting until nobody holds a slot any more: a ghost of our own, or another consumer in a rolling deployment.

May import psycopg. The wait is a loop of short sleeps, so that an interrupt and `stop` are heard at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg

from cdc.errors import ConfigurationError, ConnectionFailed, SlotError
from cdc.log import log
from cdc.slot_row import SlotRow, find_slot, holder_of

__all__ = ["SlotWait"]

_LOOK_EVERY = 0.05
_SAY_EVERY = 30.0


class SlotWait:
    """How long a consumer waits for its slot, and for whom it waits at the moment.

    Args:
        seconds: how long to wait while somebody else holds the slot; `math.inf` for as long as it takes.

    Attributes:
        is_over: says whether the consumer was told to stop.
        problem: for whom it waits, in words; None while it does not wait.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
            raise ConfigurationError(f"wait_for_slot is a number of seconds, not {seconds!r}")
        self.is_over: Callable[[], bool] = lambda: False
        self.problem: str | None = None
        self._seconds = seconds

    def released(self, connection: psycopg.Connection[Any], name: str, former_pid: int | None) -> SlotRow | None:
        """The slot once nobody holds it; None when there is none.

        `former_pid` is the walsender of our own lost connection: the server is told to end it. Raises SlotError, which
        names the holder, when the time is over, and ConnectionFailed when the consumer was told to stop.
        """
        begun = time.monotonic()
        say_at = begun
        try:
            while True:
                row = find_slot(connection, name)
                if row is None or row.active_pid is None:
                    return row
                now = time.monotonic()
                if row.active_pid == former_pid:
                    connection.execute("SELECT pg_catalog.pg_terminate_backend(%s)", (former_pid,))
                elif now >= say_at:
                    say_at = now + _SAY_EVERY
                    self._say(connection, name, row.active_pid)
                self._check(connection, name, row.active_pid, now - begun)
                time.sleep(_LOOK_EVERY)
        finally:
            self.problem = None

    def _say(self, connection: psycopg.Connection[Any], name: str, pid: int) -> None:
        holder = holder_of(connection, pid)
        self.problem = f"waits for slot {name!r}, which {holder} holds"
        log.info("slot.waits", slot=name, holder=holder, at_most=self._seconds)

    def _check(self, connection: psycopg.Connection[Any], name: str, pid: int, waited: float) -> None:
        if self.is_over():
            raise ConnectionFailed(f"the consumer was stopped while it waited for slot {name!r}")
        if waited > self._seconds:
            raise SlotError(
                f"slot {name!r} is in use by {holder_of(connection, pid)}: one consumer a slot. "
                "Stop the other consumer, choose another slot name, or wait longer with wait_for_slot=SECONDS"
            )
