"""Predicates over a row's cells, in PostgreSQL's three-valued logic with two more cases: an error, and not known.

Pure: no I/O, no clock. An outcome is the set of results that the condition may have, as a bit mask of TRUE,
FALSE, NULL and ERROR. A cell that the server did not send makes the outcome of a comparison `UNKNOWN`, the first three
(what it could raise, too, is denied like the rest). AND, OR and NOT of sets are looked up in tables, so that `false AND
unknown` is false, exactly as it must be; an error counts when evaluation from left to right reaches it.
Row filters and policies both become predicates, and `verdict` says what an outcome means for a reader.

A predicate's `cover` is what an index needs: the predicate can be true only for a row that has one of these values.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import reduce
from itertools import product

from cdc.tuples import Cell

__all__ = [
    "ERROR",
    "FALSE",
    "NULL",
    "TRUE",
    "UNKNOWN",
    "Cover",
    "Predicate",
    "Probe",
    "Verdict",
    "among",
    "constant",
    "equal",
    "every",
    "negation",
    "some",
    "verdict",
]

TRUE, FALSE, NULL, ERROR = 1, 2, 4, 8
UNKNOWN = TRUE | FALSE | NULL
_ALL = 16


class Verdict(Enum):
    """Whether a reader sees a row: yes, no, or it cannot be decided from what the server sent."""

    YES = "yes"
    NO = "no"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Probe:
    """What an index looks at in a row.

    Attributes:
        column: index of the cell.
        read: turns the cell into its hashable; None when the cell's bytes are the hashable.
        elements: whether `read` gives several hashables, those of an array's elements.
    """

    column: int
    read: Callable[[bytes], Hashable] | None = None
    elements: bool = False


Cover = frozenset[tuple[Probe, Hashable]]
"""Values of which a row has at least one when the predicate is true for it."""

_WIDEST = 1000
"""Values in a cover; a wider one would cost more than it saves."""


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition on a row.

    Attributes:
        test: takes the cells of a tuple, in the relation's order, and gives an outcome (a bit mask).
        columns: indices of the cells that it reads.
        cover: values of which a row has at least one when the outcome may be TRUE and the cells were sent; None when
            there are no such values.
        key: predicates with equal keys have equal outcomes for every row; None says nothing.
        timed: whether the outcome depends on the moment.
        raises: whether the outcome may be `ERROR`.
    """

    test: Callable[[Sequence[Cell]], int]
    columns: frozenset[int]
    cover: Cover | None = None
    key: Hashable = None
    timed: bool = False
    raises: bool = False


def verdict(outcome: int) -> Verdict:
    """What an outcome means to a reader: only a certain TRUE shows the row; NULL hides it like FALSE."""
    if outcome == TRUE:
        return Verdict.YES
    return Verdict.UNDECIDED if outcome & TRUE else Verdict.NO


def constant(outcome: int) -> Predicate:
    """The predicate that has the same outcome for every row."""
    cover: Cover | None = None if outcome & TRUE else frozenset()
    raises = bool(outcome & ERROR)
    return Predicate(lambda cells: outcome, frozenset(), cover, ("constant", outcome), raises=raises)


def equal(column: int, value: Hashable, read: Callable[[bytes], Hashable] | None) -> Predicate:
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

    probe = Probe(column, read)
    cover: Cover = frozenset({(probe, value)})
    return Predicate(test if read is None else test_read, frozenset({column}), cover, ("equal", probe, value))


def among(
    column: int, values: frozenset[Hashable], read: Callable[[bytes], Hashable] | None, or_null: bool = False
) -> Predicate:
    """`column IN (values)`, the values as for `equal`; `or_null` for a list that contains NULL, too."""
    without = NULL if or_null else FALSE

    def test(cells: Sequence[Cell]) -> int:
        cell = cells[column]
        if type(cell) is not bytes:
            return NULL if cell is None else UNKNOWN
        return TRUE if cell in values else without

    def test_read(cells: Sequence[Cell]) -> int:
        cell = cells[column]
        if type(cell) is not bytes:
            return NULL if cell is None else UNKNOWN
        try:
            return TRUE if read(cell) in values else without  # type: ignore[misc]  # used when read is given
        except ValueError:
            return UNKNOWN

    probe = Probe(column, read)
    cover = frozenset((probe, value) for value in values) if len(values) <= _WIDEST else None
    key = ("among", probe, values, or_null)
    return Predicate(test if read is None else test_read, frozenset({column}), cover, key)


