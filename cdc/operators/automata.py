"""An automaton for a regular expression, which reads each character of a text once.

Pure: no I/O. The states that a reading may be in together are one state of a second automaton, which is made while it
is needed and forgotten when it grows too large. Characters that no part of the pattern tells apart are one kind.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from cdc.operators.expressions import Alternatives, Border, Characters, Repeated, Sequence, Tree

__all__ = ["Automaton", "TooWideError"]

_MOST_STATES, _MOST_PARTS = 800, 4000
_MOST_WORK = 20_000
"""Steps of making states while one text is read."""
_MOST_KEPT = 20_000
_MATCHED, _BEGIN, _END, _EITHER = "matched", "begin", "end", "either"


class TooWideError(Exception):
    """The automaton would be too large, or a text would take too long."""


class Automaton:
    """Whether a regular expression matches anywhere in a text."""

    def __init__(self, tree: Tree) -> None:
        """Raises TooWideError."""
        # A state: which kinds of characters lead on, or one of the words above; and the states that follow.
        self._states: list[tuple[str | frozenset[int], tuple[int, ...]]] = [(_MATCHED, ())]
        self._starts, self._parts = _borders(tree), 0
        self._first = self._made(tree, 0)
        self._kinds: dict[str, int] = {}
        self._steps: dict[frozenset[int], dict[int, frozenset[int]]] = {}
        self._kept = 0
        self._begin = self._closure((self._first,), at_begin=True, at_end=False)

    def matches(self, text: str) -> bool:
        """Whether it does. Raises TooWideError."""
        state, kinds, work = self._begin, self._kinds, 0
        if 0 in state:
            return True
        for character in text:
            kind = kinds.get(character)
            if kind is None:
                kind = self._kind(character)
            following = self._steps.get(state, _NOTHING).get(kind)
            if following is None:
                work += len(state) + 1
                if work > _MOST_WORK:
                    raise TooWideError
                following = self._step(state, kind)
            if 0 in following:
                return True
            state = following
        return 0 in self._closure(state, at_begin=not text, at_end=True)

    def _kind(self, character: str) -> int:
        kind = bisect_right(self._starts, ord(character))
        if len(self._kinds) < _MOST_KEPT:
            self._kinds[character] = kind
        return kind

    def _step(self, state: frozenset[int], kind: int) -> frozenset[int]:
        seeds = {self._first}
        for number in state:
            accepted, following = self._states[number]
            if not isinstance(accepted, str) and kind in accepted:
                seeds.update(following)
        found = self._closure(seeds, at_begin=False, at_end=False)
        if self._kept >= _MOST_KEPT:
            self._steps, self._kept = {}, 0
        self._steps.setdefault(state, {})[kind] = found
        self._kept += 1
        return found

    def _closure(self, seeds: Iterable[int], *, at_begin: bool, at_end: bool) -> frozenset[int]:
        """The states reached without a character; those that wait for the end stay."""
        found: set[int] = set()
        waiting = list(seeds)
        while waiting:
            number = waiting.pop()
            if number in found:
                continue
            found.add(number)
            kind, following = self._states[number]
            if kind == _EITHER or (kind == _BEGIN and at_begin) or (kind == _END and at_end):
                waiting += following
        return frozenset(number for number in found if self._states[number][0] != _EITHER)

    def _add(self, kind: str | frozenset[int], following: tuple[int, ...]) -> int:
        if len(self._states) >= _MOST_STATES:
            raise TooWideError
        self._states.append((kind, following))
        return len(self._states) - 1

    def _made(self, tree: Tree, following: int) -> int:
        """The state at which the tree begins, when another state follows it."""
        self._parts += 1
        if self._parts > _MOST_PARTS:  # of which some make no state
            raise TooWideError
        if isinstance(tree, Characters):
            return self._add(self._accepted(tree), (following,))
        if isinstance(tree, Border):
            return self._add(_END if tree.at_end else _BEGIN, (following,))
        if isinstance(tree, Alternatives):
            return self._add(_EITHER, tuple(self._made(part, following) for part in tree.parts))
        if isinstance(tree, Repeated):
            return self._repeated(tree, following)
        for part in reversed(tree.parts):
            following = self._made(part, following)
        return following

    def _repeated(self, tree: Repeated, following: int) -> int:
        if tree.most is None:
            loop = self._add(_EITHER, ())
            self._states[loop] = (_EITHER, (self._made(tree.part, loop), following))
            start = loop
        else:
            start = following
            for _ in range(tree.most - tree.least):
                start = self._add(_EITHER, (self._made(tree.part, start), following))
        for _ in range(tree.least):
            start = self._made(tree.part, start)
        return start

    def _accepted(self, tree: Characters) -> frozenset[int]:
        kinds: set[int] = set()
        for low, high in tree.ranges:
            kinds.update(range(bisect_right(self._starts, low), bisect_right(self._starts, high) + 1))
        return frozenset(kinds)


_NOTHING: dict[int, frozenset[int]] = {}


def _borders(tree: Tree) -> list[int]:
    """Where one kind of characters ends and the next begins, in order."""
    borders: set[int] = set()
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Characters):
            for low, high in part.ranges:
                borders |= {low, high + 1}
        elif isinstance(part, Repeated):
            waiting.append(part.part)
        elif isinstance(part, (Sequence, Alternatives)):
            waiting += part.parts
    return sorted(borders)
