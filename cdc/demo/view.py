"""The live view: what happens, drawn for a person in front of a terminal, or told in a line a second.

Pure but for the console and the clock: a `Glance` in, a picture out.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

import cdc
from cdc.demo.ledger import Line, Told
from cdc.demo.scene import Glance, Scene
from cdc.demo.setting import ANON, LAB, PROJECTS, USER

__all__ = ["LiveView", "Picture", "Progress"]

_FRAME = 0.125
"""Seconds between two pictures."""
_STEP = 0.4
"""Seconds between two lines of the list of changes: what comes faster, nobody can read."""

_NAMES = {project: name for name, project in PROJECTS.items()} | {LAB: "the lab"}
_COLOURS = {"INSERT": "green", "UPDATE": "yellow", "DELETE": "red", "TRUNCATE": "magenta"}
_EFFECTS: dict[cdc.Effect | None, str] = {
    cdc.Effect.ENTER: "bold green",
    cdc.Effect.STAY: "default",
    cdc.Effect.LEAVE: "bold red",
}
_BARS = " ▁▂▃▄▅▆▇█"
_TITLES = {"trusted": "trusted", USER.name: USER.title, ANON.name: ANON.title}
_WATCHERS = tuple(_TITLES)


class LiveView:
    """Watches on a terminal."""

    def __init__(self, console: Console, seconds: float) -> None:
        self._console = console
        self._seconds = seconds

    def __call__(self, scene: Scene) -> None:
        """Draw until the time is up, or until something broke."""
        picture = Picture()
        start = time.monotonic()
        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            while (elapsed := time.monotonic() - start) < self._seconds and not scene.broken:
                live.update(picture.draw(scene.glance(elapsed, self._seconds)), refresh=True)
                time.sleep(min(_FRAME, self._seconds - elapsed))


class Progress:
    """Watches without a terminal: one line each second."""

    def __init__(self, console: Console, seconds: float) -> None:
        self._console = console
        self._seconds = seconds

    def __call__(self, scene: Scene) -> None:
        """Tell until the time is up, or until something broke."""
        start = time.monotonic()
        told = 0.0
        while (elapsed := time.monotonic() - start) < self._seconds and not scene.broken:
            if elapsed >= told + 1:
                told = elapsed
                self._console.print(progress(scene.glance(elapsed, self._seconds)), soft_wrap=True)
            time.sleep(min(0.1, self._seconds - elapsed))


def progress(glance: Glance) -> str:
    """How things stand, in one line."""
    user = glance.told[USER.name]
    return (
        f"{glance.elapsed:3.0f} s of {glance.seconds:g}: {glance.delivered:,} changes delivered, "
        f"{user.delivered:,} of them to the user, {glance.told[ANON.name].delivered:,} to anon; "
        f"{glance.reads:,} reads through the cache, {_share(glance):.0%} from memory, {glance.stale:,} stale; "
        f"commit to handler {_milliseconds(glance.p50)} (p50), {_milliseconds(glance.p99)} (p99)"
    )


class Picture:
    """The picture on the terminal. Remembers which changes it shows and how many came lately."""

    def __init__(self) -> None:
        self._shown: deque[Line] = deque(maxlen=40)
        self._last_shown: dict[tuple[str, ...], float] = {}
        self._due = 0.0
        self._seen: Line | None = None
        self._samples: deque[tuple[float, int]] = deque([(0.0, 0)], maxlen=400)

    def draw(self, glance: Glance) -> RenderableType:
        """The whole picture, which fits into 80 by 24 and uses more."""
        self._choose(glance)
        self._samples.append((glance.elapsed, glance.delivered))
        layout = Layout()
        layout.split_column(
            Layout(_head(glance), size=2),
            Layout(_writer(glance), size=3),
            Layout(_panel(_Changes(self._shown), "A few of the changes", "what each one means to whom")),
            Layout(name="people", size=6),
            Layout(_stream(glance, self._rate(glance.elapsed), self._bars(glance.elapsed)), size=4),
        )
        layout["people"].split_row(Layout(_people(glance), ratio=9), Layout(_cache(glance), ratio=7))
        return layout

    def _choose(self, glance: Glance) -> None:
        """Add one of the changes that are new, of the sort that was shown longest ago."""
        if glance.elapsed < self._due:
            return
        fresh = _behind(glance.lines, self._seen)
        if not fresh:
            return
        line = min(fresh, key=lambda each: self._last_shown.get(_sort(each), -1.0))
        self._last_shown[_sort(line)] = glance.elapsed
        self._shown.append(line)
        self._seen = glance.lines[-1]
        self._due = glance.elapsed + _STEP

    def _rate(self, now: float) -> float:
        """Changes a second, over the last two seconds."""
        earlier = next(sample for sample in self._samples if sample[0] >= now - 2)
        span = now - earlier[0]
        return (self._samples[-1][1] - earlier[1]) / span if span > 0 else 0.0

    def _bars(self, now: float, width: int = 16, step: float = 0.5) -> str:
        """Changes in each half second, the newest on the right."""
        counts = [0] * width
        for (_, before), (moment, after) in zip(self._samples, list(self._samples)[1:], strict=False):
            place = width - 1 - int((now - moment) / step)
            if 0 <= place < width:
                counts[place] += after - before
        most = max(*counts, 1)
        return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in counts)


class _Changes:
    """The list of changes: as many as there is room for, the newest at the bottom."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max(1, (options.height or options.max_height) - 1)
        table = _grid(("what the stream delivers", 1, "left"), *((name, None, "center") for name in _WATCHERS))
        for line in list(self._lines)[-room:]:
            table.add_row(_words(line), *(_effect(line, name) for name in _WATCHERS))
        yield table


