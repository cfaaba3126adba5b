"""The ledger: what the writer's sessions did, transaction by transaction, and how each of them ended.

Touches nothing. It knows what the server answered to the writer, and nothing of replication.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

__all__ = ["TABLES", "Change", "Entry", "Ledger", "Outcome", "change", "frozen"]

TABLES = {"wells": ("id",), "pipes": ("session", "number"), "marks": ("id",)}
"""The published tables and the columns of their keys. `marks` has REPLICA IDENTITY FULL."""

Change = tuple[Any, ...]
"""(table, operation, key, old key, value)."""


class Outcome(StrEnum):
    """How a transaction ended, as far as its writer knows."""

    OPEN = "open"
    IN_DOUBT = "in doubt"
    PREPARED = "prepared"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"


@dataclass(slots=True)
class Entry:
    """One transaction.

    Attributes:
        session: number of the writer's session.
        number: number of the transaction in its session.
        changes: what it did, in order; without the parts that it rolled back itself.
        xid: its id, 64 bits; None when it never had one.
        outcome: how it ended.
        began: an LSN before its first change.
        before: an LSN before its commit record.
        after: an LSN behind its commit record; None when the writer was not told.
        order: which of the session's commits it is, from 1; 0 when it did not commit.
        gid: the name under which it was prepared.
    """

    session: int
    number: int
    changes: list[Change] = field(default_factory=list)
    xid: int | None = None
    outcome: Outcome = Outcome.OPEN
    began: int = 0
    before: int = 0
    after: int | None = None
    order: int = 0
    gid: str | None = None

    def __str__(self) -> str:
        return f"transaction {self.session}/{self.number} (xid {self.xid}, {self.outcome})"


class Ledger:
    """The transactions of all sessions. Each session adds and alters its own ones only.

    Attributes:
        entries: the transactions, in the order in which they began.
        written: how many changes were committed, those in doubt left out until they are settled.
        arrived: how many lines the sink has, as it was looked at last.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.arrived = 0
        self.written = 0

    @property
    def backlog(self) -> int:
        """How many changes the consumer has still to come, roughly."""
        return self.written - self.arrived

    def wrote(self, changes: int) -> None:
        """So many changes were committed."""
        self.written += changes

    def open(self, session: int, number: int) -> Entry:
        """Begin a transaction."""
        entry = Entry(session, number)
        self.entries.append(entry)
        return entry

    def of(self, session: int, *outcomes: Outcome) -> Iterator[Entry]:
        """The transactions of a session that have one of these outcomes."""
        return (each for each in list(self.entries) if each.session == session and each.outcome in outcomes)

    @property
    def committed(self) -> list[Entry]:
        """What was committed and changed something."""
        return [each for each in self.entries if each.outcome is Outcome.COMMITTED and each.changes]

    @property
    def undecided(self) -> list[Entry]:
        """What nobody knows the end of."""
        ends = (Outcome.COMMITTED, Outcome.ROLLED_BACK)
        return [each for each in self.entries if each.outcome not in ends]

    def write(self, path: Path) -> None:
        """Keep it in a file, a transaction a line."""
        path.write_text("".join(json.dumps(asdict(each)) + "\n" for each in self.entries))


def change(table: str, operation: str, key: Any, old_key: Any = None, value: str | None = None) -> Change:
    """One change in the form in which both sides are compared."""
    return (table, operation, frozen(key), frozen(old_key), value)


def frozen(value: Any) -> Any:
    """The same with tuples in place of lists, as JSON has lists only."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(frozen(each) for each in value)
    return value
