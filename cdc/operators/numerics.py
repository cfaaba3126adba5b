"""numeric: exact numbers with a scale.

Pure: no I/O. A datum's exponent is minus its scale, and never positive; there is no negative zero. NaN equals NaN and
is greater than all others. Infinities exist since version 14.
The manual: "Data Types", Arbitrary Precision Numbers.
"""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Callable
from decimal import Decimal

from cdc.operators.builtins import Builtin, Table
from cdc.operators.codec import Codec, failing
from cdc.operators.context import Context, Failed, Undecided
from cdc.operators.integers import NAMES, within
from cdc.operators.orders import comparisons
from cdc.values.equality import BLANKS
from cdc.values.numbers import NUMERIC, numeric_of

__all__ = ["CODECS", "EXACT", "TABLE", "numeric_key", "plain", "rounded", "scale_of"]

EXACT = decimal.Context(
    prec=400_000,
    Emax=decimal.MAX_EMAX,
    Emin=decimal.MIN_EMIN,
    rounding=decimal.ROUND_HALF_UP,
    traps=[decimal.InvalidOperation, decimal.Overflow],
)
"""Rounds nothing that numeric can hold."""

_TYPE = "numeric"
_WHOLE_DIGITS, _SCALE, _DISPLAY_SCALE, _SIGNIFICANT = 131_072, 16_383, 1000, 16
_GROUP = 4  # the server's digits are to the base 10000
_NEWER = re.compile(r"[+-]?[0-9.][0-9a-zA-Z_.+-]*")  # hexadecimal and underscores, since version 16
_NAN, _ZERO = Decimal("NaN"), Decimal(0)

_TooLong = "value overflows numeric format"


def plain(value: Decimal) -> Decimal:
    """The datum of a Decimal: without a positive exponent, without the sign of a zero."""
    if not value.is_finite():
        return _NAN if value.is_nan() else value
    if value.as_tuple().exponent > 0:  # type: ignore[operator]  # it is finite
        value = value.quantize(_ZERO, context=EXACT)
    return value if value else value.copy_abs()


def scale_of(value: Decimal) -> int:
    """The scale of a finite datum."""
    return -int(value.as_tuple().exponent)


def numeric_key(value: Decimal) -> tuple[bool, Decimal]:
    """What a number is compared by."""
    return (True, _ZERO) if value.is_nan() else (False, value)


def rounded(value: Decimal, scale: int, rounding: str = decimal.ROUND_HALF_UP) -> Decimal:
    """A finite number with so many digits behind the point, none when `scale` is negative; halves go from zero."""
    result = value.quantize(Decimal((0, (1,), -scale)), rounding=rounding, context=EXACT)
    return _held(plain(result))


def _held(value: Decimal) -> Decimal:
    """The value itself. Raises Failed when numeric cannot hold it."""
    if value.is_finite() and value and value.adjusted() >= _WHOLE_DIGITS:
        raise Failed(_TooLong)
    return value


def _input(context: Context, text: str) -> Decimal:
    word = text.strip(BLANKS)
    try:
        found = NUMERIC.from_text(word)
    except ValueError:
        if re.fullmatch(r"[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?", word) or not _NEWER.fullmatch(word):
            raise failing(_TYPE) from None
        raise Undecided("a text that some versions read as numeric") from None
    return plain(found) if isinstance(found, Decimal) else _NAN


def _output(context: Context, value: Decimal) -> str:
    return f"{value:f}" if value.is_finite() else str(value)


CODECS = {1700: Codec(lambda cell: plain(numeric_of(cell)), _input, _output)}

_Operation = Callable[[Decimal, Decimal], Decimal]


def _special(operation: Callable[[float, float], float]) -> _Operation:
    """An operation of which an argument is no finite number, by the rules of floats; those have the same."""

    def special(left: Decimal, right: Decimal) -> Decimal:
        return Decimal(operation(_stand_in(left), _stand_in(right)))

    return special


def _stand_in(value: Decimal) -> float:
    """A float of the same kind: NaN, an infinity, or a number of the same sign."""
    return float(value) if not value.is_finite() else float((value > 0) - (value < 0))


def _operation(finite: _Operation, special: _Operation) -> Builtin:
    def operate(left: Decimal, right: Decimal) -> Decimal:
        if left.is_finite() and right.is_finite():
            return _held(plain(finite(left, right)))
        return special(left, right)

    return Builtin(operate)


