"""The server's own word: whether it shows a row to a subject.

May import psycopg. It becomes the subject's role in a read-only transaction that is rolled back, and selects the row by
its key. That runs what the policies call, under a login that may be powerful, and a function can leave the role: so a
superuser is not used for policies that call what cdc has not read.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from cdc.explanation import ServerAnswer
from cdc.rls import Subject
from cdc.sample import Described, Sample

__all__ = ["ask"]

_POWERFUL = """
SELECT rolsuper OR pg_catalog.pg_has_role(r.oid, 'pg_execute_server_program', 'MEMBER')
FROM pg_catalog.pg_roles r WHERE rolname = session_user
"""
_TIMEOUT = "5s"


def ask(
    connection: psycopg.Connection[Any], table: Described, sample: Sample, subject: Subject, read: bool
) -> ServerAnswer:
    """What PostgreSQL says.

    Args:
        connection: an ordinary connection in autocommit mode.
        table: the table.
        sample: the row; it has a key when it was read from the table.
        subject: as whom to look.
        read: whether cdc has read all that the policies of the subject's role call.
    """
    if sample.key is None:
        return ServerAnswer(None, "the row was given, not read from the table")
    if not read and connection.execute(_POWERFUL).fetchone() == (True,):
        return ServerAnswer(
            None,
            "the DSN's role is a superuser, and the policies have something that cdc does not read; take the DSN of a "
            f"role that may do no more than become {subject.role}",
        )
    try:
        with connection.transaction(force_rollback=True):
            return _asked(connection, table, sample.key, subject)
    except psycopg.OperationalError as error:
        return ServerAnswer(None, _error(error))
    except psycopg.Error as error:
        return ServerAnswer(False, _error(error))


def _asked(
    connection: psycopg.Connection[Any], table: Described, key: tuple[str, ...], subject: Subject
) -> ServerAnswer:
    connection.execute("SET TRANSACTION READ ONLY")
    connection.execute(f"SET LOCAL statement_timeout = '{_TIMEOUT}'; SET LOCAL row_security = on")
    for name, value in subject.settings:
        if name == "session_authorization":
            return ServerAnswer(None, "the subject declares another session_authorization")
        connection.execute("SELECT pg_catalog.set_config(%s, %s, true)", (name, value))
    try:
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(subject.role)))
    except psycopg.errors.InsufficientPrivilege:
        return ServerAnswer(None, f"the DSN's role may not become {subject.role}: GRANT {subject.role} TO it")
    query = sql.SQL("SELECT 1 FROM {} WHERE {}").format(table.source, table.has_key())
    rows = psycopg.RawCursor(connection).execute(query, key).fetchall()
    return ServerAnswer(bool(rows))


def _error(error: psycopg.Error) -> str:
    """What it raised. The message may quote a claim, so its kind has to do."""
    return f"it raises {type(error).__name__}, SQLSTATE {error.sqlstate}"
