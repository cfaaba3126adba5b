"""Conditions: what a policy's expression becomes when it is compiled, the same for every subject.

Pure: no I/O. A condition is a small tree of a few shapes. Bound to a subject it is a predicate over cells: session
expressions have become constants, and what follows from constants alone is folded, so that a predicate reads only
the columns that still matter. Whoever wants to find subscribers by a column's value finds the pairs in `Equals`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from cdc.predicate import FALSE, NULL, TRUE, Predicate, constant, equal, every, some
from cdc.rls.session import Session, SessionError
from cdc.rls.subject import Subject
from cdc.values import Equality

__all__ = ["And", "Condition", "Equals", "Holds", "Operand", "Or", "SameSession", "all_of", "any_of"]


class Condition(Protocol):
    """A compiled condition."""

    def bind(self, subject: Subject) -> Predicate:
        """The predicate for a subject. Raises SessionError when a session expression has no value for it."""


@dataclass(frozen=True, slots=True)
class Operand:
    """One side of an equality: a session expression and the equality of the type that the operator takes there."""

    session: Session
    equality: Equality

    def key(self, subject: Subject) -> object:
        """The hashable of the value; None is NULL. Raises SessionError."""
        text = self.session.text(subject)
        if text is None:
            return None
        try:
            return self.equality.from_text(text)
        except ValueError:
            raise SessionError(f"{self.session.words}: the text is not a value of its type") from None


@dataclass(frozen=True, slots=True)
class Equals:
    """`column = session expression`; `read` turns a cell into what the value's hashable is compared with."""

    column: int
    read: Callable[[bytes], object] | None
    operand: Operand

    def bind(self, subject: Subject) -> Predicate:
        """NULL for every row when the value is NULL, else the comparison with it."""
        key = self.operand.key(subject)
        return constant(NULL) if key is None else equal(self.column, key, self.read)


@dataclass(frozen=True, slots=True)
class SameSession:
    """`session expression = session expression`, which no row changes."""

    left: Operand
    right: Operand

    def bind(self, subject: Subject) -> Predicate:
        """One outcome for every row."""
        left, right = self.left.key(subject), self.right.key(subject)
        if left is None or right is None:
            return constant(NULL)
        return constant(TRUE if left == right else FALSE)


@dataclass(frozen=True, slots=True)
class Holds:
    """A session expression that is itself a boolean."""

    operand: Operand

    def bind(self, subject: Subject) -> Predicate:
        """One outcome for every row."""
        key = self.operand.key(subject)
        return constant(NULL if key is None else TRUE if key == b"t" else FALSE)


@dataclass(frozen=True, slots=True)
class And:
    """AND."""

    parts: tuple[Condition, ...]

    def bind(self, subject: Subject) -> Predicate:
        """Binds every part, so that an error in one is an error, whatever the others say."""
        return all_of([part.bind(subject) for part in self.parts])


@dataclass(frozen=True, slots=True)
class Or:
    """OR."""

    parts: tuple[Condition, ...]

    def bind(self, subject: Subject) -> Predicate:
        """Binds every part, so that an error in one is an error, whatever the others say."""
        return any_of([part.bind(subject) for part in self.parts])


def all_of(predicates: Iterable[Predicate]) -> Predicate:
    """AND, folded: FALSE when one is FALSE for every row, and without those that are TRUE for every row."""
    return _folded(list(predicates), every, FALSE, TRUE)


def any_of(predicates: Iterable[Predicate]) -> Predicate:
    """OR, folded: TRUE when one is TRUE for every row, and without those that are FALSE for every row."""
    return _folded(list(predicates), some, TRUE, FALSE)


def _folded(
    predicates: list[Predicate], join: Callable[[Iterable[Predicate]], Predicate], absorbing: int, neutral: int
) -> Predicate:
    known = [None if predicate.columns else predicate.test(()) for predicate in predicates]
    if absorbing in known:
        return constant(absorbing)
    rest = [predicate for predicate, outcome in zip(predicates, known, strict=True) if outcome != neutral]
    while len(rest) > 1:  # in pairs, since a chain of a thousand would be a thousand calls deep
        rest = [join(rest[start : start + 2]) for start in range(0, len(rest), 2)]
    return rest[0] if rest else constant(neutral)
