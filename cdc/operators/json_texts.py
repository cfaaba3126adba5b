"""Operators and functions of json, which is a text: a part of it is as it was written.

Pure: no I/O. The whole text is read each time, as the server does, so an escape that is no character fails wherever it
is. The manual: "JSON Functions and Operators".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]  # it is there, and reads one string

from cdc.operators.arrays import Array
from cdc.operators.builtins import Builtin, Table
from cdc.operators.context import Failed, Undecided
from cdc.operators.documents import loaded
from cdc.operators.json_functions import subscript

__all__ = ["TABLE"]

_BLANKS = re.compile(r"[ \t\n\r]*")
_SCANNER = json.JSONDecoder(parse_int=str, parse_float=str)
_KINDS = {"{": "object", "[": "array", '"': "string", "t": "boolean", "f": "boolean", "n": "null"}
_Part = tuple[str, int]
"""A part as it is written, and how often its name is there."""


def _checked(text: str) -> str:
    """The document without blanks around it. Raises Failed and Undecided, as reading it whole does."""
    loaded(text)
    return text.strip(" \t\n\r")


def _skip(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return at if match is None else match.end()


def _fields(text: str) -> Iterator[tuple[str, str]]:
    """The fields of an object that is JSON: name, and value as it is written."""
    at = _skip(text, 1)
    while text[at] != "}":
        name, at = scanstring(text, at + 1)
        at = _skip(text, _skip(text, at) + 1)
        _, end = _SCANNER.scan_once(text, at)  # type: ignore[attr-defined]  # made by __init__
        yield name, text[at:end]
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _elements(text: str) -> Iterator[str]:
    at = _skip(text, 1)
    while text[at] != "]":
        _, end = _SCANNER.scan_once(text, at)  # type: ignore[attr-defined]  # made by __init__
        yield text[at:end]
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _named(text: str, name: str) -> _Part | None:
    """The last field of a name."""
    found = [value for each, value in _fields(text) if each == name] if text[0] == "{" else []
    return (found[-1], len(found)) if found else None


def _numbered(text: str, number: int) -> str | None:
    elements = list(_elements(text)) if text[0] == "[" else []
    return elements[number] if -len(elements) <= number < len(elements) else None


def _field(text: str, name: str) -> str | None:
    found = _named(_checked(text), name)
    return None if found is None else found[0]


def _element(text: str, number: int) -> str | None:
    return _numbered(_checked(text), number)


def _path(text: str, steps: Array) -> str | None:
    if None in steps.elements:
        return None
    found: str | None = _checked(text)
    for place, step in enumerate(steps.elements, 1):
        if found is None:
            break
        found = _step(found, str(step), is_last=place == len(steps.elements))
    return found


def _step(text: str, step: str, *, is_last: bool) -> str | None:
    if text[0] == "{":
        found = _named(text, step)
        if found is None:
            return None
        if found[1] > 1 and not is_last:
            raise Undecided("a path through one of several fields with one name")
        return found[0]
    number = subscript(step)
    return None if number is None else _numbered(text, number)


def _as_text(part: Callable[..., str | None]) -> Callable[..., str | None]:
    """What `->>` makes of a part: the characters of a string, NULL for null, and else the part as it is written."""

    def call(text: str, place: object) -> str | None:
        found = part(text, place)
        if found is None or found == "null":
            return None
        return str(scanstring(found, 1)[0]) if found[0] == '"' else found

    return call


def _kind(text: str) -> str:
    return _KINDS.get(text.lstrip(" \t\n\r")[:1], "number")


def _length(text: str) -> int:
    document = _checked(text)
    if document[0] != "[":
        raise Failed("the length of an array is taken of another JSON value")
    return len(list(_elements(document)))


TABLE: Table = {
    "json_object_field(from_json json, field_name text)": Builtin(_field),
    "json_object_field_text(from_json json, field_name text)": Builtin(_as_text(_field)),
    "json_array_element(from_json json, element_index integer)": Builtin(_element),
    "json_array_element_text(from_json json, element_index integer)": Builtin(_as_text(_element)),
    "json_extract_path(from_json json, VARIADIC path_elems text[])": Builtin(_path),
    "json_extract_path_text(from_json json, VARIADIC path_elems text[])": Builtin(_as_text(_path)),
    "json_typeof(json)": Builtin(_kind),
    "json_array_length(json)": Builtin(_length),
}
