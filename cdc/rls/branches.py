"""Branches: CASE, COALESCE, GREATEST and LEAST, which look at some of their arguments only.

Pure: no I/O. What the session decides is decided when it is bound: an arm that no row reaches then is not evaluated.
An arm that some rows reach fails for those rows only.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial

from cdc.operators import UNSENT, Collation, Context, builtin
from cdc.predicate import ERROR, TRUE
from cdc.rls.calls import joined, shared
from cdc.rls.compiler import Compiler, Condition, Handler
from cdc.rls.constructs import NotSupported, construct
from cdc.rls.expression import Expression, Session, Term, Told, Value, decided, folded, known
from cdc.rls.nodes import Node
from cdc.tuples import Cell

__all__ = ["BRANCHES"]

_MIXED = ERROR | TRUE


def _case(node: Node, compiler: Compiler) -> Expression:
    """CASE, in both forms; the condition of an arm of the simple one compares a CASETESTEXPR, which is its operand."""
    operand = None if node.fields.get("arg") is None else compiler.case_operand(node.node("arg"))
    inner = compiler if operand is None else compiler.within(operand)
    whens = node.nodes("args")
    if any(when.tag not in ("WHEN", "CASEWHEN") for when in whens):
        raise NotSupported(construct(node, compiler.scope))
    tests = [inner.boolean(when.node("expr")) for when in whens]
    results = [compiler.expression(when.node("result")) for when in whens]
    last = node.fields.get("defresult")
    parts = [*tests, *results]
    default = compiler.expression(last) if isinstance(last, Node) else None
    if default is not None:
        parts.append(default)
    conditions = [inner.tested(test) for test in tests]
    moment, session = compiler.moment, any(part.session for part in parts)

    def bind(session: Session) -> Term:
        return _bound_case(list(zip(conditions, results, strict=True)), default, session, partial(_told, moment))

    return _choice(node.number("casetype"), "CASE", parts, bind, session)


def _told(moment: object) -> Told:
    return Told(getattr(moment, "problem", None))


def _choice(
    type_oid: int, words: str, parts: list[Expression], bind: Callable[[Session], Term], session: bool
) -> Expression:
    columns = frozenset[int]().union(*(part.columns for part in parts))
    timed = any(part.timed for part in parts)
    return Expression(type_oid, words, columns, shared(bind, session), session, timed)


def _bound_case(
    arms: list[tuple[Condition, Expression]],
    default: Expression | None,
    session: Session,
    failed: Callable[[], Told],
) -> Term:
    kept: list[tuple[Callable[[Sequence[Cell]], int], Term]] = []
    columns, timed, quiet = frozenset[int](), False, True
    key: list[Hashable] = []
    for number, (condition, result) in enumerate(arms):
        within = session.arm if kept else session
        predicate = condition(within)
        if decided(predicate):
            key.append(("arm", number, predicate.test(())))
            if predicate.test(()) != TRUE:
                continue
            default = result
            break
        term = result.bind(session.arm)
        kept.append((predicate.test, term))
        columns, timed, quiet = columns | predicate.columns, timed or predicate.timed, quiet and not predicate.raises
        key.append(predicate.key)
        key.append(term.key)
    last = known(None) if default is None else default.bind(session.arm if kept else session)
    told = None if None in key or last.key is None else (*key, *last.key)
    if not kept:
        return replace(last, key=told)
    return Term(
        _case_value([(test, term.value) for test, term in kept], last.value, failed),
        columns.union(last.columns, *(term.columns for _, term in kept)),
        timed or last.timed or any(term.timed for _, term in kept),
        quiet=quiet and last.quiet and all(term.quiet for _, term in kept),
        key=told,
    )


def _case_value(
    arms: list[tuple[Callable[[Sequence[Cell]], int], Value]], default: Value, failed: Callable[[], Told]
) -> Value:
    def value(cells: Sequence[Cell]) -> object:
        for test, result in arms:
            outcome = test(cells)
            if outcome == TRUE:
                return result(cells)
            if outcome & _MIXED:
                if outcome == ERROR:
                    raise failed()
                return UNSENT
        return default(cells)

    return value


def _coalesce(node: Node, compiler: Compiler) -> Expression:
    args = compiler.expressions(node.nodes("args"))
    session = any(arg.session for arg in args)
    words = f"coalesce({', '.join(arg.words for arg in args)})"

    def bind(session: Session) -> Term:
        terms, skipped = _reached(args, session)
        told = joined([*skipped, *terms])
        if len(terms) < 2:
            return replace(terms[0], key=told) if terms else known(None, told)
        return Term(
            _first([term.value for term in terms]),
            frozenset[int]().union(*(term.columns for term in terms)),
            any(term.timed for term in terms),
            quiet=all(term.quiet for term in terms),
            key=told,
        )

    return _choice(node.number("coalescetype"), words, args, bind, session)


def _reached(args: list[Expression], session: Session) -> tuple[list[Term], list[Term]]:
    """The terms that a row can reach, and those that are known to be NULL."""
    terms: list[Term] = []
    skipped: list[Term] = []
    for arg in args:
        term = arg.bind(session.arm if terms else session)
        if term.known and term.datum is None:
            skipped.append(term)
            continue
        terms.append(term)
        if term.known:
            break
    return terms, skipped


def _first(values: list[Value]) -> Value:
    def value(cells: Sequence[Cell]) -> object:
        for one in values:
            datum = one(cells)
            if datum is not None:
                return datum
        return None

    return value


_LESS = {
    16: "boollt(boolean, boolean)",
    17: "bytealt(bytea, bytea)",
    19: "namelt(name, name)",
    20: "int8lt(bigint, bigint)",
    21: "int2lt(smallint, smallint)",
    23: "int4lt(integer, integer)",
    25: "text_lt(text, text)",
    26: "oidlt(oid, oid)",
    700: "float4lt(real, real)",
    701: "float8lt(double precision, double precision)",
    869: "network_lt(inet, inet)",
    1042: "bpcharlt(character, character)",
    1043: "text_lt(text, text)",
    1082: "date_lt(date, date)",
    1083: "time_lt(time without time zone, time without time zone)",
    1114: "timestamp_lt(timestamp without time zone, timestamp without time zone)",
    1184: "timestamptz_lt(timestamp with time zone, timestamp with time zone)",
    1186: "interval_lt(interval, interval)",
    1700: "numeric_lt(numeric, numeric)",
    2950: "uuid_lt(uuid, uuid)",
    3802: "jsonb_lt(jsonb, jsonb)",
}
"""`<` of each type that GREATEST and LEAST compare; they take the type's own order, not an operator of the tree."""

