"""Covers of array columns: the elements of which a row must have one when `= ANY`, `@>` or `&&` is true.

Pure: no I/O. The condition is evaluated on the array all the same; an index only finds the rows to evaluate it for.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from weakref import WeakKeyDictionary

from cdc.operators.arrays import Array
from cdc.predicate import Cover, Predicate, Probe
from cdc.rls.compiler import Called, Compiler, Condition
from cdc.rls.expression import Expression, Session
from cdc.values import Types

__all__ = ["array_cover", "covered"]

_INDEXED = frozenset({19, 20, 21, 23, 25, 26, 1043, 1082, 1114, 1184, 2950})
"""Element types of which equal datums are equal in Python, and may be looked up in an index."""

_Read = Callable[[bytes], Hashable]

_READERS: WeakKeyDictionary[Types, dict[int, _Read]] = WeakKeyDictionary()
"""One reader for each array type of a server, since probes with the same reader share an index."""


def array_cover(called: Called, args: list[Expression], compiler: Compiler, expression: Expression) -> Condition | None:
    """The condition of `@>`, `<@` or `&&` of an array column and an array of the session, with its cover."""
    name = called.function.signature.partition("(")[0]
    if name not in ("arraycontains", "arraycontained", "arrayoverlap") or len(args) != 2:
        return None
    sides = args[::-1] if name == "arraycontained" else args
    for column, other in (sides, sides[::-1]) if name == "arrayoverlap" else (sides,):
        if column.column is not None and other.is_session:
            wanted = _first_element if name != "arrayoverlap" else _all_elements
            return covered(expression, column, wanted, other, compiler)
    return None


def _first_element(datum: object) -> Iterable[object] | None:
    """For `@>`: the row has all elements, so it has the first one; without one, every row has all."""
    elements = datum.elements if isinstance(datum, Array) else ()
    return elements[:1] or None


def _all_elements(datum: object) -> Iterable[object] | None:
    return datum.elements if isinstance(datum, Array) else None


def covered(
    expression: Expression,
    column: Expression,
    wanted: Callable[[object], Iterable[object] | None],
    other: Expression,
    compiler: Compiler,
) -> Condition | None:
    """The condition with the elements as its cover, where their type allows that."""
    read = _elements_reader(column, compiler)
    if read is None or column.column is None:
        return None
    value = other.bind
    slow, probe = compiler.by_value(expression), Probe(column.column, read, elements=True)

    def bind(session: Session) -> Predicate:
        predicate, term = slow(session), value(session.operand)
        elements = wanted(term.datum) if term.known and term.datum is not None else None
        if elements is None or not predicate.columns:
            return predicate
        cover: Cover = frozenset((probe, _hashable(element)) for element in elements if element is not None)
        return replace(predicate, cover=cover)

    return bind


def _hashable(element: object) -> Hashable:
    assert isinstance(element, Hashable)
    return element


def _elements_reader(column: Expression, compiler: Compiler) -> _Read | None:
    """What turns the cell of an array column into the datums of its elements; None when they are not indexed."""
    type_oid = compiler.base(column.type_oid)
    kind, read = compiler.datums.element(type_oid), compiler.datums.reader(type_oid)
    if kind is None or read is None or kind.oid not in _INDEXED:
        return None
    readers = _READERS.setdefault(compiler.scope.types, {})
    return readers.setdefault(type_oid, lambda cell: _hashables(read(cell)))


def _hashables(datum: object) -> tuple[Hashable, ...]:
    elements = datum.elements if isinstance(datum, Array) else ()
    return tuple(_hashable(element) for element in elements if element is not None)
