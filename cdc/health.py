"""Health: is the consumer live, and if not, why.

Pure: it is told what happens and asked for a verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cdc.lsn import Lsn

__all__ = ["Colour", "Health", "Status"]


class Status(StrEnum):
    """What a consumer does at the moment."""

    OFFLINE = "OFFLINE"
    CONNECTING = "CONNECTING"
    CATCHING_UP = "CATCHING_UP"
    LIVE = "LIVE"
    STOPPED = "STOPPED"


class Colour(StrEnum):
    """The verdict: green is well, yellow wants a look, red does not deliver."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


@dataclass(frozen=True, slots=True)
class Health:
    """A consumer's health at one moment.

    Attributes:
        colour: green, yellow or red.
        status: what the consumer does.
        reasons: why it is not green, in words; empty when it is.
        notes: what is limited by the way it is set up, in words.
        slot: name of the slot.
        received_lsn: up to where WAL was received and handled.
        confirmed_lsn: up to where the server was allowed to forget it.
        lag_bytes: bytes of WAL that the server has and this consumer has not handled yet.
        reconnects: how often the connection was lost.
        attempts: failed attempts to connect since it was lost.
        parked: events that wait in the parking lot.
    """

    colour: Colour
    status: Status
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    slot: str | None = None
    received_lsn: Lsn = field(default=Lsn(0))
    confirmed_lsn: Lsn = field(default=Lsn(0))
    lag_bytes: int = 0
    reconnects: int = 0
    attempts: int = 0
    parked: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return {
            "colour": self.colour.value,
            "status": self.status.value,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "slot": self.slot,
            "received_lsn": str(self.received_lsn),
            "confirmed_lsn": str(self.confirmed_lsn),
            "lag_bytes": self.lag_bytes,
            "reconnects": self.reconnects,
            "attempts": self.attempts,
            "parked": self.parked,
        }


def verdict_of(status: Status, attempts: int, problems: tuple[str, ...]) -> tuple[Colour, tuple[str, ...]]:
    """Colour and reasons for a status, failed attempts and problems such as denied subscriptions."""
    reasons = _STATUS_REASONS[status] + problems
    if status in (Status.OFFLINE, Status.STOPPED) or attempts >= 5:
        return Colour.RED, reasons
    return (Colour.YELLOW, reasons) if reasons else (Colour.GREEN, ())


_STATUS_REASONS: dict[Status, tuple[str, ...]] = {
    Status.OFFLINE: ("not connected",),
    Status.CONNECTING: ("the connection was lost; trying again",),
    Status.CATCHING_UP: ("catching up with changes made before",),
    Status.LIVE: (),
    Status.STOPPED: ("stopped",),
}
