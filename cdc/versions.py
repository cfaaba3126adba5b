"""Versions: which version of each row a look at a table found, and what of that is not as it was found before.

Pure: no I/O. A version is the text of `tableoid`, `ctid` and `xmin`. Rows are found by the cells of some columns. The
manual: "System Columns".

Who compares versions of one key has to know:

- A transaction leaves one version of a key behind, however often it has changed the row. So the same version under
  the same key of a table is the same content; freezing leaves `xmin` as it is, and it would take four thousand million
  transactions between two looks for an `xmin` to come again.
- VACUUM FULL and CLUSTER move rows: all versions are other ones then, and nothing has changed. Whoever has the content
  compares that.
- Where a key is not unique, another row may get a place that its neighbour has left, with the same `xmin`. That takes
  such a move; so the files of a table belong to its `shape`, by which two looks can be compared at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cdc.tuples import Cell

__all__ = ["Key", "Version", "Versions", "grouped"]

Key = tuple[Cell, ...]
"""The cells by which rows are found."""
Version = bytes | frozenset[bytes]
"""The version of the row of a key; of all its rows where there are several."""


@dataclass(frozen=True, slots=True)
class Versions:
    """What one look at a table found.

    Attributes:
        shape: what two looks have to have in common to be compared.
        rows: the version of what each key has.
    """

    shape: Any
    rows: Mapping[Key, Version]

    def is_comparable(self, before: Versions | None) -> bool:
        """Whether it can be said what differs from a look before."""
        return before is not None and before.shape == self.shape

    def changed(self, before: Versions) -> set[Key]:
        """The keys whose rows are new, or other ones than before."""
        known = before.rows
        return {key for key, version in self.rows.items() if known.get(key) != version}

    def gone(self, before: Versions) -> set[Key]:
        """The keys that have no row any more."""
        return set(before.rows.keys() - self.rows.keys())

    def same(self, before: Versions) -> set[Key]:
        """The keys that have the rows that they had before."""
        known = before.rows
        return {key for key, version in self.rows.items() if known.get(key) == version}


def grouped(pairs: Iterable[tuple[Key, bytes]]) -> dict[Key, Version]:
    """The versions of each key."""
    rows: dict[Key, Version] = {}
    several: dict[Key, set[bytes]] = {}
    for key, version in pairs:
        if rows.setdefault(key, version) is not version:
            several.setdefault(key, set()).add(version)
    for key, more in several.items():
        first = rows[key]
        rows[key] = frozenset(more | {first}) if isinstance(first, bytes) else first
    return rows
