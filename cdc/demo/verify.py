"""The verdict: what was delivered, compared with what the database says.

Pure: evidence in, checks out. Each check that fails says what went wrong in plain words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cdc
from cdc.demo.ledger import Change, Told
from cdc.demo.truth import Rows

__all__ = ["Check", "Evidence", "verify"]


@dataclass(slots=True)
class Evidence:
    """Everything that the verdict rests on.

    Attributes:
        committed: every change by the second slot, in commit order.
        delivered: every change that the trusted subscriber was told, in its order.
        told: what each subscriber was told, by name; `trusted`, `user` and `anon`.
        table: the table's rows at the end.
        allowed: the rows that a SELECT gives to each subject at the end, by name.
        reads, reads_after_wait, stale, backward: counts of the readers.
        hits, misses, invalidations: counts of the cache.
        p50, p99: seconds from commit to handler; None when nothing was delivered.
        troubles: what broke on the way, in words.
    """

    committed: Sequence[Change]
    delivered: Sequence[Change]
    told: Mapping[str, Told]
    table: Rows
    allowed: Mapping[str, Rows]
    reads: int
    reads_after_wait: int
    stale: int
    backward: int
    hits: int
    misses: int
    invalidations: int
    p50: float | None
    p99: float | None
    troubles: list[str] = field(default_factory=list)

    @property
    def denied(self) -> int:
        """Changes withheld from a subject, summed over the subjects."""
        return sum(len(self.committed) - self.told[name].delivered for name in self.allowed)

    @property
    def enters(self) -> int:
        """Wells that an UPDATE brought into the user's view."""
        return self.told["user"].updates(cdc.Effect.ENTER)

    @property
    def leaves(self) -> int:
        """Wells that an UPDATE took out of the user's view."""
        return self.told["user"].updates(cdc.Effect.LEAVE)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to hold.

    Attributes:
        name: what is checked, in words.
        expected: what has to come out.
        got: what came out.
        problem: what is wrong, in words; None when it holds.
    """

    name: str
    expected: str
    got: str
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return self.problem is None


def verify(evidence: Evidence) -> list[Check]:
    """Every check, in the order in which a newcomer wants to read them."""
    return [
        _number(evidence),
        _order(evidence),
        _copy("The trusted copy", "the table", evidence.told["trusted"], evidence.table),
        _copy("The user's copy", "a SELECT as the user", evidence.told["user"], evidence.allowed["user"]),
        _copy("anon's copy", "a SELECT as anon", evidence.told["anon"], evidence.allowed["anon"]),
        _some(evidence),
        _foreign(evidence),
        _denied(evidence),
        _moves("UPDATEs moved wells into the user's view", evidence.enters, "into"),
        _moves("… and out of it", evidence.leaves, "out of"),
        _stale(evidence),
        _backward(evidence),
        _troubles(evidence),
    ]


def _number(evidence: Evidence) -> Check:
    committed, delivered = len(evidence.committed), len(evidence.delivered)
    problem = None
    if not committed:
        problem = "The writer has committed nothing, so nothing was shown."
    elif delivered < committed:
        problem = f"{committed - delivered:,} changes were committed and never delivered."
    elif delivered > committed:
        problem = f"{delivered - committed:,} changes were delivered that the second slot does not know."
    return Check("Every committed change was delivered", f"{committed:,}", f"{delivered:,}", problem)


def _order(evidence: Evidence) -> Check:
    pairs = enumerate(zip(evidence.committed, evidence.delivered, strict=False), 1)
    first = next(((place, *pair) for place, pair in pairs if pair[0] != pair[1]), None)
    problem = None
    if first is not None:
        place, (wanted, wanted_xid), (came, came_xid) = first
        problem = (
            f"Change number {place:,} should be {wanted!r} of transaction {wanted_xid}; "
            f"{came!r} of transaction {came_xid} was delivered."
        )
    got = "the same" if first is None else f"differs at {first[0]:,}"
    return Check("… in the order of the commits", "the same", got, problem)


def _copy(copy: str, source: str, told: Told, rows: Rows) -> Check:
    differences = list(_differences(told.rows, rows))
    got, problem = f"{len(told.rows):,} rows", None
    if differences:
        more = f" {len(differences) - 3:,} more rows differ." if len(differences) > 3 else ""
        problem = f"{copy} is not the same as {source}. {' '.join(differences[:3])}{more}"
        got += f", {len(differences):,} wrong"
    return Check(f"{copy} equals {source}", f"{len(rows):,} rows", got, problem)


def _differences(copy: Mapping[Any, Mapping[str, Any]], rows: Rows) -> Iterator[str]:
    """One sentence for each row that differs."""
    for key in sorted(rows.keys() - copy.keys()):
        yield f"Well {key} is missing from the copy."
    for key in sorted(copy.keys() - rows.keys()):
        yield f"Well {key} is in the copy and should not be."
    for key in sorted(rows.keys() & copy.keys()):
        kept, row = dict(copy[key]), dict(rows[key])
        if kept != row:
            columns = sorted(name for name in kept.keys() | row.keys() if kept.get(name, _NONE) != row.get(name, _NONE))
            yield f"Well {key} differs in {', '.join(columns)}."


_NONE = object()


def _some(evidence: Evidence) -> Check:
    mine, everything = len(evidence.told["user"].rows), len(evidence.table)
    problem = None
    if not mine:
        problem = "The user sees no well at the end, so its rights were not put to the test."
    elif mine >= everything:
        problem = "The user sees every well: nothing was kept from it."
    return Check("The user sees some wells, not all", f"1 to {max(1, everything - 1):,}", f"{mine:,}", problem)


def _foreign(evidence: Evidence) -> Check:
    foreign = sum(evidence.told[name].foreign for name in evidence.allowed)
    problem = f"{foreign:,} changes showed a well to somebody who may not see it." if foreign else None
    return Check("Nobody was shown a well of others", "0", f"{foreign:,}", problem)


def _denied(evidence: Evidence) -> Check:
    denied = evidence.denied
    problem = None if denied > 0 else "No change was withheld from anybody: row-level security decided nothing."
    return Check("Changes were withheld", "more than 0", f"{denied:,}", problem)


def _moves(name: str, count: int, where: str) -> Check:
    problem = None if count > 0 else f"No UPDATE moved a well {where} the user's view."
    return Check(name, "more than 0", f"{count:,}", problem)


def _stale(evidence: Evidence) -> Check:
    stale, waited = evidence.stale, evidence.reads_after_wait
    problem = None
    if stale:
        problem = f"{stale:,} of {waited:,} reads gave a value older than a write that the reader had waited for."
    elif not waited:
        problem = "Nobody read a value after waiting for a write, so the cache was not put to the test."
    return Check(
        "Stale reads after waiting for a write", f"0 of {max(1, waited):,}", f"{stale:,} of {waited:,}", problem
    )


def _backward(evidence: Evidence) -> Check:
    backward = evidence.backward
    problem = f"{backward:,} reads gave an older value than the same reader had read before." if backward else None
    return Check("Reads that went back in time", f"0 of {evidence.reads:,}", f"{backward:,}", problem)


def _troubles(evidence: Evidence) -> Check:
    troubles = evidence.troubles
    problem = f"Not everything ran to its end: {'; '.join(troubles)}." if troubles else None
    return Check("Everything ran to its end", "yes", "no" if troubles else "yes", problem)
