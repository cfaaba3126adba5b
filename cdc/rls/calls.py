"""Calls: operators, functions, casts through text, and what is made of `=`: IS DISTINCT FROM and NULLIF.

Pure: no I/O. Functions are found by their signatures, operators by their functions. A strict function gives NULL for
NULL without a call, and nothing is known when a cell was not sent. `=` of a column and a value that the session
decides is compared on the cell's bytes, by hash, and gives an index its values.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial

from cdc.operators import UNSENT, Builtin, Collation, Context, builtin
from cdc.predicate import NULL, Predicate, constant, equal
from cdc.rls.compiler import BOOLEAN, Called, Compiler, Condition, Handler, conditional
from cdc.rls.constants import constant_datum
from cdc.rls.constructs import NotSupported, construct
from cdc.rls.covers import array_cover
from cdc.rls.expression import Bind, Expression, Session, SessionError, Term, Value, folded, known
from cdc.rls.nodes import Node
from cdc.rls.policy import Function
from cdc.tuples import Cell

__all__ = ["CALLS", "call", "call_function", "comparable", "forbidden", "joined", "shared"]

_TEXT = 25
_INTEGERS, _FLOATS, _CHARACTERS = frozenset({20, 21, 23}), frozenset({700, 701}), frozenset({19, 25, 1043})


def call(
    called: Called, node: Node, args: list[Expression], type_oid: int, compiler: Compiler, words: str
) -> Expression:
    """The expression of a call. Raises NotSupported when its arguments are not those of the function."""
    _check(called, args, node, compiler)
    _refuse(called.builtin, node, compiler)
    if not called.function.executable:
        return forbidden(called.function, type_oid, compiler)
    function, is_quiet = called.builtin, called.is_quiet
    context = compiler.context(compiler.collation(node, called), node) if function.contextual else None
    if context is None:
        compiler.collation(node, called)
    session = function.contextual or any(arg.session for arg in args)
    key = compiler.exact(type_oid) if session else None
    timed, binds = function.timed, [arg.bind for arg in args]

    def bind(session: Session) -> Term:
        terms = [bind(session.operand) for bind in binds]
        plain = function.call if context is None else partial(function.call, context(session))
        quiet = (is_quiet or _is_plain_pattern(called, terms)) and _quiet(terms)
        if function.strict and any(term.known and term.datum is None for term in terms) and _quiet(terms):
            return known(None, None if key is None else (key(None),))
        value = _strict(plain, terms) if function.strict else _lenient(plain, terms)
        told = joined(terms)
        if context is not None and told is not None:
            told = (*told, session.zone)
        term = Term(value, _columns(terms), timed or any(term.timed for term in terms), quiet=quiet, key=told)
        return folded(session, words, term, key)

    columns = frozenset[int]().union(*(arg.columns for arg in args))
    timed_args = timed or any(arg.timed for arg in args)
    return Expression(type_oid, words, columns, shared(bind, session), session, timed_args)


def _refuse(function: Builtin, node: Node, compiler: Compiler) -> None:
    """Raises NotSupported for constants that the function does not take here, such as some regular expressions."""
    if function.refuses is None:
        return
    args = node.nodes("args")
    constants = [constant_datum(arg, compiler.scope, compiler.datums) if arg.tag == "CONST" else UNSENT for arg in args]
    problem = function.refuses(constants)
    if problem is not None:
        raise NotSupported(problem)


def forbidden(function: Function, type_oid: int, compiler: Compiler) -> Expression:
    """A call of a function without the EXECUTE right, which PostgreSQL checks before it reads a row."""
    reason = f"role {compiler.scope.rights.role} has no EXECUTE right on {function}"

    def bind(session: Session) -> Term:
        raise SessionError(reason)

    return Expression(type_oid, str(function), frozenset(), bind, session=True, refusal=reason)


def shared(bind: Bind, session: bool) -> Bind:
    """The same, made once when no session changes it."""
    if session:
        return bind
    made: list[Term] = []

    def bind_once(session: Session) -> Term:
        if not made:
            made.append(bind(session))
        return made[0]

    return bind_once


def joined(terms: Sequence[Term]) -> tuple[Hashable, ...] | None:
    """What several terms take from the session."""
    told: tuple[Hashable, ...] = ()
    for term in terms:
        if term.key is None:
            return None
        told += term.key
    return told


def _quiet(terms: Sequence[Term]) -> bool:
    return all(term.quiet for term in terms)


def _is_plain_pattern(called: Called, terms: Sequence[Term]) -> bool:
    """Whether it is LIKE with a pattern that is known and does not end with an escape, which would raise."""
    if not called.function.name.endswith("like") or len(terms) != 2 or not terms[1].known:
        return False
    pattern = terms[1].datum
    return pattern is None or (isinstance(pattern, str) and not pattern.endswith("\\"))


def _columns(terms: Sequence[Term]) -> frozenset[int]:
    return frozenset[int]().union(*(term.columns for term in terms))


def _check(called: Called, args: list[Expression], node: Node, compiler: Compiler) -> None:
    """That a call has as many arguments as the function takes, and of these types, unless it takes several types."""
    function = called.function
    listed = function.arguments.endswith('VARIADIC "any"') and node.fields.get("funcvariadic") == "false"
    fits = len(args) >= function.argument_count if listed else len(args) == function.argument_count
    if not fits or function.returns_set or function.kind != "f":
        raise NotSupported(construct(node, compiler.scope))
    for arg, expected in zip(args, function.arguments.split(", "), strict=False):
        given = compiler.type_name(arg.type_oid)
        if not (expected.endswith(given) or expected == '"any"' or "any" in expected.split()[-1]):
            raise NotSupported(f"{given} where {expected} is expected by {called.words}")


def _strict(function: Callable[..., object], terms: Sequence[Term]) -> Value:
    """A call that gives NULL for NULL. Every argument is evaluated before, as PostgreSQL does."""
    values = [term.value for term in terms]
    if len(terms) == 1:
        return _of_one(function, values[0])
    if len(terms) == 2 and terms[1].known and terms[1].datum is not None:
        second = terms[1].datum
        return _of_one(lambda first: function(first, second), values[0])
    if len(terms) == 2 and terms[0].known and terms[0].datum is not None:
        return _of_one(partial(function, terms[0].datum), values[1])
    return _of_several(function, values, _quiet(terms))


def _of_one(function: Callable[[object], object], arg: Value) -> Value:
    def value(cells: Sequence[Cell]) -> object:
        datum = arg(cells)
        return datum if datum is None or datum is UNSENT else function(datum)

    return value


def _of_several(function: Callable[..., object], values: list[Value], quiet: bool) -> Value:
    def value(cells: Sequence[Cell]) -> object:
        data = [value(cells) for value in values]
        unsent = any(datum is UNSENT for datum in data)
        if any(datum is None for datum in data) and (quiet or not unsent):
            return None
        return UNSENT if unsent else function(*data)

    return value


def _lenient(function: Callable[..., object], terms: Sequence[Term]) -> Value:
    """A call that takes NULL as it is."""
    values = [term.value for term in terms]

    def value(cells: Sequence[Cell]) -> object:
        data = [value(cells) for value in values]
        return UNSENT if any(datum is UNSENT for datum in data) else function(*data)

    return value


def comparable(left: int, right: int) -> bool:
    """Whether equal hashables of two types mean equal values."""
    return left == right or any({left, right} <= family for family in (_INTEGERS, _FLOATS, _CHARACTERS))


def _operator(node: Node, compiler: Compiler) -> Expression:
    args = [compiler.operand(arg) for arg in node.nodes("args")]
    function = compiler.scope.rights.functions.get(compiler.scope.rights.operator_functions.get(node.number("opno"), 0))
    if function is not None and str(function) in _CONCATENATIONS:
        return _concatenation(function, node, args, compiler)
    called = compiler.operator(node)
    if len(args) not in (1, 2):
        raise NotSupported(construct(node, compiler.scope))
    words = " ".join((args[0].words, called.words, args[-1].words) if len(args) == 2 else (called.words, args[0].words))
    fast = None
    if called.builtin.equality and called.function.executable and len(args) == 2:
        compiler.collation(node, called)
        fast = _raw_equality(args, compiler)
    if fast is not None and any(arg.opaque for arg in args):
        return conditional(_only(fast, words), words, args, compiler)
    checked = [compiler.valued(arg) for arg in args]
    expression = call(called, node, checked, node.number("opresulttype"), compiler, f"({words})")
    if fast is None:
        condition = array_cover(called, args, compiler, expression)
        return expression if condition is None else replace(expression, condition=condition)
    slow, quick = compiler.by_value(expression), fast
    return replace(expression, condition=lambda session: quick(session) or slow(session))


_CONCATENATIONS = frozenset({"pg_catalog.textanycat(text, anynonarray)", "pg_catalog.anytextcat(anynonarray, text)"})
"""`||` of a text and a value of another type, which PostgreSQL writes in SQL: the value is cast to text."""

_AS_PRINTED = frozenset({20, 21, 23, 26, 700, 701, 1082, 1083, 1114, 1184, 1186, 1700, 2950})
"""Types of which a cast to text is what their output function gives."""


def _concatenation(function: Function, node: Node, args: list[Expression], compiler: Compiler) -> Expression:
    texts = [arg if arg.type_oid == _TEXT else _printed(compiler.valued(arg), node, compiler) for arg in args]
    found = builtin("textcat(text, text)")
    if found is None:
        raise NotSupported(construct(node, compiler.scope))
    called = Called(found, replace(function, arguments="text, text"), "||")
    return call(called, node, texts, _TEXT, compiler, f"({args[0].words} || {args[-1].words})")


def _printed(arg: Expression, node: Node, compiler: Compiler) -> Expression:
    if compiler.base(arg.type_oid) not in _AS_PRINTED:
        raise NotSupported(f"{construct(node, compiler.scope)} with {compiler.type_name(arg.type_oid)}")
    return _through_text(arg, _TEXT, compiler)


def _only(fast: Callable[[Session], Predicate | None], words: str) -> Condition:
    def bind(session: Session) -> Predicate:
        predicate = fast(session)
        if predicate is None:
            raise SessionError(f"{words}: the value cannot be compared")
        return predicate

    return bind


def _raw_equality(args: list[Expression], compiler: Compiler) -> Callable[[Session], Predicate | None] | None:
    """`column = value of the session`, in either order, on the cell's bytes; None when it is something else."""
    for mine, other in (args, args[::-1]):
        sides = compiler.base(mine.type_oid), compiler.base(other.type_oid)
        equality, hashed = compiler.scope.types.equality(sides[0]), compiler.hashable(sides[1])
        if mine.column is None or not other.is_session or equality is None or hashed is None:
            continue
        if comparable(*sides):
            return _compared(mine.column, equality.from_cell, other.bind, hashed)
    return None


