"""Polled: one cache or store while there is no stream, and what a look at its table says of it.

Part of the loop. `look` runs on the thread of the polls and touches nothing but the table; `apply` runs where handlers
are called. Only what was applied is compared with: a look that is thrown away leaves no trace.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Protocol

from cdc.admission import Admission
from cdc.caching.cache import Cache
from cdc.poll_reader import Look, PollReader
from cdc.relation import Relation
from cdc.subscription import Subscription
from cdc.versions import Versions, grouped
from cdc.waiting import Steps

__all__ = ["Finding", "Polled", "PolledCache"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found.

    Attributes:
        of: what it is for.
        began: when it began, by time.monotonic().
        versions: what the next look is compared with.
        rows: number of rows of the table.
    """

    of: Polled
    began: float
    versions: Versions
    rows: int


class Polled(Protocol):
    """A cache or a store."""

    subscription: Subscription

    def look(self, reader: PollReader, admission: Admission, most: int) -> Finding:
        """Look at the table. Raises TooManyRows, SubscriptionError, psycopg.Error."""

    def apply(self, finding: Finding) -> Steps:
        """Take over what was found."""


@dataclass(slots=True)
class PolledCache:
    """A cache: keys of rows that have changed go.

    An entry lives on beyond its time only if nothing can have happened to its row: where a key is unique, and the same
    version of its row was there at two looks, it was there all the time in between. Of anything else nobody knows that:
    a row may have come and gone, and may have been loaded meanwhile.
    """

    subscription: Subscription
    cache: Cache
    before: Versions | None = field(default=None, init=False)

    def look(self, reader: PollReader, admission: Admission, most: int) -> Finding:
        """See `Polled.look`."""
        began = time.monotonic()
        with reader.look(self.subscription.schema, self.subscription.table) as look:
            relation = admission.relation(look.message, ())
            columns = [name for name in self.cache.by or () if name in relation.whole.columns]
            read = look.versions(columns, most)
            # The places of rows say nothing across a rewrite where a key is not unique.
            shape = (_shape(relation, look), look.file, tuple(columns), _is_unique(relation, columns))
        return Finding(self, began, Versions(shape, grouped(read)), len(read))

    def apply(self, finding: Finding) -> Steps:
        """See `Polled.apply`."""
        yield from ()
        before, self.before = self.before, finding.versions
        if before is None or not self.cache.by or not finding.versions.is_comparable(before):
            same = before is not None and before == finding.versions
            if not same:
                self.cache.polled(None, finding.began)
            return
        self.cache.polled(finding.versions.changed(before) | finding.versions.gone(before), finding.began)


def _shape(relation: Relation, look: Look) -> Hashable:
    return (relation, look.condition)


def _is_unique(relation: Relation, columns: list[str]) -> bool:
    """Whether no two rows have the same values in these columns."""
    key = {relation.columns[index].name for index in relation.key or ()}
    return bool(key) and key <= set(columns)
