"""Reading cells in binary form: a cursor over bytes that raises ValueError and nothing else.

Pure: no I/O, no clock. Numbers are in network byte order. A type's binary form is what its typsend writes; the
manual does not describe it, the server's source does: src/backend/utils/adt, functions that end in `send`.
"""

from __future__ import annotations

from struct import Struct

from cdc.values.equality import quoted

__all__ = ["Reader", "plain_bytes", "printed_of"]

_DOUBLE = Struct(">d")


class Reader:
    """A place in a cell. Every method raises ValueError when the cell ends too early."""

    __slots__ = ("_cell", "_offset")

    def __init__(self, cell: bytes) -> None:
        self._cell = cell
        self._offset = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        start = self._offset
        end = start + size
        if size < 0 or end > len(self._cell):
            raise ValueError(f"the binary cell {quoted(self._cell)} ends early, or has a wrong length at {start}")
        self._offset = end
        return self._cell[start:end]

    def signed(self, size: int) -> int:
        """A signed integer of `size` bytes."""
        return int.from_bytes(self.take(size), "big", signed=True)

    def unsigned(self, size: int) -> int:
        """An unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def double(self) -> float:
        """A double precision number."""
        value: float = _DOUBLE.unpack(self.take(8))[0]
        return value

    def item(self) -> bytes | None:
        """A value behind its length as Int32, as it stands in arrays, composites and ranges; None for NULL."""
        size = self.signed(4)
        return None if size == -1 else self.take(size)

    def string(self) -> str:
        """A text that ends with a zero byte."""
        end = self._cell.find(b"\x00", self._offset)
        text = self.take(end - self._offset).decode()
        self.take(1)
        return text

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._cell) - self._offset

    def end(self) -> None:
        """Raise ValueError when something is left."""
        if self.left:
            raise ValueError(f"the binary cell {quoted(self._cell)} is longer than its type says, from {self._offset}")


def plain_bytes(cell: bytes) -> bytes:
    """The bytes of a cell whose form is not known, or is all there is to know."""
    return bytes(cell)


def printed_of(cell: bytes) -> str:
    """The text of jsonb and jsonpath, behind a byte of version. Raises ValueError for another version."""
    if cell[:1] != b"\x01":
        raise ValueError(f"{quoted(cell)} is not version 1 of its type's binary form")
    return cell[1:].decode()