def _product(left: Decimal, right: Decimal) -> Decimal:
    result = EXACT.multiply(left, right)
    return rounded(result, _SCALE) if scale_of(result) > _SCALE else result


def _group(value: Decimal) -> tuple[int, int]:
    """Weight and value of the first digit to the base 10000 that is not zero; zeros for 0."""
    if not value:
        return 0, 0
    weight = value.adjusted() // _GROUP
    digits = value.adjusted() - weight * _GROUP + 1
    figures = "".join(map(str, value.as_tuple().digits[:digits]))
    return weight, int(figures.ljust(digits, "0"))


def _quotient_scale(left: Decimal, right: Decimal) -> int:
    """The scale of a quotient, as select_div_scale of numeric.c chooses it: at least 16 significant digits."""
    (weight, first), (other_weight, other_first) = _group(left), _group(right)
    difference = weight - other_weight - (first <= other_first)
    scale = max(_SIGNIFICANT - difference * _GROUP, scale_of(left), scale_of(right), 0)
    return min(scale, _DISPLAY_SCALE)


def _quotient(left: Decimal, right: Decimal) -> Decimal:
    _not_zero(right)
    scale = _quotient_scale(left, right)
    dividend, divisor = _whole(left), _whole(right)
    power = scale + scale_of(right) - scale_of(left)
    if power >= 0:
        dividend *= 10**power
    else:
        divisor *= 10**-power
    size, rest = divmod(abs(dividend), abs(divisor))
    size += 2 * rest >= abs(divisor)
    return _scaled(-size if (dividend < 0) != (divisor < 0) else size, scale)


