"""The life of a replication slot: created, found again, compared with what is remembered.

May import psycopg. The manual: "Replication Slots". A slot's life is an epoch. Whenever the server's slot and what is
remembered of it do not fit together, changes may be missing, and that is a `Gap`: never silence, never a new slot
under the old name without a word. `slot_gap` has the rules, `slot_maker` the commands, `slot_wait` the patience.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from cdc.errors import ConfigurationError, FailureKind, GapError, SlotError
from cdc.events import Gap, GapKind
from cdc.log import log
from cdc.lsn import Lsn, Position
from cdc.publication import publication_oids, read_publications
from cdc.server import Identity, flush_lsn, nudge, written_lsn
from cdc.slot_gap import SAVED, Found, gap_of
from cdc.slot_maker import SlotMaker
from cdc.slot_row import SlotRow, drop_slot
from cdc.slot_wait import SlotWait
from cdc.state import Saved, State

__all__ = ["SAVED", "Former", "OpenSlot", "Opening", "SlotWait", "own_position", "start_command"]


@dataclass(frozen=True, slots=True)
class OpenSlot:
    """A slot that is ready to stream.

    Attributes:
        name: its name.
        temporary: whether it goes with the connection.
        saved: what is remembered of it; its `flush_lsn` is where streaming starts, and changes up to its `position`
            are not delivered.
        gap: what is missing before its start, when the consumer goes on all the same.
        publication_oids: those of the publications as they were when the slot was compared.
        gap_ends: where the gap ends at the latest, when what was changed before it is still streamed; else None.
    """

    name: str
    temporary: bool
    saved: Saved
    gap: Gap | None = None
    publication_oids: tuple[int, ...] = ()
    gap_ends: Lsn | None = None


@dataclass(frozen=True, slots=True)
class Former:
    """The connection that this process had before.

    Attributes:
        pid: its walsender, which is ended when it still holds the slot.
        saved: what this process remembers of the slot; None when it never streamed.
        gap: a gap before its start that not every handler has heard of.
    """

    pid: int
    saved: Saved | None
    gap: Gap | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """Everything that is needed to open a slot. `open` does it.

    Attributes:
        maker: makes slots.
        identity: which server this is.
        name: the slot's name; None for a temporary one.
        state: where the position is kept; None keeps nothing.
        on_gap: `"stop"` raises GapError at a gap; anything else goes on behind it.
        publications: names of the publications that are to be streamed.
        wait: how long to wait while somebody holds the slot.
        start_after: the user's own position, None when he has nothing yet, or `SAVED`.
        former: the connection before this one, if any.
    """

    maker: SlotMaker
    identity: Identity
    name: str | None
    state: State | None
    on_gap: str
    publications: Sequence[str]
    wait: SlotWait
    start_after: Position | str | None = SAVED
    former: Former | None = None

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The ordinary connection."""
        return self.maker.connection

    def open(self) -> OpenSlot:
        """Find or create the slot, and compare it with what is remembered.

        Raises SlotError, GapError, ConfigurationError, ConnectionFailed.
        """
        if self.name is None:
            return self._temporary()
        pid, mine = (None, None) if self.former is None else (self.former.pid, self.former.saved)
        row = self.wait.released(self.connection, self.name, pid)
        if row is not None:
            _check_kind(row, self.identity)
        saved = self.state.load(self.connection, self.name) if self.state is not None else mine
        found = self._found(row, saved, mine)
        gap = gap_of(found) or (self.former.gap if self.former is not None else None)
        oids = tuple(oid for _, oid in found.publications)
        if gap is not None:
            opened = self._behind(replace(gap, tables=self._tables()), found)
        elif row is None:
            opened = OpenSlot(self.name, False, self._create(found))
        else:
            opened = OpenSlot(self.name, False, self._known(row, found))
            if self.maker.failover and not row.failover:
                self.maker.let_fail_over(self.name)
        return replace(opened, publication_oids=oids)

    def _found(self, row: SlotRow | None, saved: Saved | None, mine: Saved | None) -> Found:
        connection = self.connection
        oids = publication_oids(connection, self.publications)
        end = flush_lsn(connection)
        # Once this process has streamed, its own memory is the truth, and `start_after` is behind it.
        start_after = self.start_after if mine is None else SAVED
        return Found(row, saved, mine, self.identity, end, self.state is not None, start_after, oids)

    def _known(self, row: SlotRow, found: Found) -> Saved:
        """What is remembered of a slot that goes on."""
        known = found.saved or self._fresh(found.publications)
        mine = found.mine
        if isinstance(found.start_after, str):
            position = known.position
            if mine is not None and mine.position is not None and (position is None or mine.position > position):
                position = mine.position
            return replace(known, position=position, flush_lsn=known.flush_lsn or row.confirmed_flush_lsn)
        # From the server's own bookmark: what was saved may lie behind the user's position. It follows that now, or
        # whoever connects next would go on from there.
        own = replace(known, position=found.start_after, flush_lsn=row.confirmed_flush_lsn)
        if own != known:
            self._save(row.name, own)
        return own

    def _fresh(self, oids: Sequence[tuple[str, int]]) -> Saved:
        """A new epoch."""
        token = secrets.token_hex(4)
        names = tuple(name for name, _ in oids)
        numbers = tuple(oid for _, oid in oids)
        return Saved(self.identity.system_id, self.identity.timeline, token, None, None, names, numbers)

    def _create(self, found: Found, behind_gap: bool = False) -> Saved:
        """Create the slot. The intent is saved first, so that a crash in between is not taken for a gap.

        Behind a gap nothing is saved before handlers have heard of it: a crash in between is to be taken for one.
        """
        assert self.name is not None
        fresh = self._fresh(found.publications)
        if not behind_gap:
            self._save(self.name, fresh)
        created = replace(fresh, flush_lsn=self.maker.create(self.name, temporary=False))
        if not behind_gap:
            self._save(self.name, created)
        log.info("slot.created", slot=self.name, lsn=str(created.flush_lsn))
        return created

    def _temporary(self) -> OpenSlot:
        """A slot that goes with the connection."""
        fresh = self._fresh(publication_oids(self.connection, self.publications))
        name = f"cdc_{os.getpid()}_{fresh.epoch}"
        start = self.maker.create(name, temporary=True)
        return OpenSlot(name, True, replace(fresh, flush_lsn=start))

    def _save(self, name: str, saved: Saved) -> None:
        if self.state is not None:
            self.state.save(self.connection, name, saved)

    # Gaps.

    def _behind(self, gap: Gap, found: Found) -> OpenSlot:
        """The slot behind a gap: a new one unless it can still be read. Raises GapError to stop.

        It begins a new epoch, unless nothing but a publication was made anew.
        """
        name, row = self.name, found.row
        assert name is not None
        if self.on_gap == "stop":
            raise self._error(name, gap)
        if row is not None and row.is_lost:
            drop_slot(self.connection, name)
            row = None
        if row is None:
            saved = self._create(found, behind_gap=True)
        else:
            saved = replace(self._fresh(found.publications), flush_lsn=self._readable_from(gap, found, row))
            if gap.kind is GapKind.PUBLICATION_REPLACED:
                saved = self._same_life(saved, found)
        position = None if saved.flush_lsn is None else Position(saved.epoch, saved.flush_lsn, 0)
        if position is not None and saved.position is not None:
            position = max(position, saved.position)
        return OpenSlot(name, False, saved, replace(gap, position=position), gap_ends=self._end_of(gap))

    def _end_of(self, gap: Gap) -> Lsn | None:
        """Where the gap ends at the latest, when the stream still has to come to it; see `gaps`."""
        if gap.kind is not GapKind.PUBLICATION_REPLACED or self.connection.info.server_version < 180000:
            return None
        lsn = written_lsn(self.connection)
        nudge(self.connection)
        return lsn

    def _same_life(self, fresh: Saved, found: Found) -> Saved:
        """The slot and its WAL are the ones that they were: what was delivered before does not come again."""
        before = found.saved or found.mine
        if before is None:
            return fresh
        if not isinstance(found.start_after, str):
            known = [found.start_after]
        else:
            known = [each.position for each in (found.saved, found.mine) if each is not None]
        mine = [each for each in known if each is not None and each.epoch == before.epoch]
        return replace(fresh, epoch=before.epoch, position=max(mine, default=None))

    def _readable_from(self, gap: Gap, found: Found, row: SlotRow) -> Lsn | None:
        """Where a slot behind a gap goes on: at its own bookmark, as a rule."""
        if gap.kind is not GapKind.PUBLICATION_REPLACED:
            return row.confirmed_flush_lsn
        if self.connection.info.server_version < 180000:
            # It cannot decode changes that are older than the publication: leave those behind.
            return self.maker.advance(row.name)
        # The slot itself has lost nothing, so that what is saved holds.
        saved = found.saved.flush_lsn if found.saved is not None else None
        return max(filter(None, (saved, row.confirmed_flush_lsn)), default=None)

    def _tables(self) -> tuple[str, ...]:
        """Every published table: any of them may have changed in a gap."""
        published = read_publications(self.connection, self.publications)
        names = {f"{schema}.{table}" for each in published for schema, table in each.tables if schema != "cdc"}
        return tuple(sorted(names))

    def _error(self, name: str, gap: Gap) -> GapError:
        way_out = f"run `cdc drop --slot {name}`" if self.state is None else self.state.way_out(name)
        return GapError(
            f"changes may be missing before slot {name!r} can go on: {gap.reason}. Start with on_gap='deliver' once, "
            "and read your tables again when the Gap arrives, not before: the stream goes on there. "
            f"Or {way_out}, start anew, and read them then",
            gap,
        )


