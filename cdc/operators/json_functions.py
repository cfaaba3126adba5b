"""Operators and functions of jsonb: parts, existence, containment, changes, and casts to scalars.

Pure: no I/O. Under the server a scalar jsonb is an array of one element in disguise, which some of these show.
The manual: "JSON Functions and Operators".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from cdc.operators.arrays import Array
from cdc.operators.builtins import Builtin, Table
from cdc.operators.context import Context, Failed, Undecided
from cdc.operators.documents import Json, contains, equals, text_of

__all__ = ["TABLE", "part", "subscript"]

_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)")
_INTEGER_END = 2**31


def _field(document: Json, name: str) -> Json | None:
    value = document.value
    return Json(value[name]) if isinstance(value, dict) and name in value else None


def _element(document: Json, number: int) -> Json | None:
    value = document.value
    if isinstance(value, dict):
        return None
    elements = value if isinstance(value, list) else [value]
    return Json(elements[number]) if -len(elements) <= number < len(elements) else None


def _as_text(part: Callable[..., Json | None]) -> Callable[..., str | None]:
    def call(document: Json, place: object) -> str | None:
        found = part(document, place)
        return None if found is None else text_of(found.value)

    return call


def subscript(text: str) -> int | None:
    """The subscript that a step of a path is for an array; None when it is none."""
    match = _INTEGER.fullmatch(text)
    if match is None or len(match[1]) > 4000:
        return None
    number = int(match[1])
    return number if -_INTEGER_END <= number < _INTEGER_END else None


def part(document: Json, steps: Array) -> Json | None:
    """`#>`: what a path of texts leads to; None is NULL."""
    value = document.value
    if None in steps.elements:
        return None
    for step in steps.elements:
        assert isinstance(step, str)
        if isinstance(value, dict):
            if step not in value:
                return None
            value = value[step]
            continue
        number = subscript(step)
        if not isinstance(value, list) or number is None or not -len(value) <= number < len(value):
            return None
        value = value[number]
    return Json(value)


def _exists(document: Json, name: str) -> bool:
    value = document.value
    if isinstance(value, dict):
        return name in value
    elements = value if isinstance(value, list) else [value]
    return any(isinstance(element, str) and element == name for element in elements)


def _exists_any(document: Json, names: Array) -> bool:
    return any(_exists(document, str(name)) for name in names.elements if name is not None)


def _exists_all(document: Json, names: Array) -> bool:
    return all(_exists(document, str(name)) for name in names.elements if name is not None)


def _kind(document: Json) -> str:
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", Decimal: "number"}
    return "null" if document.value is None else kinds[type(document.value)]


def _length(document: Json) -> int:
    if not isinstance(document.value, list):
        raise Failed("the length of an array is taken of another JSON value")
    return len(document.value)


def _joined(left: Json, right: Json) -> Json:
    one, two = left.value, right.value
    if isinstance(one, dict) and isinstance(two, dict):
        return Json(one | two)
    return Json([*_elements(one), *_elements(two)])


def _elements(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _without(document: Json, names: Array | str) -> Json:
    value = _container(document)
    gone = {names} if isinstance(names, str) else {name for name in names.elements if name is not None}
    if isinstance(value, dict):
        return Json({name: inner for name, inner in value.items() if name not in gone})
    return Json([element for element in value if not (isinstance(element, str) and element in gone)])


def _without_names(document: Json, names: Array) -> Json:
    if len(names.sizes) > 1:
        raise Failed("names of fields are an array of several dimensions")
    return _without(document, names)


def _without_place(document: Json, place: int) -> Json:
    value = _container(document)
    if isinstance(value, dict):
        raise Failed("a field is deleted by a number")
    kept = len(value) + place if place < 0 else place
    return Json([element for number, element in enumerate(value) if number != kept])


def _container(document: Json) -> Any:
    if not isinstance(document.value, (dict, list)):
        raise Failed("something is deleted from a JSON scalar")
    return document.value


def _boolean(document: Json) -> bool:
    _no_null(document)
    if not isinstance(document.value, bool):
        raise Failed("another JSON value is cast to boolean")
    return document.value


def _numeric(document: Json) -> Decimal:
    _no_null(document)
    if not isinstance(document.value, Decimal):
        raise Failed("another JSON value is cast to a number")
    return document.value


def _no_null(document: Json) -> None:
    if document.value is None:
        raise Undecided("a cast of JSON's null, which fails before version 18")


def _number(name: str) -> Builtin:
    """The cast to a type of numbers: that of numeric."""

    def call(context: Context, document: Json) -> object:
        from cdc.operators.tables import builtin  # which lists this file, too

        cast = builtin(f"{name}(numeric)")
        if cast is None:
            raise Undecided(f"a cast of jsonb to {name}")
        number = _numeric(document)
        return cast.call(context, number) if cast.contextual else cast.call(number)

    return Builtin(call, contextual=True)


TABLE: Table = {
    "jsonb_eq(jsonb, jsonb)": Builtin(lambda left, right: equals(left.value, right.value)),
    "jsonb_ne(jsonb, jsonb)": Builtin(lambda left, right: not equals(left.value, right.value)),
    "jsonb_contains(jsonb, jsonb)": Builtin(lambda left, right: contains(left.value, right.value)),
    "jsonb_contained(jsonb, jsonb)": Builtin(lambda left, right: contains(right.value, left.value)),
    "jsonb_object_field(from_json jsonb, field_name text)": Builtin(_field),
    "jsonb_object_field_text(from_json jsonb, field_name text)": Builtin(_as_text(_field)),
    "jsonb_array_element(from_json jsonb, element_index integer)": Builtin(_element),
    "jsonb_array_element_text(from_json jsonb, element_index integer)": Builtin(_as_text(_element)),
    "jsonb_extract_path(from_json jsonb, VARIADIC path_elems text[])": Builtin(part),
    "jsonb_extract_path_text(from_json jsonb, VARIADIC path_elems text[])": Builtin(_as_text(part)),
    "jsonb_exists(jsonb, text)": Builtin(_exists),
    "jsonb_exists_any(jsonb, text[])": Builtin(_exists_any),
    "jsonb_exists_all(jsonb, text[])": Builtin(_exists_all),
    "jsonb_typeof(jsonb)": Builtin(_kind),
    "jsonb_array_length(jsonb)": Builtin(_length),
    "jsonb_concat(jsonb, jsonb)": Builtin(_joined),
    "jsonb_delete(jsonb, text)": Builtin(_without),
    "jsonb_delete(jsonb, integer)": Builtin(_without_place),
    "jsonb_delete(from_json jsonb, VARIADIC path_elems text[])": Builtin(_without_names),
    "bool(jsonb)": Builtin(_boolean),
    "numeric(jsonb)": Builtin(_numeric),
    **{f"{name}(jsonb)": _number(name) for name in ("int2", "int4", "int8", "float4", "float8")},
}
