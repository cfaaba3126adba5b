"""Cells of json and jsonb.

Pure: no I/O, no clock. Numbers become int or float, as `json.loads` makes them; who needs the digits that a float
does not hold reads the row's text. The manual: "Data Types", JSON Types.
"""

from __future__ import annotations

import json

from cdc.values.equality import quoted

__all__ = ["DEEPEST", "document_of", "is_deep"]

DEEPEST = 200


def document_of(cell: bytes) -> object:
    """The Python value of a JSON cell: dict, list, str, int, float, bool or None.

    An integer of more digits than Python turns into an int stays text. Raises ValueError for what is no JSON,
    and for a document nested more than 200 levels deep, on which Python's recursion would fail, if not here
    then where it is written again.
    """
    text = cell.decode()
    try:
        value = _loaded(text)
    except RecursionError:
        raise _too_deep(text) from None
    if cell.count(b"[") + cell.count(b"{") > DEEPEST and is_deep(value):
        raise _too_deep(text)
    return value


def _loaded(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python's limit on the digits of an int
        return json.loads(text, parse_int=_int_or_text)


def _int_or_text(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits


def is_deep(value: object) -> bool:
    """Whether a document is nested more than 200 levels deep; Python's own limit differs between its versions."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return any(isinstance(value, (dict, list)) for value in level)


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _too_deep(text: str) -> ValueError:
    return ValueError(f"the document {quoted(text[:100])} is nested more than {DEEPEST} levels deep")
