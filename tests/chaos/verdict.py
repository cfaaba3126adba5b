"""The verdict: the ledger beside the arrivals.

What was committed has to be there, whole, once and in the order of the commits; what was rolled back must not. The
writer looked at the log before and after each commit, so that the order between its sessions is known without the
stream. What is missing at a place of which somebody was told, by a `Gap` or by an error that ended the consumer, is
counted apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import cdc
from tests.chaos.arrivals import Arrivals, Arrived
from tests.chaos.ledger import Change, Entry, Ledger, Outcome

__all__ = ["Verdict", "judge"]

_XID = 0xFFFFFFFF


@dataclass(slots=True)
class Verdict:
    """What a round, or all rounds of a fault, came to.

    Attributes:
        changes: changes that were committed.
        missing: those that did not arrive and of which nobody was told.
        told: those that did not arrive, at a place of which somebody was told, and those that were parked.
        disordered: changes that arrived out of order.
        duplicated: changes that arrived more than once.
        explained: those of them that may: again under the same position, at the beginning of a life.
        wrong: what else is not as it should be, in words.
    """

    changes: int = 0
    missing: int = 0
    told: int = 0
    disordered: int = 0
    duplicated: int = 0
    explained: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing is lost, out of order, or twice without an explanation."""
        return not (self.missing or self.disordered or self.duplicated - self.explained or self.wrong)

    def __str__(self) -> str:
        words = f"{self.missing} missing, {self.disordered} out of order, {self.duplicated - self.explained} duplicated"
        return "; ".join([f"{words} of {self.changes} changes", *self.wrong[:4]])


def judge(ledger: Ledger, arrivals: Arrivals, windows: Iterable[tuple[int, int]] = ()) -> Verdict:
    """Compare the two.

    Args:
        ledger: what the writer did; every end is known.
        arrivals: what the sink has.
        windows: LSNs between which a fault took changes away for good; somebody has to be told of that.
    """
    verdict = Verdict(sum(len(entry.changes) for entry in ledger.committed))
    verdict.duplicated, verdict.explained = arrivals.repeated, arrivals.explained
    verdict.disordered = arrivals.disordered
    verdict.wrong += arrivals.wrong
    found = _match(ledger, arrivals, verdict)
    windows = list(windows)
    for entry in ledger.committed:
        arrived = found.get(_id(entry))
        if arrived is None or len(arrived.changes) < len(entry.changes):
            _miss(entry, arrived, arrivals, windows, verdict)
    _sessions(ledger, found, verdict)
    return verdict


def _match(ledger: Ledger, arrivals: Arrivals, verdict: Verdict) -> dict[tuple[int, int], Arrived]:
    """What arrived of each transaction; a crash may give an id twice, but only one of the two has committed."""
    committed = {(entry.xid or 0) & _XID: entry for entry in ledger.committed}
    others = {(entry.xid or 0) & _XID: entry for entry in ledger.entries if entry.outcome is Outcome.ROLLED_BACK}
    found: dict[tuple[int, int], Arrived] = {}
    for arrived in arrivals.transactions.values():
        entry = committed.get(arrived.xid)
        if entry is None:
            verdict.wrong.append(f"{len(arrived.changes)} changes of {others.get(arrived.xid, arrived.xid)} arrived")
        elif _id(entry) in found:
            verdict.duplicated += len(arrived.changes)
        else:
            found[_id(entry)] = arrived
            _compare(entry, arrived, verdict)
    return found


def _compare(entry: Entry, arrived: Arrived, verdict: Verdict) -> None:
    """The changes of one transaction, and its place between what the writer saw before and after."""
    wanted, had = Counter(entry.changes), Counter(arrived.changes)
    for each, count in (had - wanted).items():
        if each in wanted:
            verdict.duplicated += count
        else:
            verdict.wrong.append(f"{entry} has no change {each}")
    if wanted == had:
        verdict.disordered += sum(a != b for a, b in zip(entry.changes, arrived.changes, strict=True))
        if arrived.ordinals != list(range(1, len(entry.changes) + 1)) and entry.changes == arrived.changes:
            verdict.wrong.append(f"the ordinals of {entry} are {arrived.ordinals[:5]} …")
    lsn = arrived.place[1]
    if lsn < entry.before or (entry.after is not None and lsn >= entry.after):
        verdict.wrong.append(f"{entry} is said to have committed at {lsn}, not in {entry.before} to {entry.after}")


def _miss(
    entry: Entry, arrived: Arrived | None, arrivals: Arrivals, windows: list[tuple[int, int]], verdict: Verdict
) -> None:
    """Count what is missing of a transaction, as told or as lost."""
    lost = (Counter[Change](entry.changes) - Counter(arrived.changes if arrived else ())).total()
    parked = min(lost, _parked(entry, arrived, arrivals))
    verdict.told, lost = verdict.told + parked, lost - parked
    earliest = arrived.place[1] if arrived else entry.before
    latest = arrived.place[1] if arrived else entry.after
    told = any(
        (latest is None or latest >= hole.last) and (hole.next is None or earliest < hole.next)
        for hole in arrivals.holes
    )
    taken = any((latest is None or latest >= begin) and entry.began <= end for begin, end in windows)
    if told or (taken and arrivals.holes):
        verdict.told += lost
    else:
        verdict.missing += lost


def _parked(entry: Entry, arrived: Arrived | None, arrivals: Arrivals) -> int:
    """How many changes of a transaction are kept aside."""
    places = [cdc.Position.parse(each) for each in arrivals.parked]
    if arrived is not None:
        return sum((each.epoch, int(each.commit_lsn)) == arrived.place for each in places)
    return sum(
        entry.before <= each.commit_lsn and (entry.after or each.commit_lsn + 1) > each.commit_lsn for each in places
    )


def _sessions(ledger: Ledger, found: dict[tuple[int, int], Arrived], verdict: Verdict) -> None:
    """The commits of each session, in the order in which it made them."""
    for session in sorted({entry.session for entry in ledger.entries}):
        mine = sorted((entry for entry in ledger.committed if entry.session == session), key=lambda entry: entry.order)
        lsns = [found[_id(entry)].place[1] for entry in mine if _id(entry) in found]
        if lsns != sorted(lsns):
            verdict.wrong.append(f"the commits of session {session} arrived in another order")


def _id(entry: Entry) -> tuple[int, int]:
    return entry.session, entry.number
