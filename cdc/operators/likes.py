"""LIKE and ILIKE.

Pure: no I/O. A pattern is cut at its `%` into pieces of fixed length, and each is looked for behind the one before: the
time is that of searching, never that of trying again. `_` is one character, and the escape is a backslash; a pattern
that ends in one is an error, but only where matching reaches it, so such a pattern is followed as the server does.
The manual: "Pattern Matching", LIKE.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from cdc.operators.builtins import Builtin, Table
from cdc.operators.collating import certain, lowered
from cdc.operators.context import Context, Failed, Undecided

__all__ = ["TABLE", "like"]

_MOST_PERCENTS = 100
_Matcher = Callable[[str], bool]


def like(text: str, pattern: str) -> bool:
    """`text LIKE pattern`. Raises Failed when the pattern ends in an escape and matching comes so far."""
    return _matcher(pattern)(text)


@lru_cache(maxsize=1024)
def _matcher(pattern: str) -> _Matcher:
    pieces, literal = _pieces(pattern)
    if pieces is None:
        return lambda text: _followed(text, pattern)
    if len(pieces) == 1:
        return _exactly(pieces[0], literal[0])
    found = [re.compile(piece, re.DOTALL) for piece in pieces]
    first, last, width = found[0], found[-1], len(literal[-1])

    def match(text: str) -> bool:
        start = first.match(text)
        if start is None:
            return False
        place = start.end()
        for piece in found[1:-1]:
            middle = piece.search(text, place)
            if middle is None:
                return False
            place = middle.end()
        end = len(text) - width
        return end >= place and last.match(text, end) is not None

    return match


def _exactly(piece: str, literal: str) -> _Matcher:
    width, found = len(literal), re.compile(piece, re.DOTALL)
    return lambda text: len(text) == width and found.match(text) is not None


def _pieces(pattern: str) -> tuple[list[str] | None, list[str]]:
    """Between the `%`, as regular expressions of fixed length, and as the characters that they stand for.

    None when the pattern ends in an escape.
    """
    pieces, literals, characters = [""], [""], iter(pattern)
    for character in characters:
        if character == "%":
            pieces.append("")
            literals.append("")
            continue
        if character == "\\":
            character = next(characters, "")
            if not character:
                return None, []
            pieces[-1] += re.escape(character)
        else:
            pieces[-1] += "." if character == "_" else re.escape(character)
        literals[-1] += character
    return pieces, literals


def _followed(text: str, pattern: str) -> bool:
    """By a pattern that ends in an escape, step by step, since it may be decided before that is reached."""
    if pattern.count("%") > _MOST_PERCENTS:
        raise Undecided("a pattern that ends in an escape and has very many %")
    return _step(text, 0, pattern, 0) is True


def _step(text: str, at: int, pattern: str, place: int) -> bool | None:
    """Whether the rest matches; None when no later beginning can match either. As MatchText in like_match.c."""
    while at < len(text) and place < len(pattern):
        sign = pattern[place]
        if sign == "%":
            return _behind_percent(text, at, pattern, place + 1)
        if sign == "\\":
            place += 1
            if text[at] != _escaped(pattern, place):
                return False
        elif sign not in ("_", text[at]):
            return False
        at, place = at + 1, place + 1
    if at < len(text):
        return False
    return True if not pattern[place:].strip("%") else None


def _behind_percent(text: str, at: int, pattern: str, place: int) -> bool | None:
    while place < len(pattern) and pattern[place] in "%_":
        if pattern[place] == "_":
            if at >= len(text):
                return None
            at += 1
        place += 1
    if place >= len(pattern):
        return True
    wanted = _escaped(pattern, place + 1) if pattern[place] == "\\" else pattern[place]
    while at < len(text):
        if text[at] == wanted:
            matched = _step(text, at, pattern, place)
            if matched is not False:
                return matched
        at += 1
    return None


def _escaped(pattern: str, place: int) -> str:
    if place >= len(pattern):
        raise Failed("a LIKE pattern must not end with an escape character")
    return pattern[place]


def _like(context: Context, text: str, pattern: str) -> bool:
    certain(context, text, pattern)
    return _matcher(pattern)(text)


def _ilike(context: Context, text: str, pattern: str) -> bool:
    certain(context, text, pattern)
    return _matcher(lowered(context, pattern))(lowered(context, text))


def _binary_like(value: bytes, pattern: bytes) -> bool:
    """As characters of one byte each."""
    return _matcher(pattern.decode("latin-1"))(value.decode("latin-1"))


def _escape(context: Context, pattern: str, escape: str) -> str:
    """like_escape: the pattern with a backslash for its own escape."""
    certain(context, pattern, escape)
    if len(escape) > 1:
        raise Failed("an escape must be empty or one character")
    if escape == "\\":
        return pattern
    if not escape:
        return pattern.replace("\\", "\\\\")
    return "".join(_with_backslashes(pattern, escape))


def _with_backslashes(pattern: str, escape: str) -> list[str]:
    written, after = [], False
    for character in pattern:
        if character == escape and not after:
            written.append("\\")
            after = True
            continue
        written.append("\\\\" if character == "\\" and not after else character)
        after = False
    return written


def _not(call: Callable[..., bool]) -> Callable[..., bool]:
    return lambda *args: not call(*args)


_TABLE: dict[str, Builtin] = {
    "like_escape(text, text)": Builtin(_escape, contextual=True),
    "bytealike(bytea, bytea)": Builtin(_binary_like),
    "byteanlike(bytea, bytea)": Builtin(_not(_binary_like)),
    "like(bytea, bytea)": Builtin(_binary_like),
    "notlike(bytea, bytea)": Builtin(_not(_binary_like)),
}
for _names, _types in (
    (("textlike", "textnlike"), "text, text"),
    (("like", "notlike"), "text, text"),
    (("bpcharlike", "bpcharnlike"), "character, text"),
    (("namelike", "namenlike"), "name, text"),
    (("like", "notlike"), "name, text"),
):
    for _name, _call in zip(_names, (_like, _not(_like)), strict=True):
        _TABLE[f"{_name}({_types})"] = Builtin(_call, contextual=True)
for _prefix, _types in (("text", "text, text"), ("bpchar", "character, text"), ("name", "name, text")):
    _TABLE[f"{_prefix}iclike({_types})"] = Builtin(_ilike, contextual=True)
    _TABLE[f"{_prefix}icnlike({_types})"] = Builtin(_not(_ilike), contextual=True)

TABLE: Table = _TABLE
