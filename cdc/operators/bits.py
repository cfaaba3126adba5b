"""Strings of bits and of bytes: bit, varbit, and what bytea has beside digests.

Pure: no I/O. Bits are a str of 0 and 1, whose order is that of the server. The manual: "Data Types", Binary Data Types,
Bit String Types.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

from cdc.operators.builtins import Builtin, Table
from cdc.operators.codec import Codec, Input, failing
from cdc.operators.context import Context, Failed, Undecided
from cdc.operators.orders import comparisons
from cdc.values.texts import bytes_of

__all__ = ["CODECS", "TABLE"]

_LONGEST = 1_000_000
_BITS = re.compile(r"[bB]?([01]*)")
_HEX_BITS = re.compile(r"[xX][0-9a-fA-F]*")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}|[ \t\n\r])*")
_ESCAPED = re.compile(rb"\\(?:(\\)|([0-3][0-7]{2}))")
_LOOSE = re.compile(rb"\\(?!\\|[0-3][0-7]{2})")


def _bytes_input(context: Context, text: str) -> bytes:
    if text[:2] == "\\x":
        if not _HEX.fullmatch(text, 2):
            raise failing("bytea")
        return bytes.fromhex(text[2:])
    if not text.isascii() and not context.utf8:
        raise Undecided("bytes of a text beyond ASCII in another encoding than UTF8")
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise failing("bytea") from None
    if _LOOSE.search(_ESCAPED.sub(b"", raw)):
        raise failing("bytea")
    return _ESCAPED.sub(lambda match: b"\\" if match[1] else bytes([int(match[2], 8)]), raw)


def _bits_input(name: str) -> Input:
    def read(context: Context, text: str) -> str:
        match = _BITS.fullmatch(text)
        if match is not None:
            return match[1]
        if _HEX_BITS.fullmatch(text):
            return "".join(f"{int(digit, 16):04b}" for digit in text[1:])
        raise failing(name)

    return read


def _read_bits(cell: bytes) -> str:
    if cell.strip(b"01"):
        raise ValueError("not a bit string")
    return cell.decode()


def _same(context: Context, text: str) -> str:
    return text


CODECS = {
    17: Codec(bytes_of, _bytes_input, lambda context, value: "\\x" + value.hex()),
    1560: Codec(_read_bits, _bits_input("bit"), _same),
    1562: Codec(_read_bits, _bits_input("bit varying"), _same),
}


def _bitwise(operation: Callable[[int, int], int]) -> Builtin:
    def combine(left: str, right: str) -> str:
        if len(left) != len(right):
            raise Failed("bit strings of different sizes")
        return f"{operation(int(left, 2), int(right, 2)):0{len(left)}b}" if left else ""

    return Builtin(combine)


_FLIPPED = str.maketrans("01", "10")


def _shifted(bits: str, count: int) -> str:
    """To the left, or to the right when `count` is negative; zeros move in."""
    if count >= 0:
        return bits[count:].ljust(len(bits), "0")
    return bits[:count].rjust(len(bits), "0")


def _fixed(bits: str, length: int, explicit: bool) -> str:
    """The cast to `bit(length)`: an explicit one cuts off or fills up at the right."""
    if length <= 0 or length == len(bits):
        return bits
    if length > _LONGEST:
        raise Undecided("a very long bit string")
    if not explicit:
        raise Failed("bit string length does not match the type")
    return bits[:length].ljust(length, "0")


def _varying(bits: str, length: int, explicit: bool) -> str:
    if length <= 0 or length >= len(bits):
        return bits
    if not explicit:
        raise Failed("bit string too long for the type")
    return bits[:length]


def _part(value: bytes, start: int, length: int | None = None) -> bytes:
    """Of SQL's substring: counted from 1, and before."""
    if length is None:
        return value[max(start, 1) - 1 :]
    if length < 0:
        raise Failed("negative substring length not allowed")
    return value[max(start, 1) - 1 : max(start + length - 1, 0)]


def _byte(value: bytes, place: int) -> int:
    if not 0 <= place < len(value):
        raise Failed("index out of valid range")
    return value[place]


_SAME_BITS = "(bit, bit)"

TABLE: Table = {
    **comparisons("bytea{}", "bytea"),
    "byteacat(bytea, bytea)": Builtin(operator.add),
    "length(bytea)": Builtin(len),
    "octet_length(bytea)": Builtin(len),
    "get_byte(bytea, integer)": Builtin(_byte),
    "position(bytea, bytea)": Builtin(lambda value, part: value.find(part) + 1),
    **{f"{name}(bytea, integer)": Builtin(_part) for name in ("substr", "substring")},
    **{f"{name}(bytea, integer, integer)": Builtin(_part) for name in ("substr", "substring")},
    **comparisons("bit{}", "bit"),
    **comparisons("varbit{}", "bit varying"),
    f"bitand{_SAME_BITS}": _bitwise(operator.and_),
    f"bitor{_SAME_BITS}": _bitwise(operator.or_),
    f"bitxor{_SAME_BITS}": _bitwise(operator.xor),
    "bitnot(bit)": Builtin(lambda bits: bits.translate(_FLIPPED)),
    "bitcat(bit varying, bit varying)": Builtin(operator.add),
    "bitshiftleft(bit, integer)": Builtin(_shifted),
    "bitshiftright(bit, integer)": Builtin(lambda bits, count: _shifted(bits, -count)),
    "length(bit)": Builtin(len),
    "octet_length(bit)": Builtin(lambda bits: (len(bits) + 7) // 8),
    "bit_count(bit)": Builtin(lambda bits: bits.count("1")),
    "get_bit(bit, integer)": Builtin(lambda bits, place: _byte(bytes(map(int, bits)), place)),
    "bit(bit, integer, boolean)": Builtin(_fixed),
    "varbit(bit varying, integer, boolean)": Builtin(_varying),
}
