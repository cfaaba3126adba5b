"""A session: everything that lives as long as one replication connection.

May use everything below the loop. Opening it does all the checks; then it streams, saves the position, and
tells the server what it may forget. A saved position goes to disk before the server hears of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from cdc.admission import Admission
from cdc.cache import Cache
from cdc.connection import ReplicationConnection, connect, connection_string
from cdc.errors import CdcError, ConfigurationError, ConnectionFailed, GapError, SlotError
from cdc.events import Gap
from cdc.log import log
from cdc.lsn import Lsn, Position
from cdc.publication import identifiers
from cdc.server import check_server, flush_lsn, identify
from cdc.slot import OpenSlot, open_slot, start_command
from cdc.state import State
from cdc.stream import Stream
from cdc.subscription import Subscription

__all__ = ["Session", "Target", "translated"]


_POSTGRES_EPOCH = 946_684_800
_LONGEST_INTERVAL = 10.0
_FAREWELL = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """What a session connects to.

    Attributes:
        dsn: the server.
        publications: names of the publications.
        slot: name of the slot; None for a temporary one.
        state: where the position is kept; None keeps nothing.
        on_gap: `"stop"` or `"deliver"`.
    """

    dsn: str
    publications: Sequence[str]
    slot: str | None
    state: State | None
    on_gap: str


class Session:
    """One open conversation with a server.

    Attributes:
        control: an ordinary connection to the same server, for the catalog and the saved position.
        replication: the replication connection.
        slot: the slot, with what is remembered of it.
        admission: decides about subscriptions.
        stream: the state of the conversation, once `start` was called.
        live_from: LSN that has to be handled before the stream counts as live.
    """

    def __init__(
        self,
        target: Target,
        caches: Mapping[Subscription, Cache],
        former: Session | None = None,
        check: Callable[[Admission], None] | None = None,
    ) -> None:
        """Connect, check, and open the slot; `check` may refuse before a slot is made."""
        self._target = target
        self._caches = caches
        self.control = _control(target.dsn)
        self.stream: Stream | None = None
        self.live_from = Lsn(0)
        self._closed = False
        try:
            self._open(target, former, check)
        except BaseException:
            self.close()
            raise

    def _open(self, target: Target, former: Session | None, check: Callable[[Admission], None] | None) -> None:
        if psycopg.pq.__impl__ == "python":
            log.warning("psycopg.slow", remedy='pip install "psycopg[binary]": its ctypes fallback is ten times slower')
        check_server(self.control)
        self.admission = Admission(self.control, target.publications, self._caches)
        self.replication = ReplicationConnection(target.dsn)
        self._pin()
        if check is not None:
            check(self.admission)
        identity = identify(self.replication)
        pid = former.replication.process_id if former is not None else None
        self.slot: OpenSlot = open_slot(
            self.replication, self.control, identity, target.slot, target.state, target.on_gap, pid
        )
        self.saved = self.slot.saved
        if former is not None and self.slot.temporary:
            self._after_temporary(former.saved.position)

    def _after_temporary(self, last: Position | None) -> None:
        """A temporary slot ends with its connection, so that changes made meanwhile are missing."""
        gap = Gap("a temporary slot ends with its connection", last)
        if self._target.on_gap == "stop":
            raise GapError(f"changes may be missing: {gap.reason}. Bring your data up to date and start anew", gap)
        self.slot = replace(self.slot, gap=gap)

    def _pin(self) -> None:
        """Let the ordinary connection, and the loads of caches, go to the replication connection's own server."""
        host, address, port = self.replication.host
        self.dsn = connection_string(self._target.dsn, host=host or None, hostaddr=address or None, port=port)
        if (self.control.info.host, str(self.control.info.port)) != (host, port):
            self.control.close()
            self.control = _control(self.dsn)
            self.admission = Admission(self.control, self._target.publications, self._caches)

    def start(self, skip: Position | None) -> tuple[Stream, float]:
        """Begin to stream; changes up to `skip` are not delivered.

        Returns the state of the conversation and the seconds between two status updates.
        """
        timeout = self._sender_timeout()
        interval = min(_LONGEST_INTERVAL, timeout / 3) if timeout else _LONGEST_INTERVAL
        start = self.saved.flush_lsn or Lsn(0)
        finished = None if skip is None or skip.epoch != self.saved.epoch else (skip.commit_lsn, skip.ordinal)
        stream = Stream(self.saved.epoch, start, finished, interval)
        names = identifiers(self.control, self._target.publications)
        self.live_from = flush_lsn(self.control)
        self.replication.start(start_command(self.slot, names))
        stream.ask_keepalive()
        self.stream = stream
        return stream, interval

    @property
    def sockets(self) -> tuple[int, int]:
        """What to wait on for a frame, or for the server to end the ordinary connection."""
        return self.replication.fileno(), self.control.fileno()

    def frames(self, limit: int) -> list[memoryview]:
        """Up to `limit` frames that have arrived, reading the socket once when there are none yet."""
        taken = self.replication.frames(limit)
        if not taken:
            self.replication.read()
            taken = self.replication.frames(limit)
        return taken

    def finish(self) -> None:
        """End the stream in good order, so that the server has taken in the last status update."""
        self.replication.end(_FAREWELL)

    def _sender_timeout(self) -> float:
        """wal_sender_timeout in seconds; 0 when it is off."""
        row = self.control.execute(
            "SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'"
        ).fetchone()
        return float(row[0]) / 1000 if row is not None else 0.0

    @property
    def remembers(self) -> bool:
        """Whether the position is kept somewhere."""
        return self._target.state is not None and not self.slot.temporary

    def save(self, position: Position | None, lsn: Lsn) -> None:
        """Remember the position, then allow the server to forget everything up to `lsn`."""
        assert self.stream is not None
        saved = replace(self.saved, position=position or self.saved.position, flush_lsn=lsn)
        state = self._target.state
        if state is not None and not self.slot.temporary:
            try:
                state.save(self.control, self.slot.name, saved)
            except psycopg.OperationalError as error:
                raise ConnectionFailed(f"the position could not be saved: {error}") from None
        self.saved = saved
        self.stream.confirm(lsn)
        self.feedback()

    def feedback(self) -> None:
        """Send the status update that is due, if any. May be called from any thread."""
        stream = self.stream
        if stream is None or self._closed:
            return
        now = time.monotonic()
        data = stream.feedback(now, int((time.time() - _POSTGRES_EPOCH) * 1_000_000))
        if data is not None:
            self.replication.send(data)

    def tick(self) -> None:
        """What the ticker calls: like `feedback`, but a lost connection is left to the loop to find."""
        try:
            self.feedback()
        except CdcError:
            log.debug("feedback.failed", slot=self.slot.name)

    def check_control(self) -> None:
        """Raise ConnectionFailed when the server has ended the ordinary connection, as when it shuts down."""
        pgconn = self.control.pgconn
        try:
            with self.control.lock:
                pgconn.consume_input()
        except psycopg.OperationalError:
            raise ConnectionFailed("the server ended the connection") from None
        if pgconn.status != psycopg.pq.ConnStatus.OK:
            raise ConnectionFailed("the server ended the connection")

    def close(self) -> None:
        """Close both connections. Idempotent."""
        self._closed = True
        self.control.close()
        replication = getattr(self, "replication", None)
        if replication is not None:
            replication.close()


def _control(dsn: str) -> psycopg.Connection[Any]:
    """The ordinary connection. Saving a position does not wait for a standby: the stream would wait with it."""
    connection = connect(dsn)
    connection.execute("SET synchronous_commit = local")
    return connection


def translated(error: psycopg.Error) -> CdcError:
    """The error for what the server said while the session was opened or streamed."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, psycopg.errors.ObjectInUse):
        return SlotError(f"the slot is in use: {text}. One consumer a slot: stop the other, or choose another name")
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
