"""Row filters as subscribers write them: `column=eq.value`, the form of PostgREST, made into predicates.

Pure: no I/O, no clock. This version knows the operator `eq`. The value is everything behind `eq.`, literally, or one
string in double quotes in which a backslash keeps the character behind it.
"""

from __future__ import annotations

import re

from cdc.errors import SubscriptionError
from cdc.predicate import Predicate, equal
from cdc.relation import Column, Relation
from cdc.values import Equality, Types

__all__ = ["compile_filter"]

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_OPERATOR = r"[A-Za-z_]+(?:\([a-z]*\))?"
_FILTER = re.compile(rf"({_QUOTED}|[^\"=][^=]*)=({_OPERATOR})\.(.*)", re.DOTALL)
_VALUE = re.compile(_QUOTED, re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def compile_filter(text: str, relation: Relation, types: Types) -> Predicate:
    """The predicate of a filter such as `project_id=eq.33` on a table.

    Arguments: `text`, the filter; `relation`, the table; `types`, the types of its server. A NULL cell gives the
    outcome NULL, one that was not sent UNKNOWN. The column's collation, if it is text, is for the caller to check.
    Raises SubscriptionError with one sentence that says what is wrong and what to write instead.
    """
    name, operator, value = _parts(text)
    if operator != "eq":
        raise SubscriptionError(
            f"filter {text!r} uses the operator {operator!r}, but this version supports eq only: write column=eq.value"
        )
    index = _index(name, relation)
    column = relation.columns[index]
    equality = _equality(column, relation, types)
    return equal(index, _constant(value, column, relation, equality, types), equality.from_cell)


def _parts(text: str) -> tuple[str, str, str]:
    """Column, operator and value, without quotes."""
    if not text.strip():
        raise SubscriptionError("the filter is empty: write column=eq.value, or no filter to receive every row")
    match = _FILTER.fullmatch(text)
    if match is None:
        raise SubscriptionError(f"{text!r} is not a filter: write column=eq.value, such as project_id=eq.33")
    name, operator, value = match.groups()
    if value.startswith('"') and not _VALUE.fullmatch(value):
        raise SubscriptionError(
            f"filter {text!r} has a quote that does not end its value: "
            'write column=eq."value", with a backslash before each quote that belongs to the value'
        )
    return _unquoted(name), operator, _unquoted(value)


def _unquoted(text: str) -> str:
    return _ESCAPED.sub(r"\1", text[1:-1]) if text.startswith('"') else text


def _index(name: str, relation: Relation) -> int:
    try:
        return relation.whole.columns[name]
    except KeyError:
        names = ", ".join(relation.whole.columns)
        raise SubscriptionError(
            f"the filter names the column {name!r}, but the published columns of {relation} are: {names}"
        ) from None


def _equality(column: Column, relation: Relation, types: Types) -> Equality:
    equality = types.equality(column.type_oid)
    if equality is None:
        raise SubscriptionError(
            f"column {column.name!r} of {relation} is of type {types.name(column.type_oid)}, which a filter cannot "
            "compare: filter by another column, or in the handler"
        )
    return equality


def _constant(value: str, column: Column, relation: Relation, equality: Equality, types: Types) -> object:
    try:
        return equality.from_text(value)
    except ValueError as error:
        raise SubscriptionError(
            f"the filter's value does not fit column {column.name!r} of {relation}, "
            f"of type {types.name(column.type_oid)}: {error}"
        ) from None
