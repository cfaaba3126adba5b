"""Connections to PostgreSQL: the replication connection, and ordinary ones beside it.

May import psycopg. The replication connection is psycopg's libpq wrapper: libpq gives TLS, authentication,
service files and several hosts. libpq allows one thread at a time in a connection, so a mutex is held round
every call; the loop reads on its thread while a ticker sends status updates from another.
"""

from __future__ import annotations

import os
import re
import select
import selectors
import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg import conninfo, pq
from psycopg.abc import PQGen

from cdc.errors import ConfigurationError, ConnectionFailed
from cdc.failures import first_line, refused, why_ended
from cdc.question import Question

__all__ = ["FIXED", "Asked", "ReplicationConnection", "connect", "connection_string"]

_Answer = TypeVar("_Answer")
Asked: TypeAlias = Callable[[pq.abc.PGconn], Question]
"""Is called when something is asked over a connection, and says how long the answer may take."""

_DEFAULTS = {
    "application_name": "cdc",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""What the DSN does not say. A network that is gone is noticed after a minute, by its own silence, not after hours."""
_LOOK_EVERY = 0.1
"""Seconds between two looks at a question that has no answer yet."""

_SETTINGS = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
}
"""The text form of values depends on these; they are fixed, so that a value reads the same everywhere."""

_LAST_WORDS = 2.0
"""Seconds to wait for why the server ended a stream."""


def connection_string(dsn: str, **more: str | None) -> str:
    """`dsn` with further parameters, as libpq's key=value form. Raises ConfigurationError for a bad DSN."""
    if not isinstance(dsn, str):
        raise ConfigurationError(f"the DSN is text, not {type(dsn).__name__}")
    try:
        given = conninfo.conninfo_to_dict(dsn)
    except psycopg.Error as error:
        # Only the name of an option is repeated: any other part may be a piece of the password.
        option = re.search(r"invalid (?:connection option|URI query parameter:) \"(\w+)\"", str(error))
        reason = f": there is no option {option[1]!r}" if option else ""
        raise ConfigurationError(
            f"the DSN cannot be read{reason}; one looks like postgresql://user:password@host:5432/database, "
            "with special characters of the password as %40 for @, %2F for /, %3A for :"
        ) from None
    port = str(given.get("port") or "")
    if "@" in f"{given.get('host')}{given.get('dbname')}" or not re.fullmatch(r"[\d,]*", port):
        raise ConfigurationError("the DSN cannot be read: write @, / and : of the password as %40, %2F and %3A")
    # What a service file says would count less than our defaults; it is the user's, too.
    own = ("application_name", "connect_timeout") if given.get("service") or os.environ.get("PGSERVICE") else _DEFAULTS
    parameters: dict[str, Any] = {name: _DEFAULTS[name] for name in own}
    parameters.update(given)
    parameters.update(more)
    return conninfo.make_conninfo(**parameters)


class _Ordinary(psycopg.Connection[Any]):
    """A connection whose questions may go without an answer for a bounded time."""

    asked: Asked | None = None

    def wait(self, gen: PQGen[_Answer], *arguments: Any, **more: Any) -> _Answer:
        """Wait for what was asked. Raises ConnectionFailed when no answer is to be expected."""
        if self.asked is not None:
            gen = _looked_after(gen, self.asked(self.pgconn))
        return super().wait(gen, *arguments, **more)


def _looked_after(gen: PQGen[_Answer], question: Question) -> PQGen[_Answer]:
    """The same steps; psycopg sends a zero for a tenth of a second in which nothing came."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            question.heard() if ready else question.look()
            wanted = gen.send(ready)
    except StopIteration as end:
        answer: _Answer = end.value
        return answer


def connect(dsn: str, asked: Asked | None = None, **parameters: Any) -> psycopg.Connection[Any]:
    """An ordinary connection in autocommit mode, with the settings that fix the text form of values.

    Row-level security is off in it, which makes a read raise instead of silently showing fewer rows. `asked` says
    how long an answer may take; without it nothing does.
    """
    text = connection_string(dsn)
    try:
        connection = _Ordinary.connect(text, autocommit=True, **parameters)
    except psycopg.Error as error:
        raise refused(error, text) from None
    connection.asked = asked
    connection.execute(FIXED)
    return connection


def _set(settings: dict[str, str]) -> str:
    """One statement for several settings. Names and values are this module's own."""
    return "; ".join(f"SET {name} = '{value}'" for name, value in settings.items())


FIXED = _set(_SETTINGS | {"row_security": "off"})
"""What an ordinary connection executes first."""


class ReplicationConnection:
    """One conversation with a walsender.

    Every method may be called from any thread. `frames` and `read` never wait.

    Args:
        dsn: the server.
        asked: says how long an answer may take, before it streams; without it nothing does.

    Attributes:
        process_id: process id of the walsender, as `active_pid` of the slot shows it.
    """

    def __init__(self, dsn: str, asked: Asked | None = None) -> None:
        text = connection_string(dsn, replication="database")
        self._asked = asked
        self._mutex = threading.Lock()
        self._over = False
        # psycopg connects without blocking other threads, tries every host and keeps connect_timeout; from
        # then on libpq is used directly.
        try:
            self._connection = psycopg.connect(text, autocommit=True)
        except psycopg.Error as error:
            raise refused(error, text) from None
        self._last_words: str | None = None
        self._connection.add_notice_handler(self._listen)
        self._pgconn = self._connection.pgconn
        self.process_id = self._pgconn.backend_pid
        self.query(_set(_SETTINGS | {"idle_session_timeout": "0", "statement_timeout": "0"}))

    @property
    def host(self) -> tuple[str, str, str]:
        """Host, its address and port of the very server that this connection reached."""
        pgconn = self._pgconn
        return pgconn.host.decode(), pgconn.hostaddr.decode(), pgconn.port.decode()

    def fileno(self) -> int:
        """The socket, to wait on. Raises ConnectionFailed when it is closed."""
        try:
            return self._pgconn.socket
        except psycopg.OperationalError:
            raise ConnectionFailed("the replication connection is closed") from None

    @property
    def is_cut(self) -> bool:
        """Whether the other side has ended it, though not everything that it sent may have been read. Never waits."""
        poll = select.poll()
        poll.register(self.fileno(), getattr(select, "POLLRDHUP", 0))  # Linux alone has it; elsewhere POLLHUP counts.
        return bool(poll.poll(0))

    def query(self, command: str) -> list[tuple[str | None, ...]]:
        """Run one command before streaming starts; its rows as text.

        Raises psycopg.Error with the server's SQLSTATE.
        """
        result = self._result(command)
        if result.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.COPY_BOTH):
            return [_texts(result, row) for row in range(result.ntuples)]
        raise _error(result)

    def _result(self, command: str) -> pq.abc.PGresult:
        """The result of a command, waited for in Python, so that an interrupt is heard meanwhile."""
        pgconn = self._pgconn
        with self._mutex:
            pgconn.send_query(command.encode())
            question = None if self._asked is None else self._asked(pgconn)
            while pgconn.is_busy():
                readable = self._is_readable(_LOOK_EVERY)
                if question is not None:
                    question.heard() if readable else question.look()
                self._take_in()
            results = []
            while (result := pgconn.get_result()) is not None:
                results.append(result)
                if result.status == pq.ExecStatus.COPY_BOTH:
                    break
        return next((each for each in results if each.status == pq.ExecStatus.FATAL_ERROR), results[-1])

    def start(self, command: str) -> None:
        """Run START_REPLICATION; from then on there are frames."""
        self.query(command)
        self._pgconn.nonblocking = 1

    def frames(self, limit: int) -> list[memoryview]:
        """Up to `limit` frames that have arrived; empty when more has to be read first.

        Raises ConnectionFailed, or the server's error, when the stream has ended and all was taken.
        """
        taken: list[memoryview] = []
        take = self._pgconn.get_copy_data
        with self._mutex:
            while not self._over and len(taken) < limit:
                try:
                    size, data = take(1)
                except psycopg.OperationalError as error:
                    raise ConnectionFailed(f"the stream broke: {first_line(error)}") from None
                if size == 0:
                    return taken
                self._over = size < 0
                if not self._over:
                    taken.append(data)
            if self._over and not taken:
                raise self._ended()
        return taken

    def read(self) -> None:
        """Read from the socket what is there. Raises ConnectionFailed when the connection is lost."""
        with self._mutex:
            self._take_in()

    def send(self, data: bytes) -> None:
        """Send one CopyData frame; what the socket does not take now goes out with a later call."""
        with self._mutex:
            try:
                self._pgconn.put_copy_data(data)
                self._pgconn.flush()
            except psycopg.OperationalError as error:
                raise self._lost(error) from None

    def end(self, patience: float) -> None:
        """Say CopyDone and read until the server says it too, at most `patience` seconds; frames are dropped.

        What was received before and not confirmed comes again from the slot.
        """
        with self._mutex:
            self._pgconn.put_copy_end()
            self._pgconn.flush()
        deadline = time.monotonic() + patience
        try:
            while time.monotonic() < deadline:
                self.read()
                if not self.frames(1000):
                    time.sleep(0.002)
        except (ConnectionFailed, psycopg.Error):
            return  # The stream is over, which is what was asked for.

    def close(self) -> None:
        """Close the connection; the server notices at once. Idempotent."""
        with self._mutex:
            self._connection.close()

    def _take_in(self) -> None:
        """Read from the socket what is there; the mutex is held."""
        try:
            self._pgconn.consume_input()
        except psycopg.OperationalError as error:
            raise self._lost(error) from None

    def _lost(self, error: psycopg.Error) -> ConnectionFailed:
        kind = why_ended(self._last_words)
        return ConnectionFailed(f"the connection was lost: {first_line(error)}", failure=kind)

    def _listen(self, notice: psycopg.errors.Diagnostic) -> None:
        """What the server says besides the stream."""
        self._last_words = notice.sqlstate

    def _is_readable(self, seconds: float) -> bool:
        """Whether the socket has something to read within `seconds`."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.fileno(), selectors.EVENT_READ)
            return bool(selector.select(seconds))

    def _ended(self) -> Exception:
        """Why the server ended the stream: its error, or a plain end when it shuts down.

        Its last words may be on their way still. libpq would wait for them with Python's lock held, and for ever.
        """
        pgconn, deadline = self._pgconn, time.monotonic() + _LAST_WORDS
        while pgconn.is_busy():
            left = deadline - time.monotonic()
            if left <= 0 or not self._is_readable(left):
                return ConnectionFailed("the server ended the stream")
            self._take_in()
        result = pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            return _error(result)
        return ConnectionFailed("the server ended the stream")


def _texts(result: pq.abc.PGresult, row: int) -> tuple[str | None, ...]:
    cells = (result.get_value(row, column) for column in range(result.nfields))
    return tuple(None if cell is None else cell.decode() for cell in cells)


def _error(result: pq.abc.PGresult) -> Exception:
    """The psycopg error class of a failed result; a result without SQLSTATE comes from libpq: the network."""
    sqlstate = result.error_field(pq.DiagnosticField.SQLSTATE)
    primary = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
    message = (primary or result.error_message).decode("utf-8", "replace")
    if sqlstate is None:
        return ConnectionFailed(f"the connection was lost: {first_line(message)}")
    try:
        kind: type[psycopg.Error] = psycopg.errors.lookup(sqlstate.decode())
    except KeyError:
        kind = psycopg.DatabaseError
    return kind(message)
