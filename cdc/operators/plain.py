"""Character types, as far as reading and writing them goes.

Pure: no I/O. What is computed with texts is elsewhere. The manual: "Data Types", Character Types.
"""

from __future__ import annotations

from cdc.operators.codec import Codec
from cdc.operators.context import Context, Failed, Undecided
from cdc.values.equality import encoded
from cdc.values.texts import NAME

__all__ = ["CODECS"]


def _same(context: Context, text: str) -> str:
    return text


def _input(context: Context, text: str) -> str:
    try:
        encoded(text)
    except ValueError:
        raise Failed("characters that no text has") from None
    return text


def _name(context: Context, text: str) -> str:
    """Cut at 63 bytes."""
    if not context.utf8 and not text.isascii():
        raise Undecided("a name beyond ASCII in another encoding than UTF8")
    return str(NAME.from_text(_input(context, text)), "utf-8")  # type: ignore[call-overload, no-any-return]  # bytes


_TEXT = Codec(bytes.decode, _input, _same)

CODECS = {25: _TEXT, 705: _TEXT, 1043: _TEXT, 1042: _TEXT, 19: Codec(bytes.decode, _name, _same)}
"""text, varchar, char(n) without its length, and name."""