def _root(value: Decimal) -> Decimal:
    """At least 16 significant digits, or the scale of the argument."""
    if not value.is_finite():
        if value.is_infinite() and value < 0:
            raise Failed("cannot take square root of a negative number")
        return value
    if value < 0:
        raise Failed("cannot take square root of a negative number")
    weight = _group(value)[0]
    before_point = (weight + 1) * _GROUP // 2 - 1
    scale = min(max(_SIGNIFICANT - before_point, scale_of(value), 0), _DISPLAY_SCALE)
    if not value:
        return rounded(value, scale)
    # The root of the number with two digits more than are kept, cut off, is never the middle between two results.
    power = 2 * (scale + 1) - scale_of(value)
    digits = _whole(value)
    root = math.isqrt(digits * 10**power if power >= 0 else digits // 10**-power)
    return _scaled((root + 5) // 10, scale)


def _whole(value: Decimal) -> int:
    """All digits of a finite number, without the point."""
    return int(value.scaleb(scale_of(value), context=EXACT))


def _scaled(digits: int, scale: int) -> Decimal:
    return EXACT.scaleb(EXACT.create_decimal(digits), -scale)


def _whole_quotient(left: Decimal, right: Decimal) -> Decimal:
    _not_zero(right)
    return EXACT.divide_int(left, right)


def _rest(left: Decimal, right: Decimal) -> Decimal:
    _not_zero(right)
    return EXACT.remainder(left, right)


def _not_zero(value: Decimal) -> None:
    if not value:
        raise Failed("division by zero")


def _float_quotient(left: float, right: float) -> float:
    if right == 0 and left == left:
        raise Failed("division by zero")
    return left / right if right else left


def _special_rest(left: Decimal, right: Decimal) -> Decimal:
    if left.is_nan() or right.is_nan():
        return _NAN
    _not_zero(right)
    return _NAN if left.is_infinite() else left


def _of_infinite_divisor(special: _Operation) -> _Operation:
    """A finite number by an infinity is zero, without a scale."""
    return lambda left, right: _ZERO if right.is_infinite() and left.is_finite() else special(left, right)


_DIVIDED = _of_infinite_divisor(_special(_float_quotient))


def _changed(finite: Callable[[Decimal], Decimal]) -> Builtin:
    """A function that leaves what is no finite number as it is."""
    return Builtin(lambda value: _held(plain(finite(value))) if value.is_finite() else value)


def _to_scale(rounding: str) -> Builtin:
    def to_scale(value: Decimal, scale: int) -> Decimal:
        if not value.is_finite():
            return value
        limit = 2000 if scale <= 0 else _SCALE  # versions differ beyond it
        if abs(scale) > limit:
            raise Undecided("a number rounded to an extreme scale")
        return rounded(value, scale, rounding)

    return Builtin(to_scale)


def _sign(value: Decimal) -> Decimal:
    return value if value.is_nan() else Decimal((value > 0) - (value < 0))


def _integer(size: int, value: Decimal) -> int:
    """Rounded to the nearest, halves away from zero."""
    if not value.is_finite() or value.adjusted() > 30:
        raise Failed(f"{NAMES[size]} out of range")
    return within(size, int(rounded(value, 0)))


def _of_float(digits: int) -> Callable[[float], Decimal]:
    """A number of so many significant digits, as C prints it."""

    def numeric(value: float) -> Decimal:
        if not math.isfinite(value):
            return Decimal(value)
        return plain(Decimal(f"{value:.{digits}g}"))

    return numeric


def _restricted(value: Decimal, modifier: int) -> Decimal:
    """The cast to `numeric(precision, scale)`."""
    if modifier < 4:
        return value
    precision, scale = (modifier - 4) >> 16, (modifier - 4) & 0xFFFF
    if not 1 <= precision <= 1000 or scale > 0x7FF:
        raise Undecided("a precision that no column has")
    scale = scale - 0x800 if scale & 0x400 else scale
    if not value.is_finite():
        if value.is_infinite():
            raise Failed("numeric field overflow")
        return value
    result = rounded(value, scale)
    if result and result.adjusted() >= precision - scale:
        raise Failed("numeric field overflow")
    return result


def _trimmed(value: Decimal) -> Decimal:
    return plain(value.normalize(EXACT))


def _greater(left: Decimal, right: Decimal) -> Decimal:
    return left if numeric_key(left) > numeric_key(right) else right


def _smaller(left: Decimal, right: Decimal) -> Decimal:
    return left if numeric_key(left) < numeric_key(right) else right


_BOTH = f"({_TYPE}, {_TYPE})"

TABLE: Table = {
    **comparisons("numeric_{}", _TYPE, keys=(numeric_key, numeric_key), equality=True),
    f"numeric_add{_BOTH}": _operation(EXACT.add, _special(lambda left, right: left + right)),
    f"numeric_sub{_BOTH}": _operation(EXACT.subtract, _special(lambda left, right: left - right)),
    f"numeric_mul{_BOTH}": _operation(_product, _special(lambda left, right: left * right)),
    f"numeric_div{_BOTH}": _operation(_quotient, _DIVIDED),
    **{f"{name}{_BOTH}": _operation(_whole_quotient, _DIVIDED) for name in ("div", "numeric_div_trunc")},
    **{f"{name}{_BOTH}": _operation(_rest, _special_rest) for name in ("mod", "numeric_mod")},
    f"numeric_larger{_BOTH}": Builtin(_greater),
    f"numeric_smaller{_BOTH}": Builtin(_smaller),
    "numeric_uminus(numeric)": Builtin(lambda value: plain(value.copy_negate())),
    "numeric_uplus(numeric)": Builtin(lambda value: value),
    "numeric_inc(numeric)": _changed(lambda value: EXACT.add(value, Decimal(1))),
    **{f"{name}(numeric)": Builtin(lambda value: plain(value.copy_abs())) for name in ("abs", "numeric_abs")},
    **{f"{name}(numeric)": Builtin(_root) for name in ("sqrt", "numeric_sqrt")},
    "sign(numeric)": Builtin(_sign),
    **{
        f"{name}(numeric)": _changed(lambda value: rounded(value, 0, decimal.ROUND_CEILING))
        for name in ("ceil", "ceiling")
    },
    "floor(numeric)": _changed(lambda value: rounded(value, 0, decimal.ROUND_FLOOR)),
    "round(numeric)": _changed(lambda value: rounded(value, 0)),
    "trunc(numeric)": _changed(lambda value: rounded(value, 0, decimal.ROUND_DOWN)),
    "round(numeric, integer)": _to_scale(decimal.ROUND_HALF_UP),
    "trunc(numeric, integer)": _to_scale(decimal.ROUND_DOWN),
    "scale(numeric)": Builtin(lambda value: scale_of(value) if value.is_finite() else None),
    "trim_scale(numeric)": _changed(_trimmed),
    "numeric(numeric, integer)": Builtin(_restricted),
    **{f"numeric({name})": Builtin(Decimal) for name in NAMES.values()},
    "numeric(real)": Builtin(_of_float(6)),
    "numeric(double precision)": Builtin(_of_float(15)),
    **{f"int{size}(numeric)": Builtin(lambda value, size=size: _integer(size, value)) for size in NAMES},
}
