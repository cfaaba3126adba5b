"""Health: is the consumer live, and if not, why.

Pure: it is told what happens and asked for a verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from cdc.events import Gap
from cdc.lsn import Lsn
from cdc.reconnect import MANY, Failure
from cdc.wal_budget import WalBudget

__all__ = ["Colour", "Health", "Status", "StatusChange", "slot_verdict", "verdict_of"]


class Status(StrEnum):
    """What a consumer does at the moment."""

    OFFLINE = "OFFLINE"
    CONNECTING = "CONNECTING"
    CATCHING_UP = "CATCHING_UP"
    LIVE = "LIVE"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True)
class StatusChange:
    """The consumer does something else from now on.

    Attributes:
        status: what it does now.
        previous: what it did before.
        at: when, in UTC.
        failure: why, when something failed; None when nothing did, as when it becomes live or was asked to stop.
        error: the exception behind that, which `stop()` raises when the consumer has ended by it.
    """

    status: Status
    previous: Status
    at: datetime
    failure: Failure | None = None
    error: BaseException | None = None


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
        wal: what the slot keeps of the server's WAL, looked at every ten seconds; None before the first look.
        losses_within_an_hour: how often it was lost in the last hour.
        not_live_since: since when it has not been live, in UTC; None when it is.
        failure: the last failure since it was live; None when there is none.
        failures: the last failures, oldest first, those before it was live again included.
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
    wal: WalBudget | None = None
    losses_within_an_hour: int = 0
    not_live_since: datetime | None = None
    failure: Failure | None = None
    failures: tuple[Failure, ...] = ()

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
            "wal": None if self.wal is None else self.wal.to_dict(),
            "losses_within_an_hour": self.losses_within_an_hour,
            "not_live_since": self.not_live_since and self.not_live_since.isoformat(timespec="milliseconds"),
            "failure": self.failure and self.failure.to_dict(),
            "failures": [failure.to_dict() for failure in self.failures],
        }


def verdict_of(
    status: Status, attempts: int, problems: tuple[str, ...], restless: str | None = None
) -> tuple[Colour, tuple[str, ...]]:
    """Colour and reasons for a status, failed attempts, problems, and a connection that does not last."""
    reasons = _STATUS_REASONS[status] + problems + (() if restless is None else (restless,))
    if status in (Status.OFFLINE, Status.STOPPED) or attempts >= MANY or restless is not None:
        return Colour.RED, reasons
    return (Colour.YELLOW, reasons) if reasons else (Colour.GREEN, ())


def slot_verdict(
    colour: Colour, reasons: tuple[str, ...], wal: WalBudget | None, gap: Gap | None
) -> tuple[Colour, tuple[str, ...]]:
    """Colour and reasons together with what the slot adds: the WAL that it keeps, and a gap that nobody has mended."""
    if gap is not None:
        colour = Colour.RED if colour is Colour.RED else Colour.YELLOW
        reasons += (f"changes may be missing: {gap.reason}",)
    if wal is not None and wal.warning is not None:
        colour = Colour.RED if wal.is_critical or colour is Colour.RED else Colour.YELLOW
        reasons += (wal.warning,)
    return colour, reasons


_STATUS_REASONS: dict[Status, tuple[str, ...]] = {
    Status.OFFLINE: ("not connected",),
    Status.CONNECTING: ("the connection was lost; trying again",),
    Status.CATCHING_UP: ("catching up with changes made before",),
    Status.LIVE: (),
    Status.STOPPED: ("stopped",),
}
