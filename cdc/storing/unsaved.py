"""What the file of a store lacks of its contents: which rows have come, changed or gone since it was saved.

Touches nothing; the store that owns it holds the mutex. It keeps the line that the file has of each of them, so that it
is known under which key the file has it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import islice

__all__ = ["KeyOf", "Unsaved", "key_of_lines"]

KeyOf = Callable[[bytes], bytes]
"""Cuts the key from a line."""


class Unsaved:
    """Rows that the file does not have as they are.

    Attributes:
        anew: whether the file has none of the rows, or has them no more once it is saved.
        lines: by slot, the line that the file has of a row; None where it has none.
        spoilt: whether rows went or changed for another reason than the table's changes, so that the contents are not
            the table as of a position.
    """

    __slots__ = ("anew", "lines", "spoilt")

    def __init__(self, anew: bool, lines: dict[Hashable, bytes | None] | None = None) -> None:
        self.anew = anew
        self.lines: dict[Hashable, bytes | None] = {} if lines is None else lines
        self.spoilt = False

    @classmethod
    def of(cls, slots: Iterable[Hashable]) -> Unsaved:
        """All of these rows, of which the file has none."""
        return cls(True, dict.fromkeys(slots))

    @classmethod
    def between(cls, saved: Mapping[Hashable, bytes], lacking: Unsaved, now: Mapping[Hashable, bytes]) -> Unsaved:
        """What a file lacks of `now` when it has `saved` but for what is `lacking`."""
        if lacking.anew:
            return cls.of(now)
        lines: dict[Hashable, bytes | None] = {
            slot: line for slot, line in saved.items() if now.get(slot) != line
        }  # Not those that are the same: nothing is to be saved of them.
        lines |= dict.fromkeys(slot for slot in now if slot not in saved)
        return cls(False, lines | lacking.lines)

    def note(self, slot: Hashable, line: bytes | None) -> None:
        """A row comes, changes or goes; until now it looked like this."""
        self.lines.setdefault(slot, line)

    def clear(self) -> None:
        """Every row is gone."""
        self.anew = True
        self.lines = {}

    def take(self, limit: int) -> Unsaved:
        """Up to `limit` of the rows, which are not lacking any more unless they are given back."""
        taken = Unsaved(self.anew, dict(islice(self.lines.items(), limit)))
        if len(taken.lines) == len(self.lines):
            self.lines = {}
        else:
            for slot in taken.lines:
                del self.lines[slot]
        self.anew = False
        return taken

    def give_back(self, taken: Unsaved) -> None:
        """They could not be saved."""
        if not self.anew:
            self.anew = taken.anew
            self.lines |= taken.lines

    def changes(self, rows: Mapping[Hashable, bytes], key_of: KeyOf) -> dict[bytes, bytes | None]:
        """What is to be changed in the file so that it has of these rows what they are now."""
        changes: dict[bytes, bytes | None] = {}
        for slot, line in self.lines.items():
            if line is not None:
                changes.setdefault(key_of(line), None)
            now = rows.get(slot)
            if now is not None:
                changes[key_of(now)] = now
        return changes


def key_of_lines(places: Sequence[int]) -> KeyOf:
    """Cuts the cells at these places from a line, as they stand there."""
    if len(places) == 1 and places[0] == 0:
        return lambda line: line.partition(b"\t")[0]

    def key_of(line: bytes) -> bytes:
        cells = line.split(b"\t")
        return b"\t".join([cells[place] for place in places])

    return key_of
