"""JSON as PostgreSQL's json and jsonb read it and as `->` and `->>` take it apart.

Pure: no I/O. Claims are JSON text, and a policy compares the text that `->>` makes of one of them. Only what both
sides surely read alike is read here: NUL and half surrogate pairs, which jsonb refuses, are refused, and the text of
an object or an array is not made at all. Numbers keep their digits, since 1.50 and 1.5 are different texts.
The manual: "JSON Types" and "JSON Functions and Operators".
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from cdc.values.documents import DEEPEST, is_deep

__all__ = ["Document", "parse"]

_WHOLE_DIGITS, _SCALE = 131072, 16383


class _Number(str):
    """The digits of a JSON number, as they were written."""

    __slots__ = ()


class _Null:
    """JSON's null, which is a value; SQL's NULL is None."""


_NULL: Final = _Null()


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON value.

    Attributes:
        value: dict, list, str, bool or what stands for a number or a null.
        binary: whether it is jsonb, which prints a number in the form of numeric; json prints it as written.
    """

    value: Any
    binary: bool

    def field(self, name: str) -> Document | None:
        """What `-> 'name'` gives; None is NULL."""
        if not isinstance(self.value, dict) or name not in self.value:
            return None
        return Document(self.value[name], self.binary)

    def text(self) -> str | None:
        """What `->>` makes of this value; None is NULL. Raises ValueError for an object or an array."""
        value = self.value
        if value is _NULL:
            return None
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, _Number):
            return _numeric(value) if self.binary else str(value)
        if isinstance(value, str):
            return value
        raise ValueError("it is an object or an array")

    @property
    def seconds(self) -> float | None:
        """The value of a number that says when; None when it is none."""
        if not isinstance(self.value, _Number):
            return None
        seconds = float(self.value)
        return seconds if math.isfinite(seconds) else None

    @property
    def names(self) -> list[str]:
        """The names of an object's fields."""
        return list(self.value) if isinstance(self.value, dict) else []


def parse(text: str, *, binary: bool = True) -> Document:
    """The document that the text is. Raises ValueError, which does not quote the text, when it is not JSON."""
    try:
        value = json.loads(
            text,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_refuse,
            object_pairs_hook=_object,
        )
        text.encode()
        if text.count("[") + text.count("{") > DEEPEST and is_deep(value):
            raise RecursionError
        return Document(_checked(value), binary)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos}") from None
    except UnicodeEncodeError:
        raise ValueError("it contains half a surrogate pair") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of the pairs, the last of several with one name, as jsonb keeps it."""
    return {_checked(name): _checked(value) for name, value in pairs}


def _checked(value: Any) -> Any:
    """The value with `_NULL` for None. Raises ValueError for a string that PostgreSQL's text cannot hold."""
    if value is None:
        return _NULL
    if isinstance(value, list):
        return [_checked(item) for item in value]
    if isinstance(value, str):
        if "\x00" in value:
            raise ValueError("it contains the character NUL")
        value.encode()
    return value


def _numeric(digits: str) -> str:
    """The number as numeric prints it. Raises ValueError when numeric cannot hold it."""
    try:
        number = Decimal(digits)
    except InvalidOperation:
        raise ValueError("it is a number that numeric cannot hold") from None
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or number.adjusted() >= _WHOLE_DIGITS or exponent < -_SCALE:
        raise ValueError("it is a number that numeric cannot hold")
    return format(number.copy_abs() if number.is_zero() else number, "f")
