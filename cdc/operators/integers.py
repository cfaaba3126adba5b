"""Whole numbers: smallint, integer, bigint and oid.

Pure: no I/O. An operation on two of these types has the greater one's range; what falls out of it fails. Division
cuts off, towards zero. The manual: "Functions and Operators", Mathematical Functions and Operators.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable

from cdc.operators.builtins import Builtin, Table
from cdc.operators.codec import Codec, Input, failing
from cdc.operators.context import Context, Failed, Undecided
from cdc.operators.orders import comparisons
from cdc.values.equality import BLANKS

__all__ = ["CODECS", "NAMES", "TABLE", "within"]

NAMES = {2: "smallint", 4: "integer", 8: "bigint"}
"""The types by their size in bytes."""

_DIGITS = re.compile(r"[+-]?[0-9]+")
_NEWER = re.compile(r"[+-]?[0-9][0-9a-zA-Z_]*")  # hexadecimal and underscores, since version 16
_OID = re.compile(r"0|[1-9][0-9]{0,9}")
_ODD_OID = re.compile(r"[+-]?[0-9][0-9a-zA-Z_]*")  # a sign, or zeros in front: read differently from version to version
_LONGEST = 4000  # digits that Python makes an int of


def within(size: int, value: int) -> int:
    """The value itself. Raises Failed when an integer of so many bytes cannot hold it."""
    bound = 1 << (8 * size - 1)
    if not -bound <= value < bound:
        raise Failed(f"{NAMES[size]} out of range")
    return value


def _input(size: int) -> Input:
    name = NAMES[size]

    def read(context: Context, text: str) -> int:
        word = text.strip(BLANKS)
        if _DIGITS.fullmatch(word):
            digits = word.lstrip("+-").lstrip("0") or "0"
            if len(digits) > _LONGEST:
                raise Failed(f"{name} out of range")
            return within(size, -int(digits) if word[0] == "-" else int(digits))
        if _NEWER.fullmatch(word):
            raise Undecided(f"a text that some versions read as {name}")
        raise failing(name)

    return read


def _oid_input(context: Context, text: str) -> int:
    word = text.strip(BLANKS)
    if _OID.fullmatch(word):
        value = int(word)
        if value >= 2**32:
            raise Failed("oid out of range")
        return value
    if _ODD_OID.fullmatch(word):
        raise Undecided("a text that some versions read as oid")
    raise failing("oid")


def _output(context: Context, value: int) -> str:
    return str(value)


CODECS = {
    20: Codec(int, _input(8), _output),
    21: Codec(int, _input(2), _output),
    23: Codec(int, _input(4), _output),
    26: Codec(int, _oid_input, _output),
}

_Operation = Callable[[int, int], int]


def _quotient(left: int, right: int) -> int:
    if right == 0:
        raise Failed("division by zero")
    size = abs(left) // abs(right)
    return size if (left < 0) == (right < 0) else -size


def _rest(left: int, right: int) -> int:
    return left - right * _quotient(left, right)


_ARITHMETIC: dict[str, _Operation] = {
    "pl": operator.add,
    "mi": operator.sub,
    "mul": operator.mul,
    "div": _quotient,
}
_BITS: dict[str, _Operation] = {"and": operator.and_, "or": operator.or_, "xor": operator.xor}


def _held(size: int, operation: _Operation) -> Builtin:
    return Builtin(lambda left, right: within(size, operation(left, right)))


def _shifted_left(size: int) -> Callable[[int, int], int]:
    """As C shifts: the count is taken modulo the bits, of 32 for the smaller types; what falls out is lost."""
    bits, mask = 8 * size, 63 if size == 8 else 31

    def shift(value: int, count: int) -> int:
        shifted = (value << (count & mask)) & ((1 << bits) - 1)
        return shifted - (1 << bits) if shifted >> (bits - 1) else shifted

    return shift


def _gcd(size: int) -> Builtin:
    return Builtin(lambda left, right: within(size, math.gcd(left, right)))


def _lcm(size: int) -> Builtin:
    return Builtin(lambda left, right: within(size, math.lcm(left, right)))


def _one_type(size: int) -> dict[str, Builtin]:
    """What there is of each integer type by itself."""
    name, prefix, mask = NAMES[size], f"int{size}", 63 if size == 8 else 31
    both = f"({name}, {name})"
    table = {f"{prefix}{word}{both}": Builtin(operation) for word, operation in _BITS.items()}
    return table | {
        f"{prefix}mod{both}": Builtin(_rest),
        f"mod{both}": Builtin(_rest),
        f"{prefix}larger{both}": Builtin(max),
        f"{prefix}smaller{both}": Builtin(min),
        f"{prefix}not({name})": Builtin(operator.invert),
        f"{prefix}um({name})": Builtin(lambda value: within(size, -value)),
        f"{prefix}up({name})": Builtin(operator.pos),
        f"{prefix}abs({name})": Builtin(lambda value: within(size, abs(value))),
        f"abs({name})": Builtin(lambda value: within(size, abs(value))),
        f"{prefix}shl({name}, integer)": Builtin(_shifted_left(size)),
        f"{prefix}shr({name}, integer)": Builtin(lambda value, count: value >> (count & mask)),
        **{
            f"int{other}({name})": Builtin(lambda value, other=other: within(other, value))
            for other in NAMES
            if other != size
        },
    }


def _two_types(left: int, right: int) -> dict[str, Builtin]:
    """Comparisons and arithmetic of two integer types, which may be the same."""
    prefix = f"int{left}" if left == right else f"int{left}{right}"
    types = f"({NAMES[left]}, {NAMES[right]})"
    table = comparisons(prefix + "{}", NAMES[left], NAMES[right], equality=left == right)
    for word, operation in _ARITHMETIC.items():
        table[f"{prefix}{word}{types}"] = _held(max(left, right), operation)
    return table


def _oid_of_bigint(value: int) -> int:
    if not 0 <= value < 2**32:
        raise Failed("oid out of range")
    return value


TABLE: Table = {
    **{key: found for size in NAMES for key, found in _one_type(size).items()},
    **{key: found for left in NAMES for right in NAMES for key, found in _two_types(left, right).items()},
    **{f"gcd({NAMES[size]}, {NAMES[size]})": _gcd(size) for size in (4, 8)},
    **{f"lcm({NAMES[size]}, {NAMES[size]})": _lcm(size) for size in (4, 8)},
    **comparisons("oid{}", "oid", equality=True),
    "oidlarger(oid, oid)": Builtin(max),
    "oidsmaller(oid, oid)": Builtin(min),
    "oid(bigint)": Builtin(_oid_of_bigint),
    "int8(oid)": Builtin(int),
    "int4inc(integer)": Builtin(lambda value: within(4, value + 1)),
}
