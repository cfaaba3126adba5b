"""Why a slot, what is remembered of it, and the user's own position do not fit together.

May import psycopg for the classes that it compares; asks nothing. Each rule looks at one thing and gives a `Gap`, or
None when it finds nothing. The first that finds something decides; the gravest come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cdc.events import Gap, GapKind
from cdc.lsn import Lsn, Position
from cdc.server import Identity
from cdc.slot_row import SlotRow
from cdc.state import Saved

__all__ = ["SAVED", "Found", "gap_of"]

SAVED = "saved"
"""For `start_after`: what cdc has saved itself."""

_REMOVED = "the slot is lost: the server has removed WAL that it still needed (max_slot_wal_keep_size)"


@dataclass(frozen=True, slots=True)
class Found:
    """What was found when a slot was opened.

    Attributes:
        row: the slot, or None.
        saved: what is remembered of it, or None.
        mine: what this very process remembers, having been connected before; None else.
        identity: which server this is.
        end: up to where its WAL is written.
        remembers: whether there is a place where positions are kept.
        start_after: the user's own position, None when he has nothing yet, or `SAVED`.
        publications: name and OID of each publication that is to be streamed.
    """

    row: SlotRow | None
    saved: Saved | None
    mine: Saved | None
    identity: Identity
    end: Lsn
    remembers: bool
    start_after: Position | str | None
    publications: Sequence[tuple[str, int]]


def gap_of(found: Found) -> Gap | None:
    """The gap between what was delivered before and what the slot still has; None when there is none."""
    for rule in (_dropped, _given_up, _unknown, _other_server, _advanced, _read_by_another, _republished, _passed):
        gap = rule(found)
        if gap is not None:
            return replace(gap, last=_last(found))
    return None


def _last(found: Found) -> Position | None:
    """The last change that is known to have been finished."""
    if isinstance(found.start_after, Position):
        return found.start_after
    saved = found.saved or found.mine
    return None if saved is None else saved.position


def _dropped(found: Found) -> Gap | None:
    if found.row is not None:
        return None
    if found.saved is not None and found.saved.flush_lsn is not None:
        return Gap("the slot is gone, but its position is remembered: somebody dropped it", kind=GapKind.SLOT_DROPPED)
    if isinstance(found.start_after, Position):
        return Gap("there is no slot, but start_after names a position of it", kind=GapKind.SLOT_DROPPED)
    return None


def _given_up(found: Found) -> Gap | None:
    row = found.row
    if row is None or not row.is_lost:
        return None
    if row.invalidation in (None, "wal_removed"):
        return Gap(_REMOVED, kind=GapKind.SLOT_LOST)
    return Gap(f"the slot is invalidated: the server says {row.invalidation!r}", kind=GapKind.SLOT_INVALIDATED)


def _unknown(found: Found) -> Gap | None:
    if found.row is None or found.saved is not None or not found.remembers:
        return None
    return Gap("unknown past: the slot exists, but nothing is remembered of it", kind=GapKind.UNKNOWN_PAST)


def _other_server(found: Found) -> Gap | None:
    saved, identity = found.saved, found.identity
    if saved is None:
        return None
    text = "another server or timeline: the database was restored, or a standby took over"
    if saved.system_id != identity.system_id:
        return Gap(text, kind=GapKind.OTHER_SERVER)
    if saved.timeline != identity.timeline:
        return Gap(text, kind=GapKind.OTHER_TIMELINE)
    ahead = _ahead(found)
    if ahead is None:
        return None
    return Gap(
        f"the server was set back, as by a restored disk: its WAL ends at {found.end}, before {ahead}",
        kind=GapKind.OTHER_SERVER,
    )


def _ahead(found: Found) -> Lsn | None:
    """An LSN that we know and that the server has not written yet."""
    assert found.saved is not None
    known = [found.saved.flush_lsn]
    if isinstance(found.start_after, Position) and found.start_after.epoch == found.saved.epoch:
        known.append(found.start_after.commit_lsn)
    return next((lsn for lsn in known if lsn is not None and lsn > found.end), None)


def _advanced(found: Found) -> Gap | None:
    row, saved = found.row, found.saved
    if row is None or saved is None or saved.flush_lsn is None:
        return None
    if (row.confirmed_flush_lsn or 0) <= saved.flush_lsn:
        return None
    return Gap(
        f"the slot was advanced by somebody else, from {saved.flush_lsn} to {row.confirmed_flush_lsn}",
        kind=GapKind.SLOT_ADVANCED,
    )


def _read_by_another(found: Found) -> Gap | None:
    """Another consumer read the slot and let it go, while this process was not connected."""
    saved, mine = found.saved, found.mine
    if saved is None or mine is None or saved is mine:
        return None
    if saved.epoch == mine.epoch and _reach(saved) <= _reach(mine):
        return None
    return Gap("the slot was advanced by another consumer while this one was not connected", kind=GapKind.SLOT_ADVANCED)


def _reach(saved: Saved) -> tuple[int, int, int]:
    """How far somebody has got, to be compared within an epoch."""
    position = saved.position
    return (saved.flush_lsn or 0, *((0, 0) if position is None else (position.commit_lsn, position.ordinal)))


def _republished(found: Found) -> Gap | None:
    if found.saved is None:
        return None
    known = dict(zip(found.saved.publications, found.saved.publication_oids, strict=False))
    names = [name for name, oid in found.publications if known.get(name, oid) != oid]
    if not names:
        return None
    listed = ", ".join(map(repr, names))
    return Gap(
        f"publication {listed} was dropped and made again: what changed in between was not sent",
        kind=GapKind.PUBLICATION_REPLACED,
    )


def _passed(found: Found) -> Gap | None:
    """Whether the server may have forgotten changes behind the user's own position.

    Handlers have finished up to `saved.position`, and only then was the server allowed to forget. So a position that is
    not behind that one is complete. An older one is complete only if the server still has its own transaction.
    """
    saved, row, start_after = found.saved, found.row, found.start_after
    if isinstance(start_after, str) or saved is None or row is None:
        return None
    if start_after is not None and start_after.epoch != saved.epoch:
        return Gap(
            f"start_after is of epoch {start_after.epoch!r}, but the slot is in epoch {saved.epoch!r}: it was made "
            "again, or there was a gap",
            kind=GapKind.OTHER_EPOCH,
        )
    if saved.position is None or (start_after is not None and start_after >= saved.position):
        return None
    if start_after is not None and (row.confirmed_flush_lsn or 0) <= start_after.commit_lsn:
        return None
    behind = "start_after names no position" if start_after is None else f"start_after is {start_after}"
    return Gap(
        f"{behind}, but handlers have finished up to {saved.position}, and the server was allowed to forget what lies "
        "between",
        kind=GapKind.POSITION_PASSED,
    )
