"""Conditions of a filter become a predicate, typed by the columns that they name.

Pure: no I/O, no clock. A condition means what the same comparison means in SQL: a NULL cell gives the outcome NULL,
also behind `not.`; only `is` and `isdistinct` know NULL. What Python cannot decide as the server would is refused here,
when somebody subscribes, as far as that can be told without the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from cdc.errors import SubscriptionError
from cdc.filters.grammar import Condition, conditions
from cdc.filters.target import NOTHING_KNOWN, Collations, Target, check_readable
from cdc.operators import Failed, Moment, Undecided
from cdc.predicate import (
    ERROR,
    FALSE,
    NULL,
    TRUE,
    UNKNOWN,
    Cover,
    Predicate,
    Probe,
    among,
    equal,
    every,
    negation,
)
from cdc.relation import Relation
from cdc.tuples import Cell
from cdc.values import Types
from cdc.values.equality import quoted

__all__ = ["compile_filter"]

_BOOLEAN = 16
_EITHER = TRUE | FALSE


def compile_filter(
    text: str,
    relation: Relation,
    types: Types,
    collations: Collations = NOTHING_KNOWN,
    moment: Moment | None = None,
    hidden: Collection[str] = (),
) -> Predicate:
    """The predicate of a filter such as `project_id=eq.33,depth=gt.100` on a table.

    Args:
        text: the filter.
        relation: the table.
        types: the types of its server.
        collations: what is known of the collations of its columns, by their names. One that is not named is taken
            for a linguistic one: texts are equal when their bytes are, and their order is not known.
        moment: where an error is noted that the server would raise for a row.
        hidden: names of columns that the subscriber may not read: a filter may not name them, and no message does.

    Raises:
        SubscriptionError: one sentence that says what is wrong and what to write instead.
    """
    found = conditions(text)
    for each in found:
        check_readable(each.column, relation, hidden)
    return every([_predicate(each, relation, types, collations, moment or Moment()) for each in found])


def _predicate(
    condition: Condition, relation: Relation, types: Types, collations: Collations, moment: Moment
) -> Predicate:
    target = Target.of(condition, relation, types, collations, moment)
    return _MAKERS[condition.operator](condition, target)


def _eq(condition: Condition, target: Target) -> Predicate:
    same = _same(condition, target)
    return negation(same) if condition.negated else same


def _neq(condition: Condition, target: Target) -> Predicate:
    same = _same(condition, target)
    return same if condition.negated else negation(same)


def _same(condition: Condition, target: Target) -> Predicate:
    """`column = value`, or one of several values."""
    equality = target.equality
    if equality is None:
        return _one_of(condition, target)
    wanted = frozenset(target.hashable(value) for value in condition.values)
    if len(wanted) == 1:
        return equal(target.index, next(iter(wanted)), equality.from_cell)
    return among(target.index, wanted, equality.from_cell)


def _one_of(condition: Condition, target: Target) -> Predicate:
    """The same for a type whose `=` is a function only."""
    holds = [target.comparison("eq", value) for value in condition.values]
    return _on_cell(target, lambda cell: any(each(cell) for each in holds), _key(condition, target))


def _ordered(condition: Condition, target: Target) -> Predicate:
    target.check_order()
    found = _on_cell(target, target.comparison(condition.operator, condition.value), _key(condition, target))
    return negation(found) if condition.negated else found


def _matched(condition: Condition, target: Target) -> Predicate:
    found = _on_cell(target, target.pattern(condition.operator, condition.value), _key(condition, target))
    return negation(found) if condition.negated else found


def _isdistinct(condition: Condition, target: Target) -> Predicate:
    """`IS DISTINCT FROM`, which is never NULL."""
    same = _same(condition, target)
    outcomes = _NOT_DISTINCT if condition.negated else _DISTINCT
    test = same.test
    cover = same.cover if condition.negated else None
    key = None if same.key is None else ("not distinct" if condition.negated else "distinct", same.key)
    return Predicate(lambda cells: outcomes[test(cells)], same.columns, cover, key, raises=same.raises)


_DISTINCT = {TRUE: FALSE, FALSE: TRUE, NULL: TRUE, UNKNOWN: _EITHER, ERROR: ERROR}
_NOT_DISTINCT = {TRUE: TRUE, FALSE: FALSE, NULL: FALSE, UNKNOWN: _EITHER, ERROR: ERROR}


def _is(condition: Condition, target: Target) -> Predicate:
    """`IS NULL`, `IS TRUE` and the like, which are never NULL."""
    word = condition.value.lower()
    if word not in _WORDS:
        raise SubscriptionError(
            f"filter {quoted(condition.text)}: nothing is {quoted(condition.value)}; write is.null, is.not_null, "
            f"is.true, is.false or is.unknown, and {condition.column}=eq.value for any other value"
        )
    if word not in ("null", "not_null") and target.base != _BOOLEAN:
        raise SubscriptionError(
            f"filter {quoted(condition.text)}: column {target.name} is of type {target.type_name}, and only a boolean "
            f"is.{word}; write is.null, is.not_null or {condition.column}=eq.value"
        )
    wanted, index, negated = _WORDS[word], target.index, condition.negated ^ (word == "not_null")

    def test(cells: Sequence[Cell]) -> int:
        cell = cells[index]
        if cell is not None and type(cell) is not bytes:
            return _EITHER
        found = cell is None if wanted is None else cell == wanted
        return TRUE if found is not negated else FALSE

    cover: Cover | None = None
    if wanted is not None and not negated:
        cover = frozenset({(Probe(index), wanted)})
    return Predicate(test, frozenset({index}), cover, ("is", index, wanted, negated))


_WORDS = {"null": None, "not_null": None, "unknown": None, "true": b"t", "false": b"f"}


def _on_cell(target: Target, holds: Callable[[bytes], bool], key: tuple[object, ...]) -> Predicate:
    """A condition on a cell that is neither NULL nor unknown."""
    index, moment = target.index, target.context.moment

    def test(cells: Sequence[Cell]) -> int:
        cell = cells[index]
        if type(cell) is not bytes:
            return NULL if cell is None else UNKNOWN
        try:
            return TRUE if holds(cell) else FALSE
        except Failed as problem:
            moment.problem = f"the filter on {target.name}: {problem}"
            return ERROR
        except (ValueError, Undecided):
            return UNKNOWN

    return Predicate(test, frozenset({index}), None, key, raises=True)


def _key(condition: Condition, target: Target) -> tuple[object, ...]:
    """Equal for conditions that say the same of the same column."""
    return ("filter", target.index, target.base, target.collation, condition.operator, condition.values)


_MAKERS: Mapping[str, Callable[[Condition, Target], Predicate]] = {
    "eq": _eq,
    "neq": _neq,
    "in": _eq,
    "is": _is,
    "isdistinct": _isdistinct,
    **dict.fromkeys(("lt", "lte", "gt", "gte"), _ordered),
    **dict.fromkeys(("like", "ilike", "match", "imatch"), _matched),
}
