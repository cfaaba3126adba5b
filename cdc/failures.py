"""Failures: what the server or libpq said, as an error that says what failed, whose fault it is and what to do.

May import psycopg. The one place that decides. Only a `ConnectionFailed` is worth another attempt; waiting mends none
of the others. An error of a running session has an SQLSTATE. One of an attempt to connect has text only, since libpq
keeps the SQLSTATE to itself: it is told by what is said, host by host, and when the server speaks another language
than English, by what libpq writes down of another attempt.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

import psycopg
from psycopg import pq

from cdc.errors import CdcError, ConfigurationError, ConnectionFailed, FailureKind, SlotError

__all__ = ["first_line", "refused", "translated", "why_ended"]

_SAID = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"unsupported startup parameter|replication.*pooler|pooler.*replication", FailureKind.POOLER),
        (r"the database system is|terminating connection", FailureKind.RESTARTING),
        (r"hot standby mode|session is (not )?read-only", FailureKind.RESTARTING),
        (
            r"too many (clients|connections)|remaining connection slots|number of requested standby connections"
            r"|not currently accepting connections",
            FailureKind.FULL,
        ),
        (
            r"authentication failed|pg_hba\.conf|not permitted to log in|role \"\" does not exist|no password supplied"
            r"|authentication method requirement",
            FailureKind.AUTHENTICATION,
        ),
        (r"permission denied (for|to)|must be superuser", FailureKind.RIGHT),
        (r"database \"\" does not exist", FailureKind.MISSING),
        (
            r"does not support SSL|SSL is not enabled|[Ss]erver certificate|root certificate|certificate verify failed"
            r"|certificate file|private key|sslmode|SSL error: (sslv3|tlsv1|certificate|wrong version|unsupported|no )",
            FailureKind.TLS,
        ),
        (r"unrecognized configuration parameter|invalid value for parameter", FailureKind.CONFIGURATION),
        (r"Connection refused|timeout expired|could not translate|failed to resolve", FailureKind.NETWORK),
        (r"closed the connection|No route|unreachable|reset by peer|SYSCALL|No such file|EOF", FailureKind.NETWORK),
    )
)
"""What libpq and a server say, without what stands in quotes."""
_ANSWERED = re.compile(r"failed: [^\s:]+ ?:  ")
"""A server's own words, in whatever language: libpq puts the severity before them."""

_STATES = {
    "53300": FailureKind.FULL,
    "55000": FailureKind.FULL,
    "57P01": FailureKind.RESTARTING,
    "57P02": FailureKind.RESTARTING,
    "57P03": FailureKind.RESTARTING,
    "57P05": FailureKind.RESTARTING,
    "57P04": FailureKind.MISSING,
    "3D000": FailureKind.MISSING,
    "42501": FailureKind.RIGHT,
    "42704": FailureKind.CONFIGURATION,
    "22023": FailureKind.CONFIGURATION,
    "55P03": FailureKind.LOCKED,
}
_CLASSES = {"08": FailureKind.NETWORK, "28": FailureKind.AUTHENTICATION, "53": FailureKind.FULL}
_LASTING = {
    FailureKind.AUTHENTICATION,
    FailureKind.RIGHT,
    FailureKind.MISSING,
    FailureKind.TLS,
    FailureKind.POOLER,
    FailureKind.CONFIGURATION,
}
"""What waiting does not mend."""

_PATIENCE = 5.0
"""Seconds for the attempt that libpq writes down."""
_learned: dict[str, tuple[FailureKind, ...]] = {}
"""What was learned of a text in another language, so that each is asked for once."""


def refused(error: psycopg.Error, dsn: str) -> CdcError:
    """The error for an attempt to connect that failed; `dsn` is what it connected to.

    With several hosts the first one decides that waiting may mend.
    """
    attempts = list(dict.fromkeys(_attempts(str(error))))
    kinds = [kind for attempt in attempts for kind in _kinds(attempt, dsn)]
    kind = next((kind for kind in kinds if kind not in _LASTING), kinds[0])
    return _refused(kind, "; ".join(first_line(attempt) for attempt in attempts))


def _attempts(text: str) -> Iterator[str]:
    """What was said of each host: psycopg lists them when there are several."""
    listed = re.split(r"^- host: .*?: (?=connection failed:|failed to |connection timeout)", text, flags=re.MULTILINE)
    for attempt in listed[1:] or listed:
        yield attempt.removeprefix("connection failed: ").strip()


def _kinds(attempt: str, dsn: str) -> Iterable[FailureKind]:
    """What failed; libpq may have tried one host twice, with TLS and without."""
    parts = re.split(r"\n(?=connection to server)", attempt)
    known = [kind for kind in map(_kind, parts) if kind is not None]
    if known:
        return known
    if not _ANSWERED.search(attempt):
        return (FailureKind.OTHER,)
    if attempt not in _learned and len(_learned) < 100:
        _learned[attempt] = tuple(map(_of_state, _written_down(dsn))) or (FailureKind.OTHER,)
    return _learned.get(attempt, (FailureKind.OTHER,))


def _kind(text: str) -> FailureKind | None:
    bare = re.sub(r'"[^"]*"', '""', text)
    return next((kind for pattern, kind in _SAID if pattern.search(bare)), None)


