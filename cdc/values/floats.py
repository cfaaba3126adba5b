"""Floating-point numbers as PostgreSQL prints them, for binary cells whose text would hold them.

Pure: no I/O, no clock. With extra_float_digits = 1 the server prints the shortest digits that lie strictly between
the middles to the two neighbours; Python's repr also takes a middle itself. The manual: "Data Types",
Floating-Point Types.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from fractions import Fraction
from struct import Struct

from cdc.values.equality import quoted

__all__ = ["double_of_binary", "double_text", "real_of_binary"]

_EXACT = Context(prec=40)  # the user's context may round
_SINGLE, _SINGLE_BITS = Struct(">f"), Struct(">I")
_SINGLE_FRACTION = 0x7FFFFF
_DOUBLE = Struct(">d")
_MOST_DIGITS, _MOST_REAL_DIGITS, _SAFE_REAL_DIGITS = 17, 9, 6
_LEAST_NORMAL_REAL = 2.0**-126
_FIRST_MIDDLE = 2.0**53  # below, no number of as few digits as repr gives is the middle between two doubles
_FIXED = range(-4, 15)  # exponents that the server prints without `e`


def double_of_binary(cell: bytes) -> float:
    """The float of a double precision cell in binary form. Raises ValueError."""
    if len(cell) != 8:
        raise ValueError(f"{quoted(cell)} is not double precision in binary form")
    value: float = _DOUBLE.unpack(cell)[0]
    return value


def real_of_binary(cell: bytes) -> float:
    """The float nearest to the text that the server prints for a real. Raises ValueError."""
    if len(cell) != 4:
        raise ValueError(f"{quoted(cell)} is not real in binary form")
    value: float = _SINGLE.unpack(cell)[0]
    return math.copysign(_real(abs(value)), value) if value and math.isfinite(value) else value


def _real(value: float) -> float:
    """The float of the shortest digits that stand for a positive real."""
    bits = _SINGLE_BITS.unpack(_SINGLE.pack(value))[0]
    low, high = ((value + _single(bits + step)) / 2 for step in (-1, 1))
    for count in range(_SAFE_REAL_DIGITS if value >= _LEAST_NORMAL_REAL else 1, _MOST_REAL_DIGITS):
        near = float(f"{value:.{count - 1}e}")
        if low < near < high:
            return near
        if near in (low, high) or not bits & _SINGLE_FRACTION:
            for word in _decimals(value, count):
                if Decimal.from_float(low) < word < Decimal.from_float(high):
                    return float(word)
    return float(f"{value:.{_MOST_REAL_DIGITS - 1}e}")


def _decimals(value: float, count: int) -> tuple[Decimal, Decimal]:
    """The number of so many digits that is nearest to `value`, and the one above it.

    The neighbour below a power of two is nearer than that above, so the second may stand for it when the first cannot.
    """
    nearest = Decimal(f"{value:.{count - 1}e}")
    return nearest, _EXACT.add(nearest, Decimal((0, (1,), int(nearest.as_tuple().exponent))))


def _single(bits: int) -> float:
    if bits == 0x7F800000:  # what would come after the greatest real
        return 2.0**128
    value: float = _SINGLE.unpack(_SINGLE_BITS.pack(bits))[0]
    return value


def double_text(value: float) -> str:
    """A double precision number as the server prints it."""
    if value != value:
        return "NaN"
    sign = "-" if math.copysign(1, value) < 0 else ""
    if math.isinf(value):
        return f"{sign}Infinity"
    return sign + (_positive(abs(value)) if value else "0")


def _positive(value: float) -> str:
    parts = _shortest(value).as_tuple()
    all_digits = "".join(map(str, parts.digits))
    digits, exponent = all_digits.rstrip("0"), len(all_digits) - 1 + int(parts.exponent)
    if exponent not in _FIXED:
        point = "." if digits[1:] else ""
        return f"{digits[0]}{point}{digits[1:]}e{exponent:+03d}"
    if exponent < 0:
        return f"0.{'0' * (-exponent - 1)}{digits}"
    whole = digits[: exponent + 1].ljust(exponent + 1, "0")
    return f"{whole}.{digits[exponent + 1 :]}" if digits[exponent + 1 :] else whole


def _shortest(value: float) -> Decimal:
    """The shortest digits of a positive number."""
    word = Decimal(repr(value))
    if value < _FIRST_MIDDLE or _is_strictly_nearest(word, value):
        return word
    counts = range(len(word.normalize(_EXACT).as_tuple().digits), _MOST_DIGITS)
    words = (word for count in counts for word in _decimals(value, count) if _is_strictly_nearest(word, value))
    return next(words, Decimal(f"{value:.{_MOST_DIGITS - 1}e}"))


def _is_strictly_nearest(word: Decimal, value: float) -> bool:
    """Whether a number lies nearer to `value` than the middle to either of its neighbours."""
    after = math.nextafter(value, math.inf)
    step = Fraction(after) - Fraction(value) if math.isfinite(after) else Fraction(2) ** 971
    below = Fraction(value) - Fraction(math.nextafter(value, 0))
    return -below < 2 * (Fraction(word) - Fraction(value)) < step
