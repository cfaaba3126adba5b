"""The errors of cdc: one root, and each class says whose fault it is.

Touches nothing. The command line turns `ConfigurationError` and `SubscriptionError` into exit code 2
(wrong usage or configuration) and every other `CdcError` into exit code 1 (a failure while running).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdc.events import Gap

__all__ = [
    "CdcError",
    "ConfigurationError",
    "ConnectionFailed",
    "DecodeError",
    "FailureKind",
    "GapError",
    "HandlerError",
    "NotYetVisible",
    "SlotError",
    "SubscriptionError",
    "UnsupportedMessage",
    "kind_of",
]


class FailureKind(StrEnum):
    """What failed. `failures` decides it for what a server or libpq says."""

    NETWORK = "network"
    """The server cannot be reached, or the connection broke."""
    RESTARTING = "restarting"
    """The server starts, shuts down or recovers, or somebody ended the connection there."""
    FULL = "full"
    """The server takes no further connection or walsender."""
    LOCKED = "locked"
    """A published table is locked."""
    AUTHENTICATION = "authentication"
    """A wrong password, a role that is missing or may not log in, no line in pg_hba.conf."""
    RIGHT = "right"
    """The role may not do this."""
    MISSING = "missing"
    """The database is not there."""
    TLS = "tls"
    """Client and server do not agree on encryption, or a certificate does not fit."""
    POOLER = "pooler"
    """A connection pooler answers in the server's place."""
    SLOT = "slot"
    """The replication slot is busy or lost, or none is free."""
    PUBLICATION = "publication"
    """A publication is missing, or does not send what a subscription needs."""
    DECODE = "decode"
    """What the server sent cannot be read."""
    GAP = "gap"
    """Changes are missing."""
    HANDLER = "handler"
    """A handler raised."""
    CONFIGURATION = "configuration"
    """A setting of the consumer or the server."""
    OTHER = "other"
    """None of these."""


class CdcError(Exception):
    """The root of every error that cdc raises on purpose.

    Attributes:
        failure: what failed.

    Args:
        text: what to tell the user.
        failure: what failed, when the class does not say it.
    """

    failure: FailureKind = FailureKind.OTHER

    def __init__(self, *text: object, failure: FailureKind | None = None) -> None:
        super().__init__(*text)
        if failure is not None:
            self.failure = failure


class ConfigurationError(CdcError):
    """The call, the configuration or the server's set-up is wrong; waiting does not mend it."""

    failure = FailureKind.CONFIGURATION


class SubscriptionError(ConfigurationError):
    """This subscription cannot be had: unpublished table, bad filter, unknown role, undecidable policy."""


class ConnectionFailed(CdcError):
    """The server cannot be reached, or the connection ended and may come back."""

    failure = FailureKind.NETWORK


class SlotError(CdcError):
    """The replication slot is busy, lost, or not one that cdc can read."""

    failure = FailureKind.SLOT


class GapError(CdcError):
    """Changes are missing between what was delivered and what the server can still send.

    Attributes:
        gap: the `Gap` event with the reason and the last known position.
    """

    failure = FailureKind.GAP

    def __init__(self, message: str, gap: Gap) -> None:
        super().__init__(message)
        self.gap = gap


class DecodeError(CdcError):
    """The bytes do not have the format that the manual states.

    Attributes:
        offset: byte offset in the message at which decoding stopped.
        kind: the message's type byte as text, or None when there is none.
        lsn: WAL position of the message when it is known (an `Lsn`), else None.
    """

    failure = FailureKind.DECODE

    def __init__(self, problem: str, *, offset: int, kind: str | None = None, lsn: int | None = None) -> None:
        super().__init__(problem, offset, kind, lsn)
        self.problem, self.offset, self.kind, self.lsn = problem, offset, kind, lsn

    def __str__(self) -> str:
        kind = "no message type" if self.kind is None else f"message type {self.kind!r}"
        place = "" if self.lsn is None else f", at LSN {self.lsn}"
        return f"{self.problem} ({kind}, byte offset {self.offset}{place})"


class UnsupportedMessage(DecodeError):
    """The message is well formed, but this version of cdc does not know its type or a part of it."""


class HandlerError(CdcError):
    """A handler raised. Its exception is `__cause__`; the change is not acknowledged and comes again."""

    failure = FailureKind.HANDLER


class NotYetVisible(CdcError):
    """A cache's load still reads the value from before a change that this process has received.

    The commit was streamed, but is not visible to new snapshots yet (as when it waits for a synchronous
    standby). Try again later.
    """


def kind_of(error: BaseException) -> FailureKind:
    """What failed, of whatever error."""
    return error.failure if isinstance(error, CdcError) else FailureKind.OTHER
