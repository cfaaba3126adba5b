"""What a part of a policy is called, when a person is told why it cannot be decided.

Pure: no I/O. The tags are PostgreSQL's node tags; version 14 spells ARRAY, CASE and COALESCE, later ones add EXPR.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cdc.operators import Moment
from cdc.relation import Relation
from cdc.rls.nodes import Node
from cdc.rls.policy import TableRights
from cdc.values import Types

__all__ = ["NotSupported", "Scope", "construct"]


class NotSupported(Exception):
    """A policy has a construct that cdc cannot decide; the message is its name. Never leaves `cdc.rls`."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What the OIDs and column numbers of a node tree refer to."""

    rights: TableRights
    relation: Relation
    types: Types
    moment: Moment = field(default_factory=Moment, compare=False)

    def function(self, oid: int) -> str:
        """The function in words, such as `function public.is_member(uuid)`."""
        known = self.rights.functions.get(oid)
        return f"function with OID {oid}" if known is None else f"function {known}"

    def operator(self, oid: int) -> str:
        """The operator in words, such as `operator <>`."""
        return f"operator {self.rights.operators.get(oid, f'with OID {oid}')}"


def construct(node: Node, scope: Scope) -> str:
    """What a node is called. Raises TreeError when a field that its name needs is missing."""
    name = _NAMES.get(node.tag)
    if name is None:
        return f"the construct {node.tag}"
    return name if isinstance(name, str) else name(node, scope)


def _operator(node: Node, scope: Scope) -> str:
    words = scope.operator(node.number("opno"))
    if words != "operator =":
        return words
    typed = [(arg, _TYPE_FIELDS[arg.tag]) for arg in node.nodes("args") if arg.tag in _TYPE_FIELDS]
    return f"{words} with {' and '.join(scope.types.name(arg.number(field)) for arg, field in typed)}"


_TYPE_FIELDS = {
    "COERCEVIAIO": "resulttype",
    "CONST": "consttype",
    "FUNCEXPR": "funcresulttype",
    "OPEXPR": "opresulttype",
    "RELABELTYPE": "resulttype",
    "VAR": "vartype",
}


def _any(node: Node, scope: Scope) -> str:
    quantifier = "ANY" if node.text("useOr") == "true" else "ALL"
    return f"operator {scope.rights.operators.get(node.number('opno'), '')} {quantifier} (as IN is, too)"


def _null_test(node: Node, scope: Scope) -> str:
    return "IS NULL" if node.number("nulltesttype") == 0 else "IS NOT NULL"


def _boolean_test(node: Node, scope: Scope) -> str:
    tests = ("IS TRUE", "IS NOT TRUE", "IS FALSE", "IS NOT FALSE", "IS UNKNOWN", "IS NOT UNKNOWN")
    number = node.number("booltesttype")
    return tests[number] if 0 <= number < len(tests) else "a boolean test"


def _boolean(node: Node, scope: Scope) -> str:
    return node.text("boolop").upper()


def _column(node: Node, scope: Scope) -> str:
    number = node.number("varattno")
    if number < 0:
        return "a system column"
    column = scope.rights.columns.get(number)
    return "the whole row" if column is None else f"an expression of the column {column.name}"


def _cast(node: Node, scope: Scope) -> str:
    return f"cast to {scope.types.name(node.number('resulttype'))}"


def _domain(node: Node, scope: Scope) -> str:
    return f"cast to the domain {scope.types.name(node.number('resulttype'))}"


def _function(node: Node, scope: Scope) -> str:
    return scope.function(node.number("funcid"))


def _constant(node: Node, scope: Scope) -> str:
    return f"a constant of type {scope.types.name(node.number('consttype'))}"


_NAMES: dict[str, str | Callable[[Node, Scope], str]] = {
    "AGGREF": "aggregate",
    "ARRAY": "ARRAY",
    "ARRAYCOERCEEXPR": _cast,
    "ARRAYEXPR": "ARRAY",
    "BOOLEANTEST": _boolean_test,
    "BOOLEXPR": _boolean,
    "CASE": "CASE",
    "CASEEXPR": "CASE",
    "COALESCE": "COALESCE",
    "COALESCEEXPR": "COALESCE",
    "COERCETODOMAIN": _domain,
    "COERCEVIAIO": _cast,
    "COLLATE": "COLLATE",
    "COLLATEEXPR": "COLLATE",
    "CONST": _constant,
    "CONVERTROWTYPEEXPR": "cast of a row",
    "DISTINCTEXPR": "IS DISTINCT FROM",
    "FIELDSELECT": "field of a composite value",
    "FUNCEXPR": _function,
    "MINMAX": "GREATEST or LEAST",
    "MINMAXEXPR": "GREATEST or LEAST",
    "NULLIFEXPR": "NULLIF",
    "NULLTEST": _null_test,
    "OPEXPR": _operator,
    "RELABELTYPE": _cast,
    "ROW": "ROW",
    "ROWEXPR": "ROW",
    "ROWCOMPARE": "comparison of rows",
    "ROWCOMPAREEXPR": "comparison of rows",
    "SCALARARRAYOPEXPR": _any,
    "SQLVALUEFUNCTION": "current_user, current_date or the like",
    "SUBLINK": "sub-query",
    "SUBSCRIPTINGREF": "subscript",
    "VAR": _column,
    "XMLEXPR": "XML",
}
