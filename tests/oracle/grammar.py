"""Draws random expressions over the columns of one table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from tests.oracle.kinds import BY_FAMILY, Kind
from tests.oracle.templates import (
    ANY_FAMILY,
    BY_COLUMN,
    CONNECTIVES,
    FIELDS,
    LOGIC,
    MARKS,
    OF_SESSION,
    ORDERED,
    PATTERNS,
    REGEXES,
    SESSION_CONDITIONS,
    SMALL,
    VALUES,
    Template,
)

__all__ = ["Column", "Expression", "Grammar", "literal"]

_PLACE = re.compile(r"(\{\{|\}\})|\{([a-zA-Z0-9]+)(?::([a-z]+))?\}")
_WORDS = {"pattern": PATTERNS, "regex": REGEXES, "field": FIELDS, "mark": MARKS}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a random table."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Expression:
    """A piece of SQL, the constructs in it, and the conditions within that could stand in its place."""

    sql: str
    constructs: frozenset[str] = frozenset()
    parts: tuple[Expression, ...] = ()


def literal(text: str, cast: str) -> str:
    """A constant as SQL."""
    quoted = "'" + text.replace("'", "''") + "'"
    return f"{quoted}::{cast}" if cast else quoted


class Grammar:
    """Expressions over some columns.

    Args:
        draw: where chance comes from.
        columns: the columns of the table.
        focus: the construct that most conditions are to have, where the columns allow it; empty for no such.
    """

    def __init__(self, draw: Random, columns: list[Column], focus: str = "") -> None:
        self._draw = draw
        self._focus = focus
        self._families: dict[str, list[Column]] = {}
        for column in columns:
            self._families.setdefault(column.kind.family, []).append(column)
        self._columns = columns
        self._names: set[str] = set()
        self._parts: list[Expression] = []

    def condition(self, depth: int = 2) -> Expression:
        """A boolean expression."""
        draw = self._draw
        chance = draw.random()
        if depth > 1 and chance < 0.12:
            return self.logic(depth)
        if depth > 0 and chance < 0.34:
            return self._connected(depth)
        if self._focus == "logic" and draw.random() < 0.7:
            return self.logic(3)
        if self._focus and draw.random() < 0.7:
            focused = self._focused()
            if focused:
                family, template = draw.choice(focused)
                return self._filled(template, depth, family)
        if chance < 0.44:
            return self._filled(self._pick(SESSION_CONDITIONS), depth, "")
        family = draw.choice(self._columns).kind.family
        own = BY_COLUMN.get(family, [])
        generic = ANY_FAMILY if family in ORDERED else []
        templates = own if own and (not generic or draw.random() < 0.5) else generic
        return self._filled(self._pick(templates), depth, family)

    def _focused(self) -> list[tuple[str, Template]]:
        """The templates of the construct in focus, and the families that the table has for them."""
        found = [("", each) for each in SESSION_CONDITIONS]
        for family in self._families:
            found += [(family, each) for each in BY_COLUMN.get(family, [])]
            if family in ORDERED:
                found += [(family, each) for each in (*ANY_FAMILY, *LOGIC) if each[2].count("{F")]
        return [(family, each) for family, each in found if each[1] == self._focus]

    def logic(self, depth: int) -> Expression:
        """AND, OR, NOT and tests of truth around conditions that are NULL, or raise, for some rows."""
        draw = self._draw
        if depth <= 0 or draw.random() < 0.15:
            family = draw.choice([family for family in self._families if family in ORDERED] or ["int"])
            template = self._pick([each for each in LOGIC if each[2].startswith("{F") or self._has(each[2])])
            return self._filled(template, 0, family)
        word, parts = draw.choice(CONNECTIVES), tuple(self.logic(depth - 1) for _ in range(2))
        sql = word.replace("{0}", f"({parts[0].sql})").replace("{1}", f"({parts[1].sql})")
        used = parts if "{1}" in word else parts[:1]
        names = frozenset({"logic"}).union(*(part.constructs for part in used))
        return Expression(sql, names, used)

    def _has(self, template: str) -> bool:
        return any(f"{{{family}:col}}" in template for family in self._families)

    def _connected(self, depth: int) -> Expression:
        word = self._draw.choice(("AND", "OR", "OR", "NOT"))
        parts = tuple(self.condition(depth - 1) for _ in range(1 if word == "NOT" else self._draw.choice((2, 2, 3))))
        constructs = frozenset({word}).union(*(part.constructs for part in parts))
        text = f"NOT ({parts[0].sql})" if word == "NOT" else f" {word} ".join(f"({part.sql})" for part in parts)
        return Expression(text, constructs, parts)

    def _pick(self, templates: list[Template]) -> Template:
        return self._draw.choices(templates, [weight for weight, _, _ in templates])[0]

    def _filled(self, template: Template, depth: int, family: str) -> Expression:
        _, name, text = template
        names, parts = {name}, []
        whole = text.replace("{F}", f"{{{family}}}").replace("{F:", f"{{{family}:")

        def place(match: re.Match[str]) -> str:
            if match[1]:
                return match[1][0]
            found = self._place(match[2], match[3], depth)
            names.update(found.constructs)
            if match[2] == "bool" and match[3] is None:
                parts.append(found)
                return f"({found.sql})"
            return found.sql

        return Expression(_PLACE.sub(place, whole), frozenset(names), tuple(parts))

    def _place(self, family: str, sort: str | None, depth: int) -> Expression:
        if family in _WORDS:
            return Expression(literal(self._draw.choice(_WORDS[family]), ""))
        if family == "small":
            return Expression(self._draw.choice(SMALL))
        if sort == "col":
            return self._column(family)
        if sort == "ses":
            return self._session(family)
        if sort == "null":
            return Expression(f"NULL::{self._cast(family)}")
        if sort == "lit":
            return self._literal(family)
        if family == "bool":
            return self.condition(depth - 1) if depth > 0 else self._leaf(family)
        if depth > 0 and family in VALUES and self._draw.random() < 0.12:
            return self._filled(self._pick(VALUES[family]), depth - 1, family)
        return self._leaf(family)

    def _leaf(self, family: str) -> Expression:
        chance = self._draw.random()
        if chance < 0.25 and family in self._families:
            return self._column(family)
        if chance < 0.5 and family in OF_SESSION:
            return self._session(family)
        return self._literal(family)

    def _column(self, family: str) -> Expression:
        columns = self._families.get(family)
        return Expression(self._draw.choice(columns).name) if columns else self._literal(family)

    def _session(self, family: str) -> Expression:
        choices = OF_SESSION.get(family)
        if choices is None:
            return self._literal(family)
        text = self._draw.choice(choices).replace("{{", "{").replace("}}", "}")
        names = {
            word
            for word in (
                "auth.uid()",
                "auth.jwt()",
                "auth.role()",
                "auth.email()",
                "current_setting",
                "current_user",
                "now()",
            )
            if word in text
        }
        return Expression(text, frozenset(names))

    def _literal(self, family: str) -> Expression:
        draw = self._draw
        if draw.random() < 0.03:
            return Expression(f"NULL::{self._cast(family)}")
        kind = draw.choice(BY_FAMILY[family])
        text = draw.choice([text for text in kind.texts if len(text) < 100 or draw.random() < 0.05])
        if family == "int" and draw.random() < 0.7:
            return Expression(text if not text.startswith("-") else f"({text})")
        bare = draw.random() < (0.6 if family == "text" else 0.3)
        return Expression(literal(text, "" if bare else kind.cast or kind.name))

    def _cast(self, family: str) -> str:
        kind = self._draw.choice(BY_FAMILY[family])
        return kind.cast or kind.name
