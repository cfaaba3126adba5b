"""Which announcement of a relation is the newest.

Pure. A relation that was announced inside a streamed transaction holds for that transaction; the server counts it as
announced to all once the transaction has committed, unless it announced a newer one meanwhile. So announcements are
numbered as they come.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Announcements"]


class Announcements:
    """Numbers the announcements of one connection, and keeps the newest to all of each relation."""

    def __init__(self) -> None:
        self._count = 0
        self._to_all: dict[int, int] = {}

    def number(self) -> int:
        """The number of an announcement inside a streamed transaction."""
        self._count += 1
        return self._count

    def to_all(self, oid: int) -> None:
        """A relation was announced to all."""
        self._to_all[oid] = self.number()

    def committed(self, numbers: Mapping[int, int]) -> list[int]:
        """Of the relations that a transaction announced, by OID with their numbers, those that hold for all now."""
        newer = {oid: number for oid, number in numbers.items() if number > self._to_all.get(oid, 0)}
        self._to_all |= newer
        return list(newer)