def _compared(
    column: int,
    read: Callable[[bytes], Hashable] | None,
    value: Bind,
    hashed: Callable[[object], Hashable],
) -> Callable[[Session], Predicate | None]:
    def bind(session: Session) -> Predicate | None:
        term = value(session.operand)
        if not term.known:
            return None
        if term.datum is None:
            return constant(NULL)
        try:
            return equal(column, hashed(term.datum), read)
        except ValueError:
            return None

    return bind


def call_function(node: Node, compiler: Compiler) -> Expression:
    """FUNCEXPR: a function that depends on its arguments alone."""
    called = compiler.function(node.number("funcid"), node)
    args = compiler.expressions(node.nodes("args"))
    words = f"{called.words}({', '.join(arg.words for arg in args)})"
    return call(called, node, args, node.number("funcresulttype"), compiler, words)


def _distinct(node: Node, compiler: Compiler) -> Expression:
    return _by_equality(node, compiler, "IS DISTINCT FROM", BOOLEAN, _differ)


def _nullif(node: Node, compiler: Compiler) -> Expression:
    return _by_equality(node, compiler, "NULLIF", None, _unless_equal)


def _differ(equals: Callable[..., object], first: object, second: object) -> object:
    if first is None or second is None:
        return first is not second
    return equals(first, second) is not True


