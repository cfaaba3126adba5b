"""Enums: labels that know their place among the others.

Pure: no I/O. The manual: "Data Types", Enumerated Types.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cdc.operators.builtins import Builtin, Table
from cdc.operators.codec import Codec
from cdc.operators.context import Context, Undecided
from cdc.operators.orders import comparisons

__all__ = ["TABLE", "Label", "enum_codec"]

_TYPE = "anyenum"


class Label(NamedTuple):
    """A datum of an enum. It is ordered, and compared, with others of the same enum.

    Attributes:
        place: its place among the enum's labels, from 0.
        text: the label.
    """

    place: int
    text: str


def enum_codec(labels: Sequence[str]) -> Codec:
    """The codec of the enum that has these labels, in their order."""
    places = {text: Label(place, text) for place, text in enumerate(labels)}
    cells = {text.encode(): label for text, label in places.items()}

    def read(cell: bytes) -> Label:
        try:
            return cells[cell]
        except KeyError:
            raise ValueError("a label that the enum did not have when it was read from the catalog") from None

    def from_text(context: Context, text: str) -> Label:
        try:
            return places[text]
        except KeyError:  # an error of the server's, or a label that was added later
            raise Undecided("a label that the enum did not have when it was read from the catalog") from None

    return Codec(read, from_text, lambda context, label: str(label.text))


TABLE: Table = {
    **comparisons("enum_{}", _TYPE, equality=True),
    f"enum_larger({_TYPE}, {_TYPE})": Builtin(max),
    f"enum_smaller({_TYPE}, {_TYPE})": Builtin(min),
}
