"""A session: everything that lives as long as one replication connection.

May use everything below the loop. Opening it does all the checks; then it streams, saves the position, and
tells the server what it may forget. A saved position goes to disk before the server hears of it.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import psycopg

from cdc.admission import Admission
from cdc.caching.inflow import Inflow
from cdc.connection import ReplicationConnection, connection_string
from cdc.control import Control
from cdc.errors import CdcError, ConnectionFailed, FailureKind, GapError
from cdc.events import Gap, GapKind
from cdc.failures import translated
from cdc.family import Member
from cdc.log import log
from cdc.lsn import Lsn, Position
from cdc.parsed_bodies import list_functions
from cdc.pgoutput import RelationMessage
from cdc.publication import check_same, identifiers
from cdc.relation import Relation
from cdc.server import check_server, flush_lsn, invisible, sender_timeout
from cdc.slot import SAVED, Former, OpenSlot, start_command
from cdc.slot_row import find_slot
from cdc.spool import MemoryOrFile
from cdc.state import Saved
from cdc.stream import Stream
from cdc.subscription import Subscription
from cdc.target import Target
from cdc.transaction import microseconds_of
from cdc.values import Types
from cdc.wal_budget import Usage
from cdc.witness import Witness

__all__ = ["Session"]


_LONGEST_INTERVAL = 10.0
_FAREWELL = 2.0
_VISIBLE = 1.0
"""Seconds within which a commit that was streamed is visible, as a rule."""
_LOCK_PATIENCE = 5.0
"""Seconds that a lock on a published table, as of an ALTER TABLE that was prepared, may hold up the opening."""


class Session:
    """One open conversation with a server.

    Attributes:
        replication: the replication connection.
        slot: the slot, with what is remembered of it.
        admission: decides about subscriptions.
        stream: the state of the conversation, once `start` was called.
        messages: whether logical messages were asked for; None before `start`.
        live_from: LSN that has to be handled before the stream counts as live.
        saved: what was saved last.
        asked: what was to be saved last; the answer may have been lost.
        untold: a gap before its start that not every handler has heard of; until then nothing is saved.
    """

    def __init__(
        self,
        target: Target,
        caches: Mapping[Subscription, Inflow],
        former: Session | None = None,
        check: Callable[[Admission], None] | None = None,
    ) -> None:
        """Connect, check, and open the slot; `check` may refuse before a slot is made."""
        self._target = target
        self._caches = caches
        self._witness = Witness(target.dsn, target.wait.is_over)
        self._control = self._ordinary(target.dsn)
        self.stream: Stream | None = None
        self.messages: bool | None = None
        self.saved: Saved
        self.asked: Saved
        self.untold: Gap | None = None
        self.live_from = Lsn(0)
        self._closed = False
        self._questions: dict[object, float] = {}
        """Since when an answer of the server is awaited, by whoever awaits it: the loop, or a queue that parks."""
        self._patience = 6 * _LONGEST_INTERVAL
        self._spool = MemoryOrFile(target.options.spool_memory, target.options.spool_folder)
        try:
            self._open(target, former, check)
        except BaseException:
            self.close()
            raise

    def _open(self, target: Target, former: Session | None, check: Callable[[Admission], None] | None) -> None:
        if psycopg.pq.__impl__ == "python":
            log.warning("psycopg.slow", remedy='pip install "psycopg[binary]": its ctypes fallback is ten times slower')
        check_server(self.control)
        target.options.check(self.control.info.server_version)
        self.replication = ReplicationConnection(target.dsn, self._witness.of_walsender)
        self._pin()
        types = Types(target.decoders)
        target.session_functions.check()
        list_functions(self.control, target.session_functions.listed)
        with self.without_waiting(_LOCK_PATIENCE):
            self.admission = Admission(self.control, target.publications, self._caches, types, target.options.binary)
            self.admission.judge.session_functions = target.session_functions
        if check is not None:
            with self.without_waiting(_LOCK_PATIENCE):
                check(self.admission)
        before = None
        if former is not None:
            asked = former.asked if former.stream is not None else None
            before = Former(former.replication.process_id, asked, former.untold)
        self.slot: OpenSlot = target.opening(self.replication, self.control, before).open()
        self.saved = self.asked = self.slot.saved
        same = former is not None and former.saved.epoch == self.saved.epoch and former.stream is not None
        with self.without_waiting(_LOCK_PATIENCE):
            self.admission.begin(self.saved.rights, former.admission if former is not None and same else None)
        self.untold = self.slot.gap
        if former is not None and self.slot.temporary:
            self._after_temporary(former.saved.position)

    def _after_temporary(self, last: Position | None) -> None:
        """A temporary slot ends with its connection, so that changes made meanwhile are missing."""
        gap = Gap("a temporary slot ends with its connection", last, kind=GapKind.TEMPORARY_SLOT)
        if self._target.on_gap == "stop":
            raise GapError(f"changes may be missing: {gap.reason}. Bring your data up to date and start anew", gap)
        self.slot = replace(self.slot, gap=gap)

    def _pin(self) -> None:
        """Let the ordinary connection, and the loads of caches, go to the replication connection's own server."""
        host, address, port = self.replication.host
        self.dsn = connection_string(self._target.dsn, host=host or None, hostaddr=address or None, port=port)
        if (self.control.info.host, str(self.control.info.port)) != (host, port):
            self.control.close()
            self._control = self._ordinary(self.dsn)

    def _ordinary(self, dsn: str) -> Control:
        control = Control(dsn, self._witness.of_ordinary)
        self._witness.ordinary = control.connection
        return control

    def start(self, skip: Position | None, messages: bool = False, whole: bool = False) -> tuple[Stream, float]:
        """Begin to stream; changes up to `skip` are not delivered. For the others see `Options.parameters`.

        Returns the state of the conversation and the seconds between two status updates.
        """
        self.messages = messages
        timeout = sender_timeout(self.control)
        interval = min(_LONGEST_INTERVAL, timeout / 3) if timeout else _LONGEST_INTERVAL
        self._patience = 6 * interval
        start = self.saved.flush_lsn or Lsn(0)
        names = tuple(self._target.publications)
        finished = None
        if skip is not None and skip.epoch == self.saved.epoch:
            # Other publications count the changes of a transaction differently: the last one comes again as a whole.
            same = self.saved.publications in (names, ())
            finished = (skip.commit_lsn, skip.ordinal if same else 0)
        self.saved = replace(self.saved, publications=names, publication_oids=self.slot.publication_oids)
        stream = Stream(self.saved.epoch, start, finished, interval, self._spool)
        listed = identifiers(self.control, names)
        self.live_from = flush_lsn(self.control)
        command = start_command(self.slot, self._target.options.parameters(listed, messages, whole))
        try:
            self.replication.start(command)
        except psycopg.errors.ObjectInUse as error:
            # Somebody was faster. The next attempt waits for him, and names him.
            raise ConnectionFailed(f"the slot was taken at this moment: {error}") from None
        stream.standby.ask_keepalive()
        self._witness.opens = False
        self.stream = stream
        return stream, interval

    def invisible(self) -> set[int]:
        """See `server.invisible`."""
        return invisible(self.control)

    def relation(self, message: RelationMessage, roles: Collection[str], xid: int | None = None) -> Relation:
        """See `Admission.relation`; rights that are locked, as by a prepared ALTER TABLE, stay as they are known."""
        if roles:
            with suppress(psycopg.errors.LockNotAvailable), self.without_waiting():
                return self.admission.relation(message, roles, xid)
        return self.admission.relation(message, (), xid)

    def join(self, newcomers: Sequence[Member], relation: Relation) -> None:
        """See `joining.join`; rights that are locked stay as they are known."""
        with suppress(psycopg.errors.LockNotAvailable), self.without_waiting():
            for member in newcomers:
                self.admission.join(member, relation)

    @property
    def control(self) -> psycopg.Connection[Any]:
        """An ordinary connection to the same server, for the catalog and the saved position."""
        return self._control.connection

    @property
    def sockets(self) -> tuple[int, int]:
        """What to wait on for a frame, or for the server to end the ordinary connection."""
        return self.replication.fileno(), self.control.fileno()

    def frames(self, limit: int) -> list[memoryview]:
        """Up to `limit` frames that have arrived, reading the socket once when there are none yet."""
        try:
            taken = self.replication.frames(limit)
            if not taken:
                self.replication.read()
                taken = self.replication.frames(limit)
        except psycopg.errors.UndefinedObject:
            # Up to 17 the server stops where a publication did not exist. If it was made again, that is a gap.
            self._check_publications_soon()
            raise
        if taken and self.stream is not None:
            self.stream.standby.heard = True
        return taken

    @property
    def by_user(self) -> bool:
        """Whether the user keeps positions with his own data."""
        return self._target.start_after != SAVED

    def check_publications(self) -> None:
        """Raise ConnectionFailed when one was dropped and made again: opening the slot anew finds the gap."""
        check_same(self.control, dict(zip(self.saved.publications, self.saved.publication_oids, strict=False)))

    def _check_publications_soon(self) -> None:
        """The same for a moment, as the stream is ahead of what can be seen."""
        deadline = time.monotonic() + _VISIBLE
        while time.monotonic() < deadline:
            self.check_publications()
            time.sleep(0.02)

    def usage(self) -> Usage | None:
        """What the slot keeps of the server's WAL; None when there is no such slot."""
        row = find_slot(self.control, self.slot.name)
        return None if row is None else row.usage

    def finish(self) -> None:
        """End the stream in good order, so that the server has taken in the last status update."""
        self.replication.end(_FAREWELL)

    @property
    def remembers(self) -> bool:
        """Whether the position is kept somewhere."""
        return self._target.state is not None and not self.slot.temporary

    def save(self, position: Position | None, lsn: Lsn) -> None:
        """Remember the position, then allow the server to forget everything up to `lsn`."""
        assert self.stream is not None
        if self.untold is not None:
            return
        saved = replace(self.saved, position=position or self.saved.position, flush_lsn=lsn)
        saved = replace(saved, rights=self.admission.judge.book.as_of(lsn))
        state = self._target.state
        self.asked = saved
        if state is not None and not self.slot.temporary:
            try:
                state.save(self.control, self.slot.name, saved)
            except psycopg.OperationalError as error:
                kind = translated(error).failure
                raise ConnectionFailed(f"the position could not be saved: {error}", failure=kind) from None
        self.saved = saved
        self.stream.standby.confirm(lsn)
        self.feedback()

    def feedback(self) -> None:
        """Send the status update that is due, if any. May be called from any thread."""
        stream = self.stream
        if stream is None or self._closed:
            return
        now = time.monotonic()
        data = stream.standby.status_update(now, microseconds_of(time.time()))
        if data is not None:
            self.replication.send(data)

    def tick(self) -> None:
        """What the ticker calls, also while a handler keeps the loop: feedback, and a look at the server.

        A server that shuts down waits for us; one that does not answer would keep the loop for ever. In both
        cases the sockets are shut, and the loop finds a lost connection.
        """
        try:
            self.feedback()
            self._control.check()
        except CdcError:
            self.abort()
        busy = min(list(self._questions.values()), default=None)
        if busy is not None and time.monotonic() - busy > self._patience:
            log.warning("server.silent", slot=self.slot.name)
            self.abort()

    def check(self, now: float) -> None:
        """Raise ConnectionFailed when the server has ended the ordinary connection, or does not answer any more."""
        self._control.check()
        if self.stream is not None and self.stream.standby.is_silent(now):
            raise ConnectionFailed("the server does not answer any more")

    def check_unread(self) -> None:
        """The same while frames are left unread, so that an answer of the server would not be seen."""
        self._control.check()
        if self.replication.is_cut:
            raise ConnectionFailed("the server ended the stream")

    def why_lost(self, kind: FailureKind) -> FailureKind:
        """See `Control.why_lost`."""
        return self._control.why_lost(kind)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Marks a question to the server, so that the ticker notices when no answer comes."""
        mine = object()
        self._questions[mine] = time.monotonic()
        try:
            yield
        finally:
            del self._questions[mine]

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """What takes longer finds the sockets shut, and a lost connection."""
        guard = threading.Timer(seconds, self.abort)
        guard.start()
        try:
            yield
        finally:
            guard.cancel()

    @contextmanager
    def without_waiting(self, patience: float = 0.1) -> Iterator[None]:
        """Questions to the server that meet a lock raise LockNotAvailable instead of waiting for long."""
        self.control.execute(f"SET lock_timeout = {round(patience * 1000)}")
        try:
            yield
        finally:
            if self.control.info.transaction_status is psycopg.pq.TransactionStatus.IDLE:
                self.control.execute("RESET lock_timeout")

    def abort(self) -> None:
        """Shut both sockets down: whoever waits on them gets an error. May be called from any thread."""
        for connection in (self.replication, self.control):
            with suppress(OSError, ValueError, CdcError, psycopg.Error):
                copy = socket.socket(fileno=os.dup(connection.fileno()))
                with copy:
                    copy.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close both connections. Idempotent."""
        self._closed = True
        self._spool.close()
        self.control.close()
        replication = getattr(self, "replication", None)
        if replication is not None:
            replication.close()
