"""The command `cdc run`: the daemon.

Reads the configuration and hands it to the service.
"""

from __future__ import annotations

import os

import click

from cdc.daemon.config import load_config
from cdc.daemon.service import Signals, serve

__all__ = ["run"]


@click.command()
@click.option(
    "--config",
    "path",
    envvar="CDC_CONFIG",
    metavar="FILE",
    help="The TOML file; the variable CDC_CONFIG names it as well. Without one, CDC_* variables say everything.",
)
def run(path: str | None) -> None:
    """Receive changes and hand them to sinks and handlers, until SIGTERM or Ctrl-C.

    Every key of the file has a variable, which wins: slot is CDC_SLOT, port in [http] is CDC_HTTP__PORT. Data goes
    to stdout or to files, log lines go to stderr.

    \b
    cdc run --config cdc.toml
    CDC_DSN=postgresql://app@db/app cdc run --config cdc.toml
    """
    with Signals() as signals:
        serve(load_config(path), dict(os.environ), signals)
