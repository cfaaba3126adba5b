"""What the publications send of a table, and what of that they have ceased to send.

Pure: no I/O. The manual: "CREATE PUBLICATION". A row is sent when one of the publications with its operation sends
it; TRUNCATE has no rows, and so no conditions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

__all__ = ["EVERY_ROW", "Sent"]

EVERY_ROW = ""
"""Stands for no condition."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What is sent of one table.

    Attributes:
        conditions: for each operation that is sent, the conditions (WHERE) of which a row has to meet one.
    """

    conditions: Mapping[str, frozenset[str]]

    def missing(self, operations: Collection[str]) -> list[str]:
        """Those of the operations that are not sent."""
        return sorted(set(operations) - self.conditions.keys())

    def filtered(self, operations: Collection[str]) -> list[str]:
        """Those of the operations that are sent for some rows only."""
        return sorted(each for each in operations if EVERY_ROW not in self.conditions.get(each, {EVERY_ROW}))

    def narrowed(self, before: Sent, operations: Collection[str]) -> list[str]:
        """Those of the operations that are sent for fewer or other rows than before, though they are sent."""
        return [each for each in self.filtered(operations) if not self._covers(before, each)]

    def _covers(self, before: Sent, operation: str) -> bool:
        return before.conditions.get(operation, frozenset()) <= self.conditions[operation]
