"""Polled: one cache or store while there is no stream, and what a look at its table says of it.

Part of the loop. `look` runs on the thread of the polls and touches nothing but the table; `apply` runs where handlers
are called. Only what was applied is compared with: a look that is thrown away leaves no trace.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from cdc.admission import Admission
from cdc.caching.inflow import Inflow
from cdc.errors import SubscriptionError
from cdc.poll_reader import Look, PollReader
from cdc.predicate import FALSE, TRUE, constant
from cdc.relation import Relation
from cdc.storing.feed import Feed
from cdc.storing.lens import Lens
from cdc.storing.line import line_of
from cdc.storing.polled_rows import PolledRows
from cdc.subscription import Subscription
from cdc.transaction import microseconds_of
from cdc.tuples import Cell
from cdc.versions import Key, Versions, grouped
from cdc.waiting import Steps

__all__ = ["Finding", "Polled", "PolledCache", "PolledStore"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found.

    Attributes:
        of: what it is for.
        began: when it began, by time.monotonic().
        versions: what the next look is compared with.
        rows: number of rows of the table.
        polled: what a store is to take over.
    """

    of: Polled
    began: float
    versions: Versions
    rows: int
    polled: PolledRows | None = None

    @property
    def is_first(self) -> bool:
        """Whether a store that the stream has kept is to follow polls from here on."""
        return self.polled is not None and self.polled.is_first


class Polled(Protocol):
    """A cache or a store."""

    @property
    def subscription(self) -> Subscription:
        """Its table, and how it is called."""

    @property
    def is_kept(self) -> bool:
        """Whether it waits for no poll as soon as there is a stream."""

    def look(self, reader: PollReader, admission: Admission, most: int) -> Finding:
        """Look at the table. Raises TooManyRows, SubscriptionError, psycopg.Error."""

    def apply(self, finding: Finding) -> Steps:
        """Take over what was found."""


@dataclass(slots=True)
class PolledCache:
    """A table of a cache: what was loaded of rows that have changed goes.

    An entry lives on beyond its time only if nothing can have happened to its row: where a key is unique, and the same
    version of its row was there at two looks, it was there all the time in between. Of anything else nobody knows that:
    a row may have come and gone, and may have been loaded meanwhile.
    """

    subscription: Subscription
    inflow: Inflow
    before: Versions | None = field(default=None, init=False)

    @property
    def is_kept(self) -> bool:
        """See `Polled.is_kept`."""
        return False

    def look(self, reader: PollReader, admission: Admission, most: int) -> Finding:
        """See `Polled.look`."""
        began = time.monotonic()
        with reader.look(self.subscription.schema, self.subscription.table) as look:
            relation = admission.relation(look.message, ())
            columns = [name for name in self.inflow.by or () if name in relation.whole.columns]
            read = look.versions(columns, most)
            # The places of rows say nothing across a rewrite where a key is not unique.
            shape = (relation, look.condition, look.file)
        return Finding(self, began, Versions(shape, grouped(read)), len(read))

    def apply(self, finding: Finding) -> Steps:
        """See `Polled.apply`."""
        now, before, self.before = finding.versions, self.before, finding.versions
        yield from ()
        inflow, relation = self.inflow, now.shape[0]
        if before is None or not now.is_comparable(before) or inflow.relation != relation:
            inflow.polled(None, (), finding.began)
        elif inflow.by is None:
            inflow.polled((), (), finding.began) if now == before else inflow.polled(None, (), finding.began)
        else:
            same = now.same(before) if _is_unique(relation, inflow.by) else ()
            inflow.polled(now.changed(before) | now.gone(before), same, finding.began)