def every(predicates: Iterable[Predicate]) -> Predicate:
    """AND of the predicates; TRUE when there are none."""
    return reduce(_both, predicates, _ALWAYS)


def some(predicates: Iterable[Predicate]) -> Predicate:
    """OR of the predicates; FALSE when there are none."""
    return reduce(_either, predicates, _NEVER)


def negation(predicate: Predicate) -> Predicate:
    """NOT."""
    test = predicate.test
    key = None if predicate.key is None else ("not", predicate.key)
    return Predicate(lambda cells: _NOT[test(cells)], predicate.columns, None, key, predicate.timed, predicate.raises)


def _both(left: Predicate, right: Predicate) -> Predicate:
    if left is _ALWAYS:
        return right
    return _connected("and", left, right, _narrower(left.cover, right.cover))


def _either(left: Predicate, right: Predicate) -> Predicate:
    if left is _NEVER:
        return right
    return _connected("or", left, right, _union(left.cover, right.cover))


def _connected(word: str, left: Predicate, right: Predicate, cover: Cover | None) -> Predicate:
    """Two predicates with a connective between them; the right one is not asked when the left one says it all."""
    one, two, (ends, outcomes) = left.test, right.test, _CONNECTIVES[word]

    def test(cells: Sequence[Cell]) -> int:
        first = one(cells)
        return first if first in ends else outcomes[first][two(cells)]

    return Predicate(
        test,
        left.columns | right.columns,
        cover,
        None if left.key is None or right.key is None else (word, left.key, right.key),
        left.timed or right.timed,
        left.raises or right.raises,
    )


def _narrower(left: Cover | None, right: Cover | None) -> Cover | None:
    """The better of two covers, either of which holds for both conditions together."""
    if left is None or right is None:
        return left if right is None else right
    return min(left, right, key=len)


def _union(left: Cover | None, right: Cover | None) -> Cover | None:
    if left is None or right is None or len(left) + len(right) > _WIDEST:
        return None
    return left | right


def _and(left: int, right: int) -> int:
    if left in (FALSE, ERROR):
        return left
    if right in (FALSE, ERROR):
        return right
    return NULL if NULL in (left, right) else TRUE


def _or(left: int, right: int) -> int:
    if left in (TRUE, ERROR):
        return left
    if right in (TRUE, ERROR):
        return right
    return NULL if NULL in (left, right) else FALSE


def _not(outcome: int) -> int:
    return {TRUE: FALSE, FALSE: TRUE}.get(outcome, outcome)


def _table(combine: Callable[[int, int], int]) -> tuple[tuple[int, ...], ...]:
    """The 16 by 16 table of a connective over sets of outcomes."""

    def sets(left: int, right: int) -> int:
        results = (combine(a, b) for a, b in product(_members(left), _members(right)))
        return reduce(int.__or__, results, 0)

    return tuple(tuple(sets(left, right) for right in range(_ALL)) for left in range(_ALL))


def _members(outcome: int) -> list[int]:
    return [bit for bit in (TRUE, FALSE, NULL, ERROR) if outcome & bit]


_CONNECTIVES = {
    "and": (frozenset({FALSE, ERROR}), _table(_and)),
    "or": (frozenset({TRUE, ERROR}), _table(_or)),
}
"""Of each connective: which outcomes on the left say it all, and the table of the others."""
_NOT = tuple(reduce(int.__or__, map(_not, _members(outcome)), 0) for outcome in range(_ALL))
_ALWAYS = constant(TRUE)
_NEVER = constant(FALSE)
