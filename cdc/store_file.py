"""The file of a store: its rows and their mark in SQLite, changed together or not at all.

Touches the file that it is given, and what SQLite keeps beside it (`PATH-wal`) while it is open and after a crash.
Changes are appended to the write-ahead log, each save with one fsync, so that a save costs what has changed; SQLite
moves them into the file from time to time. The lock is SQLite's own, held while the file is open; it goes with the
process.

What the file lacks costs a reading of the table; what it has wrongly would be a stale row. So each row has a checksum,
and the file's structure is checked when it is opened. A file of ours that is damaged begins anew, empty. One that is
something else is never written to.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from cdc.errors import CdcError, ConfigurationError
from cdc.log import log
from cdc.store_mark import StoreMark

__all__ = ["StoreFile"]

_OURS = 0x63646373
"""The application id in SQLite's header: "cdcs"."""
_FORMAT = 1
_PATIENCE = 0.5
"""Seconds to wait for another process that is about to end."""
_AT_ONCE = 50_000
"""Rows that are read at once."""
_LOG_BYTES = 16 << 20
"""Bytes of write-ahead log that are kept to be used again."""
_TABLES = (
    "CREATE TABLE rows (key BLOB NOT NULL PRIMARY KEY, line BLOB NOT NULL, sum INTEGER NOT NULL)",
    "CREATE TABLE mark (only INTEGER PRIMARY KEY CHECK (only = 1), said BLOB NOT NULL, sum INTEGER NOT NULL)",
)
_PUT = """
INSERT INTO rows (key, line, sum) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET line = excluded.line, sum = excluded.sum
"""
_MARK = """
INSERT INTO mark (only, said, sum) VALUES (1, ?, ?)
ON CONFLICT (only) DO UPDATE SET said = excluded.said, sum = excluded.sum
"""
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH}
_HEADER = b"SQLite format 3\0"
_ID_AT = 68
"""Where SQLite's header has the application id."""


class _Damaged(Exception):
    """The file is ours, and does not hold what was saved."""


