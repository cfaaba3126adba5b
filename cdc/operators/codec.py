"""How the values of one type become datums and texts.

Pure: no I/O. Each family file has its types' codecs in `CODECS`, by OID; `datums` puts them together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from cdc.operators.context import Context, Failed

__all__ = ["Codec", "Input", "Output", "failing"]

Input: TypeAlias = Callable[[Context, str], object]
Output: TypeAlias = Callable[[Context, Any], str]


@dataclass(frozen=True, slots=True)
class Codec:
    """How the values of one type become datums and texts.

    Attributes:
        read: turns a cell in text form into a datum. Raises ValueError for a cell that is not of the type.
        input: turns a text into a datum, as the type's input function does. Raises Failed or Undecided. None when
            that is not evaluated here.
        output: gives the text of a datum, as the type's output function does; None likewise.
    """

    read: Callable[[bytes], object]
    input: Input | None = None
    output: Output | None = None


def failing(what: str) -> Failed:
    """The failure of an input function; `what` is the type's name."""
    return Failed(f"invalid input for type {what}")
