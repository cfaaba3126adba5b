"""Functions held against a server: every combination of edge values, called there and here."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from cdc.catalog import load_types
from cdc.operators import Builtin, Context, Datums, Failed, Undecided
from cdc.values import Types

SETTINGS = {
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "timezone": "UTC",
}
ATTEMPT = """
CREATE FUNCTION pg_temp.attempt(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
    EXECUTE query INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    RETURN '!' || SQLSTATE;
END $$;
"""
_FOUND = """
SELECT p.oid, ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY _(t, n) ORDER BY n),
       p.prorettype, format_type(p.prorettype, NULL), p.proisstrict
FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace
  AND p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')' = %s
"""
_MOST_CALLS = 500
HUGE = {"bit(bit, integer, boolean)", "varbit(bit varying, integer, boolean)"}
"""Functions of which a great integer makes the server write gigabytes."""
_UNDECIDED = object()


@dataclass(frozen=True)
class Called:
    """How a signature is called on the server: its name, its arguments' types, and the result's."""

    name: str
    arguments: tuple[str, ...]
    result_oid: int
    is_strict: bool


_UNLIMITED = {"bit": '"bit"', "character": "bpchar"}
"""How SQL spells a type whose plain name means one of length 1."""


def quoted(literal: str | None, name: str) -> str:
    """A literal of a type as SQL has it."""
    return f"{_quoted(literal)}::{_UNLIMITED.get(name, name)}"


def _quoted(literal: str | None) -> str:
    if literal is None:
        return "NULL"
    escaped = literal.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


class Grid:
    """A connection to a server, edge values of types, and what both sides make of them."""

    def __init__(self, connection: psycopg.Connection[Any], literals: dict[str, list[str]], zone: str) -> None:
        self.connection = connection
        self.literals = literals
        self.version = connection.info.server_version // 10000
        self.types = Types()
        self.datums = Datums(self.types)
        self.context = Context(zone=ZoneInfo(zone))
        connection.execute(ATTEMPT)
        for name, value in SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        self._cells = {name: self._read(name) for name in literals}
        connection.execute("SELECT set_config('timezone', %s, false)", (zone,))

    def now(self) -> None:
        """Let the moment be that of the connection's transaction."""
        query = "SELECT (extract(epoch FROM now() - '2000-01-01 00:00+00'::timestamptz) * 1000000)::bigint"
        row = self.connection.execute(query).fetchone()
        assert row is not None
        self.context.moment.microseconds = row[0]

    def oid(self, name: str) -> int:
        """The OID of a type, which the types then know."""
        row = self.connection.execute("SELECT %s::regtype::oid::int", (_UNLIMITED.get(name, name),)).fetchone()
        assert row is not None
        while missing := self.types.missing([row[0]]):
            self.types.add(load_types(self.connection, missing))
        return int(row[0])

    def _read(self, name: str) -> dict[str, object]:
        """The datums of the literals of a type that this server reads."""
        reader = self.datums.reader(self.oid(name))
        assert reader is not None, name
        literals = self.literals[name]
        cells = self._attempts([f"SELECT format('%s', {quoted(literal, name)})" for literal in literals])
        found = zip(literals, cells, strict=True)
        return {literal: reader(cell.encode()) for literal, cell in found if cell is not None and cell[:1] != "!"}

    def _attempts(self, queries: list[str]) -> list[str | None]:
        """What each query gives; of one that fails `!` and the SQLSTATE."""
        query = "SELECT pg_temp.attempt(q) FROM unnest(%s::text[]) WITH ORDINALITY _(q, n) ORDER BY n"
        return [row[0] for row in self.connection.execute(query, (queries,))]

    def find(self, signature: str) -> Called | None:
        """The function of a signature; None when this server has none."""
        row = self.connection.execute(_FOUND, (signature,)).fetchone()
        if row is None:
            return None
        concrete = {"anyenum": "mood", "anyelement": "mood"}
        arguments = tuple(concrete.get(name, name) for name in row[1])
        result = self.oid("mood") if row[3] == "anyenum" else row[2]
        return Called(signature.partition("(")[0], arguments, result, row[4])

    def outcomes(self, signature: str, called: Called, builtin: Builtin) -> Iterator[tuple[list[str | None], Any, Any]]:
        """For combinations of edge values: the values, what the server says and what is said here."""
        pools = {name: [*cells, *([] if called.is_strict else [None])] for name, cells in self._cells.items()}
        if signature in HUGE:
            pools["integer"] = [literal for literal in pools["integer"] if literal is None or len(literal) < 4]
        choices = [pools[name] for name in called.arguments]
        if math.prod(map(len, choices)) <= _MOST_CALLS:
            combinations = list(product(*choices))
        else:
            chance = random.Random(signature)
            combinations = [tuple(map(chance.choice, choices)) for _ in range(_MOST_CALLS)]
        output = self.datums.output(called.result_oid)
        assert output is not None, (signature, called.result_oid)
        for literals, theirs in zip(combinations, self._theirs(called, combinations), strict=True):
            typed = zip(called.arguments, literals, strict=True)
            datums = [None if literal is None else self._cells[name][literal] for name, literal in typed]
            yield list(literals), theirs, self._ours(builtin, datums, output)

    def _theirs(self, called: Called, combinations: list[tuple[str | None, ...]]) -> list[str | None]:
        queries = []
        for literals in combinations:
            typed = zip(literals, called.arguments, strict=True)
            values = ", ".join(quoted(literal, name) for literal, name in typed)
            call = f'pg_catalog."{called.name}"({values})'
            queries.append(f"SELECT CASE WHEN v IS NOT NULL THEN format('%s', v) END FROM (SELECT {call} v) _")
        return self._attempts(queries)

    def _ours(self, builtin: Builtin, datums: list[object], output: Any) -> Any:
        arguments = [self.context, *datums] if builtin.contextual else datums
        try:
            value = builtin.call(*arguments)
            return None if value is None else output(self.context, value)
        except Failed:
            return "!"
        except Undecided:
            return _UNDECIDED

    def disagreements(self, signature: str, builtin: Builtin) -> tuple[list[Any], int]:
        """Where both sides differ, and in how many cases this side has decided. None decided is a disagreement."""
        called = self.find(signature)
        if called is None:
            return [], 0
        wrong, decided = [], 0
        if called.is_strict != builtin.strict:
            wrong.append((signature, "strict", called.is_strict))
        for literals, theirs, ours in self.outcomes(signature, called, builtin):
            if ours is _UNDECIDED:
                continue
            decided += 1
            if (theirs[:1] if theirs and theirs.startswith("!") else theirs) != ours:
                wrong.append((signature, literals, theirs, ours))
        return (wrong or ([] if decided else [(signature, "never decided")])), decided

    def misread(self, name: str, texts: list[str]) -> tuple[list[Any], int]:
        """Texts that both sides read differently as a type, and how many this side has decided."""
        oid = self.oid(name)
        read, output = self.datums.input(oid), self.datums.output(oid)
        assert read is not None
        assert output is not None
        theirs = self._attempts([f"SELECT format('%s', {quoted(text, name)})" for text in texts])
        ours = [self._read_here(read, output, text) for text in texts]
        pairs = [
            (text, there if there[:1] != "!" else "!", here)
            for text, there, here in zip(texts, theirs, ours, strict=True)
            if there is not None and here is not _UNDECIDED
        ]
        return [(name, *pair) for pair in pairs if pair[1] != pair[2]], len(pairs)

    def _read_here(self, read: Any, output: Any, text: str) -> Any:
        try:
            return output(self.context, read(self.context, text))
        except Failed:
            return "!"
        except Undecided:
            return _UNDECIDED
