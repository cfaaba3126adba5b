"""Constants of a policy: the datum of a CONST node as text.

Pure: no I/O. A datum is the bytes that the server has in memory, so they are read as a little-endian server lays
them out: integers by value, uuid as 16 bytes, texts and numerics behind a header of length. The manual's source for
each layout: src/include/varatt.h, src/backend/utils/adt/numeric.c, date.c and timestamp.c.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from cdc.rls.constructs import NotSupported, Scope, construct
from cdc.rls.nodes import Node, TreeError

__all__ = ["constant_text"]

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_LIMITS = {4: (-(2**31), 2**31 - 1), 8: (-(2**63), 2**63 - 1)}


def constant_text(node: Node, scope: Scope) -> str | None:
    """The text of a CONST node, as its type's output function would give it or as its input reads the same value.

    None is NULL. Raises NotSupported for a type or a layout that is not known, TreeError for a malformed node.
    """
    if node.text("constisnull") == "true":
        return None
    reader = _READERS.get(node.number("consttype"))
    datum, length = node.fields.get("constvalue"), node.number("constlen")
    if not isinstance(datum, bytes) or len(datum) < length:
        raise TreeError("CONST has no datum of its length")
    if reader is None:
        raise NotSupported(construct(node, scope))
    try:
        text = reader(datum[:length] if length > 0 else datum)
    except (ValueError, LookupError, OverflowError, struct.error):
        raise NotSupported(f"{construct(node, scope)} that cdc cannot read") from None
    if not scope.rights.utf8 and not text.isascii():
        raise NotSupported("a constant beyond ASCII in a database whose encoding is not UTF8")
    return text


def _boolean(datum: bytes) -> str:
    return "true" if datum[0] else "false"


def _integer(datum: bytes) -> str:
    return str(int.from_bytes(datum, "little", signed=True))


def _oid(datum: bytes) -> str:
    return str(int.from_bytes(datum, "little"))


def _float(datum: bytes) -> str:
    (value,) = struct.unpack("<d" if len(datum) == 8 else "<f", datum)
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"


def _uuid(datum: bytes) -> str:
    return str(UUID(bytes=datum))


def _name(datum: bytes) -> str:
    return datum.split(b"\x00", 1)[0].decode()


def _text(datum: bytes) -> str:
    return _varlena(datum).decode()


def _varlena(datum: bytes) -> bytes:
    """The payload behind a header of one or four bytes. Raises ValueError when it is compressed or external."""
    (header,) = datum[:1]
    size, start = (header >> 1, 1) if header & 1 else (int.from_bytes(datum[:4], "little") >> 2, 4)
    if header & 3 == 2 or size != len(datum) or size < start:
        raise ValueError("not a plain varlena")
    return datum[start:]


def _numeric(datum: bytes) -> str:
    """NumericShort or NumericLong: sign, scale and weight, then digits to the base 10000."""
    data = _varlena(datum)
    (head,) = struct.unpack_from("<H", data)
    if head & 0xC000 == 0xC000:
        return {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}[head & 0xF000]
    if head & 0x8000:
        start, negative = 2, bool(head & 0x2000)
        weight = (head & 0x3F) - (0x40 if head & 0x40 else 0)
    else:
        start, negative = 4, bool(head & 0x4000)
        (weight,) = struct.unpack_from("<h", data, 2)
    digits = struct.unpack(f"<{(len(data) - start) // 2}H", data[start:])
    number = int("".join(f"{digit:04d}" for digit in digits) or "0")
    return str(Decimal((int(negative), tuple(map(int, str(number))), 4 * (weight + 1 - len(digits)))))


def _date(datum: bytes) -> str:
    days = int.from_bytes(datum, "little", signed=True)
    return _infinite(datum) or (_EPOCH + timedelta(days=days)).date().isoformat()


def _timestamp(datum: bytes) -> str:
    return _infinite(datum) or _moment(datum).replace(tzinfo=None).isoformat(" ")


def _timestamptz(datum: bytes) -> str:
    return _infinite(datum) or _moment(datum).isoformat(" ")


def _moment(datum: bytes) -> datetime:
    return _EPOCH + timedelta(microseconds=int.from_bytes(datum, "little", signed=True))


def _infinite(datum: bytes) -> str | None:
    low, high = _LIMITS[len(datum)]
    return {low: "-infinity", high: "infinity"}.get(int.from_bytes(datum, "little", signed=True))


_READERS: dict[int, Callable[[bytes], str]] = {
    16: _boolean,
    19: _name,
    20: _integer,
    21: _integer,
    23: _integer,
    25: _text,
    26: _oid,
    700: _float,
    701: _float,
    1042: _text,
    1043: _text,
    1082: _date,
    1114: _timestamp,
    1184: _timestamptz,
    1700: _numeric,
    2950: _uuid,
}
