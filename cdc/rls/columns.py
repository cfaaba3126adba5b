"""Columns and constants: the leaves of an expression, and casts that change nothing but a type's label.

Pure: no I/O. A column's cell is read as a datum when a function needs it; for `=` with a constant its bytes are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cdc.operators import UNSENT, Undecided
from cdc.predicate import Predicate, equal
from cdc.rls.compiler import BOOLEAN, Compiler, Condition, Handler
from cdc.rls.constants import constant_datum
from cdc.rls.constructs import NotSupported, construct
from cdc.rls.expression import Expression, Session, Term, Value, known
from cdc.rls.nodes import Node
from cdc.tuples import Cell

__all__ = ["LEAVES", "flag"]

_SAME = frozenset(
    {
        (25, 1043),
        (1043, 25),
        (25, 1042),
        (1043, 1042),
        (1009, 1015),
        (1015, 1009),
        (650, 869),
        (1560, 1562),
        (1562, 1560),
    }
)
"""Casts between types that share a text form, and of which nothing but the label changes."""

_INTEGER, _OID = 23, 26
_SHOWN = 40


def _column(node: Node, compiler: Compiler) -> Expression:
    index, base = _index(node, compiler)
    scope = compiler.scope
    name, type_oid = scope.relation.columns[index].name, node.number("vartype")
    read = compiler.datums.reader(base)
    opaque = None if read else f"an expression of the column {name} of type {compiler.type_name(type_oid)}"
    columns = frozenset({index})
    term = Term(_unread if read is None else _reading(index, read, name), columns, quiet=True)
    is_flag = base == BOOLEAN
    return Expression(
        type_oid,
        name,
        columns,
        lambda session: term,
        column=index,
        condition=flag(index) if is_flag else None,
        opaque=opaque,
    )


def _index(node: Node, compiler: Compiler) -> tuple[int, int]:
    """The index of a column in the relation, and the type that its type rests on."""
    scope = compiler.scope
    column = scope.rights.columns.get(node.number("varattno"))
    if column is None or node.number("varno") != 1 or node.number("varlevelsup") != 0:
        raise NotSupported(construct(node, scope))
    index = scope.relation.whole.columns.get(column.name)
    if index is None:
        raise NotSupported(f"column {column.name} is not in the publication")
    if not node.number("vartype") == column.type_oid == scope.relation.columns[index].type_oid:
        raise NotSupported(f"column {column.name} has another type in the stream than in the policy")
    base = compiler.base(column.type_oid)
    return index, column.base_oid if base == column.type_oid and column.base_oid else base


def _reading(index: int, read: Callable[[bytes], object], name: str) -> Value:
    def value(cells: Sequence[Cell]) -> object:
        cell = cells[index]
        if type(cell) is not bytes:
            return None if cell is None else UNSENT
        try:
            return read(cell)
        except ValueError:
            raise Undecided(f"the value of the column {name} cannot be read") from None

    return value


def _unread(cells: Sequence[Cell]) -> object:
    return UNSENT


def flag(index: int, wanted: bytes = b"t") -> Condition:
    """A boolean column on its own, or its negation: the same as `column = true`, `column = false`."""
    predicate = equal(index, wanted, None)

    def bind(session: Session) -> Predicate:
        return predicate

    return bind


def _constant(node: Node, compiler: Compiler) -> Expression:
    type_oid = node.number("consttype")
    datum = constant_datum(node, compiler.scope, compiler.datums)
    term = known(datum)
    return Expression(type_oid, _shown(datum, type_oid, compiler), frozenset(), lambda session: term)


def _shown(datum: object, type_oid: int, compiler: Compiler) -> str:
    """A constant in words: short texts and numbers as they are, since whoever reads policies may know them."""
    if datum is None:
        return "NULL"
    if isinstance(datum, str) and len(datum) <= _SHOWN and datum.isprintable():
        quoted = datum.replace("'", "''")
        return f"'{quoted}'"
    if isinstance(datum, bool | int) and type_oid in (BOOLEAN, 20, 21, _INTEGER):
        return str(datum).lower()
    return f"a constant of type {compiler.type_name(type_oid)}"


def _relabel(node: Node, compiler: Compiler) -> Expression:
    arg, target = compiler.operand(node.node("arg")), node.number("resulttype")
    pair = arg.type_oid, target
    if arg.type_oid == target or pair in _SAME or _is_base(arg, target, compiler):
        return replace(arg, type_oid=target)
    if pair == (_INTEGER, _OID):
        return _as_oid(compiler.valued(arg))
    what = f"the column {arg.words}" if arg.column is not None else compiler.type_name(arg.type_oid)
    raise NotSupported(f"cast of {what} to {compiler.type_name(target)}")


def _is_base(arg: Expression, target: int, compiler: Compiler) -> bool:
    """Whether the target is what the argument's domain rests on."""
    if compiler.base(arg.type_oid) == target:
        return True
    columns = compiler.scope.rights.columns.values()
    return any(column.type_oid == arg.type_oid and column.base_oid == target for column in columns)


def _as_oid(arg: Expression) -> Expression:
    """integer to oid: the same four bytes, without a sign."""

    def bind(session: Session) -> Term:
        term = arg.bind(session)
        if term.known:
            return replace(term, value=lambda cells: _unsigned(term.datum), datum=_unsigned(term.datum))
        return replace(term, value=lambda cells: _unsigned(term.value(cells)))

    return replace(arg, type_oid=_OID, bind=bind, column=None)


def _unsigned(datum: object) -> object:
    return datum % 2**32 if isinstance(datum, int) else datum


def _case_test(node: Node, compiler: Compiler) -> Expression:
    if compiler.case is None:
        raise NotSupported(construct(node, compiler.scope))
    return compiler.case


def _collate(node: Node, compiler: Compiler) -> Expression:
    """COLLATE: what it means stands in the calls around it, as their inputcollid."""
    return compiler.operand(node.node("arg"))


LEAVES: dict[str, Handler] = {
    "CASETESTEXPR": _case_test,
    "COLLATE": _collate,
    "COLLATEEXPR": _collate,
    "CONST": _constant,
    "RELABELTYPE": _relabel,
    "VAR": _column,
}
