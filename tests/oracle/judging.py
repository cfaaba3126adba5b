"""What cdc says: decisions from the catalog's rights over cells as the stream sends them.

Reads the catalog over an ordinary connection, as the consumer does, and nothing else of PostgreSQL.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from cdc.operators import Moment
from cdc.predicate import ERROR, TRUE, Verdict, verdict
from cdc.rights import read_facts, read_roles
from cdc.rls import Decision, Subject, TableRights, decide, review
from cdc.rls.grants import rights_of
from cdc.tuples import Cell
from tests.oracle.ground import Place

__all__ = ["Crash", "Judged", "Opinion", "judge", "reason_of", "unsupported"]

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Crash(Exception):
    """cdc raised where it is to say yes, no or why not."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What cdc says of one row for one subject.

    Attributes:
        shows: whether it shows the row.
        may: whether the row might be visible, as far as the outcome says.
        reason: why it is hidden, when that is more than a plain no; None otherwise.
    """

    shows: bool
    may: bool
    reason: str | None = None


@dataclass(slots=True)
class Judged:
    """A subject's decision, and the rights that it was made of."""

    subject: Subject
    rights: TableRights
    decision: Decision
    moment: Moment

    def opinion(self, cells: Sequence[Cell]) -> Opinion:
        """What is said of a row."""
        decision = self.decision
        if decision.denied is not None:
            return Opinion(False, False, decision.denied)
        self.moment.problem = None
        try:
            outcome = decision.predicate.test(cells)
        except Exception as error:
            raise Crash(f"the predicate raises {_told(error)}") from error
        if verdict(outcome) is Verdict.YES:
            return Opinion(True, True)
        if outcome == ERROR:
            return Opinion(False, False, f"error: {self.moment.problem}")
        if outcome & TRUE:
            return Opinion(False, True, f"undecided: {self.moment.problem or 'no reason'}")
        if decision.unsupported:
            return Opinion(False, False, f"not supported: {decision.unsupported[0]}")
        return Opinion(False, False)

    def is_covered(self, cells: Sequence[Cell]) -> bool:
        """Whether an index by the predicate's cover finds the row."""
        cover = self.decision.predicate.cover
        if cover is None or self.decision.denied is not None:
            return True
        for probe, value in cover:
            cell = cells[probe.column]
            if not isinstance(cell, bytes):
                continue
            found = cell if probe.read is None else probe.read(cell)
            if (value in found) if probe.elements else found == value:  # type: ignore[operator]
                return True
        return False


def judge(place: Place, subjects: Sequence[Subject]) -> list[Judged | str]:
    """A decision for each subject; in its place, what the catalog has against that."""
    names = {subject.role for subject in subjects}
    roles, facts = read_roles(place.connection, names), read_facts(place.connection, [place.relation.oid])
    known = {name: rights_of(facts[place.relation.oid], roles, name) for name in names}
    moment = Moment()
    moment.microseconds = _now(place.connection)
    found: list[Judged | str] = []
    for subject in subjects:
        rights = known[subject.role]
        if rights is None:
            found.append(f"role {subject.role} does not exist")
            continue
        try:
            decision = decide(rights, place.relation, place.types, subject, moment)
        except Exception as error:
            raise Crash(f"decide raises {_told(error)}") from error
        found.append(Judged(subject, rights, decision, moment))
    return found


def unsupported(place: Place, judged: Sequence[Judged | str]) -> dict[str, str | None]:
    """Each policy for reading, and the construct because of which it is not supported; None when it is."""
    for each in judged:
        if isinstance(each, Judged):
            found = review(each.rights, place.relation, place.types)
            return {policy.name: problem for policy, problem in found if policy.node_text is not None}
    return {}


def _told(error: Exception) -> str:
    """The error, and the last places in cdc where it passed."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/cdc/" in frame.filename]
    places = [f"{frame.filename.rpartition('/cdc/')[2]}:{frame.lineno}" for frame in frames[-3:]]
    return f"{type(error).__name__}: {error} at {' < '.join(reversed(places))}"


def _now(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT now()").fetchone()
    assert row is not None
    return int((row[0] - _EPOCH).total_seconds() * 1_000_000)


_REASONS = [
    (re.compile(pattern), words)
    for pattern, words in (
        (r"USAGE right|SELECT right", "no right"),
        (r"no policy lets role", "no policy"),
        (r"no policy that cdc can decide", "unsupported: every permissive policy"),
        (r"^restrictive .* is not supported", "unsupported: a restrictive policy"),
        (r"^not supported", "unsupported: a permissive policy"),
        (r"cannot be evaluated for this subject", "session error"),
        (r"^error", "error for the row"),
        (r"^undecided", "undecided"),
        (r"does not exist|are not known", "unknown role"),
    )
]


def reason_of(reason: str) -> str:
    """The class of a reason."""
    return next((words for pattern, words in _REASONS if pattern.search(reason)), f"other: {reason[:60]}")
