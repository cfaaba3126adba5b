"""Failures: what the server said, as an error that says whose fault it is and what to do.

May import psycopg. Only a `ConnectionFailed` is worth another attempt; waiting mends none of the others.
"""

from __future__ import annotations

import psycopg

from cdc.connection import first_line
from cdc.errors import CdcError, ConfigurationError, ConnectionFailed, SlotError

__all__ = ["translated"]


def translated(error: psycopg.Error) -> CdcError:
    """The error for what the server said while the session was opened or streamed."""
    text = first_line(error)
    if isinstance(error, psycopg.errors.ObjectInUse):
        return SlotError(f"the slot is in use: {text}. One consumer a slot: stop the other, or choose another name")
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return ConnectionFailed(
            f"a published table is locked, as by an ALTER TABLE that has not ended ({text}). Commit it or roll it "
            "back: see pg_locks, and pg_prepared_xacts when it was prepared"
        )
    if isinstance(error, psycopg.errors.UndefinedObject) and "publication" in text:
        return ConfigurationError(
            f"{text}: it was created after the slot's position, or dropped. Create it, then `cdc drop` the slot "
            "and start anew"
        )
    if isinstance(
        error, (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ObjectNotInPrerequisiteState)
    ):
        return ConnectionFailed(f"the server ended the stream: {text}")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return ConfigurationError(f"the role may not do this: {text}")
    return ConfigurationError(f"the server refuses: {text}")
