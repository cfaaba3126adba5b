"""Comparisons and casts of text, character varying, character(n) and name.

Pure: no I/O. `character` is compared without its trailing blanks, and keeps them everywhere else.
The manual: "Character Types", "Operator Classes and Operator Families".
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from cdc.operators.builtins import Builtin, Table
from cdc.operators.collating import certain, compare, encoded, same
from cdc.operators.context import Context, Failed, Undecided

__all__ = ["TABLE"]

_NAME_BYTES = 63
_LONGEST = 10_485_760  # characters of character(n)
_HEADER = 4  # what a type modifier of text types counts besides characters
_Sides = tuple[Callable[[str], str], Callable[[str], str]]


def _whole(text: str) -> str:
    return text


def _stripped(text: str) -> str:
    return text.rstrip(" ")


def _equals(sides: _Sides, wanted: bool) -> Callable[[Context, str, str], bool]:
    first, second = sides
    if first is second is _whole:
        return same if wanted else lambda context, left, right: not same(context, left, right)
    return lambda context, left, right: same(context, first(left), second(right)) is wanted


def _orders(sides: _Sides, holds: Callable[[int, int], bool]) -> Callable[[Context, str, str], bool]:
    first, second = sides
    return lambda context, left, right: holds(compare(context, first(left), second(right)), 0)


def _byte_orders(side: Callable[[str], str], holds: Callable[[str, str], bool]) -> Callable[[Context, str, str], bool]:
    """The pattern operators, which compare bytes whatever the collation is."""

    def call(context: Context, left: str, right: str) -> bool:
        encoded(context, left, right)
        return holds(side(left), side(right))

    return call


def _chosen(side: Callable[[str], str], holds: Callable[[int, int], bool]) -> Callable[[Context, str, str], str]:
    """The larger or the smaller of two; of equal ones the second, as the server has it."""
    return lambda context, left, right: left if holds(compare(context, side(left), side(right)), 0) else right


_ORDERS = {"lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge}

# prefix of the functions' names: the types, and how each side is taken
_FAMILIES: dict[str, tuple[str, str, str, _Sides]] = {
    "text": ("text, text", "text", "text_", (_whole, _whole)),
    "bpchar": ("character, character", "bpchar", "bpchar", (_stripped, _stripped)),
    "name": ("name, name", "name", "name", (_whole, _whole)),
}

_TABLE: dict[str, Builtin] = {}
for _types, _equal, _order, _both in _FAMILIES.values():
    _TABLE[f"{_equal}eq({_types})"] = Builtin(_equals(_both, True), contextual=True, equality=True)
    _TABLE[f"{_equal}ne({_types})"] = Builtin(_equals(_both, False), contextual=True)
    for _word, _holds in _ORDERS.items():
        _TABLE[f"{_order}{_word}({_types})"] = Builtin(_orders(_both, _holds), contextual=True, ordered=True)

for _left, _right in (("name", "text"), ("text", "name")):
    _types, _both = f"{_left}, {_right}", (_whole, _whole)
    _TABLE[f"{_left}eq{_right}({_types})"] = Builtin(_equals(_both, True), contextual=True)
    _TABLE[f"{_left}ne{_right}({_types})"] = Builtin(_equals(_both, False), contextual=True)
    for _word, _holds in _ORDERS.items():
        _TABLE[f"{_left}{_word}{_right}({_types})"] = Builtin(_orders(_both, _holds), contextual=True, ordered=True)

for _prefix, _type, _side in (("text", "text", _whole), ("bpchar", "character", _stripped)):
    for _word, _holds in _ORDERS.items():
        _TABLE[f"{_prefix}_pattern_{_word}({_type}, {_type})"] = Builtin(_byte_orders(_side, _holds), contextual=True)

for _name, _type, _side in (("text_", "text", _whole), ("bpchar_", "character", _stripped)):
    for _word, _holds in (("larger", operator.gt), ("smaller", operator.lt)):
        _choice = Builtin(_chosen(_side, _holds), contextual=True, ordered=True)
        _TABLE[f"{_name}{_word}({_type}, {_type})"] = _choice


def _starts_with(context: Context, text: str, prefix: str) -> bool:
    certain(context, text, prefix)
    return text.startswith(prefix)


def _as_name(context: Context, text: str) -> str:
    """Cut to what a name holds: whole characters of 63 bytes together."""
    encoded(context, text)
    return text.encode()[:_NAME_BYTES].decode(errors="ignore")


def _as_name_stripped(context: Context, text: str) -> str:
    return _as_name(context, text).rstrip(" ")


def _to_character(text: str, modifier: int, explicit: bool) -> str:
    """To character(n): padded, or cut; only a cast that is written may cut more than blanks."""
    length = modifier - _HEADER
    if length > _LONGEST:
        raise Undecided("a length that character does not have")
    return text if length < 0 else _cut(text, length, explicit).ljust(length)


def _to_varying(text: str, modifier: int, explicit: bool) -> str:
    length = modifier - _HEADER
    return text if length < 0 else _cut(text, length, explicit)


def _cut(text: str, length: int, explicit: bool) -> str:
    if not explicit and text[length:].strip(" "):
        raise Failed("a text is too long for its type")
    return text[:length]


_TABLE |= {
    "starts_with(text, text)": Builtin(_starts_with, contextual=True),
    "text(character)": Builtin(_stripped),
    "text(name)": Builtin(_whole),
    "varchar(name)": Builtin(_whole),
    "bpchar(name)": Builtin(_whole),
    "name(text)": Builtin(_as_name, contextual=True),
    "name(character varying)": Builtin(_as_name, contextual=True),
    "name(character)": Builtin(_as_name_stripped, contextual=True),
    "bpchar(character, integer, boolean)": Builtin(_to_character),
    "varchar(character varying, integer, boolean)": Builtin(_to_varying),
}

TABLE: Table = _TABLE
