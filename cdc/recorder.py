"""The recorder: keeps what a consumer is sent in a file, so that it can be replayed without a server.

Writes the one file that it is given. The loop hands it each batch before a handler sees any of it, so that the file
holds what a handler did not survive. A recording that cannot be written ends with a log line and a reason in
`health()`; the consumer goes on.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from cdc.admission import Admission
from cdc.errors import ConfigurationError
from cdc.log import log
from cdc.operators import Collation
from cdc.pgoutput import RelationColumn, RelationMessage
from cdc.progress import Progress
from cdc.recording import MAGIC, Batch, Conversation, End, Record, Recording, Told, packed
from cdc.relation import Relation
from cdc.session import Session
from cdc.stream import Stream
from cdc.transaction import microseconds_of

__all__ = ["Recorder", "told_of"]

_TABLES = """
SELECT p.schemaname, p.tablename, c.oid FROM pg_catalog.pg_publication_tables p
JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
WHERE p.pubname = ANY(%s) GROUP BY 1, 2, 3 ORDER BY 1, 2
"""


class Recorder:
    """A recording that is being made: what `consumer.record` gives. Ended by `close()`, or at the end of its `with`.

    Attributes:
        path: the file.
        frames: frames that were recorded so far.
        problem: why the recording has ended before it was closed, or None.
    """

    def __init__(self, path: str | Path, progress: Progress, on_close: Callable[[Recorder], None]) -> None:
        """Open the file; `progress` is that of the consumer. Raises ConfigurationError."""
        self.path = Path(path)
        self.frames = 0
        self.problem: str | None = None
        self._progress = progress
        self._on_close = on_close
        self._mutex = threading.Lock()
        self._run = secrets.token_hex(4)
        self._session: Session | None = None
        self._in_conversation = 0
        self._untaken = self._has_begun = False
        self._descriptor: int | None = _opened(self.path)

    @property
    def is_open(self) -> bool:
        """Whether frames that arrive are recorded, or will be."""
        return self._descriptor is not None

    @property
    def has_begun(self) -> bool:
        """Whether the first header is written. While it streams, that waits for a moment without open transactions."""
        return self._has_begun

    def close(self) -> None:
        """End the recording; all that it has is on the disk then. Idempotent; may be called from any thread."""
        with self._mutex:
            self._untaken = False  # The consumer goes on with them.
            self._end("closed")
            self._give_back()
        self._on_close(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What the loop calls.

    def begin(self, session: Session, stream: Stream) -> None:
        """A conversation begins."""
        with self._mutex:
            self._begin(session, stream, from_start=True)

    def keep(self, session: Session, stream: Stream, frames: Sequence[bytes | memoryview]) -> None:
        """Record the frames that are taken next. Those of the call before were handled."""
        with self._mutex:
            self._untaken = False
            if self._session is not session and stream.is_quiet:
                self._begin(session, stream, from_start=False)
            if self._session is not session or not frames:
                return
            first, self._untaken = self._in_conversation + 1, True
            self._in_conversation += len(frames)
            if self._write(Batch(first, _now(), tuple(map(bytes, frames)))):
                self.frames += len(frames)

    def told(self, session: Session, relation: Relation) -> None:
        """Record how a relation that was announced is understood."""
        with self._mutex:
            if self._session is session:
                self._write(told_of(session.admission, relation))

    def end(self, is_stopped: bool) -> None:
        """The consumer is over: stopped, or failed. Who failed may have met his end in any of the last frames."""
        with self._mutex:
            self._untaken = self._untaken and is_stopped
            self._end("the consumer was stopped" if is_stopped else "the consumer failed")
            self._give_back()

    # The mutex is held.

    def _begin(self, session: Session, stream: Stream, from_start: bool) -> None:
        if self._descriptor is None:
            return
        self._end("the connection was lost")
        try:
            header = self._header(session, stream, from_start)
        except psycopg.Error as error:
            # As a rule the connection is going, and the next one has a header of its own.
            log.warning("recording.waits", path=str(self.path), reason=str(error))
            return
        if self._write(header):
            self._session, self._in_conversation = session, 0
            self._has_begun = True

    def _header(self, session: Session, stream: Stream, from_start: bool) -> Conversation:
        target, slot, saved = session._target, session.slot, session.saved
        names, options = tuple(target.publications), target.options
        tables = session.control.execute(_TABLES, (list(names),)).fetchall()
        return Conversation(
            run=self._run,
            at=_now(),
            server_version=session.control.info.server_version,
            system_id=saved.system_id,
            timeline=saved.timeline,
            slot=slot.name,
            temporary=slot.temporary,
            remembers=target.state is not None,
            on_gap=target.on_gap,
            publications=names,
            streaming=options.streaming,
            two_phase=options.two_phase,
            binary=options.binary,
            messages=session.messages is True,
            epoch=saved.epoch,
            start_lsn=stream.standby.received_lsn,
            position=saved.position,
            skip=stream._skip,
            gap=slot.gap if from_start else None,
            decoders=tuple(target.decoders),
            tables=tuple((schema, table, oid) for schema, table, oid in tables),
            relations=tuple(told_of(session.admission, relation) for relation in stream.relations.values()),
        )

    def _end(self, reason: str) -> None:
        """Say how far the consumer came, when it may have left the last frames before it had taken all of them."""
        session, self._session = self._session, None
        if session is None:
            return
        end, epoch = End(reason, self._in_conversation), session.saved.epoch
        if self._untaken and session.stream is not None:
            received, progress = session.stream.standby.received_lsn, self._progress
            end = replace(end, received=received, finished=progress.handed_out(epoch), heard=progress.heard(epoch))
        self._untaken = False
        self._write(end)

    def _write(self, record: Record) -> bool:
        """Append a record as a whole, or end the recording."""
        if self._descriptor is None:
            return False
        data, written = memoryview(packed(record)), 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError as error:
            self._failed(error, written)
            return False
        return True

    def _failed(self, error: OSError, written: int) -> None:
        """Take back the beginning of a record that did not fit, and give up."""
        assert self._descriptor is not None
        self.problem = f"the recording {self.path} has ended: {error.strerror or error}"
        log.error("recording.ended", path=str(self.path), reason=error.strerror or str(error), frames=self.frames)
        try:
            if written:
                os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
        except OSError:
            log.warning("recording.torn", path=str(self.path))
        self._session = None
        self._give_back()

    def _give_back(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            os.fsync(descriptor)
        except OSError as error:
            self.problem = f"the recording {self.path} may miss its end: {error.strerror or error}"
            log.error("recording.ended", path=str(self.path), reason=error.strerror or str(error), frames=self.frames)
        finally:
            os.close(descriptor)

    def __repr__(self) -> str:
        return f"<Recorder {self.path}>"


def _now() -> int:
    return microseconds_of(time.time())


def told_of(admission: Admission, relation: Relation) -> Told:
    """A relation with what was asked for it: the types and collations that are known, and the OID of its name."""
    columns = tuple(
        RelationColumn(each.name, each.type_oid, each.type_modifier, each.in_identity) for each in relation.columns
    )
    message = RelationMessage(relation.oid, relation.schema, relation.table, relation.replica_identity, columns)
    key = tuple(relation.columns[index].name for index in relation.key or ())
    oid, types, collations = admission.asked(relation)
    kinds = (
        tuple(sorted(name for name, each in collations.items() if each is kind))
        for kind in (Collation.NONDETERMINISTIC, Collation.CODE_POINT, Collation.PLAIN_CASE)
    )
    return Told(message, key, oid, types, *kinds)


def _opened(path: Path) -> int:
    """The file, empty or ending in a whole record, with a lock on it. Raises ConfigurationError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from None
    try:
        _prepare(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _prepare(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ConfigurationError(f"the recording {path} cannot be written: it is not a regular file")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigurationError(f"another consumer records to {path}: give each of them a file of its own") from None
    try:
        size = os.fstat(descriptor).st_size
        if size < len(MAGIC) and os.pread(descriptor, size, 0) == MAGIC[:size]:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, MAGIC)
            return
        recording = Recording(path)
        for _ in recording:
            pass
        if recording.note is not None:
            log.warning("recording.mended", path=str(path), reason=recording.note)
            os.ftruncate(descriptor, recording.sound)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: Any) -> ConfigurationError:
    reason = "its folder does not exist" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", error)
    return ConfigurationError(f"the recording {path} cannot be written: {reason}")
