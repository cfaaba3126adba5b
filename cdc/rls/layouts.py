"""How the server has values in memory, which is how a node tree has its constants.

Pure: no I/O. Integers are little-endian, as on every machine that is in use; what has no fixed length stands behind a
header with it. Each layout becomes the datum that `cdc.operators` computes with. The manual's source for them:
src/include/varatt.h, src/include/utils/array.h, jsonb.h and inet.h, src/backend/utils/adt/numeric.c.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from uuid import UUID

from cdc.operators.documents import Json

__all__ = ["LAYOUTS", "Layout", "varlena"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a type.

    Attributes:
        size: in bytes; -1 for one that is told by a header, -2 for one that ends with NUL.
        alignment: what its address is a multiple of.
        read: turns it into a datum, without its header. Raises ValueError, LookupError, OverflowError or struct.error.
        as_text: whether `read` gives the text of a cell instead.
    """

    size: int
    alignment: int
    read: Callable[[bytes], object]
    as_text: bool = False


def varlena(data: bytes) -> bytes:
    """What is behind a header of one or four bytes. Raises ValueError when it is compressed, external or too short."""
    (header,) = data[:1]
    size, start = (header >> 1, 1) if header & 1 else (int.from_bytes(data[:4], "little") >> 2, 4)
    if header & 3 == 2 or size != len(data) or size < start:
        raise ValueError("not a plain varlena")
    return data[start:]


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _unsigned(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _float(data: bytes) -> float:
    (value,) = struct.unpack("<d" if len(data) == 8 else "<f", data)
    return float(value)


def _name(data: bytes) -> str:
    return data.split(b"\x00", 1)[0].decode()


def _interval(data: bytes) -> tuple[int, int, int]:
    micros, days, months = struct.unpack("<qii", data)
    return months, days, micros


def _numeric(data: bytes) -> Decimal:
    """NumericShort or NumericLong: sign, scale and weight, then digits to the base 10000."""
    (head,) = struct.unpack_from("<H", data)
    if head & 0xC000 == 0xC000:
        return Decimal({0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}[head & 0xF000])
    if head & 0x8000:
        start, negative, scale = 2, bool(head & 0x2000), (head & 0x1F80) >> 7
        weight = (head & 0x3F) - (0x40 if head & 0x40 else 0)
    else:
        start, negative, scale = 4, bool(head & 0x4000), head & 0x3FFF
        (weight,) = struct.unpack_from("<h", data, 2)
    digits = struct.unpack(f"<{(len(data) - start) // 2}H", data[start:])
    written = "".join(f"{digit:04d}" for digit in digits).lstrip("0")
    return Decimal((int(negative and written != ""), _scaled(written, 4 * (weight + 1 - len(digits)), scale), -scale))


def _scaled(written: str, exponent: int, scale: int) -> tuple[int, ...]:
    """The digits, when the last is to be that of the scale. Raises ValueError when there are others behind it."""
    places = exponent + scale
    if places < 0 and written[places:].strip("0"):
        raise ValueError("a numeric has digits beyond its scale")
    return tuple(map(int, written + places * "0" if places >= 0 else written[:places])) or (0,)


_COUNT, _SCALAR, _OBJECT, _ARRAY = 0x0FFFFFFF, 0x10000000, 0x20000000, 0x40000000
_HAS_OFFSET, _KIND = 0x80000000, 0x70000000
_STRING, _NUMBER, _FALSE, _TRUE, _NULL, _CONTAINER = (kind << 28 for kind in range(6))


def _json(data: bytes) -> Json:
    return Json(_container(data))


def _container(data: bytes) -> Any:
    """JsonbContainer: a head; an entry for each element, or for each name and then each value; what they are."""
    (head,) = struct.unpack_from("<I", data)
    count = (head & _COUNT) * (2 if head & _OBJECT else 1)
    entries = struct.unpack_from(f"<{count}I", data, 4)
    body, place, values = data[4 + 4 * count :], 0, []
    for entry in entries:
        end = entry & _COUNT if entry & _HAS_OFFSET else place + (entry & _COUNT)
        values.append(_entry(entry & _KIND, body, place, end))
        place = end
    if head & _OBJECT:
        return dict(zip(values[: count // 2], values[count // 2 :], strict=True))
    return values[0] if head & _SCALAR else values


def _entry(kind: int, body: bytes, start: int, end: int) -> Any:
    if not start <= end <= len(body):
        raise ValueError("an entry of jsonb is out of place")
    if kind == _STRING:
        return body[start:end].decode()
    aligned = body[-(-start // 4) * 4 : end]
    if kind == _NUMBER:
        number = _numeric(varlena(aligned))
        return number.copy_abs() if number.is_zero() else number
    return _container(aligned) if kind == _CONTAINER else {_FALSE: False, _TRUE: True, _NULL: None}[kind]


def _address(is_network: bool) -> Callable[[bytes], str]:
    """inet_struct: family (2 or 3), bits of the network, address."""

    def read(data: bytes) -> str:
        family, bits, raw = data[0], data[1], data[2:]
        size = {2: 4, 3: 16}[family]
        text = str(IPv4Address(raw[:size]) if family == 2 else IPv6Address(raw[:size]))
        return text if bits == 8 * size and not is_network else f"{text}/{bits}"

    return read


def _bits(data: bytes) -> str:
    """Int32 number of bits, then the bits."""
    (count,) = struct.unpack_from("<i", data)
    return "".join(f"{byte:08b}" for byte in data[4:])[:count]


def _mac(data: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in data)


def _zoned(data: bytes) -> tuple[int, int]:
    micros, behind = struct.unpack("<qi", data)
    return micros, behind


_TEXT = Layout(-1, 4, bytes.decode)

LAYOUTS: dict[int, Layout] = {
    16: Layout(1, 1, lambda data: bool(data[0])),
    17: Layout(-1, 4, bytes),
    19: Layout(64, 1, _name),
    20: Layout(8, 8, _signed),
    21: Layout(2, 2, _signed),
    23: Layout(4, 4, _signed),
    25: _TEXT,
    26: Layout(4, 4, _unsigned),
    114: _TEXT,
    650: Layout(-1, 4, _address(True), as_text=True),
    700: Layout(4, 4, _float),
    701: Layout(8, 8, _float),
    705: Layout(-2, 1, _name),
    774: Layout(8, 4, _mac, as_text=True),
    829: Layout(6, 4, _mac, as_text=True),
    869: Layout(-1, 4, _address(False), as_text=True),
    1042: _TEXT,
    1043: _TEXT,
    1082: Layout(4, 4, _signed),
    1083: Layout(8, 8, _signed),
    1114: Layout(8, 8, _signed),
    1184: Layout(8, 8, _signed),
    1186: Layout(16, 8, _interval),
    1266: Layout(12, 8, _zoned),
    1560: Layout(-1, 4, _bits, as_text=True),
    1562: Layout(-1, 4, _bits, as_text=True),
    1700: Layout(-1, 4, _numeric),
    2950: Layout(16, 1, lambda data: str(UUID(bytes=data))),
    3802: Layout(-1, 4, _json),
}
"""By OID of the type."""
