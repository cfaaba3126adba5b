"""What we tell the server: how far we are, when it is due, and whether it still answers.

Pure: no I/O, no clock; `now` is an argument. The manual: "Streaming Replication Protocol", standby status update.
Only what is finished may be confirmed, and nothing at or behind a prepared transaction that has not ended: the
server sends its changes once, and forgets them when they are confirmed.
"""

from __future__ import annotations

from struct import Struct

from cdc.lsn import Lsn

__all__ = ["Standby"]

_SILENCE = 6
"""Intervals that the server gets to answer; decoding a large transaction can keep it busy."""
_STATUS = Struct(">cQQQqB").pack


class Standby:
    """How far the conversation of one connection is.

    Args:
        start: LSN up to which everything is confirmed.
        interval: seconds between two status updates.

    Attributes:
        received_lsn: end of what has arrived.
        finished_lsn: everything up to here was handed out and is handled.
        confirmed_lsn: everything up to here may be forgotten by the server.
        server_lsn: end of the WAL, as the server told it last.
        heard: whether a frame has arrived since `is_silent` looked; whoever reads the frames sets it.
    """

    def __init__(self, start: Lsn, interval: float) -> None:
        self.received_lsn = start
        self.finished_lsn = start
        self.confirmed_lsn = start
        self.server_lsn = start
        self.heard = False
        self._held: dict[str, Lsn] = {}
        self._interval = interval
        self._due = 0.0
        self._reply = False
        self._ping = False
        self._asked_at = self._looked_at = 0.0

    @property
    def safe_lsn(self) -> Lsn:
        """What may be confirmed once it is saved: what is finished, but nothing that a prepared transaction needs."""
        if not self._held:
            return max(self.finished_lsn, self.confirmed_lsn)
        return max(min(self.finished_lsn, *self._held.values()), self.confirmed_lsn)

    def reach(self, lsn: Lsn) -> None:
        """Everything up to `lsn` was handed out."""
        if lsn > self.received_lsn:
            self.received_lsn = self.finished_lsn = lsn

    def committed(self, end_lsn: Lsn) -> None:
        """A transaction was handed out up to the end of its commit, which the WAL reaches at least."""
        if end_lsn > self.received_lsn:
            self.received_lsn = self.finished_lsn = end_lsn
            if end_lsn > self.server_lsn:
                self.server_lsn = end_lsn

    def hold(self, gid: str, lsn: Lsn) -> None:
        """A transaction was prepared at `lsn`; the server must be able to send it again until it has ended."""
        self._held[gid] = lsn

    def release(self, gid: str) -> None:
        """A prepared transaction has ended."""
        self._held.pop(gid, None)

    def confirm(self, lsn: Lsn) -> None:
        """Allow the server to forget everything up to `lsn`. Never moves back."""
        if lsn > self.confirmed_lsn:
            self.confirmed_lsn = lsn
            self._due = 0.0

    def answer(self) -> None:
        """The server wants a status update at once."""
        self._reply = True

    def ask_keepalive(self) -> None:
        """Let the next status update ask the server for a keepalive at once."""
        self._ping = True

    def is_silent(self, now: float) -> bool:
        """Whether the server has not answered a keepalive that it was asked for long ago.

        Call it when everything that has arrived was received: it asks after one interval without a frame, and
        gives the server six more to answer.
        """
        # A handler that took long kept us from asking: then the server gets its time from now on.
        late, self._looked_at = now - self._looked_at > self._interval, now
        if self.heard or late:
            self.heard, self._asked_at = False, now + self._interval
        elif now >= self._asked_at and now - self._asked_at < self._interval:
            self._ping = True
        return now - self._asked_at > _SILENCE * self._interval

    def status_update(self, now: float, microseconds: int) -> bytes | None:
        """The standby status update that is due at `now` (seconds, any steady clock), else None.

        Format: 'r', Int64 written, Int64 flushed, Int64 applied, Int64 client time in microseconds since
        2000-01-01, Int8 whether the server shall reply at once.
        """
        if not (self._reply or self._ping or now >= self._due):
            return None
        ping, self._ping, self._reply = self._ping, False, False
        self._due = now + self._interval
        flush = self.confirmed_lsn
        return _STATUS(b"r", max(self.received_lsn, flush), flush, flush, microseconds, ping)
