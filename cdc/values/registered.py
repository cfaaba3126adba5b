"""Decoders that a user registers by the name of a type.

Pure: no I/O, no clock, except what a user's decoder does. A user's decoder reads text. Whatever it raises becomes a
ValueError, so that the row keeps the text and the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from cdc.relation import Decode

__all__ = ["FromText", "Printed", "refusing", "registered_reader"]

FromText: TypeAlias = Callable[[str], object]
"""Turns the server's text of a value, which is never NULL, into a Python object."""

Printed: TypeAlias = Callable[[bytes], str]
"""Turns a cell into the text of its type. Raises ValueError."""

_SHOWN = 200


def registered_reader(decode: FromText, name: str, printed: Printed) -> Decode:
    """What turns the cells of a type, whose text `printed` gives, into a user's objects; it raises ValueError only."""

    def read(cell: bytes) -> object:
        text = printed(cell)
        try:
            return decode(text)
        except Exception as error:
            raise ValueError(f"the decoder registered for {name} raised {_said(error)}") from error

    return read


def refusing(reason: str) -> Decode:
    """A decoder that raises ValueError with a reason."""

    def read(cell: bytes) -> object:
        raise ValueError(reason)

    return read


def _said(error: Exception) -> str:
    kind = type(error).__name__
    try:
        said = str(error)
    except Exception:  # its __str__ is a user's too
        said = ""
    return f"{kind}: {said[:_SHOWN]}" if said else kind
