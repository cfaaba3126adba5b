"""Cells of the numeric types, and their equality.

Pure: no I/O, no clock. For equality the server's rules hold: NaN equals NaN, -0 equals 0, and numeric 1.0
equals 1.00. Cells of real and double precision are exact because the replication connection sets
extra_float_digits. Input is decimal digits only: hexadecimal and underscores, which the server reads in some types
since version 16, and the digits of other scripts, which Python reads, are refused.
The manual: "Data Types", Numeric Types.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from decimal import Decimal, InvalidOperation
from struct import Struct, unpack_from
from typing import TypeGuard

from cdc.relation import Decode
from cdc.values.equality import BLANKS, Equality, quoted, wrong_type

__all__ = [
    "BIGINT",
    "DOUBLE",
    "INTEGER",
    "NUMERIC",
    "OID",
    "REAL",
    "SMALLINT",
    "float_of",
    "integer_of",
    "numeric_of",
    "numeric_of_binary",
]

integer_of: Decode = int
"""The int of a cell. Raises ValueError when it is none."""

float_of: Decode = float
"""The float of a cell, NaN and infinities included. Raises ValueError when it is none."""

_INTEGER = re.compile(r"[+-]?0*[0-9]{1,19}")
_OID = re.compile(r"0|[1-9][0-9]{0,9}")  # with a leading zero, version 15 reads decimal and 16 octal
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INFINITIES = {f"{sign}{word}": f"{sign}Infinity" for sign in ("", "+", "-") for word in ("inf", "infinity")}
_NAN = "NaN"  # the hashable of every NaN, since Python's does not equal itself
_NUMERIC_WHOLE_DIGITS, _NUMERIC_SCALE = 131072, 16383
_SINGLE = Struct("<f")
_DOUBLE, _BITS = Struct("<d"), Struct("<q")
_HEAD = Struct(">HhHH")
_NEGATIVE = 0x4000
_SPECIAL = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}


def numeric_of(cell: bytes) -> Decimal:
    """The Decimal of a cell, with its scale; NaN and infinities included. Raises ValueError when it is none."""
    try:
        return Decimal(cell.decode())
    except InvalidOperation:
        raise ValueError(f"{quoted(cell)} is not a numeric") from None


def numeric_of_binary(cell: bytes) -> Decimal:
    """As `numeric_of`, of a cell in binary form. Raises ValueError.

    Int16 number of digits, Int16 weight of the first, Int16 sign, Int16 scale, then digits to the base 10000.
    """
    if len(cell) < _HEAD.size:
        raise ValueError(f"{quoted(cell)} is not a numeric in binary form")
    count, weight, sign, scale = _HEAD.unpack_from(cell)
    if sign in _SPECIAL:
        return Decimal(_SPECIAL[sign])
    if sign not in (0, _NEGATIVE) or len(cell) != _HEAD.size + 2 * count:
        raise ValueError(f"{quoted(cell)} is not a numeric in binary form")
    groups = ("%04d" * count) % unpack_from(f">{count}H", cell, _HEAD.size)
    if len(groups) != 4 * count:
        raise ValueError(f"{quoted(cell)} has a digit above 9999")
    digits = "0000" * (-weight - 1) + groups
    point = 4 * max(weight + 1, 0)
    whole, fraction = digits[:point].ljust(point, "0"), digits[point:][:scale].ljust(scale, "0")
    return Decimal(f"{'-' if sign else ''}{whole or '0'}.{fraction}")


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _integers(form: re.Pattern[str], name: str, low: int, high: int) -> Equality:
    """Equality of an integer type with the given bounds, both included."""

    def written(number: int, given: object) -> bytes:
        if not low <= number <= high:
            raise ValueError(f"{quoted(given)} is out of range for {name} ({low} to {high})")
        return b"%d" % number

    def from_text(text: str) -> bytes:
        if not form.fullmatch(text.strip(BLANKS)):
            raise ValueError(f"{quoted(text)} is not a value of {name} (decimal digits, {low} to {high})")
        return written(int(text), text)

    def from_python(value: object) -> bytes:
        if not _is_int(value):
            raise wrong_type("an int", value)
        return written(value, value)

    return Equality(None, from_text, from_python)


def _number(text: str, name: str) -> str:
    """The text in a form that float and Decimal read as the server does. Raises ValueError."""
    word = text.strip(BLANKS)
    if _NUMBER.fullmatch(word):
        return word
    special = _NAN if word.lower() == "nan" else _INFINITIES.get(word.lower())
    if special is None:
        raise ValueError(f"{quoted(text)} is not a value of {name}")
    return special


def _decimal_key(value: Decimal) -> Hashable:
    return _NAN if value.is_nan() else value


def _numeric_from_cell(cell: bytes) -> Hashable:
    return _decimal_key(numeric_of(cell))


def _numeric_from_text(text: str) -> Hashable:
    try:
        value = Decimal(_number(text, "numeric"))
    except InvalidOperation:
        raise ValueError(f"{quoted(text)} overflows numeric") from None
    return _decimal_key(_held(value, text))


def _numeric_from_python(value: object) -> Hashable:
    if isinstance(value, Decimal):
        return _decimal_key(_held(value, value))
    if _is_int(value):
        return _held(Decimal(value), value)
    raise wrong_type("a Decimal or an int", value)


def _held(value: Decimal, given: object) -> Decimal:
    """The value itself. Raises ValueError when numeric cannot hold it."""
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and (value.adjusted() >= _NUMERIC_WHOLE_DIGITS or exponent < -_NUMERIC_SCALE):
        raise ValueError(f"{quoted(given)} overflows numeric")
    return value


def _float_key(value: float) -> Hashable:
    return _NAN if value != value else value


def _double_from_cell(cell: bytes) -> Hashable:
    return _float_key(float(cell))


def _double_from_text(text: str) -> Hashable:
    word = _number(text, "double precision")
    return _float_key(_fitting(float(word), word, "double precision"))


def _double_from_python(value: object) -> Hashable:
    if isinstance(value, float):
        return _float_key(value)
    if _is_int(value):
        return _double_from_text(str(Decimal(value)))
    raise wrong_type("a float or an int", value)


def _real_from_cell(cell: bytes) -> Hashable:
    return _float_key(_nearest_real(cell.decode()))


def _real_from_text(text: str) -> Hashable:
    return _float_key(_nearest_real(_number(text, "real")))


def _real_from_python(value: object) -> Hashable:
    if isinstance(value, float):
        return _float_key(_narrowed(value, str(value)))
    if _is_int(value):
        return _real_from_text(str(Decimal(value)))
    raise wrong_type("a float or an int", value)


def _nearest_real(word: str) -> float:
    """The real nearest to a decimal number, rounded once.

    Rounding to double first may land on the middle between two reals and then go the wrong way. So an inexact
    double with an even last bit is moved one step towards the number: "round to odd" keeps the second step right.
    """
    wide = _fitting(float(word), word, "real")
    if wide and math.isfinite(wide):
        exact, near = Decimal(word), Decimal.from_float(wide)
        if exact != near and not _BITS.unpack(_DOUBLE.pack(wide))[0] & 1:
            wide = math.nextafter(wide, math.inf if exact > near else -math.inf)
    return _narrowed(wide, word)


def _narrowed(wide: float, word: str) -> float:
    try:
        narrow: float = _SINGLE.unpack(_SINGLE.pack(wide))[0]
    except OverflowError:
        raise ValueError(f"{quoted(word)} is out of range for real") from None
    if narrow == 0 and wide != 0:
        raise ValueError(f"{quoted(word)} is out of range for real")
    return narrow


def _fitting(value: float, word: str, name: str) -> float:
    """The value itself. Raises ValueError when a finite text became infinite, or one that is not zero zero."""
    mantissa = re.split("[eE]", word)[0]
    lost = (math.isinf(value) and "n" not in word) or (value == 0 and mantissa.strip("+-0.") != "")
    if lost:
        raise ValueError(f"{quoted(word)} is out of range for {name}")
    return value


SMALLINT = _integers(_INTEGER, "smallint", -(2**15), 2**15 - 1)
INTEGER = _integers(_INTEGER, "integer", -(2**31), 2**31 - 1)
BIGINT = _integers(_INTEGER, "bigint", -(2**63), 2**63 - 1)
OID = _integers(_OID, "oid", 0, 2**32 - 1)
NUMERIC = Equality(_numeric_from_cell, _numeric_from_text, _numeric_from_python)
REAL = Equality(_real_from_cell, _real_from_text, _real_from_python)
DOUBLE = Equality(_double_from_cell, _double_from_text, _double_from_python)