def _behind(lines: Sequence[Line], seen: Line | None) -> Sequence[Line]:
    """The lines that are newer than `seen`."""
    for place in range(len(lines) - 1, -1, -1):
        if lines[place] is seen:
            return lines[place + 1 :]
    return lines


def _head(glance: Glance) -> RenderableType:
    left = max(0.0, glance.seconds - glance.elapsed)
    line = Table.grid(expand=True)
    line.add_column(ratio=1)
    line.add_column(justify="right")
    title = Text.assemble((" cdc demo", "bold cyan"), f"  PostgreSQL {glance.version}, its changes as they happen")
    line.add_row(title, f"{left:.0f} s left ")
    return Group(line, ProgressBar(total=glance.seconds, completed=glance.elapsed))


def _writer(glance: Glance) -> RenderableType:
    latest = glance.saying[-1] if glance.saying else "begins"
    counts = f"{glance.transactions:,} transactions, {glance.rollbacks:,} rolled back"
    line = _grid(("", 1, "left"), ("", None, "right"), header=False)
    line.add_row(Text(latest, no_wrap=True, overflow="ellipsis"), Text(counts, style="dim"))
    return _panel(line, "The writer", "plain SQL, a process of its own")


def _people(glance: Glance) -> RenderableType:
    table = _grid(("", 1, "left"), *((name, None, "right") for name in ("told", "ENTER", "STAY", "LEAVE", "rows")))
    for name, title in _TITLES.items():
        table.add_row(title, *_counts(glance.told[name]))
    return _panel(table, "Who saw what", "user: North, anon: none")


def _counts(told: Told) -> list[str]:
    effects = (told.total(effect) for effect in (cdc.Effect.ENTER, cdc.Effect.STAY, cdc.Effect.LEAVE))
    return [f"{number:,}" for number in (told.delivered, *effects, len(told.rows))]


def _cache(glance: Glance) -> RenderableType:
    table = _grid(("", 1, "left"), ("", None, "right"), header=False)
    table.add_row("reads, from memory", f"{glance.reads:,} {_share(glance):.0%}")
    table.add_row("cleared by changes", f"{glance.invalidations:,}")
    table.add_row("reads after a wait", f"{glance.reads_after_wait:,}")
    table.add_row("… that were stale", Text(f"{glance.stale:,}", style="bold red" if glance.stale else "bold green"))
    return _panel(table, "The cache")