_BY_COLLATION = frozenset({25, 1042, 1043})


def _extreme(node: Node, compiler: Compiler) -> Expression:
    args, number = compiler.expressions(node.nodes("args")), node.number("op")
    type_oid = node.number("minmaxtype")
    base, words = compiler.base(type_oid), {0: "GREATEST", 1: "LEAST"}.get(number)
    less = builtin(_LESS.get(base, ""))
    if less is None or words is None:
        raise NotSupported(f"{construct(node, compiler.scope)} of {compiler.type_name(type_oid)}")
    rights, collation = compiler.scope.rights, node.number("inputcollid")
    if base in _BY_COLLATION and collation not in rights.code_point:
        raise NotSupported(f"{words} of texts under a collation whose order only the server knows")
    context = Context(Collation.CODE_POINT, None, compiler.moment, rights.utf8)
    function = partial(less.call, context) if less.contextual else less.call
    pick = function if number == 1 else lambda new, kept: function(kept, new)
    session = any(arg.session for arg in args)

    def bind(session: Session) -> Term:
        terms = [arg.bind(session.operand) for arg in args]
        term = Term(
            _picked([term.value for term in terms], pick),
            frozenset[int]().union(*(term.columns for term in terms)),
            any(term.timed for term in terms),
            quiet=all(term.quiet for term in terms),
            key=joined(terms),
        )
        return folded(session, words, term, exact if session_bound else None)

    exact, session_bound = compiler.exact(type_oid), session
    return _choice(type_oid, f"{words}({', '.join(arg.words for arg in args)})", args, bind, session)


def _picked(values: list[Value], is_better: Callable[[object, object], object]) -> Value:
    def value(cells: Sequence[Cell]) -> object:
        data = [one(cells) for one in values]
        if any(datum is UNSENT for datum in data):
            return UNSENT
        best = None
        for datum in data:
            if datum is not None and (best is None or is_better(datum, best)):
                best = datum
        return best

    return value


BRANCHES: dict[str, Handler] = {
    "CASE": _case,
    "CASEEXPR": _case,
    "COALESCE": _coalesce,
    "COALESCEEXPR": _coalesce,
    "MINMAX": _extreme,
    "MINMAXEXPR": _extreme,
}
