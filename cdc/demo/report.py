"""The report at the end: a table for people, one object for programs.

Pure but for the console that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cdc.demo.verify import Check, Evidence

__all__ = ["print_report", "summary"]

_SOURCES = (
    "Expected: asked of PostgreSQL itself, by a second slot whose messages are counted by their first byte, and by "
    "SELECTs with each user's role and claims. Got: what the handlers were told."
)
_NEXT = (
    ("cdc sandbox", "a private PostgreSQL of your own, for as long as you like"),
    ("cdc tail wells", "the changes of a table of yours, as they happen"),
    ("README.md", "a first program of ten lines"),
)


def summary(evidence: Evidence, checks: Sequence[Check]) -> dict[str, Any]:
    """The numbers of the demo, ready for JSON."""
    return {
        "committed": len(evidence.committed),
        "delivered": len(evidence.delivered),
        "by_subject": {name: evidence.told[name].delivered for name in evidence.allowed},
        "enters": evidence.enters,
        "leaves": evidence.leaves,
        "denied": evidence.denied,
        "reads": evidence.reads,
        "reads_after_wait": evidence.reads_after_wait,
        "hits": evidence.hits,
        "invalidations": evidence.invalidations,
        "stale_reads": evidence.stale,
        "backward_reads": evidence.backward,
        "latency_ms": {"p50": _milliseconds(evidence.p50), "p99": _milliseconds(evidence.p99)},
        "problems": [check.problem for check in checks if check.problem is not None],
        "ok": all(check.ok for check in checks),
    }


def print_report(console: Console, evidence: Evidence, checks: Sequence[Check]) -> None:
    """Say what was compared with what, what came out, and what to try next."""
    console.print()
    console.print("[bold]What was delivered, next to what the database says[/]")
    console.print(Text(_SOURCES, style="dim"))
    console.print()
    console.print(_table(checks))
    console.print()
    for check in checks:
        if check.problem is not None:
            console.print(Text("✗ " + check.problem, style="bold red"))
    if all(check.ok for check in checks):
        console.print(Text(_verdict(evidence), style="green"))
    console.print()
    console.print("[bold]What to try next[/]")
    for command, meaning in _NEXT:
        console.print(Text.assemble("  ", (f"{command:<16}", "cyan"), meaning))


def _verdict(evidence: Evidence) -> str:
    share = evidence.hits / max(1, evidence.hits + evidence.misses)
    return (
        f"All as promised: {len(evidence.delivered):,} changes, none lost, none twice, none out of order. "
        f"Half of them reached their handler within {_milliseconds(evidence.p50)} ms of the commit, 99 % within "
        f"{_milliseconds(evidence.p99)} ms. The cache answered {share:.0%} of {evidence.reads:,} reads from memory."
    )


def _table(checks: Sequence[Check]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("check", ratio=1)
    table.add_column("expected", justify="right", no_wrap=True)
    table.add_column("got", justify="right", no_wrap=True)
    table.add_column("ok")
    for check in checks:
        mark = Text("✓", style="green") if check.ok else Text("✗", style="bold red")
        table.add_row(check.name, check.expected, check.got, mark, style=None if check.ok else "red")
    return table


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)