def _unless_equal(equals: Callable[..., object], first: object, second: object) -> object:
    if first is None or second is None:
        return first
    return None if equals(first, second) is True else first


def _by_equality(
    node: Node,
    compiler: Compiler,
    word: str,
    type_oid: int | None,
    combine: Callable[[Callable[..., object], object, object], object],
) -> Expression:
    """What is made of `=`; NULL never reaches its function."""
    called = compiler.operator(node)
    equals, args = called.builtin, compiler.expressions(node.nodes("args"))
    if equals.contextual:
        context = Context(compiler.collation(node, called), None, compiler.moment, compiler.scope.rights.utf8)
        equals = replace(equals, call=partial(equals.call, context), contextual=False)
    combined = replace(called, builtin=replace(equals, call=partial(combine, equals.call), strict=False))
    words = f"({word} of {args[0].words} and {args[-1].words})"
    return call(combined, node, args, args[0].type_oid if type_oid is None else type_oid, compiler, words)


def _cast(node: Node, compiler: Compiler) -> Expression:
    """COERCEVIAIO: the text of a value, read as another type."""
    return _through_text(compiler.expression(node.node("arg")), node.number("resulttype"), compiler)


def _through_text(arg: Expression, target: int, compiler: Compiler) -> Expression:
    words = f"{arg.words}::{compiler.type_name(target)}"
    sides = compiler.base(arg.type_oid), compiler.base(target)
    output, read = compiler.datums.output(sides[0]), compiler.input(sides[1])
    if output is None or read is None or target != sides[1]:
        names = compiler.type_name(arg.type_oid), compiler.type_name(target)
        raise NotSupported(f"cast of {names[0]} to {names[1]}")
    context = compiler.context(Collation.LINGUISTIC)
    zoned, quiet = bool(_ZONELESS & set(sides) != set(sides)), target in _CHARACTERS
    key = compiler.exact(target)

    def bind(session: Session) -> Term:
        term, within = arg.bind(session.operand), context(session)
        value = _of_one(lambda datum: read(within, output(within, datum)), term.value)
        told = None if term.key is None else (*term.key, session.zone) if zoned else term.key
        cast = Term(value, term.columns, term.timed, quiet=quiet and term.quiet, key=told)
        if term.known and term.datum is None:
            return term
        return folded(session, words, cast, key if arg.session or zoned else None)

    return Expression(target, words, arg.columns, shared(bind, arg.session or zoned), arg.session or zoned, arg.timed)


_ZONELESS = frozenset(
    {16, 17, 18, 19, 20, 21, 23, 25, 26, 114, 650, 700, 701, 829, 869, 1042, 1043, 1186, 1700, 2950, 3802}
)
"""Types whose text depends on no time zone."""

CALLS: dict[str, Handler] = {
    "COERCEVIAIO": _cast,
    "DISTINCTEXPR": _distinct,
    "NULLIFEXPR": _nullif,
    "OPEXPR": _operator,
}
