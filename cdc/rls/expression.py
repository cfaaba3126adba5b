"""Expressions: what a policy's node becomes when it is compiled, and what that is for one subject.

Pure: no I/O, no clock. An expression is compiled once and is the same for every subject. Bound to a subject's session
it is a term: a function from a row's cells to a datum. What the session alone decides is evaluated when it is bound
and is known from then on. A condition, an expression of type boolean, can be bound as a predicate too.

PostgreSQL may raise where a session's expression is evaluated (an invalid uuid, a setting that is not there). Here
that is a `SessionError`, and the subject sees nothing. PostgreSQL evaluates the operands of an operator while it
plans, and so does `bind`; what stands in an arm of CASE or COALESCE that only some rows reach fails for those rows.
No message quotes a value, which may be secret.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import TypeAlias

from cdc.operators import UNSENT, Failed, Moment, Undecided
from cdc.predicate import ERROR, FALSE, NULL, TRUE, UNKNOWN, Predicate, constant
from cdc.rls.subject import Subject
from cdc.tuples import Cell

__all__ = [
    "Bind",
    "Expression",
    "Session",
    "SessionError",
    "Term",
    "Told",
    "Value",
    "decided",
    "failing",
    "folded",
    "known",
    "outcome_of",
    "tested",
    "testing",
]

Value: TypeAlias = Callable[[Sequence[Cell]], object]
"""From the cells of a row to a datum, None for NULL or UNSENT; raises Failed and Undecided."""

_NONE: frozenset[int] = frozenset()


class SessionError(Exception):
    """A session expression has no value for this subject. Never leaves `cdc.rls`."""


class Told(Failed):
    """An error whose message already says where it was raised."""


class Session:
    """A subject's session while policies are bound to it.

    Attributes:
        subject: the subject.
        zone: its TimeZone, None when it is not known.
        defers: whether an error concerns only the rows that reach the expression.
        operand: the same session for the operands of an operator.
        arm: the same session for what only some rows reach.
    """

    __slots__ = ("arm", "defers", "operand", "subject", "zone")

    arm: Session
    operand: Session

    def __init__(self, subject: Subject, zone: tzinfo | None = None) -> None:
        firm, deferring = _twin(subject, zone, False), _twin(subject, zone, True)
        self.subject, self.zone, self.defers = subject, zone, False
        self.operand, self.arm = firm, deferring


def _twin(subject: Subject, zone: tzinfo | None, defers: bool) -> Session:
    session = Session.__new__(Session)
    session.subject, session.zone, session.defers = subject, zone, defers
    session.arm = session.operand = session
    return session


@dataclass(frozen=True, slots=True)
class Term:
    """An expression as it is for one subject.

    Attributes:
        value: from a row's cells to a datum.
        columns: indices of the cells that it reads.
        timed: whether it depends on the moment.
        known: whether it is one datum for every row and moment.
        datum: that datum.
        quiet: whether it never raises `Failed`.
        key: what it takes from the session: terms of one expression with equal keys are equal. None says nothing.
    """

    value: Value
    columns: frozenset[int] = _NONE
    timed: bool = False
    known: bool = False
    datum: object = None
    quiet: bool = False
    key: tuple[Hashable, ...] | None = ()


Bind: TypeAlias = Callable[[Session], Term]


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression.

    Attributes:
        type_oid: OID of its type.
        words: the expression as a person would write it, without values of a session or a row.
        columns: indices of the cells that it may read.
        bind: what it is for a session; raises SessionError.
        session: whether it depends on the session, so that subjects may differ.
        timed: whether it may depend on the moment.
        column: the index of the cell whose text is its text; None when it is more than a column.
        condition: what it is for a session as a predicate, when that is more than a test of the value.
        refusal: why PostgreSQL raises an error for it before it reads a row; None when it does not.
        opaque: why its value cannot be read, as of a column that can only be compared as text; None when it can.
    """

    type_oid: int
    words: str
    columns: frozenset[int]
    bind: Bind
    session: bool = False
    timed: bool = False
    column: int | None = None
    condition: Callable[[Session], Predicate] | None = None
    opaque: str | None = None
    refusal: str | None = None

    @property
    def is_session(self) -> bool:
        """Whether no row and no moment changes it."""
        return not self.columns and not self.timed


def known(datum: object, key: tuple[Hashable, ...] | None = ()) -> Term:
    """The term of one datum."""
    return Term(lambda cells: datum, _NONE, False, True, datum, True, key)


def failing(problem: Exception) -> Term:
    """The term that raises an error for each row that reaches it."""
    kind, message = type(problem), str(problem)

    def value(cells: Sequence[Cell]) -> object:
        raise kind(message)

    return Term(value, key=((kind, message),))


def folded(session: Session, words: str, term: Term, key: Callable[[object], Hashable] | None) -> Term:
    """The term, evaluated now when it reads nothing of a row or a moment.

    Arguments: `words`, what a message calls it; `key`, what tells its datum from others, None for an expression that is
    the same in every session. Raises SessionError when it has no value and the session does not defer.
    """
    if term.columns or term.timed or term.known:
        return term
    try:
        datum = term.value(())
    except (Failed, Undecided) as problem:
        if session.defers and key is not None:
            return failing(problem)
        raise SessionError(str(problem) if isinstance(problem, Told) else f"{words}: {problem}") from None
    if key is None:
        return known(datum)
    told = key(datum)
    return known(datum, None if told is None else (told,))


def outcome_of(datum: object) -> int:
    """The outcome of a boolean datum."""
    if datum is True:
        return TRUE
    return FALSE if datum is False else NULL if datum is None else UNKNOWN


def tested(term: Term, where: str, moment: Moment, key: Hashable) -> Predicate:
    """The predicate of a boolean term. `where` says in messages what failed."""
    if term.known:
        return constant(outcome_of(term.datum))
    value, quiet = term.value, term.quiet
    open_ = UNKNOWN if quiet else UNKNOWN | ERROR

    def test(cells: Sequence[Cell]) -> int:
        try:
            found = value(cells)
        except Failed as problem:
            moment.problem = str(problem) if isinstance(problem, Told) else f"{where}: {problem}"
            return ERROR
        except Undecided as problem:
            moment.problem = f"{where}: {problem}"
            return open_
        if found is True:
            return TRUE
        return FALSE if found is False else NULL if found is None else open_

    return Predicate(test, term.columns, None, key, term.timed, not quiet)


def testing(predicate: Predicate, moment: Moment) -> Term:
    """The term of a predicate, for a condition that stands where a value is taken."""
    key = None if predicate.key is None else (predicate.key,)
    if decided(predicate):
        return known(_DATUMS[predicate.test(())], key)
    test = predicate.test

    def value(cells: Sequence[Cell]) -> object:
        outcome = test(cells)
        if outcome == ERROR:
            raise Told(moment.problem)
        return _DATUMS.get(outcome, UNSENT)

    return Term(value, predicate.columns, predicate.timed, quiet=not predicate.raises, key=key)


def decided(predicate: Predicate) -> bool:
    """Whether a predicate has one outcome, which is no error, for every row and moment."""
    return not (predicate.columns or predicate.timed or predicate.raises) and predicate.test(()) in _DATUMS


_DATUMS: dict[int, object] = {TRUE: True, FALSE: False, NULL: None}