def _stream(glance: Glance, rate: float, bars: str) -> RenderableType:
    health = glance.health
    colour = health.colour.value
    first = Text.assemble(
        ("● ", colour),
        (health.status.value, colour),
        f"  slot {health.slot}  at {health.received_lsn}  {health.lag_bytes:,} bytes behind",
    )
    second = Text.assemble(
        "commit to handler ",
        (_milliseconds(glance.p50), "bold"),
        " (p50) ",
        (_milliseconds(glance.p99), "bold"),
        " (p99), same clock",
    )
    table = _grid(("", 1, "left"), ("", None, "right"), header=False)
    table.add_row(first, Text(f"{rate:,.0f} changes/s", style="bold"))
    table.add_row(second, Text(bars, style="cyan"))
    return _panel(table, "The stream")


def _words(line: Line) -> Text:
    """What happened to the row, in few words."""
    event = line.event
    colour = _COLOURS[event.event_type]
    text = Text(f"{event.event_type:<7}", style=colour, no_wrap=True, overflow="ellipsis")
    if isinstance(event, cdc.Truncate):
        return text.append(f"all of {event.table}", style="default")
    text.append(f"well {event.key:<6}", style="bold default")
    return text.append(_story(event), style="default")


def _story(event: cdc.Insert | cdc.Update | cdc.Delete) -> str:
    old, new = event.old, event.new
    if old is None or new is None:
        row = old if new is None else new
        return "" if row is None else f"{row['name']} in {_project(row)}"
    if event.key != event.old_key:
        return f"was well {event.old_key}: a new key"
    if old["project_id"] != new["project_id"]:
        return f"{_project(old)} → {_project(new)}"
    if old["depth"] != new["depth"]:
        return f"{old['depth']} → {new['depth']} m in {_project(new)}"
    if old["status"] != new["status"]:
        return f"{old['status'] or 'no status'} → {new['status'] or 'no status'} in {_project(new)}"
    return f"revision {new['revision']:,} in {_project(new)}"


def _project(row: cdc.Row) -> str:
    return _NAMES.get(row["project_id"], "?")


def _effect(line: Line, name: str) -> Text:
    if name != "trusted" and name not in line.effects:
        return Text("·", style="dim")
    effect = getattr(line.event, "effect", None) if name == "trusted" else line.effects[name]
    return Text("all" if effect is None else effect.value, style=_EFFECTS.get(effect, "default"))


def _sort(line: Line) -> tuple[str, ...]:
    """Of which sort a change is; the list shows each sort in turn."""
    event = line.event
    effects = sorted(f"{name} {effect}" for name, effect in line.effects.items())
    if isinstance(event, cdc.Update) and event.old is not None and event.new is not None:
        differing = [name for name in ("id", "project_id", "depth", "status") if event.old[name] != event.new[name]]
        return "UPDATE", *differing[:1], *effects
    return event.event_type, *effects


def _panel(content: RenderableType, title: str, subtitle: str = "") -> Panel:
    words = Text.assemble((title, "bold"), (f" · {subtitle}" if subtitle else "", "dim"))
    return Panel(content, title=words, title_align="left", border_style="dim", padding=(0, 1))


def _grid(*columns: tuple[str, int | None, JustifyMethod], header: bool = True) -> Table:
    table = Table(box=None, expand=True, padding=(0, 0, 0, 1), pad_edge=False, show_header=header, header_style="dim")
    for name, ratio, justify in columns:
        table.add_column(name, ratio=ratio, justify=justify, no_wrap=True)
    return table


def _share(glance: Glance) -> float:
    return glance.hits / max(1, glance.hits + glance.misses)


def _milliseconds(seconds: float | None) -> str:
    return "…" if seconds is None else f"{seconds * 1000:.1f} ms"
