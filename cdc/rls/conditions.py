"""Conditions: AND, OR, NOT, IS NULL, IS TRUE and their like.

Pure: no I/O. Bound to a session a condition is a predicate over cells. What follows from the session alone is folded,
so that a predicate reads only the columns that still matter; but nothing is folded away that could raise an error
before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from cdc.operators import UNSENT, Failed, Moment, Undecided
from cdc.predicate import ERROR, FALSE, NULL, TRUE, Predicate, constant, every, negation, some
from cdc.rls.columns import flag
from cdc.rls.compiler import Compiler, Handler, conditional
from cdc.rls.constructs import NotSupported, construct
from cdc.rls.expression import Expression, Session, Term, Told, decided
from cdc.rls.nodes import Node
from cdc.tuples import Cell

__all__ = ["CONDITIONS", "all_of", "any_of"]


def all_of(predicates: Iterable[Predicate]) -> Predicate:
    """AND, folded: FALSE when one is FALSE for every row, and without those that are TRUE for every row."""
    return _folded(predicates, every, FALSE, TRUE)


def any_of(predicates: Iterable[Predicate]) -> Predicate:
    """OR, folded: TRUE when one is TRUE for every row, and without those that are FALSE for every row."""
    return _folded(predicates, some, TRUE, FALSE)


def _folded(
    predicates: Iterable[Predicate],
    join: Callable[[Iterable[Predicate]], Predicate],
    absorbing: int,
    neutral: int,
) -> Predicate:
    rest: list[Predicate] = []
    for predicate in predicates:
        outcome = predicate.test(()) if decided(predicate) else None
        if outcome == absorbing:
            if not any(part.raises for part in rest):
                return constant(absorbing)
            rest.append(predicate)
            break
        if outcome != neutral:
            rest.append(predicate)
    while len(rest) > 1:  # in pairs, since a chain of a thousand would be a thousand calls deep
        rest = [join(rest[start : start + 2]) for start in range(0, len(rest), 2)]
    return rest[0] if rest else constant(neutral)


def _boolean(node: Node, compiler: Compiler) -> Expression:
    word, args = node.text("boolop"), node.nodes("args")
    if word == "not" and len(args) == 1:
        return _not(args[0], compiler)
    join = {"and": all_of, "or": any_of}.get(word)
    if join is None:
        raise NotSupported(construct(node, compiler.scope))
    parts = [compiler.boolean(arg) for arg in args]
    conditions = [compiler.tested(part) for part in parts]

    def bind(session: Session) -> Predicate:
        """Binds every part, so that an error in one is an error, whatever the others say."""
        return join([condition(session) for condition in conditions])

    return conditional(bind, f"({f' {word.upper()} '.join(part.words for part in parts)})", parts, compiler)


def _not(arg: Node, compiler: Compiler) -> Expression:
    part = compiler.boolean(arg)
    if part.column is not None:
        return conditional(flag(part.column, b"f"), f"(NOT {part.words})", [part], compiler)
    condition = compiler.tested(part)

    def bind(session: Session) -> Predicate:
        predicate = condition(session)
        negated = negation(predicate)
        return constant(negated.test(())) if decided(predicate) else negated

    return conditional(bind, f"(NOT {part.words})", [part], compiler)


def _null_test(node: Node, compiler: Compiler) -> Expression:
    number = node.number("nulltesttype")
    if node.text("argisrow") != "false" or number not in (0, 1):
        raise NotSupported(f"{construct(node, compiler.scope)} of a row")
    arg = compiler.operand(node.node("arg"))
    null, other = (TRUE, FALSE) if number == 0 else (FALSE, TRUE)
    words = f"({arg.words} {construct(node, compiler.scope)})"
    if arg.column is not None:
        raw = _cell_is_null(arg.column, null, other)
        return conditional(lambda session: raw, words, [arg], compiler)
    value = compiler.valued(arg)
    moment, where, mark = compiler.moment, compiler.where(words), compiler.mark()

    def bind(session: Session) -> Predicate:
        term = value.bind(session)
        if term.known:
            return constant(null if term.datum is None else other)
        key = None if term.key is None else (mark, term.key)
        test = partial(_is_null, term, null, other, where, moment)
        return Predicate(test, term.columns, None, key, term.timed, not term.quiet)

    return conditional(bind, words, [value], compiler)


def _cell_is_null(column: int, null: int, other: int) -> Predicate:
    def test(cells: Sequence[Cell]) -> int:
        cell = cells[column]
        return null if cell is None else other if type(cell) is bytes else TRUE | FALSE

    return Predicate(test, frozenset({column}), None, ("null", column, null))


def _is_null(term: Term, null: int, other: int, where: str, moment: Moment, cells: Sequence[Cell]) -> int:
    try:
        datum = term.value(cells)
    except Failed as problem:
        moment.problem = str(problem) if isinstance(problem, Told) else f"{where}: {problem}"
        return ERROR
    except Undecided as problem:
        moment.problem = f"{where}: {problem}"
        datum = UNSENT
    if datum is UNSENT:
        return TRUE | FALSE if term.quiet else TRUE | FALSE | ERROR
    return null if datum is None else other


def _table(**outcomes: int) -> tuple[int, ...]:
    """What each set of outcomes becomes; `t`, `f` and `n` say what TRUE, FALSE and NULL do."""
    single = {TRUE: outcomes["t"], FALSE: outcomes["f"], NULL: outcomes["n"], ERROR: ERROR}
    return tuple(sum({became for bit, became in single.items() if mask & bit}) for mask in range(16))


_IS_TRUE = _table(t=TRUE, f=FALSE, n=FALSE)
_TESTS = (
    _IS_TRUE,
    _table(t=FALSE, f=TRUE, n=TRUE),
    _table(t=FALSE, f=TRUE, n=FALSE),
    _table(t=TRUE, f=FALSE, n=TRUE),
    _table(t=FALSE, f=FALSE, n=TRUE),
    _table(t=TRUE, f=TRUE, n=FALSE),
)
"""IS [NOT] TRUE, FALSE, UNKNOWN, by `booltesttype`."""


def _boolean_test(node: Node, compiler: Compiler) -> Expression:
    number = node.number("booltesttype")
    if not 0 <= number < len(_TESTS):
        raise NotSupported(construct(node, compiler.scope))
    part, table = compiler.boolean(node.node("arg")), _TESTS[number]
    condition = compiler.tested(part)

    def bind(session: Session) -> Predicate:
        inner = condition(session)
        if decided(inner):
            return constant(table[inner.test(())])
        test = inner.test
        cover = inner.cover if table is _IS_TRUE else None
        key = None if inner.key is None else ("is", number, inner.key)
        return replace(inner, test=lambda cells: table[test(cells)], cover=cover, key=key)

    return conditional(bind, f"({part.words} {construct(node, compiler.scope)})", [part], compiler)


CONDITIONS: dict[str, Handler] = {
    "BOOLEANTEST": _boolean_test,
    "BOOLEXPR": _boolean,
    "NULLTEST": _null_test,
}