def _check_kind(row: SlotRow, identity: Identity) -> None:
    if row.slot_type != "logical" or row.plugin != "pgoutput":
        kind = row.plugin or row.slot_type
        raise SlotError(
            f"slot {row.name!r} is a {kind} slot, which cdc cannot read: choose another slot name",
            failure=FailureKind.CONFIGURATION,
        )
    if row.database != identity.database:
        raise SlotError(
            f"slot {row.name!r} belongs to database {row.database!r}, not {identity.database!r}: "
            "choose another slot name or mend the DSN",
            failure=FailureKind.CONFIGURATION,
        )


def start_command(slot: OpenSlot, parameters: str) -> str:
    """START_REPLICATION for the slot, with the plugin's options."""
    start = slot.saved.flush_lsn or Lsn(0)
    return f'START_REPLICATION SLOT "{slot.name}" LOGICAL {start} ({parameters})'


def own_position(start_after: object, slot: str | None, state: object) -> Position | str | None:
    """The user's `start_after` as a Position, None or `SAVED`. Raises ConfigurationError for what cannot be."""
    if isinstance(start_after, str) and start_after == SAVED:
        return SAVED
    if slot is None or state is None:
        raise ConfigurationError(
            "start_after needs a named slot and a state: without them nobody can tell whether the slot is still the "
            "one that the position belongs to"
        )
    if start_after is None or isinstance(start_after, Position):
        return start_after
    try:
        return Position.parse(start_after)  # type: ignore[arg-type]
    except (ValueError, AttributeError, TypeError):
        raise ConfigurationError(
            f"start_after is a cdc.Position, its text such as 'k3v9:0/16B3748:3', or None, not {start_after!r}"
        ) from None
