"""A connection of its own for what is read beside the stream, made when it is needed.

May import psycopg. Each transaction on it reads one snapshot.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

import psycopg

from cdc.connection import Asked, connect

__all__ = ["OwnConnection"]


class OwnConnection:
    """For one thread at a time; `cancel` may be called from any.

    Args:
        settings: statements that are executed on it first.
        asked: says how long an answer may take.

    Attributes:
        open: the connection; None when there is none.
    """

    def __init__(self, settings: str, asked: Asked | None = None) -> None:
        self.open: psycopg.Connection[Any] | None = None
        self._settings = settings
        self._asked = asked
        self._dsn: str | None = None

    def to(self, dsn: str) -> psycopg.Connection[Any]:
        """The connection to this server. Raises CdcError when it cannot be had."""
        connection = self.open
        if connection is None or connection.closed or self._dsn != dsn:
            self.close()
            connection = connect(dsn, self._asked)
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.execute(self._settings.encode())
            self.open, self._dsn = connection, dsn
        return connection

    def cancel(self) -> None:
        """End what is read at this moment: the connection is shut."""
        connection = self.open
        if connection is not None:
            with suppress(OSError, ValueError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as own:
                own.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next use makes another one."""
        connection, self.open = self.open, None
        if connection is not None:
            connection.close()
