"""Reads PostgreSQL's advanced regular expressions, as far as they are certain, into a tree.

Pure: no I/O. A class such as `\\d` is its ASCII characters, which it has under every collation; whether it may have
others is told with the tree. The manual: "Pattern Matching", Regular Expression Details.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["LAST", "Alternatives", "Border", "Characters", "Ranges", "Refused", "Repeated", "Sequence", "Tree", "parse"]

LAST = 0x10FFFF
Ranges: TypeAlias = tuple[tuple[int, int], ...]

_MOST_REPEATS, _DEEPEST = 255, 50
_BOUND = re.compile(r"\{([0-9]{1,3})(,([0-9]{1,3})?)?\}")
_NAMED = re.compile(r"\[:([a-z]+):\]")
_QUANTIFIERS = "*+?{"
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}


class Refused(Exception):
    """A pattern that is an error, or not certain to mean the same here."""


@dataclass(frozen=True, slots=True)
class Characters:
    """One of these characters: ranges of code points, in order and apart."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Border:
    """The beginning of the text, or its end."""

    at_end: bool


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Any of several."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Repeated:
    """So many times; `most` is None for any number."""

    part: Tree
    least: int
    most: int | None


Tree: TypeAlias = "Characters | Border | Sequence | Alternatives | Repeated"

_DIGITS: Ranges = ((48, 57),)
_UPPER: Ranges = ((65, 90),)
_LOWER: Ranges = ((97, 122),)
_SPACES: Ranges = ((9, 13), (32, 32))
_ALPHABET = _UPPER + _LOWER
_CLASSES: dict[str, Ranges] = {
    "alnum": _DIGITS + _ALPHABET,
    "alpha": _ALPHABET,
    "blank": ((9, 9), (32, 32)),
    "digit": _DIGITS,
    "lower": _LOWER,
    "space": _SPACES,
    "upper": _UPPER,
    "xdigit": (*_DIGITS, (65, 70), (97, 102)),
}
_SHORT: dict[str, Ranges] = {"d": _DIGITS, "s": _SPACES, "w": (*_DIGITS, *_UPPER, (95, 95), *_LOWER)}


def parse(pattern: str, ignores_case: bool) -> tuple[Tree, bool, bool]:
    """The pattern's tree; whether the collation says what a class has beyond ASCII; whether case beyond ASCII counts.

    Raises Refused.
    """
    reader = _Reader(pattern, ignores_case)
    tree = reader.alternatives(0)
    if reader.at < len(pattern):
        raise Refused
    return tree, reader.is_local, ignores_case and not pattern.isascii()


