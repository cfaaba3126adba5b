"""What the benchmarks share: options, turns, medians, the table, and saving.

A script measures and hands one flat dict of named figures to `finish`. A name ends in its unit, and a ratio in
`_ratio`: that is all the table needs to know. Nothing here names a machine or a path.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from rich import box
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
UNITS = {
    "_rows_per_second": "rows/s",
    "_events_per_second": "events/s",
    "_decisions_per_second": "decisions/s",
    "_changes_per_second": "changes/s",
    "_deliveries_per_second": "deliveries/s",
    "_transactions_per_second": "tx/s",
    "_milliseconds": "ms",
    "_microseconds": "µs",
    "_seconds": "s",
    "_mebibytes": "MiB",
    "_bytes": "bytes",
    "_ratio": "",
}
"""Endings of names and the units they stand for; the first that fits counts."""

T = TypeVar("T")
Figures = dict[str, float | int | str | None]
"""Figures by name; a ratio that cannot be had is None."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure has to reach: at least `bound`, or at most."""

    bound: float
    at_most: bool = False

    def is_met(self, figure: float) -> bool:
        return figure <= self.bound if self.at_most else figure >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}"


def options(text: str, rows: int, rounds: int = 5, rows_help: str = "changed rows") -> argparse.ArgumentParser:
    """The options of every script."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=rows, help=f"{rows_help} (default {rows})")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"turns of each contestant (default {rounds})")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object last")
    return parser


def take_turns(contestants: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Let each contestant run once a round. Another one begins each round, so that no place is a privilege."""
    outcomes: dict[str, list[T]] = {name: [] for name in contestants}
    names = list(contestants)
    for round in range(rounds):
        first = round % len(names)
        for name in names[first:] + names[:first]:
            outcomes[name].append(contestants[name]())
    return outcomes


def median(outcomes: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each contestant's rounds."""
    return {name: statistics.median(figures) for name, figures in outcomes.items()}


def short(figure: float) -> float | int:
    """A figure with four significant digits."""
    rounded = float(f"{figure:.4g}")
    return int(rounded) if abs(rounded) >= 1000 else rounded


def circumstances(server_version: int | None = None) -> Figures:
    """The versions that figures depend on."""
    figures: Figures = {"python": platform.python_version(), "psycopg": psycopg.__version__}
    figures |= {"psycopg_implementation": psycopg.pq.__impl__, "cpus": os.cpu_count() or 0}
    if server_version is not None:
        figures["postgresql"] = f"{server_version // 10000}.{server_version % 10000}"
    return figures


def finish(
    path: str,
    chosen: argparse.Namespace,
    parser: argparse.ArgumentParser,
    figures: Figures,
    targets: Mapping[str, Target],
) -> None:
    """Print the table; save the figures if nothing was made smaller than the default; print them as JSON if asked."""
    name = Path(path).stem
    figures = {"rows": chosen.rows, "rounds": chosen.rounds} | figures
    table = new_table(name.replace("_", " "))
    add_rows(table, name, figures, targets)
    console().print(table)
    if chosen.rows >= parser.get_default("rows") and chosen.rounds >= parser.get_default("rounds"):
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
    if chosen.json:
        print(json.dumps(figures), flush=True)


def console() -> Console:
    """The terminal; a file gets lines wide enough for the table."""
    return Console(width=None if sys.stdout.isatty() else 120)


def new_table(title: str) -> Table:
    """An empty table of figures."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for heading in ("", "what", "figure", "unit", "ratio", "target", "met"):
        table.add_column(heading, justify="right" if heading in ("figure", "ratio") else "left")
    return table


def add_rows(table: Table, script: str, figures: Mapping[str, Any], targets: Mapping[str, Target]) -> None:
    """A line for each figure; a ratio stands beside the figure of the same name."""
    for name, figure in figures.items():
        ending = next((ending for ending in UNITS if name.endswith(ending)), None)
        if ending is None or (ending == "_ratio" and _owner(name, figures)):
            continue
        what = name.removesuffix(ending)
        ratio = f"{what}_ratio"
        judged = name if ending == "_ratio" or name in targets else ratio
        target = targets.get(judged)
        table.add_row(
            script,
            what.replace("_", " "),
            "" if ending == "_ratio" else f"{figure:,}",
            UNITS[ending],
            f"{figures[ratio]:.2f}" if figures.get(ratio) is not None else "none" if ratio in figures else "",
            "" if target is None else str(target),
            "" if target is None else _met(target, figures.get(judged)),
        )
    for name in targets.keys() - figures.keys():
        table.add_row(script, name.replace("_", " "), "not measured", "", "", str(targets[name]), "NO")


def _owner(ratio: str, figures: Mapping[str, Any]) -> bool:
    """Whether a figure of the same name stands beside the ratio."""
    what = ratio.removesuffix("_ratio")
    return any(what + ending in figures for ending in UNITS if ending != "_ratio")


def missed(figures: Mapping[str, Any], targets: Mapping[str, Target]) -> int:
    """How many targets were not reached; one that was not measured was not reached."""
    return sum(1 for name, target in targets.items() if _met(target, figures.get(name)) != "yes")


def _met(target: Target, figure: float | None) -> str:
    return "yes" if figure is not None and target.is_met(figure) else "NO"
