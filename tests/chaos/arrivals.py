"""The arrivals: the lines of the sink, judged one after the other, before anybody looks at the ledger.

A consumer may repeat what it had sent only at the beginning of a life, behind an end that was not in good order; a
position always means the same change; positions rise; each line says which one its table had before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import cdc
from tests.chaos.ledger import TABLES, Change, change

__all__ = ["Arrivals", "Arrived", "Hole"]

_Place = tuple[str, int]
"""Epoch and commit LSN: one transaction."""


@dataclass(slots=True)
class Arrived:
    """One transaction as the sink has it, each change once.

    Attributes:
        place: its epoch and the LSN of its commit.
        xid: its id, 32 bits.
        changes: in the order of their arrival.
        ordinals: their ordinals.
    """

    place: _Place
    xid: int
    changes: list[Change] = field(default_factory=list)
    ordinals: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Hole:
    """A place where changes may be missing, because somebody was told.

    Attributes:
        reason: what was told.
        last: LSN of the last commit that arrived before.
        next: LSN of the first commit behind it that arrived; None when nothing did.
    """

    reason: str
    last: int
    next: int | None = None


class Arrivals:
    """What the sink has.

    Attributes:
        transactions: by place, in the order of their first arrival.
        holes: where a `Gap` or the operator told of missing changes.
        repeated: changes that came again under the same position.
        explained: those of them that may.
        disordered: changes that came behind a later one.
        parked: positions of changes that are kept aside.
        kept: what a list has that is kept by everything that came: for each table the values by key.
        wrong: what else is not as it should be, in words.
    """

    def __init__(self, lines: Iterable[dict[str, Any]], parked: Collection[str] = ()) -> None:
        self.parked = frozenset(parked)
        self.transactions: dict[_Place, Arrived] = {}
        self.kept: dict[str, dict[Any, str]] = {table: {} for table in TABLES}
        self.holes: list[Hole] = []
        self.repeated = self.explained = self.disordered = 0
        self.wrong: list[str] = []
        self._seen: dict[str, Change] = {}
        self._last: cdc.Position | None = None
        self._newest: cdc.Position | None = None
        self._kept: cdc.Position | None = None
        """The last position of a life that ended in good order: what stands before it must not come again."""
        self._linked: dict[str, str | None] = defaultdict(lambda: None)
        self._may_repeat = False
        for line in lines:
            self._take(line)

    def rows(self) -> dict[str, dict[Any, str]]:
        """What the changes add up to: for each table the values by key."""
        rows: dict[str, dict[Any, str]] = {table: {} for table in TABLES}
        for arrived in self.transactions.values():
            for content in arrived.changes:
                _apply(content, rows)
        return rows

    def _take(self, line: dict[str, Any]) -> None:
        if "start" in line:
            if line.get("former") != "in order":
                self._kept = None
            elif self._last is not None:
                self._kept = self._last
            self._last = None
            self._linked.clear()
            self._may_repeat = True
        elif "gap" in line or "operator" in line:
            self._told(line)
            if line.get("resync"):  # Every table is told at this place, before the first row that is read anew.
                self.kept = {table: {} for table in TABLES}
        elif "read" in line:
            self._link(line | {"position": line["read"]})
            self.kept[line["table"]][line["key"]] = line["value"]
        elif "position" in line:
            self._change(line)

    def _told(self, line: dict[str, Any]) -> None:
        """Each subscription is told of a gap, so that one gap gives several lines."""
        reason = str(line.get("gap", line.get("operator")))
        last = 0 if self._newest is None else int(self._newest.commit_lsn)
        if not self.holes or self.holes[-1].next is not None or self.holes[-1].last != last:
            self.holes.append(Hole(reason, last))

    def _change(self, line: dict[str, Any]) -> None:
        content = change(*(line.get(name) for name in ("table", "operation", "key", "old_key", "value")))
        self._link(line)
        _apply(content, self.kept)
        position = cdc.Position.parse(line["position"])
        if line["position"] in self._seen:
            self._again(line["position"], position, content)
        else:
            self._may_repeat = False
            self._new(line, position, content)
        self._last = position

    def _link(self, line: dict[str, Any]) -> None:
        """What was parked was delivered, too."""
        name = line.get("linked", line["table"])
        previous, self._linked[name] = self._linked[name], line["position"]
        if line["previous"] != previous and line["previous"] not in self.parked:
            self.wrong.append(f"{line['position']} names {line['previous']} as the one before, and that was {previous}")

    def _again(self, text: str, position: cdc.Position, content: Change) -> None:
        self.repeated += 1
        rises = all(_follows(each, position) for each in (self._last, self._kept) if each is not None)
        self.explained += self._may_repeat and rises
        if content != self._seen[text]:
            self.wrong.append(f"{text} was {self._seen[text]} and came again as {content}")

    def _new(self, line: dict[str, Any], position: cdc.Position, content: Change) -> None:
        self._seen[line["position"]] = content
        if self.holes and self.holes[-1].next is None:
            self.holes[-1].next = int(position.commit_lsn)
        if self._newest is not None and self._newest.epoch != position.epoch and not self.holes:
            self.wrong.append(f"{position} is of another epoch than {self._newest}, and nobody was told")
        if self._newest is None or _follows(self._newest, position):
            self._newest = position
        else:
            self.disordered += 1
        place = (position.epoch, int(position.commit_lsn))
        arrived = self.transactions.setdefault(place, Arrived(place, line["xid"]))
        if arrived.xid != line["xid"]:
            self.wrong.append(f"{position} is of transaction {line['xid']}, others of that commit of {arrived.xid}")
        arrived.changes.append(content)
        arrived.ordinals.append(position.ordinal)


def _apply(content: Change, rows: dict[str, dict[Any, str]]) -> None:
    table, operation, key, old_key, value = content
    if operation == "TRUNCATE":
        rows[table].clear()
        return
    rows[table].pop(old_key, None)
    if value is not None:
        rows[table][key] = value


def _follows(earlier: cdc.Position, later: cdc.Position) -> bool:
    """Whether a position stands behind another; LSNs of one server rise from epoch to epoch too."""
    return (earlier.commit_lsn, earlier.ordinal) < (later.commit_lsn, later.ordinal)
