"""Defects on purpose: consumers that lose, repeat or reorder, to prove that a round finds them out.

A `Spoiled` sink does it to the lines; `early` lets the library finish a change before its handler has had it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from cdc.delivery import Delivery
from tests.chaos.sink import Sink

__all__ = ["DEFECTS", "spoil"]

_LATE = 1.5
"""Seconds by which handlers are called late; positions are saved every second."""
_EVERY = 40


class Spoiled(Sink):
    """A sink that does something to every 40th line of a change.

    Args:
        sink: the sink that takes what is left of it.
        defect: the name of the defect.
    """

    def __init__(self, sink: Sink, defect: str) -> None:
        self._sink, self._defect, self._changes = sink, defect, 0
        self._kept: dict[str, Any] | None = None

    def write(self, **fields: Any) -> None:
        """Append the line, or what the defect makes of it."""
        self._changes += "position" in fields
        due = "position" in fields and self._changes % _EVERY == 0
        if self._defect == "no-gap" and "gap" in fields:
            return
        if due and self._defect == "lose":
            return
        if due and self._defect == "reorder":
            self._kept = fields
            return
        self._sink.write(**fields)
        if due and self._defect == "repeat":
            epoch, lsn, ordinal = fields["position"].split(":")
            self._sink.write(**fields | {"position": f"{epoch}:{lsn}:{int(ordinal) + 1000}"})
        if due and self._defect == "again":
            self._sink.write(**fields)
        if due and self._defect == "alter":
            self._sink.write(**fields | {"value": "other"})
        if self._kept is not None:
            self._kept = self._sink.write(**self._kept)


def _confirm_early() -> None:
    """Let `Delivery.call` return at once; the handlers are called later, by a thread."""
    call, waiting = Delivery.call, deque[tuple[float, Any, Any, Any]]()

    def promise(delivery: Delivery, subscription: Any, event: Any) -> None:
        waiting.append((time.monotonic() + _LATE, delivery, subscription, event))

    def keep() -> None:
        while True:
            while waiting and waiting[0][0] <= time.monotonic():
                _, delivery, subscription, event = waiting.popleft()
                call(delivery, subscription, event)
            time.sleep(0.005)

    Delivery.call = promise  # type: ignore[method-assign]
    threading.Thread(target=keep, daemon=True).start()


DEFECTS = ("early", "lose", "repeat", "again", "alter", "reorder", "no-gap")


def spoil(defect: str | None, sink: Sink) -> Sink:
    """The sink with the defect, if any."""
    if defect == "early":
        _confirm_early()
        return sink
    return sink if defect is None else Spoiled(sink, defect)