def _of_state(sqlstate: str) -> FailureKind:
    return _STATES.get(sqlstate) or _CLASSES.get(sqlstate[:2]) or FailureKind.OTHER


def _written_down(dsn: str) -> list[str]:
    """The SQLSTATEs with which the server refuses another attempt, from libpq's own trace; none where it has none.

    The trace holds what is sent, too; so it stays in memory and is forgotten here.
    """
    trace = os.memfd_create("cdc") if hasattr(os, "memfd_create") else -1
    try:
        pgconn = pq.PGconn.connect_start(dsn.encode())
        with suppress(psycopg.Error):
            pgconn.trace(trace)
            _poll(pgconn)
            pgconn.untrace()
        pgconn.finish()
        text = os.pread(trace, 1 << 20, 0) if trace >= 0 else b""
    finally:
        if trace >= 0:
            os.close(trace)
    return re.findall(r'\tErrorResponse\t[^\n]*? C "(\w{5})" M', text.decode("utf-8", "replace"))


def _poll(pgconn: pq.abc.PGconn) -> None:
    """Go on with an attempt to connect until it has an end."""
    deadline, state = time.monotonic() + _PATIENCE, int(pq.PollingStatus.WRITING)
    while state in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
        left, socket = deadline - time.monotonic(), pgconn.socket
        reads = state == pq.PollingStatus.READING
        if left <= 0 or not any(select.select([socket] * reads, [socket] * (not reads), [], left)):
            return
        state = pgconn.connect_poll()


def _refused(kind: FailureKind, line: str) -> CdcError:
    """The error for a refused connection, with its remedy."""
    if kind is FailureKind.POOLER:
        return ConfigurationError(
            f"this is a connection pooler, not PostgreSQL: {line}. A pooler does not pass replication "
            "connections; point the DSN at the server itself (often port 5432 instead of 6432 or 6543)",
            failure=kind,
        )
    if kind in (FailureKind.AUTHENTICATION, FailureKind.MISSING):
        return ConfigurationError(
            f"the server refuses the connection: {line}. Check user, password and database", failure=kind
        )
    if kind is FailureKind.RIGHT:
        return ConfigurationError(
            f"the role lacks a right: {line}. It needs CONNECT on the database and, as a superuser gives it by "
            "ALTER ROLE, REPLICATION",
            failure=kind,
        )
    if kind is FailureKind.TLS:
        return ConfigurationError(
            f"no encrypted connection: {line}. Check sslmode and the certificates of the DSN", failure=kind
        )
    if kind is FailureKind.CONFIGURATION:
        return ConfigurationError(
            f"the server does not take a setting: {line}. Check the options of the DSN", failure=kind
        )
    return _passing(kind, line)


def _passing(kind: FailureKind, line: str) -> ConnectionFailed:
    """The error for a refused connection that may be had later."""
    if kind is FailureKind.FULL:
        return ConnectionFailed(
            f"the server has no connection left: {line}. End what is not needed, or raise max_wal_senders or "
            "max_connections and restart the server",
            failure=kind,
        )
    if kind is FailureKind.RESTARTING:
        return ConnectionFailed(f"the server is not ready: {line}. Wait until it has started", failure=kind)
    return ConnectionFailed(
        f"cannot connect to the server: {line}. Is it running, and are host and port right?", failure=kind
    )


def translated(error: psycopg.Error) -> CdcError:
    """The error for what the server said while the session was opened or streamed."""
    text = first_line(error)
    if isinstance(error, psycopg.errors.ObjectInUse):
        return SlotError(f"the slot is in use: {text}. One consumer a slot: stop the other, or choose another name")
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return ConnectionFailed(
            f"a published table is locked, as by an ALTER TABLE that has not ended ({text}). Commit it or roll it "
            "back: see pg_locks, and pg_prepared_xacts when it was prepared",
            failure=FailureKind.LOCKED,
        )
    if isinstance(error, psycopg.errors.UndefinedObject) and "publication" in text:
        return ConfigurationError(
            f"{text}: it was created after the slot's position, or dropped. Create it, then `cdc drop` the slot "
            "and start anew",
            failure=FailureKind.PUBLICATION,
        )
    kind = _of_state(error.sqlstate or "08000")
    if isinstance(error, psycopg.errors.ObjectNotInPrerequisiteState):
        return ConnectionFailed(f"the server ended the stream: {text}", failure=FailureKind.SLOT)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return ConnectionFailed(f"the server ended the stream: {text}", failure=kind)
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return ConfigurationError(f"the role may not do this: {text}", failure=FailureKind.RIGHT)
    return ConfigurationError(f"the server refuses: {text}", failure=kind)


def why_ended(last_words: str | None) -> FailureKind:
    """Why a connection has ended, by the SQLSTATE of the last thing that the server said unasked, if it did.

    A server that is ended at once says why in a warning.
    """
    kind = _of_state(last_words or "")
    return kind if kind in (FailureKind.RESTARTING, FailureKind.MISSING) else FailureKind.NETWORK


def first_line(text: object) -> str:
    """The first line of what libpq or the server said, without its full stop."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else "no message"