class _Reader:
    """Where reading is."""

    def __init__(self, pattern: str, ignores_case: bool) -> None:
        self.pattern = pattern
        self.ignores_case = ignores_case
        self.at = 0
        self.is_local = False

    def next(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def take(self) -> str:
        character = self.next()
        if not character:
            raise Refused
        self.at += 1
        return character

    def alternatives(self, depth: int) -> Tree:
        if depth > _DEEPEST:
            raise Refused
        branches = [self.branch(depth)]
        while self.next() == "|":
            self.at += 1
            branches.append(self.branch(depth))
        return branches[0] if len(branches) == 1 else Alternatives(tuple(branches))

    def branch(self, depth: int) -> Tree:
        parts: list[Tree] = []
        while self.next() not in ("", "|", ")"):
            atom = self.atom(depth)
            if self.next() in _QUANTIFIERS and self.next():
                if isinstance(atom, Border):
                    raise Refused
                atom = self.quantified(atom)
            parts.append(atom)
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def quantified(self, atom: Tree) -> Tree:
        sign = self.next()
        if sign == "{":
            least, most = self.bound()
        else:
            self.at += 1
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        if self.next() == "?":  # not greedy, which changes what is matched and not whether
            self.at += 1
        if self.next() and self.next() in _QUANTIFIERS:
            raise Refused
        return Repeated(atom, least, most)

    def bound(self) -> tuple[int, int | None]:
        match = _BOUND.match(self.pattern, self.at)
        if match is None:
            raise Refused
        self.at = match.end()
        least = int(match[1])
        most = int(match[3]) if match[3] else None if match[2] else least
        if max(least, most or 0) > _MOST_REPEATS or (most is not None and most < least):
            raise Refused
        return least, most

    def atom(self, depth: int) -> Tree:
        sign = self.take()
        if sign in _QUANTIFIERS or sign == ")":
            raise Refused
        if sign == "(":
            return self.group(depth)
        if sign == "[":
            return self.bracket()
        if sign in "^$":
            return Border(sign == "$")
        if sign == ".":
            return Characters(((0, LAST),))
        return self.escape() if sign == "\\" else self.characters([(ord(sign), ord(sign))])

    def group(self, depth: int) -> Tree:
        if self.next() == "?":
            self.at += 1
            if self.take() != ":":
                raise Refused
        tree = self.alternatives(depth + 1)
        if self.take() != ")":
            raise Refused
        return tree

    def escape(self) -> Tree:
        sign = self.take()
        if sign in _SHORT:
            self.is_local = True
            return Characters(_SHORT[sign])
        if sign in ("D", "S", "W"):
            self.is_local = True
            return Characters(_complement(_SHORT[sign.lower()]))
        code = ord(_literal(sign))
        return self.characters([(code, code)])

    def bracket(self) -> Tree:
        negated = self.next() == "^"
        self.at += negated
        ranges: list[tuple[int, int]] = []
        is_first = True
        while is_first or self.next() != "]":
            ranges += self.item(is_first)
            is_first = False
        self.at += 1
        found = self.characters(ranges)
        return Characters(_complement(found.ranges)) if negated else found

    def item(self, is_first: bool) -> list[tuple[int, int]]:
        named = _NAMED.match(self.pattern, self.at)
        if named is not None:
            return self.named(named)
        sign = self.take()
        if sign == "[" and self.next() in (".", "=", ":"):
            raise Refused
        if sign == "-" and not is_first and self.next() != "]":
            raise Refused
        if sign == "\\":
            sign = self.take()
            if sign in _SHORT:
                self.is_local = True
                return self.whole(_SHORT[sign])
            sign = _literal(sign)
        return [(ord(sign), self.range_end(sign))]

    def named(self, match: re.Match[str]) -> list[tuple[int, int]]:
        self.at = match.end()
        self.is_local = True
        name = "alpha" if self.ignores_case and match[1] in ("lower", "upper") else match[1]
        return self.whole(_CLASSES.get(name, ()))

    def whole(self, ranges: Ranges) -> list[tuple[int, int]]:
        """A class in brackets, which begins no range."""
        if not ranges or (self.next() == "-" and self.pattern[self.at : self.at + 2] != "-]"):
            raise Refused
        return [*ranges]

    def range_end(self, start: str) -> int:
        rest = self.pattern[self.at : self.at + 2]
        if not rest.startswith("-") or rest == "-]":
            return ord(start)
        self.at += 1
        end = self.take()
        if end in "[-" or start == "-":
            raise Refused
        if end == "\\":
            end = _literal(self.take())
        if end < start:
            raise Refused
        return ord(end)

    def characters(self, ranges: list[tuple[int, int]]) -> Characters:
        found = list(ranges)
        if self.ignores_case:
            for low, high in ranges:
                found += _other_case(low, high)
        return Characters(_merged(found))


def _literal(sign: str) -> str:
    """What a backslash and a character stand for."""
    if sign in _CONTROLS:
        return _CONTROLS[sign]
    if not sign.isascii() or sign.isalnum():
        raise Refused
    return sign


def _other_case(low: int, high: int) -> list[tuple[int, int]]:
    shifted = [(max(low, start), min(high, end), shift) for start, end, shift in ((65, 90, 32), (97, 122, -32))]
    return [(start + shift, end + shift) for start, end, shift in shifted if start <= end]


def _merged(ranges: list[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _complement(ranges: Ranges) -> Ranges:
    left, start = [], 0
    for low, high in _merged(list(ranges)):
        if low > start:
            left.append((start, low - 1))
        start = high + 1
    if start <= LAST:
        left.append((start, LAST))
    return tuple(left)
