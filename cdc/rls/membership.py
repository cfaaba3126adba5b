"""Membership: IN, ANY, ALL, array constructors, and what an index can read off an array column.

Pure: no I/O. `column IN (…)` with values that the session decides is a look-up of the cell's bytes in a set. A value
of the session in an array column, and `@>` or `&&` of such a column with an array of the session, are evaluated on
the array, and give an index the elements of which the row must have one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from cdc.operators import UNSENT
from cdc.operators.arrays import Array, array_of, array_of_arrays
from cdc.predicate import FALSE, NULL, Predicate, among, constant
from cdc.rls.calls import comparable, forbidden, joined, shared
from cdc.rls.compiler import BOOLEAN, Compiler, Handler
from cdc.rls.constructs import NotSupported, construct
from cdc.rls.covers import covered
from cdc.rls.expression import Expression, Session, Term, Value, folded, known
from cdc.rls.nodes import Node
from cdc.tuples import Cell

__all__ = ["MEMBERSHIP"]


def _any(node: Node, compiler: Compiler) -> Expression:
    called, nodes, use_or = compiler.operator(node), node.nodes("args"), node.text("useOr") == "true"
    if len(nodes) != 2:
        raise NotSupported(construct(node, compiler.scope))
    scalar, (listed, element_oid) = compiler.operand(nodes[0]), _listed(nodes[1], compiler)
    words = f"({scalar.words} {called.words} {'ANY' if use_or else 'ALL'} {listed.words})"
    collation = compiler.collation(node, called)
    if not called.function.executable:
        return forbidden(called.function, BOOLEAN, compiler)
    fast = _raw_membership(scalar, listed, element_oid, compiler) if use_or and called.builtin.equality else None
    function, context = called.builtin, compiler.context(collation, node) if called.builtin.contextual else None
    quiet, parts = called.is_quiet, [scalar, listed]
    session = context is not None or any(part.session for part in parts)

    def bind(session: Session) -> Term:
        one, many = scalar.bind(session.operand), listed.bind(session.operand)
        plain = function.call if context is None else partial(function.call, context(session))
        told = joined([one, many])
        term = Term(
            _tested(partial(_found, plain, use_or, function.strict, quiet), one.value, many.value),
            one.columns | many.columns,
            one.timed or many.timed or function.timed,
            quiet=quiet and one.quiet and many.quiet,
            key=told if context is None or told is None else (*told, session.zone),
        )
        return folded(session, words, term, compiler.exact(BOOLEAN) if is_session else None)

    is_session = session
    expression = Expression(
        BOOLEAN,
        words,
        scalar.columns | listed.columns,
        shared(bind, session),
        session,
        function.timed or any(part.timed for part in parts),
    )
    return _with_condition(expression, fast, scalar, listed, use_or and function.equality, compiler)


def _with_condition(
    expression: Expression,
    fast: Callable[[Session], Predicate | None] | None,
    scalar: Expression,
    listed: Expression,
    is_equality: bool,
    compiler: Compiler,
) -> Expression:
    if fast is not None:
        if scalar.opaque is not None:
            raise NotSupported(scalar.opaque)
        slow, quick = compiler.by_value(expression), fast
        return replace(expression, condition=lambda session: quick(session) or slow(session))
    compiler.valued(scalar)
    if is_equality and listed.column is not None and scalar.is_session:
        condition = covered(expression, listed, lambda datum: [datum], scalar, compiler)
        return replace(expression, condition=condition) if condition else expression
    return expression


def _listed(node: Node, compiler: Compiler) -> tuple[Expression, int]:
    """The right side of ANY, as an expression of a tuple of elements, and the OID of their type."""
    if node.tag in ("ARRAY", "ARRAYEXPR") and node.text("multidims") == "false":
        parts = compiler.expressions(node.nodes("elements"))
        bind, words = partial(_bound_list, parts), _words(parts)
        made = Expression(
            node.number("array_typeid"),
            words,
            frozenset[int]().union(*(part.columns for part in parts)),
            bind,
            any(part.session for part in parts),
            any(part.timed for part in parts),
        )
        return made, node.number("element_typeid")
    array = compiler.expression(node)
    element = compiler.datums.element(compiler.base(array.type_oid))
    if element is None:
        raise NotSupported(f"elements of {compiler.type_name(array.type_oid)}")
    return replace(array, bind=lambda session: _elements_of(array.bind(session))), element.oid


def _bound_list(parts: list[Expression], session: Session) -> Term:
    terms = [part.bind(session) for part in parts]
    told = joined(terms)
    if all(term.known for term in terms):
        return known(tuple(term.datum for term in terms), told)
    values = [term.value for term in terms]
    return Term(
        lambda cells: tuple(value(cells) for value in values),
        frozenset[int]().union(*(term.columns for term in terms)),
        any(term.timed for term in terms),
        quiet=all(term.quiet for term in terms),
        key=told,
    )


def _elements_of(term: Term) -> Term:
    if term.known:
        return known(_elements(term.datum), term.key)
    value = term.value
    return replace(term, value=lambda cells: _elements(value(cells)))


def _elements(datum: object) -> object:
    return datum.elements if isinstance(datum, Array) else datum


def _words(parts: list[Expression]) -> str:
    return f"ARRAY[{', '.join(part.words for part in parts)}]"


def _found(
    function: Callable[[object, object], object],
    use_or: bool,
    strict: bool,
    quiet: bool,
    scalar: object,
    elements: Sequence[object],
) -> object:
    """Whether the scalar and one of the elements (each of them, for ALL) go together; three-valued."""
    if not elements:
        return not use_or
    if scalar is None and strict:
        return None
    null = unsent = False
    for element in elements:
        if scalar is UNSENT or element is UNSENT:
            unsent = True
        elif element is None and strict:
            null = True
        else:
            result = function(scalar, element)
            if result is None:
                null = True
            elif result is use_or and (quiet or not unsent):
                return use_or
    return UNSENT if unsent else None if null else not use_or


def _tested(found: Callable[[object, Sequence[object]], object], scalar: Value, elements: Value) -> Value:
    def value(cells: Sequence[Cell]) -> object:
        one, many = scalar(cells), elements(cells)
        return found(one, many) if isinstance(many, tuple) else many

    return value


def _raw_membership(
    scalar: Expression, listed: Expression, element_oid: int, compiler: Compiler
) -> Callable[[Session], Predicate | None] | None:
    """`column IN (values of the session)`, on the cell's bytes."""
    sides = compiler.base(scalar.type_oid), compiler.base(element_oid)
    equality, hashed = compiler.scope.types.equality(sides[0]), compiler.hashable(sides[1])
    if scalar.column is None or not listed.is_session or not comparable(*sides):
        return None
    if equality is None or hashed is None:
        return None
    column, read, value = scalar.column, equality.from_cell, listed.bind

    def bind(session: Session) -> Predicate | None:
        term = value(session.operand)
        if not term.known:
            return None
        if term.datum is None:
            return constant(NULL)
        elements = term.datum
        assert isinstance(elements, tuple)
        if not elements:
            return constant(FALSE)
        try:
            values = frozenset(hashed(element) for element in elements if element is not None)
        except ValueError:
            return None
        return among(column, values, read, None in elements) if values else None

    return bind


