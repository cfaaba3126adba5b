"""Random filters, each as a subscriber writes it and as a condition in SQL."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.oracle.grammar import Column, literal
from tests.oracle.templates import ORDERED, PATTERNS, REGEXES

__all__ = ["Filter", "draw_filter"]

_COMPARISONS = {
    "eq": "=",
    "neq": "<>",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "isdistinct": "IS DISTINCT FROM",
}
_PATTERNS = {"like": "LIKE", "ilike": "ILIKE"}
_REGEXES = {"match": "~", "imatch": "~*"}
_TEXTS = {"text", "bpchar", "name"}
_USUAL = {"uuid", "bool", "int", "oid", "numeric", "float", "date", "timestamp", "timestamptz", "time", "mood", *_TEXTS}
"""What filters are for; on other columns most of them are refused."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter.

    Attributes:
        text: as it is given to `subscribe`.
        sql: the same for PostgreSQL.
        columns: the columns in it.
    """

    text: str
    sql: str
    columns: frozenset[str]


def draw_filter(draw: Random, columns: list[Column]) -> Filter:
    """One to three conditions; all of them are to hold."""
    usual = [column for column in columns if column.kind.family in _USUAL] or columns
    chosen = [
        _condition(draw, draw.choice(columns if draw.random() < 0.1 else usual))
        for _ in range(draw.choice((1, 1, 1, 2, 2, 3)))
    ]
    sql = " AND ".join(f"({condition.sql})" for condition in chosen)
    return Filter(
        ",".join(condition.text for condition in chosen), sql, frozenset().union(*(each.columns for each in chosen))
    )


def _condition(draw: Random, column: Column) -> Filter:
    name, family = column.name, column.kind.family
    words = ["is"]
    if family in ORDERED:
        words += ["eq", "eq", "eq", "in", "in", *_COMPARISONS]
    if family in _TEXTS:
        words += [*_PATTERNS, *_REGEXES]
    word = draw.choice(words)
    negated = draw.random() < 0.2
    value, sql = _operation(draw, word, column)
    text = f"{name}={'not.' * negated}{word}.{value}"
    return Filter(text, f"NOT ({sql})" if negated else sql, frozenset({name}))


def _operation(draw: Random, word: str, column: Column) -> tuple[str, str]:
    name, texts = column.name, [text for text in column.kind.texts if len(text) < 100]
    if column.kind.family == "timestamptz":
        texts = [text + "+00" * (text[-1:].isdigit() and text[-3:-2] not in "+-") for text in texts if "BC" not in text]
    if word in _COMPARISONS:
        value = draw.choice(texts)
        return _quoted(draw, value), f"{name} {_COMPARISONS[word]} {literal(value, '')}"
    if word == "in":
        values = [draw.choice(texts) for _ in range(draw.randint(1, 4))]
        listed = ", ".join(literal(value, "") for value in values)
        return f"({','.join(_always_quoted(value) for value in values)})", f"{name} IN ({listed})"
    if word == "is":
        value = draw.choice(("null", "null", "true", "false", "unknown") if column.kind.family == "bool" else ("null",))
        return value, f"{name} IS {value}"
    if word in _PATTERNS:
        pattern = draw.choice(PATTERNS)
        written = pattern.replace("%", "*") if draw.random() < 0.5 and "\\" not in pattern else pattern
        return _always_quoted(written), f"{name} {_PATTERNS[word]} {literal(pattern, '')}"
    value = draw.choice(REGEXES)
    return _always_quoted(value), f"{name} {_REGEXES[word]} {literal(value, '')}"


def _quoted(draw: Random, value: str) -> str:
    plain = value and not set(value) & set(',()"\\') and value.strip() == value
    return value if plain and draw.random() < 0.7 else _always_quoted(value)


def _always_quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
