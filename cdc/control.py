"""The ordinary connection beside the stream: it asks the catalog, saves the position, and hears of the server's end.

May import psycopg. A server that shuts down ends it first, and says why, which a walsender may not.
"""

from __future__ import annotations

import select
from contextlib import suppress
from typing import Any

import psycopg

from cdc.connection import Asked, connect
from cdc.errors import ConnectionFailed, FailureKind
from cdc.failures import why_ended

__all__ = ["Control"]

_LAST_WORDS = 0.1
"""Seconds to wait for why the server has gone."""


class Control:
    """An ordinary connection that lives as long as the stream, whatever limits the database sets to others.

    Saving a position does not wait for a standby: the stream would wait with it.

    Args:
        dsn: the server.
        asked: says how long an answer may take.

    Attributes:
        connection: the connection.
    """

    def __init__(self, dsn: str, asked: Asked | None = None) -> None:
        self.connection: psycopg.Connection[Any] = connect(dsn, asked)
        self._last_words: str | None = None
        self.connection.add_notice_handler(self._listen)
        self.connection.execute(
            "SET synchronous_commit = local; SET idle_session_timeout = 0; SET statement_timeout = 0"
        )

    def _listen(self, notice: psycopg.errors.Diagnostic) -> None:
        """What the server says when nobody has asked it anything."""
        self._last_words = notice.sqlstate

    def check(self) -> None:
        """Raise ConnectionFailed when the server has ended it. Never waits."""
        pgconn = self.connection.pgconn
        if not self.connection.lock.acquire(blocking=False):
            return  # It is in use, and whoever uses it will find out.
        try:
            pgconn.consume_input()
            pgconn.notifies()  # This takes in what was read: the server's last words come unasked.
        except psycopg.OperationalError:
            pass  # The status says so, too.
        finally:
            self.connection.lock.release()
        if pgconn.status != psycopg.pq.ConnStatus.OK:
            raise ConnectionFailed("the server ended the connection", failure=why_ended(self._last_words))

    def why_lost(self, kind: FailureKind) -> FailureKind:
        """Why the stream was lost, which seemed to be `kind`: a walsender can be ended without a word."""
        if kind is not FailureKind.NETWORK:
            return kind
        with suppress(OSError, ValueError, psycopg.Error):
            for _ in range(3):
                try:
                    self.check()
                except ConnectionFailed as error:
                    return error.failure
                if not select.select([self.connection], [], [], _LAST_WORDS)[0]:
                    break
        return kind