def _array(node: Node, compiler: Compiler) -> Expression:
    """ARRAY[…]: of elements, or of arrays."""
    args, nested = compiler.expressions(node.nodes("elements")), node.text("multidims") == "true"
    words = _words(args)
    type_oid = node.number("array_typeid")
    kind = compiler.datums.element(type_oid)
    if kind is None:
        raise NotSupported(f"ARRAY of {compiler.type_name(node.number('element_typeid'))}")
    make = partial(array_of_arrays if nested else array_of, kind)
    session = any(arg.session for arg in args)
    exact = compiler.exact(type_oid) if session else None

    def bind(session: Session) -> Term:
        terms = [arg.bind(session.operand) for arg in args]
        term = Term(
            _made([term.value for term in terms], make),
            frozenset[int]().union(*(term.columns for term in terms)),
            any(term.timed for term in terms),
            quiet=not nested and all(term.quiet for term in terms),
            key=joined(terms),
        )
        return folded(session, words, term, exact)

    columns = frozenset[int]().union(*(arg.columns for arg in args))
    return Expression(type_oid, words, columns, shared(bind, session), session, any(arg.timed for arg in args))


def _made(values: list[Value], make: Callable[[list[object]], object]) -> Value:
    """Nothing is known of an array of which an element was not sent."""

    def value(cells: Sequence[Cell]) -> object:
        data = [one(cells) for one in values]
        return UNSENT if any(datum is UNSENT for datum in data) else make(data)

    return value


def _array_cast(node: Node, compiler: Compiler) -> Expression:
    """A cast of each element; the CASETESTEXPR in its expression is the element."""
    arg, type_oid = compiler.expression(node.node("arg")), node.number("resulttype")
    source, target = (compiler.datums.element(compiler.base(oid)) for oid in (arg.type_oid, type_oid))
    if source is None or target is None:
        raise NotSupported(f"{construct(node, compiler.scope)} from {compiler.type_name(arg.type_oid)}")
    element = Expression(source.oid, "an element", _ONE, lambda session: _ELEMENT)
    cast = compiler.within(element).expression(node.node("elemexpr"))
    words, session = f"{arg.words}::{compiler.type_name(type_oid)}", arg.session or cast.session
    exact = compiler.exact(type_oid) if session else None

    def bind(session: Session) -> Term:
        array, each = arg.bind(session.operand), cast.bind(session.operand)
        change = each.value

        def value(cells: Sequence[Cell]) -> object:
            datum = array.value(cells)
            if not isinstance(datum, Array):
                return datum
            return datum.mapped(target, lambda item: change((item,)))  # type: ignore[arg-type]  # no cell, but a datum

        quiet = array.quiet and each.quiet
        term = Term(value, array.columns, array.timed or each.timed, quiet=quiet, key=joined([array, each]))
        return folded(session, words, term, exact)

    return Expression(type_oid, words, arg.columns, shared(bind, session), session, arg.timed or cast.timed)


_ONE = frozenset({0})
_ELEMENT = Term(lambda cells: cells[0], _ONE, quiet=True)
"""The element of an array, which stands as the only cell of a row."""

MEMBERSHIP: dict[str, Handler] = {
    "ARRAY": _array,
    "ARRAYCOERCEEXPR": _array_cast,
    "ARRAYEXPR": _array,
    "SCALARARRAYOPEXPR": _any,
}
