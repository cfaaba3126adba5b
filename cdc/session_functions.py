"""Session functions that only the server can run: listed by the user, run once for each subject.

May use psycopg. They are run on a connection of their own, by a login that can do nothing but become the subjects'
roles, in a read only transaction, with a time limit and a fixed search_path; each call has a connection to itself, so
that nothing stays of another. What a function gives is kept with the subject. What it raises denies that one, and no
message quotes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc.connection import connect
from cdc.errors import CdcError, ConfigurationError
from cdc.rls import Answer, Function, Subject
from cdc.rls.subject import SESSION_USER

__all__ = ["SessionFunctions"]

_SECONDS = 2.0
_NAME = re.compile(r'([^\s."()]+)\.([^\s."()]+)(?:\(\))?')
_DANGEROUS = (
    "pg_execute_server_program",
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_create_subscription",
    "pg_maintain",
    "pg_signal_backend",
)
_LOGIN = """
WITH RECURSIVE reached (oid) AS (
    SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
    UNION
    SELECT m.roleid FROM reached JOIN pg_catalog.pg_auth_members m ON m.member = reached.oid
)
SELECT r.rolname, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolcreatedb, r.rolreplication,
       r.rolinherit OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m
                               WHERE m.member = r.oid AND (pg_catalog.to_jsonb(m) ->> 'inherit_option')::boolean),
       EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relowner = r.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f'))
       OR EXISTS (SELECT FROM pg_catalog.pg_database d WHERE d.datdba = r.oid AND d.datname = current_database()),
       (SELECT pg_catalog.min(p.rolname::text) FROM reached JOIN pg_catalog.pg_roles p USING (oid)
        WHERE p.oid <> r.oid AND (p.rolsuper OR p.rolcreaterole OR p.rolreplication OR p.rolname::text = ANY ($1)))
FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
"""
_BODY = "SELECT p.prosrc FROM pg_catalog.pg_proc p WHERE p.oid = pg_catalog.to_regprocedure($1)"


class SessionFunctions:
    """The functions that a user lists, and the login that runs them.

    Args:
        names: such as `"app.current_tenant()"`.
        dsn: the unprivileged login; None when there are no functions.

    Raises ConfigurationError for names that are none, and for one argument without the other.
    """

    def __init__(self, names: Sequence[str], dsn: str | None) -> None:
        if isinstance(names, str) or not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
            raise ConfigurationError(
                f'session_functions is a list of functions with their schemas, such as ["app.tenant()"], not {names!r}'
            )
        if bool(names) != (dsn is not None):
            raise ConfigurationError("session_functions and rights_dsn are given together, or neither of them")
        if not isinstance(dsn, str | None):
            raise ConfigurationError(f"rights_dsn is the DSN of a login, not {type(dsn).__name__}")
        self.listed = frozenset(name.removesuffix("()") for name in names)
        self._dsn = dsn

    def check(self) -> None:
        """Raise ConfigurationError when the login could do harm, ConnectionFailed when it cannot log in."""
        if self._dsn is None:
            return
        with connect(self._dsn) as connection:
            row = psycopg.RawCursor(connection).execute(_LOGIN, [list(_DANGEROUS)]).fetchone()
        assert row is not None
        name, superuser, bypasses, creates_roles, creates_databases, replicates, inherits, owns, becomes = row
        harms = {
            "is a superuser": superuser,
            "has BYPASSRLS": bypasses,
            "has CREATEROLE": creates_roles,
            "has CREATEDB": creates_databases,
            "has REPLICATION": replicates,
            "inherits the rights of its roles: ALTER ROLE it NOINHERIT, and GRANT … WITH INHERIT FALSE": inherits,
            "owns tables, or the database": owns,
            f"may become {becomes}, which may do harm": becomes is not None,
        }
        found = next((harm for harm, holds in harms.items() if holds), None)
        if found is not None:
            raise ConfigurationError(
                f"rights_dsn: the role {name} {found}. A function that it runs could use that: make a login of its "
                "own, as `CREATE ROLE … LOGIN NOINHERIT`, and grant it the subjects' roles"
            )

    def ask(self, subject: Subject, functions: Iterable[Function]) -> None:
        """Run those functions that were not run for this subject yet. Raises ConnectionFailed and the like."""
        missing = [each for each in functions if each.asked and subject.answer(each) is None]
        if not missing or self._dsn is None:
            return
        login = subject.setting(SESSION_USER)
        for function in missing:
            with connect(self._dsn) as connection:
                if login is not None and login != connection.info.user:
                    answer = Answer(None, "the subject declares session_authorization, which rights_dsn cannot have")
                else:
                    answer = _run(connection, subject, function)
            subject.keep(function, answer)


def _run(connection: psycopg.Connection[Any], subject: Subject, function: Function) -> Answer:
    """What a function gives to a subject."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("SET TRANSACTION READ ONLY")
            connection.execute(
                f"SET LOCAL statement_timeout = {round(_SECONDS * 1000)}; SET LOCAL lock_timeout = 1000;"
                "SET LOCAL search_path = pg_catalog; SET LOCAL row_security = on"
            )
            name = sql.Identifier(function.schema, function.name)
            body = psycopg.RawCursor(connection).execute(_BODY, [f"{name.as_string(connection)}()"]).fetchone()
            if body is None or body[0] != function.body:
                return Answer(None, "it is another function there, or none")
            connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(subject.role)))
            for setting, value in subject.settings:
                if setting != SESSION_USER:
                    connection.execute("SELECT pg_catalog.set_config(%s, %s, true)", (setting, value))
            result = connection.execute(sql.SQL("SELECT {}()").format(name)).pgresult
            found = None if result is None else result.get_value(0, 0)
            return Answer(None if found is None else found.decode(), None)
    except (psycopg.Error, CdcError, UnicodeDecodeError) as error:
        code = getattr(error, "sqlstate", None)
        return Answer(None, f"it raised {type(error).__name__}" + (f" ({code})" if code else ""))
