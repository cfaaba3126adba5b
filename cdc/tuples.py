"""TupleData: the cells of a row as pgoutput sends them, and the one function that splits them.

Touches nothing. The manual: "Logical Replication Message Formats", TupleData. A cell is the server's own
text as bytes, None for NULL, or `UNCHANGED` for a value that the server did not send.

`split` is the seam for a compiled splitter: whoever has a faster one replaces it here, and nowhere else.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError
from typing import Final, TypeAlias, final

from cdc.errors import DecodeError, UnsupportedMessage

__all__ = ["UNCHANGED", "Binary", "Cell", "Unchanged", "Undecoded", "split"]

_COUNT = Struct(">H").unpack_from
_LENGTH = Struct(">i").unpack_from


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
        self = super().__new__(cls, text)
        self.reason = reason
        return self

    def __reduce__(self) -> tuple[type[Undecoded], tuple[str, str]]:
        return Undecoded, (str(self), self.reason)


Cell: TypeAlias = "bytes | None | Unchanged"
"""A cell: the server's text as bytes, a `Binary`, None for NULL, or `UNCHANGED`."""


def split(data: bytes, offset: int) -> tuple[list[Cell], int]:
    """The cells of the TupleData at `offset`, and the offset behind it.

    Format: Int16 number of columns; for each a byte: 'n' NULL, 'u' unchanged TOAST, 't' text with Int32
    length and bytes. Raises DecodeError when the data ends early, UnsupportedMessage for another kind.
    """
    cells: list[Cell] = []
    append = cells.append
    try:
        (count,) = _COUNT(data, offset)
        offset += 2
        for _ in range(count):
            kind = data[offset]
            if kind == 0x74:  # t
                start = offset + 5
                offset = start + _LENGTH(data, offset + 1)[0]
                if offset < start:
                    raise DecodeError("a cell has a negative length", offset=start - 4, kind=chr(data[0]))
                append(data[start:offset])
            elif kind == 0x6E:  # n
                append(None)
                offset += 1
            elif kind == 0x75:  # u
                append(UNCHANGED)
                offset += 1
            else:
                raise _unknown_kind(kind, data, offset)
    except (IndexError, StructError):
        place = min(offset, len(data))
        raise DecodeError("a tuple ends early", offset=place, kind=chr(data[0]) if data else None) from None
    if offset > len(data):
        raise DecodeError("a cell is longer than its message", offset=len(data), kind=chr(data[0]))
    return cells, offset


def _unknown_kind(kind: int, data: bytes, offset: int) -> DecodeError:
    if kind == 0x62:
        return UnsupportedMessage("a binary cell in a text stream", offset=offset, kind=chr(data[0]))
    return DecodeError(f"{chr(kind)!r} is not a kind of cell", offset=offset, kind=chr(data[0]))
