"""Predicates over a row's cells, in PostgreSQL's three-valued logic with a fourth case: not known.

Pure: no I/O, no clock. An outcome is the set of results that the condition may have, as a bit mask of TRUE,
FALSE and NULL. A cell that the server did not send makes the outcome of a comparison `UNKNOWN`, all three.
AND and OR of two sets are looked up in tables, so that `false AND unknown` is false, exactly as it must be.
Row filters and policies both become predicates, and `verdict` says what an outcome means for a reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import reduce
from itertools import product

from cdc.tuples import Cell

__all__ = [
    "FALSE",
    "NULL",
    "TRUE",
    "UNKNOWN",
    "Predicate",
    "Verdict",
    "constant",
    "equal",
    "every",
    "some",
    "verdict",
]

TRUE, FALSE, NULL = 1, 2, 4
UNKNOWN = TRUE | FALSE | NULL


class Verdict(Enum):
    """Whether a reader sees a row: yes, no, or it cannot be decided from what the server sent."""

    YES = "yes"
    NO = "no"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition on a row.

    Attributes:
        test: takes the cells of a tuple, in the relation's order, and gives an outcome (a bit mask).
        columns: indices of the cells that it reads.
    """

    test: Callable[[Sequence[Cell]], int]
    columns: frozenset[int]


def verdict(outcome: int) -> Verdict:
    """What an outcome means to a reader: only a certain TRUE shows the row; NULL hides it like FALSE."""
    if outcome == TRUE:
        return Verdict.YES
    return Verdict.UNDECIDED if outcome & TRUE else Verdict.NO


def constant(outcome: int) -> Predicate:
    """The predicate that has the same outcome for every row."""
    return Predicate(lambda cells: outcome, frozenset())


def equal(column: int, value: object, read: Callable[[bytes], object] | None) -> Predicate:
    """`column = value`. `read` turns a cell into what `value` is compared with; None compares the bytes."""

    def test(cells: Sequence[Cell]) -> int:
        cell = cells[column]
        if type(cell) is not bytes:
            return NULL if cell is None else UNKNOWN
        return TRUE if cell == value else FALSE

    def test_read(cells: Sequence[Cell]) -> int:
        cell = cells[column]
        if type(cell) is not bytes:
            return NULL if cell is None else UNKNOWN
        try:
            return TRUE if read(cell) == value else FALSE  # type: ignore[misc]  # used when read is given
        except ValueError:
            return UNKNOWN

    return Predicate(test if read is None else test_read, frozenset({column}))


def every(predicates: Iterable[Predicate]) -> Predicate:
    """AND of the predicates; TRUE when there are none."""
    return reduce(_both, predicates, _ALWAYS)


def some(predicates: Iterable[Predicate]) -> Predicate:
    """OR of the predicates; FALSE when there are none."""
    return reduce(_either, predicates, _NEVER)


def _both(left: Predicate, right: Predicate) -> Predicate:
    if left is _ALWAYS:
        return right
    one, two = left.test, right.test
    return Predicate(lambda cells: _AND[one(cells)][two(cells)], left.columns | right.columns)


def _either(left: Predicate, right: Predicate) -> Predicate:
    if left is _NEVER:
        return right
    one, two = left.test, right.test
    return Predicate(lambda cells: _OR[one(cells)][two(cells)], left.columns | right.columns)


def _and(left: int, right: int) -> int:
    if FALSE in (left, right):
        return FALSE
    return NULL if NULL in (left, right) else TRUE


def _or(left: int, right: int) -> int:
    if TRUE in (left, right):
        return TRUE
    return NULL if NULL in (left, right) else FALSE


def _table(combine: Callable[[int, int], int]) -> tuple[tuple[int, ...], ...]:
    """The 8 by 8 table of a connective over sets of outcomes."""

    def sets(left: int, right: int) -> int:
        results = (combine(a, b) for a, b in product(_members(left), _members(right)))
        return reduce(int.__or__, results, 0)

    return tuple(tuple(sets(left, right) for right in range(8)) for left in range(8))


def _members(outcome: int) -> list[int]:
    return [bit for bit in (TRUE, FALSE, NULL) if outcome & bit]


_AND = _table(_and)
_OR = _table(_or)
_ALWAYS = constant(TRUE)
_NEVER = constant(FALSE)
