"""The witness: tells whether the server is at work on a question that it has not answered.

May import psycopg. A question may take long for good reasons: a slot is made once every running transaction has ended.
So the clock alone decides nothing. pg_stat_activity says whether the question's own process works on it. When it is
gone, or waits for the next question, the answer is lost; when nobody can be asked, the server is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import psycopg
from psycopg import conninfo, pq

from cdc.connection import connect, connection_string
from cdc.errors import CdcError, FailureKind
from cdc.question import Question

__all__ = ["Witness"]

# A process that waits for its client to read is not at work. Without the right to see it, or without
# track_activities, nobody can tell.
_IS_AT_WORK = """
SELECT nullif(state, 'disabled') = 'active' AND wait_event IS DISTINCT FROM 'ClientWrite'
FROM pg_catalog.pg_stat_activity WHERE pid = %s
"""
_SECONDS = 10.0
_GONE = (FailureKind.NETWORK, FailureKind.RESTARTING, FailureKind.OTHER)


class Witness:
    """Looks after the questions of one session.

    A question to a walsender is looked after over the ordinary connection, which has nothing to do meanwhile; one over
    that connection over a new one. Either may take the seconds of the DSN's `connect_timeout`.

    Args:
        dsn: where to connect to.
        is_over: whether the consumer was told to stop.

    Attributes:
        opens: whether the session is being opened. Later on a question may be the last save, which `stop` waits for.
        ordinary: the ordinary connection, once there is one.
    """

    def __init__(self, dsn: str, is_over: Callable[[], bool]) -> None:
        self.opens = True
        self.ordinary: psycopg.Connection[Any] | None = None
        self._dsn = connection_string(dsn)
        self._seconds = _seconds(self._dsn)
        self._is_over = is_over
        self._looks = False

    def of_ordinary(self, pgconn: pq.abc.PGconn) -> Question:
        """A question over an ordinary connection. One that the witness asks has nobody to look after it."""
        return self._question(_lost if self._looks else partial(self._anew, pgconn))

    def of_walsender(self, pgconn: pq.abc.PGconn) -> Question:
        """A question over the replication connection."""
        return self._question(partial(self._beside, pgconn))

    def _question(self, is_at_work: Callable[[], bool | None]) -> Question:
        return Question(self._seconds, is_at_work, lambda: self.opens and self._is_over())

    def _beside(self, pgconn: pq.abc.PGconn) -> bool | None:
        assert self.ordinary is not None
        self._looks = True
        try:
            return _is_at_work(self.ordinary, pgconn.backend_pid)
        finally:
            self._looks = False

    def _anew(self, pgconn: pq.abc.PGconn) -> bool | None:
        host, address, port = pgconn.host.decode(), pgconn.hostaddr.decode(), pgconn.port.decode()
        dsn = connection_string(self._dsn, host=host or None, hostaddr=address or None, port=port)
        try:
            with closing(connect(dsn, lambda _: self._question(_lost))) as connection:
                return _is_at_work(connection, pgconn.backend_pid)
        except CdcError as error:
            # It answers, but has no connection to spare, or not for this role.
            return False if error.failure in _GONE else None


def _seconds(dsn: str) -> float:
    """`connect_timeout`; libpq takes 0 for none."""
    text = str(conninfo.conninfo_to_dict(dsn).get("connect_timeout") or "")
    return float(text) if text.strip().isdecimal() and int(text) > 0 else _SECONDS


def _is_at_work(connection: psycopg.Connection[Any], pid: int) -> bool | None:
    try:
        row = connection.execute(_IS_AT_WORK, (pid,)).fetchone()
    except (CdcError, psycopg.Error):
        return False
    return False if row is None else row[0]


def _lost() -> bool:
    return False
