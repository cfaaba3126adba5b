"""Subscripts: `tags[1]` of arrays and `data['a']` of jsonb.

Pure: no I/O. A subscript is compiled as the call of a function that PostgreSQL has no name for. Slices are refused.
The manual: "Arrays", Accessing Arrays; "JSON Types", jsonb Subscripting.
"""

from __future__ import annotations

from cdc.operators import Builtin
from cdc.operators.array_functions import TEXTS
from cdc.operators.arrays import Array, array_of
from cdc.operators.documents import Json
from cdc.operators.json_functions import part
from cdc.rls.calls import call
from cdc.rls.compiler import Called, Compiler, Handler
from cdc.rls.constructs import NotSupported, construct
from cdc.rls.expression import Expression
from cdc.rls.nodes import Node
from cdc.rls.policy import Function

__all__ = ["SUBSCRIPTS"]

_JSONB = 3802


def _element(array: Array, *places: int) -> object:
    return array.at(places)


def _part(document: Json, *steps: object) -> object:
    return part(document, array_of(TEXTS, map(str, steps)))


def _subscript(node: Node, compiler: Compiler) -> Expression:
    whole = compiler.expression(node.node("refexpr"))
    places = compiler.expressions(node.nodes("refupperindexpr"))
    is_slice = node.fields.get("reflowerindexpr") not in (None, ()) or node.fields.get("refassgnexpr") is not None
    base, result = compiler.base(whole.type_oid), node.number("refrestype")
    is_element = compiler.datums.element(base) is not None
    if is_slice or not places or not (is_element or base == _JSONB):
        raise NotSupported(construct(node, compiler.scope))
    args = [whole, *places]
    function = Function(
        schema="pg_catalog",
        name="subscript",
        arguments=", ".join(compiler.type_name(arg.type_oid) for arg in args),
        language="internal",
        body="",
        security_definer=False,
        settings=(),
        result=result,
        returns_set=False,
        argument_count=len(args),
        kind="f",
        volatility="i",
        executable=True,
    )
    called = Called(Builtin(_element if is_element else _part), function, "subscript")
    return call(
        called, Node("FUNCEXPR", {**node.fields, "inputcollid": "0", "args": ()}), args, result, compiler, "subscript"
    )


SUBSCRIPTS: dict[str, Handler] = {"SUBSCRIPTINGREF": _subscript}
