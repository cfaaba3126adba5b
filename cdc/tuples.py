"""TupleData: the cells of a row as pgoutput sends them, and the one function that splits them.

Touches nothing. The manual: "Logical Replication Message Formats", TupleData. A cell is the server's own
text as bytes, None for NULL, or `UNCHANGED` for a value that the server did not send.

`split` is the seam for a compiled splitter: whoever has a faster one replaces it here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as StructError
from typing import Final, TypeAlias, final

from cdc.errors import DecodeError
from cdc.lsn import Lsn

__all__ = ["HEADER", "UNCHANGED", "Binary", "Cell", "Unchanged", "Undecoded", "cell_at", "damaged", "split"]

HEADER: Final = 25
"""Bytes of an XLogData frame before its message: 'w', Int64 start LSN, Int64 end of WAL, Int64 server time."""

_HEAD = Struct(">BI").unpack_from


@final
class Unchanged:
    """The type of `UNCHANGED`. Its truth value raises: it is neither true nor false, it is not known."""

    __slots__ = ()

    def __bool__(self) -> bool:
        raise TypeError("UNCHANGED is a value that the server did not send; compare with `is cdc.UNCHANGED` first")

    def __repr__(self) -> str:
        return "UNCHANGED"

    def __reduce__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()
"""A TOAST value that did not change and so was not sent. Unknown, never NULL."""


@final
class Binary(bytes):
    """A cell in the binary form of its type, as a stream with the option `binary` sends it."""

    __slots__ = ()


@final
class Undecoded(str):
    """The text of a cell that did not become a Python object, and why.

    It is a `str`. A cell that came in binary form is shown as `\\x` and hex digits.

    Attributes:
        reason: why, in one sentence.
    """

    __slots__ = ("reason",)

    reason: str

    def __new__(cls, text: str, reason: str) -> Undecoded:
        """The text with its reason."""
        self = super().__new__(cls, text)
        self.reason = reason
        return self

    def __reduce__(self) -> tuple[type[Undecoded], tuple[str, str]]:
        return Undecoded, (str(self), self.reason)


Cell: TypeAlias = "bytes | None | Unchanged"
"""A cell: the server's text as bytes, a `Binary`, None for NULL, or `UNCHANGED`."""


def split(data: bytes, offset: int) -> tuple[list[Cell], int]:
    """The cells of the TupleData at `offset`, and the offset behind it.

    Format: Int16 number of columns; for each a byte: 'n' NULL, 'u' unchanged TOAST, 't' text or 'b' binary with
    Int32 length and bytes. Raises DecodeError when the data ends early or a kind is another one.
    """
    cells: list[Cell] = []
    at = offset + 2
    try:
        count = data[offset] << 8 | data[offset + 1]
        for _ in range(count):
            kind, length = _HEAD(data, at)
            if kind == 0x74:  # t
                cells.append(data[at + 5 : (at := at + 5 + length)])
            elif kind == 0x6E:  # n
                cells.append(None)
                at += 1
            elif kind == 0x75:  # u
                cells.append(UNCHANGED)
                at += 1
            elif kind == 0x62:  # b
                cells.append(Binary(data[at + 5 : (at := at + 5 + length)]))
            else:
                raise damaged(data, at, f"{chr(kind)!r} is not a kind of cell")
    except IndexError:
        raise damaged(data, len(data), "a tuple ends early") from None
    except StructError:
        at = _last(data, at, count - len(cells), cells)
    if at > len(data):
        raise damaged(data, len(data), "a cell is longer than its message")
    return cells, at


def cell_at(data: bytes, offset: int, index: int) -> Cell | None:
    """The cell at `index` of the TupleData at `offset`, if it is text; None where `split` has to look."""
    at = offset + 2
    try:
        if index >= data[offset] << 8 | data[offset + 1]:
            return None
        for _ in range(index):
            kind, length = _HEAD(data, at)
            at += 5 + length if kind == 0x74 or kind == 0x62 else 1
        kind, length = _HEAD(data, at)
    except (StructError, IndexError):
        return None
    end = at + 5 + length
    return data[at + 5 : end] if kind == 0x74 and end <= len(data) else None


def _last(data: bytes, at: int, left: int, cells: list[Cell]) -> int:
    """The last cells of a tuple, where less is left than a kind with a length: NULL or unchanged."""
    for kind in data[at : at + left]:
        if kind not in b"nu":
            if kind in b"tb":
                break
            raise damaged(data, at, f"{chr(kind)!r} is not a kind of cell")
        cells.append(None if kind == 0x6E else UNCHANGED)
        at += 1
        left -= 1
    if left:
        raise damaged(data, len(data), "a tuple ends early")
    return at


def damaged(data: bytes, offset: int, problem: str, error: Callable[..., DecodeError] = DecodeError) -> DecodeError:
    """The error for a message that is wrong at `offset` of `data`.

    `data` is a message, or the whole XLogData frame that carries it: then the error has the message's LSN, and its
    offset counts from the message's first byte all the same.
    """
    framed = data[:1] == b"w"
    start = HEADER if framed else 0
    kind = chr(data[start]) if len(data) > start else None
    lsn = Lsn(int.from_bytes(data[1:9], "big")) if len(data) >= 9 and framed else None
    return error(problem, offset=max(0, offset - start), kind=kind, lsn=lsn)
