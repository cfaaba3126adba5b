"""The command `cdc demo`.

Touches the terminal and the signal handlers of this process; everything else is the trial's.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click
import psycopg
from rich.console import Console

import cdc
from cdc.demo.report import print_report, summary
from cdc.demo.trial import run_trial
from cdc.demo.verify import Evidence, verify
from cdc.demo.view import LiveView, Progress

__all__ = ["demo"]

_INTRODUCTION = (
    "A private PostgreSQL starts. A writer changes its table of wells; one subscriber is trusted with everything, a "
    "user may see the wells of project North, anon may see none; readers read through a cache."
)


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(min=1), default=15.0, show_default=True, help="How long the writer works."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object, last.")
def demo(seconds: float, as_json: bool) -> None:
    """Watch real changes of a private PostgreSQL arrive, and see the proof that none is missing.

    A writer changes a table of wells. One subscriber sees everything, one user sees the wells of her project, one
    sees nothing, and readers read through a cache that the changes clear. At the end everything is compared with
    what the database says; the exit code is 0 only when all of it is right. Nothing is left behind.
    """
    console = Console()
    live = console.is_terminal and not as_json
    words = console if live else Console(stderr=True, highlight=False)
    words.print(_INTRODUCTION)
    watch = LiveView(console, seconds) if live else Progress(words, seconds)
    with _interruptible():
        evidence = _run(watch)
    checks = verify(evidence)
    if as_json:
        click.echo(json.dumps(summary(evidence, checks)))
    else:
        print_report(console, evidence, checks)
    sys.exit(0 if all(check.ok for check in checks) else 1)


def _run(watch: LiveView | Progress) -> Evidence:
    try:
        return run_trial(watch)
    except psycopg.Error as error:
        raise cdc.ConnectionFailed(f"the demo lost its PostgreSQL: {error}") from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end the demo cleanly, with exit code 130 or 143; later ones change nothing."""
    ending = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        if not ending:
            ending = True
            raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