@dataclass(slots=True)
class PolledStore:
    """A store: it gets what differs from what it was given before.

    Rows are judged as those of a fill are, by the rights of this moment. When these have changed, or the table looks
    different, it gets everything anew.
    """

    subscription: Feed
    hand: Callable[[Subscription, Any], Steps | None]
    before: Versions | None = field(default=None, init=False)
    lens: Lens | None = field(default=None, init=False)

    @property
    def is_kept(self) -> bool:
        """See `Polled.is_kept`."""
        return not self.subscription.store.is_polled

    def look(self, reader: PollReader, admission: Admission, most: int) -> Finding:
        """See `Polled.look`."""
        feed, began = self.subscription, time.monotonic()
        roles = () if feed.subject is None else (feed.subject.role,)
        with reader.look(feed.schema, feed.table) as look:
            relation = admission.relation(look.message, roles)
            lens = self._lens(admission, relation)
            before = None if self.is_kept else self.before
            if before is None or self.lens is None or not lens.is_like(self.lens) or before.shape != look.condition:
                read = look.every_row(most)
                versions = Versions(look.condition, {_key(lens, cells): version for version, cells in read})
                rows = _judged(lens, (cells for _, cells in read))
                polled = PolledRows(feed.label, lens, rows, True, before is None)
                return Finding(self, began, versions, len(read), polled)
            versions = Versions(look.condition, dict(look.versions(lens.keys.names, most)))
            rows = _judged(lens, _found(look, versions, before, most))
            for key in versions.gone(before):
                rows[_slot(lens, key)] = None
        return Finding(self, began, versions, len(versions.rows), PolledRows(feed.label, lens, rows, False, False))

    def _lens(self, admission: Admission, relation: Relation) -> Lens:
        """How the store looks at the table now: a subject that may not look, or whose time is over, sees nothing."""
        feed = self.subscription
        # One of its own: the loop may judge for the feed itself at this moment.
        probe = Feed(feed.store, feed.schema, feed.table, feed.filter, feed.subject, feed.name, _nobody)
        subject, known = feed.subject, feed.store.lens
        if subject is None or known is None:
            return admission.judge.lens(probe, relation)
        blind = Lens(relation, known.equality, constant(FALSE))
        if subject.expires is not None and subject.expires <= time.time():
            return blind
        try:
            return admission.judge.lens(probe, relation)
        except SubscriptionError:
            return blind

    def apply(self, finding: Finding) -> Steps:
        """See `Polled.apply`."""
        polled = finding.polled
        assert polled is not None
        self.before, self.lens = finding.versions, polled.lens
        if polled.rows or polled.is_whole:
            left = self.hand(self.subscription, polled)
            if left is not None:
                yield from left


def _found(look: Look, versions: Versions, before: Versions, most: int) -> Iterator[list[Cell]]:
    """The rows that are new or have changed: one by one, or all of the table where that is most of it."""
    changed = {version for key in versions.changed(before) if isinstance(version := versions.rows[key], bytes)}
    if 2 * len(changed) > len(versions.rows):
        return (cells for version, cells in look.every_row(most) if version in changed)
    return (cells for _, cells in look.rows(changed))


def _judged(lens: Lens, rows: Iterable[list[Cell]]) -> dict[Any, bytes | None]:
    """The lines of those rows that are to be seen, by slot; None for the others."""
    now, slot = microseconds_of(time.time()), lens.keys.of_cells
    if lens.sees_all:
        return {slot(cells): line_of(cells) for cells in rows}
    return {slot(cells): line_of(cells) if lens.shows(cells, now) == TRUE else None for cells in rows}


def _key(lens: Lens, cells: list[Cell]) -> Key:
    return tuple(cells[place] for place in lens.keys.places)


def _slot(lens: Lens, key: Key) -> Hashable:
    """The slot of a key of which there is no row any more."""
    cells: list[Cell] = [None] * len(lens.relation.columns)
    for place, cell in zip(lens.keys.places, key, strict=True):
        cells[place] = cell
    return lens.keys.of_cells(cells)


def _nobody(subscription: Subscription) -> None:
    """Nobody hears of the end of a probe."""


def _is_unique(relation: Relation, columns: Iterable[str]) -> bool:
    """Whether no two rows have the same values in these columns."""
    key = {relation.columns[index].name for index in relation.key or ()}
    return bool(key) and key <= set(columns)
