"""The SQL scripts of the folder sql/: finds them, hands them to a server, and words what it answers.

Reads the scripts, in the installed package or in the source tree, and writes to the connection that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import click
import psycopg
from psycopg import errors, sql

import cdc
from cdc.errors import CdcError, ConfigurationError, ConnectionFailed

__all__ = ["PREPARATION", "Notices", "execute", "quoted", "read_script", "refusal", "setting_statements"]

PREPARATION = ("SET LOCAL lock_timeout = '10s';", "SET LOCAL client_min_messages = notice;")
"""Opens each transaction: nobody queues for long behind a lock that we wait for, and the scripts may speak."""

_PASSING = ("08", "40", "53", "57")
"""Classes of SQLSTATE that are the moment's fault: connection, deadlock, resources, shutdown."""


def read_script(name: str) -> str:
    """The text of a script, such as "01_schema.sql". Raises ConfigurationError when the installation lacks it."""
    beside = Path(cdc.__file__).parent.parent / "sql" / name
    for place in (resources.files("cdc") / "sql" / name, beside):
        if place.is_file():
            return place.read_text(encoding="utf-8")
    raise ConfigurationError(f"the script {name} is missing from this installation: install wells-cdc again")


def quoted(text: str) -> str:
    """The text as an SQL literal."""
    return sql.Literal(text).as_string(None).strip()


def setting_statements(settings: Mapping[str, str]) -> list[str]:
    """What sets the scripts' settings for one transaction; names without their `cdc.`."""
    return [f"SET LOCAL cdc.{name} = {quoted(value)};" for name, value in settings.items()]


class Notices:
    """What the server says while the scripts run, kept to be said once it is true: after the commit."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._lines: list[tuple[bool, str]] = []
        connection.add_notice_handler(self._keep)

    def _keep(self, diagnostic: errors.Diagnostic) -> None:
        text = diagnostic.message_primary or ""
        if diagnostic.severity_nonlocalized == "WARNING":
            self._lines.append((True, f"warning: {_sentence(text)} {diagnostic.message_hint or ''}".rstrip()))
        else:
            self._lines.append((False, text))

    def echo(self) -> bool:
        """Print them, warnings on stderr; True when something other than warnings was said."""
        for warning, line in self._lines:
            click.echo(line, err=warning)
        return not all(warning for warning, _ in self._lines)


def execute(connection: psycopg.Connection[Any], statements: Sequence[str]) -> None:
    """Run statements or whole scripts, in the order given. Raises psycopg.Error."""
    for statement in statements:
        connection.execute(statement.encode())


def refusal(error: psycopg.Error, user: str) -> CdcError:
    """The error for what the server refused to `user` in a transaction, which is undone.

    Args:
        error: what the server said.
        user: the role of the connection.
    """
    text = _sentence(error.diag.message_primary or (str(error).splitlines() or [type(error).__name__])[0])
    hint = error.diag.message_hint
    if isinstance(error, errors.InsufficientPrivilege):
        remedy = hint or "Run it as the owner of the tables or as a superuser, or hand them the output of --dry-run."
        return ConfigurationError(f"role {user!r} may not do this: {text} {remedy} Nothing was changed.")
    if isinstance(error, errors.LockNotAvailable):
        return CdcError(
            f"{text} A long transaction holds the table; nothing was changed. Try again when it has ended "
            "(pg_stat_activity shows it)."
        )
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return ConfigurationError(f"{text} This server only reads, as a standby does: let the DSN name the primary.")
    if (error.sqlstate or "08")[:2] in _PASSING:
        return ConnectionFailed(f"the server ended the conversation: {text} Nothing was changed; try again.")
    return ConfigurationError(" ".join(filter(None, [text, hint, "Nothing was changed."])))


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
