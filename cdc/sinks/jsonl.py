"""The JSON lines sink: one event, one line, to a file or to stdout.

Touches the one file that it is given. A line is handed to the system by one write before the sink returns, so an
acknowledged event survives the end of this process, by whatever signal. A file is synced to the disk within a
second, and when it is closed; so after a crash of the machine the last second may be missing.

A file has one writer, which holds a lock on it, and ends in a whole line: a line that was cut off by a full disk or
a killed process was not acknowledged, comes again, and is removed first.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import select
import stat
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cdc import Event
from cdc.errors import ConfigurationError

__all__ = ["JsonLines", "json_line"]

_SYNC_EVERY = 1.0
_BLOCK = 1 << 16
_STDOUT = 1

_log = logging.getLogger("cdc.sinks")


def json_line(event: Event) -> str:
    """The event as one line of JSON without its end: `event.to_json()`, or `{"gap": …}`."""
    return event.to_json()


class JsonLines:
    """A handler that appends each event as a line.

    Args:
        path: the file, created when it is not there; None is stdout.

    Raises ConfigurationError when the file cannot be written, has another writer, or holds something else. Its call
    raises OSError when a line cannot be written.
    """

    def __init__(self, path: str | Path | None) -> None:
        self._name = "stdout" if path is None else str(path)
        self._descriptor = _STDOUT if path is None else _open(Path(path))
        self._is_file = path is not None and stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        self._unsynced = False
        self._failure: OSError | None = None
        self._closing = threading.Event()
        if self._is_file:
            _mend(self._descriptor, self._name)
            self._syncer = threading.Thread(target=self._keep_synced, name="cdc-sink-sync", daemon=True)
            self._syncer.start()

    def __call__(self, event: Event) -> None:
        """Append one line. Returns when the system has it."""
        if self._failure is not None:
            raise self._failure
        # A lone surrogate, which json may hold, becomes its JSON escape.
        self._write((json_line(event) + "\n").encode(errors="backslashreplace"))
        self._unsynced = True

    def close(self) -> None:
        """Sync and close the file. Idempotent. Raises OSError when lines may not have reached the disk."""
        if self._closing.is_set():
            return
        self._closing.set()
        if not self._is_file:
            return
        self._syncer.join()
        try:
            if self._failure is not None:
                raise self._failure
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._named(error) from None
        finally:
            os.close(self._descriptor)

    def _write(self, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):
                written += _some(self._descriptor, memoryview(line)[written:])
        except OSError as error:
            self._take_back(written)
            raise self._named(error) from None

    def _take_back(self, written: int) -> None:
        """Remove the beginning of a line that did not fit."""
        if written and self._is_file:
            with suppress(OSError):
                os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)

    def _keep_synced(self) -> None:
        while not self._closing.wait(_SYNC_EVERY):
            if self._unsynced and self._failure is None:
                self._unsynced = False
                try:
                    os.fsync(self._descriptor)
                except OSError as error:
                    self._failure = self._named(error)

    def _named(self, error: OSError) -> OSError:
        return error if error.filename else OSError(error.errno, error.strerror, self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"sink {self._name}"


def _open(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        reason = "its folder does not exist" if isinstance(error, FileNotFoundError) else error.strerror
        raise ConfigurationError(f"{path} cannot be written: {reason}") from None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigurationError(f"another process writes to {path}: give each daemon a file of its own") from None
    return descriptor


def _some(descriptor: int, data: memoryview) -> int:
    """Write what fits; somebody who shares our stdout may have told it not to block."""
    try:
        return os.write(descriptor, data)
    except BlockingIOError:
        select.select([], [descriptor], [])
        return 0


def _mend(descriptor: int, name: str) -> None:
    """Let the file end in a whole line; raises ConfigurationError when its end is not ours to mend."""
    tail = _tail(descriptor)
    if not tail:
        return
    if _is_json(tail):
        os.write(descriptor, b"\n")
        return
    if not tail.startswith(b'{"'):
        os.close(descriptor)
        raise ConfigurationError(f"{name} is not a file of JSON lines: its last line has no end and is not JSON")
    size = os.fstat(descriptor).st_size
    os.ftruncate(descriptor, size - len(tail))
    _log.warning(
        "%s ended in %d bytes of a line that was cut off; they are removed, the change comes again", name, len(tail)
    )


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _tail(descriptor: int) -> bytes:
    """What stands behind the last line break."""
    tail = b""
    place = os.fstat(descriptor).st_size
    while place > 0 and b"\n" not in tail:
        start = max(0, place - _BLOCK)
        tail = os.pread(descriptor, place - start, start) + tail
        place = start
    return tail.rpartition(b"\n")[2]
