"""Functions of texts: case, length, parts, search and replacement.

Pure: no I/O. Positions and lengths count characters. Functions that search do so byte by byte, as the server does under
every deterministic collation. The manual: "String Functions and Operators".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from cdc.operators.builtins import Builtin, Table
from cdc.operators.collating import certain, encoded, lowered, raised
from cdc.operators.context import Collation, Context, Failed, Undecided

__all__ = ["TABLE"]

_MOST = 4_000_000  # characters of a result; a policy does not need more, and a reader must not be able to ask for them
_LAST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)
_INTEGER_END = 2**31


def _bounded(count: int) -> None:
    if count > _MOST:
        raise Undecided("a function makes a very long text")


def _initcap(context: Context, text: str) -> str:
    """The first letter of each word raised, the others lowered; words are made of ASCII letters and digits."""
    if context.collation is not Collation.CODE_POINT:
        raise Undecided("initcap under a collation that only the server knows")
    encoded(context, text)
    made, inside = [], False
    for character in text:
        made.append(lowered(context, character) if inside else raised(context, character))
        inside = character.isascii() and character.isalnum()
    return "".join(made)


def _octets(context: Context, text: str) -> int:
    encoded(context, text)
    return len(text.encode())


def _split_part(context: Context, text: str, separator: str, number: int) -> str:
    """The part of a number, counted from 1, or from the end when it is negative."""
    if number == 0:
        raise Failed("the number of a part must not be zero")
    certain(context, text, separator)
    parts = text.split(separator) if separator else [text]
    place = number - 1 if number > 0 else len(parts) + number
    return parts[place] if 0 <= place < len(parts) else ""


def _from(text: str, start: int) -> str:
    return text[max(start, 1) - 1 :]


def _substring(text: str, start: int, length: int) -> str:
    if length < 0:
        raise Failed("negative substring length not allowed")
    end = start + length
    return text[max(start, 1) - 1 : max(end, 1) - 1]


def _left(text: str, count: int) -> str:
    return text[: max(count if count >= 0 else len(text) + count, 0)]


def _right(text: str, count: int) -> str:
    if count == -_INTEGER_END:
        raise Undecided("right with the smallest integer")
    return text[-count:] if count < 0 else text[max(len(text) - count, 0) :]


def _replace(context: Context, text: str, old: str, new: str) -> str:
    certain(context, text, old, new)
    if not old:
        return text
    _bounded(len(text) + text.count(old) * len(new))
    return text.replace(old, new)


def _position(context: Context, text: str, wanted: str) -> int:
    certain(context, text, wanted)
    return text.find(wanted) + 1


def _joined(left: str, right: str) -> str:
    _bounded(len(left) + len(right))
    return left + right


def _concat(*values: object) -> str:
    return "".join(_as_text(value) for value in values if value is not None)


def _concat_with(separator: str | None, *values: object) -> str | None:
    if separator is None:
        return None
    return separator.join(_as_text(value) for value in values if value is not None)


def _as_text(value: object) -> str:
    """Texts as they are. What else a datum is depends on its type, which is not known here."""
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, str):
        return value
    raise Undecided("concat of a value that is no text")


def _repeat(text: str, count: int) -> str:
    _bounded(len(text) * max(count, 0))
    return text * count


def _left_padded(text: str, length: int, fill: str = " ") -> str:
    return _padding(text, length, fill) + text[: max(length, 0)]


def _right_padded(text: str, length: int, fill: str = " ") -> str:
    return text[: max(length, 0)] + _padding(text, length, fill)


def _padding(text: str, length: int, fill: str) -> str:
    missing = length - len(text)
    if missing <= 0 or not fill:
        return ""
    _bounded(length)
    return (fill * (missing // len(fill) + 1))[:missing]


def _translate(text: str, old: str, new: str) -> str:
    """Each character of `old` becomes that of `new` in its place, or goes; the first counts."""
    table = {ord(each): new[place] if place < len(new) else None for place, each in reversed(list(enumerate(old)))}
    return text.translate(table)


def _ascii(context: Context, text: str) -> int:
    encoded(context, text)
    return ord(text[0]) if text else 0


def _chr(context: Context, code: int) -> str:
    if not context.utf8 and code > 127:
        raise Undecided("chr beyond ASCII in a database whose encoding is not UTF8")
    if not 0 < code <= _LAST or code in _SURROGATES:
        raise Failed("there is no such character")
    return chr(code)


def _overlay(text: str, new: str, start: int, length: int) -> str:
    if start <= 0:
        raise Failed("negative substring length not allowed")
    if not -_INTEGER_END <= start + length < _INTEGER_END:
        raise Failed("integer out of range")
    return text[: start - 1] + new + _from(text, start + length)


def _overlay_whole(text: str, new: str, start: int) -> str:
    return _overlay(text, new, start, len(new))


def _digest(context: Context, text: str) -> str:
    encoded(context, text)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _without_blanks(call: Callable[[str], object]) -> Builtin:
    """A function of character that does not count the padding."""
    return Builtin(lambda text: call(text.rstrip(" ")))


_TRIMS: dict[str, Callable[[str, str], str]] = {"btrim": str.strip, "ltrim": str.lstrip, "rtrim": str.rstrip}


def _trim(strip: Callable[[str, str], str]) -> Callable[[str, str], str]:
    return lambda text, characters: strip(text, characters) if characters else text


def _trim_blanks(strip: Callable[[str, str], str]) -> Callable[[str], str]:
    return lambda text: strip(text, " ")


_TABLE: dict[str, Builtin] = {
    "lower(text)": Builtin(lowered, contextual=True),
    "upper(text)": Builtin(raised, contextual=True),
    "initcap(text)": Builtin(_initcap, contextual=True),
    "octet_length(text)": Builtin(_octets, contextual=True),
    "octet_length(character)": Builtin(_octets, contextual=True),
    "bit_length(text)": Builtin(lambda context, text: 8 * _octets(context, text), contextual=True),
    "split_part(text, text, integer)": Builtin(_split_part, contextual=True),
    "substring(text, integer)": Builtin(_from),
    "substring(text, integer, integer)": Builtin(_substring),
    "substr(text, integer)": Builtin(_from),
    "substr(text, integer, integer)": Builtin(_substring),
    "left(text, integer)": Builtin(_left),
    "right(text, integer)": Builtin(_right),
    "replace(text, text, text)": Builtin(_replace, contextual=True),
    "strpos(text, text)": Builtin(_position, contextual=True),
    "position(text, text)": Builtin(_position, contextual=True),
    "textcat(text, text)": Builtin(_joined),
    'concat(VARIADIC "any")': Builtin(_concat, strict=False),
    'concat_ws(text, VARIADIC "any")': Builtin(_concat_with, strict=False),
    "repeat(text, integer)": Builtin(_repeat),
    "reverse(text)": Builtin(lambda text: text[::-1]),
    "lpad(text, integer)": Builtin(_left_padded),
    "lpad(text, integer, text)": Builtin(_left_padded),
    "rpad(text, integer)": Builtin(_right_padded),
    "rpad(text, integer, text)": Builtin(_right_padded),
    "translate(text, text, text)": Builtin(_translate),
    "ascii(text)": Builtin(_ascii, contextual=True),
    "chr(integer)": Builtin(_chr, contextual=True),
    "overlay(text, text, integer)": Builtin(_overlay_whole),
    "overlay(text, text, integer, integer)": Builtin(_overlay),
    "md5(text)": Builtin(_digest, contextual=True),
}
for _name in ("length", "char_length", "character_length"):
    _TABLE[f"{_name}(text)"] = Builtin(len)
    _TABLE[f"{_name}(character)"] = _without_blanks(len)
_TABLE["textlen(text)"] = Builtin(len)
for _name, _strip in _TRIMS.items():
    _TABLE[f"{_name}(text)"] = Builtin(_trim_blanks(_strip))
    _TABLE[f"{_name}(text, text)"] = Builtin(_trim(_strip))

TABLE: Table = _TABLE