class StoreFile:
    """A file at `path`, open and locked. Thread-safe.

    Attributes:
        path: the file.

    Raises ConfigurationError when it cannot be opened, is in use, of a later format, or something else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = _checked(path)
        self._mutex = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        try:
            self._check_kind()
            self._open()
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            reason = "its folder does not exist" if missing else error.strerror or str(error)
            raise ConfigurationError(f"the file of a store {self.path} cannot be used: {reason}") from None

    def load(self) -> tuple[StoreMark, list[bytes]] | None:
        """The mark and the rows, as they were saved last; None when there are none, or not whole."""
        with self._mutex:
            try:
                return self._load(self._opened())
            except (sqlite3.DatabaseError, _Damaged, TypeError) as error:  # TypeError: a value of another kind.
                if isinstance(error, sqlite3.DatabaseError) and _code(error) not in _DAMAGED:
                    raise ConfigurationError(f"the file of a store {self.path} cannot be read: {error}") from None
                self._begin_anew(str(error))
                return None

    def save(self, changes: Mapping[bytes, bytes | None], mark: StoreMark, anew: bool = False) -> None:
        """Keep the mark, and these rows by key; None for one that is gone. All of it, or nothing when this raises.

        Args:
            changes: key and row, as lines.
            mark: what is true of all rows from here on.
            anew: whether every row that was there before goes.

        Raises CdcError when it cannot be written.
        """
        said = json.dumps(mark.written(), separators=(",", ":")).encode()
        with self._mutex:
            connection = self._opened()
            try:
                connection.execute("BEGIN IMMEDIATE")
                if anew:
                    connection.execute("DELETE FROM rows")
                _change(connection, changes)
                connection.execute(_MARK, (said, crc32(said)))
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise CdcError(f"the file of a store {self.path} cannot be written: {error}") from None

    def close(self) -> None:
        """Give the file back. Idempotent."""
        with self._mutex:
            self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # What is in the log and cannot be moved into the file now stays in the log.
            with suppress(sqlite3.Error):
                connection.close()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise CdcError(f"the file of a store {self.path} is closed")
        return self._connection

    def _check_kind(self) -> None:
        """Raise ConfigurationError for a file that is something else; make one that nobody else may read."""
        if not self.path.exists():
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            return
        if not self.path.is_file():
            raise ConfigurationError(f"the file of a store {self.path} cannot be used: it is not a regular file")
        if not os.access(self.path, os.R_OK | os.W_OK):
            raise ConfigurationError(f"the file of a store {self.path} cannot be used: it may not be read and written")

    def _open(self) -> None:
        connection = sqlite3.connect(
            self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False, cached_statements=16
        )
        self._connection = connection
        try:
            self._prepare(connection)
        except (sqlite3.DatabaseError, _Damaged) as error:
            if isinstance(error, _Damaged) or _code(error) in _DAMAGED:
                self._mend(str(error))
                return
            self._close()
            raise self._refused(error) from None
        except BaseException:
            self._close()
            raise

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("BEGIN IMMEDIATE")  # It takes the lock.
        if self._is_new(connection):
            # What says that the file is ours goes into the file itself, before there is a write-ahead log.
            for statement in (*_TABLES, f"PRAGMA application_id = {_OURS}", f"PRAGMA user_version = {_FORMAT}"):
                connection.execute(statement)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")

    def _is_new(self, connection: sqlite3.Connection) -> bool:
        numbers = ("application_id", "user_version")
        id, format = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in numbers)
        is_empty: bool = connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        if id != _OURS and (id or not is_empty):
            raise self._something_else()
        if format != _FORMAT and (format or not is_empty):
            raise ConfigurationError(
                f"{self.path} is a store's file of format {format}, and this release of cdc has format {_FORMAT}: take "
                "the release that wrote it, or delete it, and the table is read anew"
            )
        return is_empty

    def _something_else(self) -> ConfigurationError:
        return ConfigurationError(f"{self.path} is not the file of a store: name another path, or delete it")

    def _refused(self, error: sqlite3.DatabaseError) -> ConfigurationError:
        if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return ConfigurationError(
                f"the file of a store {self.path} is in use by another store: give each store of each process a file "
                "of its own"
            )
        return ConfigurationError(f"the file of a store {self.path} cannot be used: {error}")

    def _load(self, connection: sqlite3.Connection) -> tuple[StoreMark, list[bytes]] | None:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != ("ok",):
            raise _Damaged(verdict[0] if verdict else "it cannot be checked")
        found = connection.execute("SELECT said, sum FROM mark").fetchone()
        if found is None:
            return None
        said, sum = found
        if crc32(said) != sum:
            raise _Damaged("the checksum of its mark is another")
        try:
            mark = StoreMark.read(json.loads(said))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _Damaged(f"its mark cannot be read: {error!r}") from None
        lines: list[bytes] = []
        cursor = connection.execute("SELECT key, line, sum FROM rows")
        while rows := cursor.fetchmany(_AT_ONCE):
            keys, some, sums = zip(*rows, strict=True)
            if tuple(map(crc32, some, map(crc32, keys))) != sums:
                raise _Damaged("the checksum of a row is another")
            lines += some
        return mark, lines

    def _mend(self, reason: str) -> None:
        """Begin anew where the file says that it is ours."""
        self._close()
        with self.path.open("rb") as file:
            header = file.read(_ID_AT + 4)
        if not (header.startswith(_HEADER) and header[_ID_AT:] == _OURS.to_bytes(4, "big")):
            raise self._something_else()
        self._begin_anew(reason)

    def _begin_anew(self, reason: str) -> None:
        """Throw away what is there, which is damaged."""
        log.warning("store.file_damaged", path=str(self.path), reason=reason)
        self._close()
        for suffix in ("-wal", "-shm", "-journal", ""):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        self._check_kind()
        self._open()

    def __repr__(self) -> str:
        return f"<StoreFile {self.path}>"


def _checked(path: object) -> Path:
    if not isinstance(path, str | Path) or path == "" or "\0" in str(path):
        raise ConfigurationError(f"the path of a store's file is a str or a Path, not {path!r}")
    return Path(path).absolute()


def _change(connection: sqlite3.Connection, changes: Mapping[bytes, bytes | None]) -> None:
    gone = [(key,) for key, line in changes.items() if line is None]
    if gone:
        connection.executemany("DELETE FROM rows WHERE key = ?", gone)
    connection.executemany(_PUT, _rows(changes.items()))


def _rows(changes: Iterable[tuple[bytes, bytes | None]]) -> Iterable[tuple[bytes, bytes, int]]:
    for key, line in changes:
        if line is not None:
            yield key, line, crc32(line, crc32(key))


def _code(error: sqlite3.Error) -> int:
    """What failed, without the details."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF
