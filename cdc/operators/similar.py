"""SIMILAR TO: the regular expression that the server makes of its pattern.

Pure: no I/O. What stands in brackets is taken as it is when every version does so; the rest is left to the server.
The manual: "Pattern Matching", SIMILAR TO Regular Expressions.
"""

from __future__ import annotations

import re

from cdc.operators.builtins import Builtin, Table
from cdc.operators.collating import certain
from cdc.operators.context import Context, Failed, Undecided

__all__ = ["TABLE"]

_BRACKET = re.compile(r"\[\^?[^\[\]\\\"^]+\]")
_MEANINGS = {"%": ".*", "_": ".", "(": "(?:", "\\": "\\\\", ".": "\\.", "^": "\\^", "$": "\\$"}


def _escaped(context: Context, pattern: str) -> str:
    return _with_escape(context, pattern, "\\")


def _with_escape(context: Context, pattern: str, escape: str) -> str:
    certain(context, pattern, escape)
    if len(escape) > 1:
        raise Failed("an escape must be empty or one character")
    made, place = ["^(?:"], 0
    while place < len(pattern):
        sign = pattern[place]
        if sign == escape:
            made.append(_literal(pattern[place + 1 : place + 2]))
            place += 2
            continue
        piece = _bracket(pattern, place, escape) if sign == "[" else sign
        made.append(piece if sign == "[" else _MEANINGS.get(sign, sign))
        place += len(piece)
    return "".join([*made, ")$"])


def _literal(sign: str) -> str:
    if sign == '"':
        raise Undecided("a pattern that is cut into parts by its escapes")
    return "\\" + sign if sign else ""


def _bracket(pattern: str, place: int, escape: str) -> str:
    match = _BRACKET.match(pattern, place)
    if match is None or (escape and escape in match[0]):
        raise Undecided("a pattern with brackets that not every version reads alike")
    return match[0]


TABLE: Table = {
    "similar_to_escape(text)": Builtin(_escaped, contextual=True),
    "similar_to_escape(text, text)": Builtin(_with_escape, contextual=True),
}
