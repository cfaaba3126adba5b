"""What a store tells those who asked for its changes. Touches nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cdc.events import Effect
from cdc.lsn import Position

__all__ = ["StoreChange"]


@dataclass(frozen=True, slots=True)
class StoreChange:
    """One row of a store has come, changed or gone.

    Attributes:
        key: the row's key, as in the store.
        effect: `ENTER`: it was not there before; `STAY`: it was, and looks different now; `LEAVE`: it is gone.
        old: what the store had; None for `ENTER`.
        new: what it has now; None for `LEAVE`.
        position: the change in the stream that did it; None for a difference that was found by reading the table.
        polled: whether the difference was found by polling, while there was no stream.
    """

    key: Any
    effect: Effect
    old: Any
    new: Any
    position: Position | None = None
    polled: bool = False
