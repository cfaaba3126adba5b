"""The command `cdc`: the programs that run as processes of their own.

Touches nothing by itself; each subcommand says in its own module what it touches. Importing this package needs
none of the packages of the extra `daemon`, so that `main` can name them when they are missing.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and end the process: 0 done, 1 a failure, 2 wrong usage or configuration, 130 Ctrl-C."""
    try:
        sys.exit(_exit_code())
    except KeyboardInterrupt:
        sys.exit(130)


def _exit_code() -> int:
    try:
        from cdc.daemon.cli import run
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        print('the command line needs more packages: pip install "wells-cdc[daemon]"', file=sys.stderr)
        return 2
    return run()
