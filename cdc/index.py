"""The index of a relation: which groups of views a row may concern, found by the values in it.

Pure: no I/O. A condition such as `owner = auth.uid()` can be true only for rows with that owner: its group is found by
hashing the row's cell, and nobody else's condition is looked at. A group whose condition names no such value is
judged for every change. For an update both rows are looked up.

A cell that was not sent finds nobody, since a condition on it is never certain. Whoever would have been found by it
counts such a change as undecided: there is a tally for each set of cells, so that nobody needs to be visited.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from cdc.events import RowChange, Update
from cdc.group import Group, Tally
from cdc.predicate import Cover, Predicate, Probe, equal
from cdc.row import Row
from cdc.tuples import Cell

__all__ = ["Index"]

_Found = Group | dict[Group, None]
_NO_COLUMNS: frozenset[int] = frozenset()


class _Table:
    """The groups that are found by what one probe reads in a row."""

    __slots__ = ("column", "groups", "is_raw", "probe")

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.column = probe.column
        self.is_raw = probe.read is None
        self.groups: dict[Hashable, _Found] = {}

    def add(self, value: Hashable, group: Group) -> None:
        found = self.groups.get(value)
        if found is None:
            self.groups[value] = group
        elif isinstance(found, dict):
            found[group] = None
        else:
            self.groups[value] = {found: None, group: None}

    def discard(self, value: Hashable, group: Group) -> None:
        found = self.groups.get(value)
        if isinstance(found, dict):
            found.pop(group, None)
            if not found:
                del self.groups[value]
        elif found is group:
            del self.groups[value]

    @property
    def is_empty(self) -> bool:
        return not self.groups

    def find(self, cells: Sequence[Cell], found: list[Group]) -> bool:
        """Add the groups of a row to `found`. False when the row does not tell."""
        probe = self.probe
        cell = cells[probe.column]
        value: Hashable = cell
        if type(cell) is bytes:
            if probe.read is not None:
                try:
                    value = probe.read(cell)
                    if probe.elements:
                        for element in value:  # type: ignore[attr-defined]  # `elements` says that there are several
                            self._look_up(element, found)
                        return True
                except Exception:  # Whoever would be found by it goes without; the stream goes on for all others.
                    return False
        elif cell is not None:
            return False
        self._look_up(value, found)
        return True

    def _look_up(self, value: Hashable, found: list[Group]) -> None:
        groups = self.groups.get(value)
        if groups is not None:
            if isinstance(groups, dict):
                found.extend(groups)
            else:
                found.append(groups)


class Index:
    """Groups of one relation that ask for the same operations, by their keys and by what they are found by.

    Attributes:
        groups: every group by its key.
    """

    __slots__ = ("_scanned", "_single", "_tables", "_tallies", "groups")

    def __init__(self) -> None:
        self.groups: dict[Hashable, Group] = {}
        self._scanned: dict[Group, None] = {}
        self._tables: dict[Probe, _Table] = {}
        self._tallies: dict[frozenset[Probe], Tally] = {}
        self._single: _Table | None = None
        """The only table, if it hashes cells as they are and nobody has to be asked for each change."""

    def add(self, key: Hashable, group: Group) -> None:
        """Let a group be found."""
        self.groups[key] = group
        cover = _cover(group)
        if cover is not None and len(cover) == 1:
            _slim(group, *next(iter(cover)))
        if cover is None:
            self._scanned[group] = None
            self._look_for_single()
            return
        for probe, value in cover:
            table = self._tables.get(probe)
            if table is None:
                table = self._tables[probe] = _Table(probe)
            table.add(value, group)
        probes = frozenset(probe for probe, _ in cover)
        if probes:
            tally = self._tallies.get(probes)
            if tally is None:
                tally = self._tallies[probes] = Tally()
            tally.groups += 1
            group.tally = tally
            group.undecided -= tally.missed
        self._look_for_single()

    def discard(self, key: Hashable, group: Group) -> None:
        """Forget a group."""
        del self.groups[key]
        cover = _cover(group)
        if cover is None:
            del self._scanned[group]
            self._look_for_single()
            return
        for probe, value in cover:
            table = self._tables[probe]
            table.discard(value, group)
            if table.is_empty:
                del self._tables[probe]
        if group.tally is not None:
            group.undecided += group.tally.missed
            group.tally.groups -= 1
            if not group.tally.groups:
                del self._tallies[frozenset(probe for probe, _ in cover)]
            group.tally = None
        self._look_for_single()

    def _look_for_single(self) -> None:
        tables = self._tables
        single = next(iter(tables.values())) if len(tables) == 1 and not self._scanned else None
        self._single = single if single is not None and single.is_raw else None

    def judged(self, event: RowChange, alone: bool = False) -> list[Group]:
        """The groups that see a change; each that may was asked once. `alone` says that nobody else sees it."""
        old, new = event._old, event._new
        if self._single is not None:
            quickly = _judged_quickly(self._single, event, old, new, alone)
            if quickly is not None:
                return quickly
        was: list[Group] = []
        is_: list[Group] = []
        unsent: list[Probe] = []
        if new is not None:
            cells = new.cells
            for table in self._tables.values():
                if not table.find(cells, is_):
                    unsent.append(table.probe)
        if old is not None:
            cells = old.cells
            for table in self._tables.values():
                if not table.find(cells, was):
                    unsent.append(table.probe)
        elif isinstance(event, Update):
            # What identifies the row did not change: the old row is looked up in the new one.
            cells = self._before(event)
            for table in self._tables.values():
                if not table.find(cells, was):
                    unsent.append(table.probe)
        found = [*self._scanned, *is_, *was] if was or self._scanned else is_
        if unsent:
            self._count(set(unsent), found)
        seeing = []
        for group in dict.fromkeys(found) if len(found) > 1 else found:
            if group.is_exact:
                group.show(event, group in was, group in is_)
                seeing.append(group)
            elif group.judge(event) is not None:
                seeing.append(group)
            else:
                group.forget()
        return seeing

    def _before(self, event: Update) -> Sequence[Cell]:
        """The cells that identify the row of an update whose old row was not sent."""
        assert event._new is not None
        return event._new.shown_as(event._relation.identity).cells

    def _count(self, unsent: set[Probe], found: list[Group]) -> None:
        """Count the change for all who would be found by cells that were not sent, but for those who are asked."""
        missed = [tally for probes, tally in self._tallies.items() if not probes.isdisjoint(unsent)]
        for tally in missed:
            tally.missed += 1
        for group in set(found):
            if group.tally in missed:
                group.undecided -= 1


class _Hit:
    """The test of a group that is found by the only value that it wants."""

    __slots__ = ("_probe", "_value")

    def __init__(self, probe: Probe, value: Hashable) -> None:
        self._probe = probe
        self._value = value

    def __call__(self, cells: Sequence[Cell]) -> int:
        return equal(self._probe.column, self._value, self._probe.read).test(cells)


def _judged_quickly(
    table: _Table, event: RowChange, old: Row | None, new: Row | None, alone: bool
) -> list[Group] | None:
    """The groups that see a change, where the value says it all; None where more has to be looked at."""
    before = after = None
    if new is not None:
        cell = new.cell(table.column)
        if type(cell) is not bytes:
            return None
        after = table.groups.get(cell)
        if after is not None and (type(after) is not Group or not after.is_exact):
            return None
    if old is not None:
        cell = old.cell(table.column)
        if type(cell) is not bytes:
            return None
        before = table.groups.get(cell)
        if before is not None and (type(before) is not Group or not before.is_exact):
            return None
    elif type(event) is Update:
        return None
    if after is None and before is None:
        return []
    if after is None or before is None or after is before:
        group: Group = after or before  # type: ignore[assignment]  # it is one, as was looked at above
        group.show(event, before is not None, after is not None, alone)
        return [group]
    after.show(event, False, True)  # type: ignore[union-attr]
    before.show(event, True, False)  # type: ignore[union-attr]
    return [after, before]  # type: ignore[list-item]


def _slim(group: Group, probe: Probe, value: Hashable) -> None:
    """Of a group that wants a row for one value only, the value is enough; there may be very many such groups."""
    predicate = group.predicate
    if predicate is not None and predicate.key == ("equal", probe, value):
        group.is_exact = True
        group.predicate = Predicate(_Hit(probe, value), _NO_COLUMNS, None, predicate.key)


def _cover(group: Group) -> Cover | None:
    predicate = group.predicate
    if predicate is None:
        return None
    if group.is_exact and isinstance(predicate.key, tuple):
        return frozenset({(predicate.key[1], predicate.key[2])})
    return predicate.cover
