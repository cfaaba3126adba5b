"""The datum of jsonb: how it is read and printed, when two are equal, and what contains what.

Pure: no I/O. Numbers are those of numeric, with their digits: 1.50 prints as it was written, and equals 1.5. Of several
fields with one name the last counts. json has no datum of its own: it is the text as it was written.
The manual: "JSON Types", jsonb Containment and Existence.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn, TypeAlias

from cdc.operators.codec import Codec
from cdc.operators.context import Context, Failed, Undecided
from cdc.values.documents import DEEPEST, is_deep

__all__ = ["CODECS", "Json", "contains", "equals", "loaded", "printed", "text_of"]

Value: TypeAlias = Any
"""dict, list, str, Decimal, bool, or None for JSON's null."""

_WHOLE_DIGITS, _SCALE = 131072, 16383


@dataclass(frozen=True, slots=True, eq=False)
class Json:
    """A jsonb value. SQL's NULL is None; JSON's null is `Json(None)`.

    Attributes:
        value: dict, list, str, Decimal, bool or None.
    """

    value: Value


def loaded(text: str) -> Json:
    """The jsonb that a text is read as. Raises Failed for what is no jsonb, Undecided for what is not read here."""
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError:
        raise Failed("the text is not JSON") from None
    except RecursionError:
        raise Undecided("a JSON document is nested too deep") from None
    if text.count("[") + text.count("{") > DEEPEST and is_deep(value):
        raise Undecided("a JSON document is nested too deep")
    if "\\u" in text:
        _characters(value)
    return Json(value)


def _read(cell: bytes) -> Json:
    try:
        return loaded(cell.decode())
    except (Failed, Undecided) as problem:
        raise ValueError(str(problem)) from None


def _number(digits: str) -> Decimal:
    """As numeric has it. Raises Undecided beyond what it holds, where it rounds or fails."""
    try:
        number = Decimal(digits)
    except InvalidOperation:
        raise Undecided("a JSON number is too large") from None
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or number.adjusted() >= _WHOLE_DIGITS or exponent < -_SCALE:
        raise Undecided("a JSON number is too large")
    return number.copy_abs() if number.is_zero() else number


def _no_constant(word: str) -> NoReturn:
    raise Failed("the text is not JSON")


_DECODER = json.JSONDecoder(parse_int=_number, parse_float=_number, parse_constant=_no_constant)


def _characters(value: Value) -> None:
    """Raises Failed for an escape that stands for no character: NUL, or half a surrogate pair."""
    if isinstance(value, str):
        if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise Failed("a JSON text has an escape that is no character")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _characters(name)
            _characters(inner)
    elif isinstance(value, list):
        for inner in value:
            _characters(inner)


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_TABLE = {ord(raw): escape for raw, escape in _ESCAPES.items()} | {
    code: f"\\u{code:04x}" for code in range(32) if chr(code) not in _ESCAPES
}


def printed(value: Value) -> str:
    """The text of jsonb: a blank behind each `:` and `,`, and fields by the length of their names, then by bytes."""
    if isinstance(value, dict):
        fields = sorted((len(name.encode()), name.encode(), name) for name in value)
        return "{" + ", ".join(f"{_string(name)}: {printed(value[name])}" for _, _, name in fields) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(printed, value)) + "]"
    if isinstance(value, str):
        return _string(value)
    return "null" if value is None else _plain(value)


def _string(text: str) -> str:
    return f'"{text.translate(_TABLE)}"'


def _plain(value: bool | Decimal) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return format(value, "f")


def text_of(value: Value) -> str | None:
    """What `->>` makes of a value; None is NULL."""
    if value is None or isinstance(value, str):
        return value
    return printed(value) if isinstance(value, (dict, list)) else _plain(value)


def equals(left: Value, right: Value) -> bool:
    """`=` of jsonb: numbers by value, true is no number."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equals(inner, right[name]) for name, inner in left.items())
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equals, left, right))
    return bool(left == right)


def contains(outer: Value, inner: Value) -> bool:
    """`@>`. An array contains a scalar that is one of its elements, at the top only."""
    if isinstance(outer, list) and not isinstance(inner, (dict, list)):
        return any(equals(element, inner) for element in outer)
    return _inside(outer, inner)


def _inside(outer: Value, inner: Value) -> bool:
    if type(outer) is not type(inner):
        return False
    if isinstance(outer, dict):
        return all(name in outer and _inside(outer[name], value) for name, value in inner.items())
    if isinstance(outer, list):
        return all(any(_inside(element, value) for element in outer) for value in inner)
    return bool(outer == inner)


def _json_input(context: Context, text: str) -> str:
    """json keeps the text, when it is JSON. Escapes are looked at when a part is taken."""
    try:
        value = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_constant).decode(text)
    except json.JSONDecodeError:
        raise Failed("the text is not JSON") from None
    except RecursionError:
        raise Undecided("a JSON document is nested too deep") from None
    if text.count("[") + text.count("{") > DEEPEST and is_deep(value):
        raise Undecided("a JSON document is nested too deep")
    return text


CODECS = {
    114: Codec(bytes.decode, _json_input, lambda context, text: str(text)),
    3802: Codec(_read, lambda context, text: loaded(text), lambda context, value: printed(value.value)),
}
"""json and jsonb."""
