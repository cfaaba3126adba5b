"""Floating-point numbers: real and double precision.

Pure: no I/O. NaN equals NaN and is greater than all others. A result that is infinite though no argument is, or zero
though none is, fails as it does in PostgreSQL. The manual: "Data Types", Floating-Point Types.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from decimal import Decimal
from struct import Struct
from typing import Any

from cdc.operators.builtins import Builtin, Table
from cdc.operators.codec import Codec, failing
from cdc.operators.context import Context, Failed, Undecided
from cdc.operators.integers import NAMES, within
from cdc.operators.orders import comparisons
from cdc.values.equality import BLANKS
from cdc.values.floats import double_text, real_of_binary
from cdc.values.numbers import DOUBLE, REAL

__all__ = ["CODECS", "TABLE", "double_of", "float_key", "real_of"]

_SINGLE, _BIG_ENDIAN = Struct("<f"), Struct(">f")
_FIXED = range(-4, 6)  # exponents of reals that the server prints without `e`
_ODD = re.compile(r"[+-]?(?:nan|0x).*", re.IGNORECASE | re.DOTALL)  # what C's strtod reads, on some systems
_EXACT, _BITS = 2**53, 53
_REAL, _DOUBLE = "real", "double precision"


def float_key(value: float) -> tuple[bool, float]:
    """What a number is compared by."""
    return (True, 0.0) if value != value else (False, value)


def _input(name: str, from_text: Callable[[str], Any]) -> Callable[[Context, str], float]:
    def read(context: Context, text: str) -> float:
        word = text.strip(BLANKS)
        if word.lower() != "nan" and _ODD.fullmatch(word):
            raise Undecided(f"a text that some systems read as {name}")
        try:
            return float(from_text(word))
        except ValueError:
            raise failing(name) from None

    return read


def real_of(value: float) -> float:
    """A double precision number as a real. Raises Failed when it is too great or too small."""
    if value != value or math.isinf(value):
        return value
    try:
        narrow: float = _SINGLE.unpack(_SINGLE.pack(value))[0]
    except OverflowError:
        raise Failed("value out of range: overflow") from None
    if math.isinf(narrow):
        raise Failed("value out of range: overflow")
    if narrow == 0 and value != 0:
        raise Failed("value out of range: underflow")
    return narrow


def double_of(value: Decimal) -> float:
    """A numeric as double precision. Raises Failed when it is too great or too small."""
    wide = float(value)
    if math.isinf(wide) and value.is_finite():
        raise Failed("out of range for type double precision")
    if wide == 0 and value != 0:
        raise Failed("out of range for type double precision")
    return wide


def _real_of_numeric(value: Decimal) -> float:
    try:
        return float(REAL.from_text(str(value)))  # type: ignore[arg-type]  # a float, or "NaN"
    except ValueError:
        raise Failed("out of range for type real") from None


def _real_of_integer(value: int) -> float:
    return float(REAL.from_text(str(value)))  # type: ignore[arg-type]  # a float


def _real_text(context: Context, value: float) -> str:
    """The shortest digits that stand for a real; from 1e6 on with an exponent."""
    if value == 0 or value != value or math.isinf(value):
        return double_text(value)
    shortest = Decimal(repr(real_of_binary(_BIG_ENDIAN.pack(value)))).normalize()
    exponent = shortest.adjusted()
    if exponent in _FIXED:
        return f"{shortest:f}"
    sign, digits, _ = shortest.as_tuple()
    figures = "".join(map(str, digits))
    point = "." if figures[1:] else ""
    return f"{'-' if sign else ''}{figures[0]}{point}{figures[1:]}e{exponent:+03d}"


CODECS = {
    700: Codec(lambda cell: float(REAL.from_cell(cell)), _input(_REAL, REAL.from_text), _real_text),  # type: ignore[arg-type, misc]
    701: Codec(float, _input(_DOUBLE, DOUBLE.from_text), lambda context, value: double_text(value)),
}

_Operation = Callable[[float, float], float]


def _sum(left: float, right: float) -> float:
    return _not_overflown(left + right, left, right)


def _difference(left: float, right: float) -> float:
    return _not_overflown(left - right, left, right)


def _product(left: float, right: float) -> float:
    result = _not_overflown(left * right, left, right)
    if result == 0 and left != 0 and right != 0:
        raise Failed("value out of range: underflow")
    return result


def _quotient(left: float, right: float) -> float:
    if right == 0 and left == left:
        raise Failed("division by zero")
    if right == 0:
        return left
    result = _not_overflown(left / right, left, 0.0)
    if result == 0 and left != 0 and not math.isinf(right):
        raise Failed("value out of range: underflow")
    return result


def _not_overflown(result: float, left: float, right: float) -> float:
    if math.isinf(result) and not math.isinf(left) and not math.isinf(right):
        raise Failed("value out of range: overflow")
    return result


_ARITHMETIC: dict[str, _Operation] = {"pl": _sum, "mi": _difference, "mul": _product, "div": _quotient}


def _as_real(operation: _Operation) -> _Operation:
    """Of reals: computed in double precision, which is exact enough to be rounded a second time."""
    return lambda left, right: real_of(operation(left, right))


def _two_types(prefix: str, left: str, right: str) -> dict[str, Builtin]:
    table = comparisons(prefix + "{}", left, right, keys=(float_key, float_key), equality=left == right)
    for word, operation in _ARITHMETIC.items():
        both = left == right == _REAL
        table[f"{prefix}{word}({left}, {right})"] = Builtin(_as_real(operation) if both else operation)
    return table


def _one_type(prefix: str, name: str) -> dict[str, Builtin]:
    return {
        f"{prefix}um({name})": Builtin(operator.neg),
        f"{prefix}up({name})": Builtin(operator.pos),
        f"{prefix}abs({name})": Builtin(abs),
        f"abs({name})": Builtin(abs),
        f"{prefix}larger({name}, {name})": Builtin(lambda one, two: one if float_key(one) > float_key(two) else two),
        f"{prefix}smaller({name}, {name})": Builtin(lambda one, two: one if float_key(one) < float_key(two) else two),
        **{f"int{size}({name})": Builtin(lambda value, size=size: _integer(size, value)) for size in NAMES},
    }


def _integer(size: int, value: float) -> int:
    """Rounded to the nearest, halves to the even one."""
    if not math.isfinite(value):
        raise Failed(f"{NAMES[size]} out of range")
    return within(size, round(value))


def _root(value: float) -> float:
    if value < 0:
        raise Failed("cannot take square root of a negative number")
    return math.sqrt(value)


def _power(base: float, exponent: float) -> float:
    """Of whole numbers with a result that is exact; everything else depends on the C library."""
    if not (base.is_integer() and exponent.is_integer() and abs(base) < _EXACT and 0 <= exponent < _BITS):
        raise Undecided("a power that is not exact")
    result = int(base) ** int(exponent)
    if abs(result) >= _EXACT or (base == 0 and exponent):
        raise Undecided("a power that is not exact")
    return float(result)


def _kept(operation: Callable[[float], int]) -> Callable[[float], float]:
    """Of a function that Python gives as an int: infinities and NaN stay, and so does the sign of a zero."""
    return lambda value: math.copysign(float(operation(value)), value) if math.isfinite(value) else value


def _sign(value: float) -> float:
    return 1.0 if value > 0 else -1.0 if value < 0 else 0.0


def _ceiling(value: float) -> float:
    if not math.isfinite(value):
        return value
    whole = float(math.ceil(value))
    return math.copysign(whole, value) if whole == 0 else whole


def _floor(value: float) -> float:
    if not math.isfinite(value):
        return value
    whole = float(math.floor(value))
    return math.copysign(whole, value) if whole == 0 else whole


TABLE: Table = {
    **_two_types("float4", _REAL, _REAL),
    **_two_types("float8", _DOUBLE, _DOUBLE),
    **_two_types("float48", _REAL, _DOUBLE),
    **_two_types("float84", _DOUBLE, _REAL),
    **_one_type("float4", _REAL),
    **_one_type("float8", _DOUBLE),
    **{f"float4({name})": Builtin(_real_of_integer) for name in NAMES.values()},
    **{f"float8({name})": Builtin(float) for name in NAMES.values()},
    "float4(double precision)": Builtin(real_of),
    "float8(real)": Builtin(float),
    "float4(numeric)": Builtin(_real_of_numeric),
    "float8(numeric)": Builtin(double_of),
    **{f"{name}({_DOUBLE}, {_DOUBLE})": Builtin(_power) for name in ("pow", "power", "dpow")},
    **{f"{name}(double precision)": Builtin(_root) for name in ("sqrt", "dsqrt")},
    **{f"{name}(double precision)": Builtin(_kept(round)) for name in ("round", "dround")},
    **{f"{name}(double precision)": Builtin(_kept(math.trunc)) for name in ("trunc", "dtrunc")},
    **{f"{name}(double precision)": Builtin(_ceiling) for name in ("ceil", "ceiling")},
    "floor(double precision)": Builtin(_floor),
    "sign(double precision)": Builtin(_sign),
}
