"""The two forms of cells, text and binary, and what reads each kind of type in them.

Pure data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from cdc.relation import Decode
from cdc.tuples import Undecoded
from cdc.values.arrays import ArrayReader, BinaryArrayReader
from cdc.values.binary import plain_bytes
from cdc.values.builtin import Scalar
from cdc.values.ranges import BinaryMultirangeReader, BinaryRangeReader, MultirangeReader, RangeReader
from cdc.values.records import BinaryRecordReader, Field, RecordReader
from cdc.values.texts import text_of

__all__ = ["BINARY", "TEXT", "Form"]


@dataclass(frozen=True, slots=True)
class Form:
    """How the kinds of types are read in one form.

    Attributes:
        name: the form's name.
        scalar: the decoder of a built-in type.
        other: the decoder of a type of which only the name is known.
        unknown: the decoder of a type of which nothing is known but its OID.
        array: the decoder of an array, from that of its elements, the delimiter and the elements' OID.
        record: the decoder of a composite, from its fields.
        range: the decoder of a range, from that of its bounds.
        multirange: the decoder of a multirange, from that of its bounds.
    """

    name: str
    scalar: Callable[[Scalar], Decode]
    other: Decode
    unknown: Callable[[int], Decode]
    array: Callable[[Decode, bytes, int], Decode]
    record: Callable[[tuple[Field, ...]], Decode]
    range: Callable[[Decode], Decode]
    multirange: Callable[[Decode], Decode]


def _unknown_text(oid: int) -> Decode:
    reason = f"type {oid} is not known"
    return lambda cell: Undecoded(cell.decode(), reason)


TEXT = Form(
    "text",
    attrgetter("decode"),
    text_of,
    _unknown_text,
    lambda element, delimiter, _: ArrayReader(element, delimiter),
    RecordReader,
    RangeReader,
    lambda bound: MultirangeReader(RangeReader(bound)),
)
"""The server's own text, typoutput."""

BINARY = Form(
    "binary",
    attrgetter("decode_binary"),
    plain_bytes,
    lambda _: plain_bytes,
    lambda element, _, oid: BinaryArrayReader(element, oid),
    BinaryRecordReader,
    BinaryRangeReader,
    lambda bound: BinaryMultirangeReader(BinaryRangeReader(bound)),
)
"""What a stream with the option `binary` sends, typsend."""
