"""The grammar of filters: a text becomes conditions, each a column, an operator and its values.

Pure: no I/O. Conditions are joined by commas, and all of them are to hold. A value ends at the next comma, or is a
string in double quotes in which a backslash keeps the character behind it. Columns and types are not known here.
The manual: PostgREST, "Operators" and "Reserved characters"; Supabase Realtime, "Postgres Changes".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from cdc.errors import SubscriptionError
from cdc.values.equality import quoted

__all__ = ["OPERATORS", "Condition", "conditions"]

OPERATORS = (
    "eq", "neq", "lt", "lte", "gt", "gte", "in", "is", "isdistinct", "like", "ilike", "match", "imatch",
)  # fmt: skip
"""The operators of filters."""

_MOST_VALUES = 100
_MOST_CONDITIONS = 100

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_COLUMN = re.compile(rf'({_QUOTED}|[^",=][^,=]*)=', re.DOTALL)
_OPERATOR = re.compile(r"(not\.)?([A-Za-z_]+(?:\([a-z]*\))?)\.")
_STRING = re.compile(_QUOTED, re.DOTALL)
_PLAIN = re.compile(r"[^,]*", re.DOTALL)
_ITEM = re.compile(rf"(?: *({_QUOTED}) *|(?! *\")([^,()]*))(?=[,)])", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_NESTED = re.compile(r"(?:not\.)?(?:and|or)=?\(")

_ELSEWHERE = {
    "cs": "what an array, a range or a document contains",
    "cd": "what an array, a range or a document is contained in",
    "ov": "whether arrays or ranges overlap",
    "sl": "ranges",
    "sr": "ranges",
    "nxl": "ranges",
    "nxr": "ranges",
    "adj": "ranges",
    "fts": "documents by words",
    "plfts": "documents by words",
    "phfts": "documents by words",
    "wfts": "documents by words",
}
"""What PostgREST has and subscribers do not."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One `column=operator.value`.

    Attributes:
        text: as it was written.
        column: name of the column, without quotes.
        negated: whether `not.` stands before the operator.
        operator: one of `OPERATORS`.
        values: one value, or the list of `in`; without quotes.
    """

    text: str
    column: str
    negated: bool
    operator: str
    values: tuple[str, ...]

    @property
    def value(self) -> str:
        """The value of an operator that takes one."""
        return self.values[0]


def conditions(text: str) -> list[Condition]:
    """The conditions of a filter such as `status=eq.active,depth=gt.100`; all of them are to hold.

    Raises SubscriptionError with one sentence that says what is wrong and what to write instead.
    """
    if not text.strip():
        raise SubscriptionError("the filter is empty: write column=eq.value, or no filter to receive every row")
    found = list(_conditions(text))
    if len(found) > _MOST_CONDITIONS:
        raise SubscriptionError(
            f"the filter has {len(found)} conditions, and at most {_MOST_CONDITIONS} are taken: write "
            "column=in.(…) for several values of a column, or compare in the handler"
        )
    return found


def _conditions(text: str) -> Iterator[Condition]:
    place = 0
    while True:
        column, start = _column(text, place)
        negated, operator, start = _operator(text, place, start)
        values, end = _values(text, operator, start)
        yield Condition(text[place:end], column, negated, operator, values)
        if end == len(text):
            return
        place = end + 1


def _column(text: str, place: int) -> tuple[str, int]:
    """Name of the column that begins here, and where its operator begins."""
    if _NESTED.match(text, place):
        raise SubscriptionError(
            f"filter {quoted(text)} has and(…) or or(…), which filters do not take: conditions joined by commas are "
            "all to hold; for either of two, write column=in.(a,b) or make two subscriptions"
        )
    match = _COLUMN.match(text, place)
    if match is None:
        raise _no_filter(text, place)
    return _unquoted(match[1]), match.end()


def _operator(text: str, place: int, start: int) -> tuple[bool, str, int]:
    """Whether it is negated, the operator, and where its value begins."""
    match = _OPERATOR.match(text, start)
    if match is None:
        raise _no_filter(text, place)
    operator = match[2]
    if operator not in OPERATORS:
        raise SubscriptionError(f"filter {quoted(text)} uses the operator {operator!r}: {_instead(operator)}")
    return match[1] is not None, operator, match.end()


def _instead(operator: str) -> str:
    name, _, quantifier = operator.partition("(")
    if quantifier and name in OPERATORS:
        return "filters have no (any) and no (all); write column=in.(a,b) for one of several values"
    if name in _ELSEWHERE:
        return (
            f"it compares {_ELSEWHERE[name]}, which filters cannot; compare in the handler, or write one of "
            f"{', '.join(OPERATORS)}"
        )
    near = get_close_matches(name.lower(), OPERATORS, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{meant}There are {', '.join(OPERATORS)}, each also behind not., as in column=not.eq.value"


def _values(text: str, operator: str, start: int) -> tuple[tuple[str, ...], int]:
    """The values, and where the condition ends: at a comma, or with the text."""
    if operator == "in":
        return _list(text, start)
    if not text.startswith('"', start):
        match = _PLAIN.match(text, start)
        assert match is not None
        return (match[0],), match.end()
    match = _STRING.match(text, start)
    if match is None or text[match.end() : match.end() + 1] not in ("", ","):
        raise SubscriptionError(
            f"filter {quoted(text)} has a quote that does not end its value: "
            'write column=eq."value", with a backslash before each quote that belongs to the value'
        )
    return (_unquoted(match[0]),), match.end()


def _list(text: str, start: int) -> tuple[tuple[str, ...], int]:
    """The values of `in`, which stand in parentheses."""
    values: list[str] = []
    place = start
    while text[place : place + 1] == ("," if values else "("):
        match = _ITEM.match(text, place + 1)
        if match is None:
            raise _no_list(text)
        values.append(match[2] if match[1] is None else _unquoted(match[1]))
        place = match.end()
    if not values or text[place + 1 : place + 2] not in ("", ","):
        raise _no_list(text)
    if place == start + 1:
        raise SubscriptionError(f"filter {quoted(text)} has no value: write column=in.(a,b), or no filter at all")
    if len(values) > _MOST_VALUES:
        raise SubscriptionError(
            f"the filter gives {len(values)} values to in, and at most {_MOST_VALUES} are taken: make several "
            "subscriptions, or compare in the handler"
        )
    return tuple(values), place + 1


def _no_list(text: str) -> SubscriptionError:
    return SubscriptionError(
        f"filter {quoted(text)} has no list behind in: write column=in.(a,b), with double quotes around a value that "
        'has a comma or a parenthesis in it, as in ("a,b",c)'
    )


def _no_filter(text: str, place: int) -> SubscriptionError:
    part = text[place:]
    if place and "=" not in part:
        return SubscriptionError(
            f"{quoted(part)} in {quoted(text)} is not a filter: a comma begins the next one; a value with a comma in "
            'it stands in double quotes, as in column=eq."a,b"'
        )
    return SubscriptionError(f"{quoted(part)} is not a filter: write column=eq.value, such as project_id=eq.33")


def _unquoted(text: str) -> str:
    return _ESCAPED.sub(r"\1", text[1:-1]) if text.startswith('"') else text
