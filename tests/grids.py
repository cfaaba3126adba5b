"""Functions of `cdc.operators` held against the server: every signature of a table with a grid of edge values.

The server calls each function with literals; here it is called with the datums that the server's own texts of these
literals become. What is decided here has to be what the server says, an error where the server raises.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import psycopg

from cdc.operators import Builtin, Collation, Context, Failed, Undecided
from cdc.operators.arrays import Array, written
from cdc.operators.builtins import Table
from cdc.operators.datums import Datums
from cdc.values import Types

ATTEMPT = """
CREATE FUNCTION pg_temp.attempt(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE found text;
BEGIN
    EXECUTE query INTO found;
    RETURN found;
EXCEPTION WHEN OTHERS THEN
    RETURN '!' || SQLSTATE;
END $$
"""
FOUND = """
SELECT p.proname, p.proisstrict, p.provariadic <> 0, p.prorettype,
       ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY _(t, n) ORDER BY n)
FROM pg_catalog.pg_proc p
WHERE p.pronamespace = 'pg_catalog'::regnamespace
  AND p.proname || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')' = %s
"""
Literal = str | None


@dataclass
class Grid:
    """What a table is tried with.

    Attributes:
        pools: literals by the name of their type; None is NULL.
        elements: what polymorphic functions are tried with: types of elements.
        limit: calls for each signature.
        collation: what is written behind the first argument of a collatable type, such as `COLLATE "unicode"`.
        shares: the least part of the calls that has to be decided, by signature, where it is not half.
    """

    connection: psycopg.Connection[Any]
    pools: Mapping[str, Sequence[Literal]]
    context: Context = field(default_factory=lambda: Context(collation=Collation.CODE_POINT))
    elements: Sequence[str] = ("integer", "text")
    limit: int = 300
    collation: str = ""
    shares: Mapping[str, float] = field(default_factory=dict)
    own: Mapping[str, Sequence[Sequence[Literal]]] = field(default_factory=dict)
    _datums: dict[tuple[str, Literal], object] = field(default_factory=dict)

    def check(self, table: Table) -> None:
        """Try every signature. The first call makes the function that catches errors."""
        self.connection.execute("DROP FUNCTION IF EXISTS pg_temp.attempt(text)")
        self.connection.execute(ATTEMPT)  # type: ignore[arg-type]
        problems: list[str] = []
        for signature, builtin in table.items():
            problems += self.problems(signature, builtin)
        assert not problems, "\n".join(problems[:40])

    def problems(self, signature: str, builtin: Builtin) -> list[str]:
        row = self.connection.execute(FOUND, (signature,)).fetchone()
        if row is None:
            return [] if self.newer(signature) else [f"{signature} is not in the catalog"]
        name, strict, variadic, result, types = row
        problems = [] if strict == builtin.strict else [f"{signature} is {'' if strict else 'not '}strict"]
        calls = [call for bound in self.bindings(types) for call in self.calls(signature, bound)]
        answers = self.answers([self.query(name, call, variadic) for call in calls])
        undecided = 0
        for call, answer in zip(calls, answers, strict=True):
            ours = self.ours(builtin, call, result)
            undecided += ours.startswith("?")
            if not ours.startswith("?") and ours != answer:
                problems.append(f"{signature} of {call!r:.300}: {ours!r:.200} and not {answer!r:.200}")
        if undecided > len(calls) * (1 - self.shares.get(signature, 0.5)):
            problems.append(f"{signature}: {undecided} of {len(calls)} are not decided")
        return problems

    def newer(self, signature: str) -> bool:
        """Whether the server is too old for it; there are none yet."""
        return False

    def bindings(self, types: list[str]) -> list[list[str]]:
        if not any(name.startswith("any") for name in types):
            return [types]
        return [[_bound(name, element) for name in types] for element in self.elements]

    def calls(self, signature: str, types: list[str]) -> list[list[tuple[str, Literal]]]:
        pools = self.own.get(signature) or [[None, *self.pools[name]] for name in types]
        every = [list(zip(types, literals, strict=True)) for literals in product(*pools)]
        if len(every) <= self.limit:
            return every
        return random.Random(signature).sample(every, self.limit)

    def query(self, name: str, call: list[tuple[str, Literal]], variadic: bool) -> str:
        args = [f"{quoted(literal)}::{kind}" for kind, literal in call]
        if self.collation:
            args = [
                f"{arg} {self.collation}" if kind.split("[")[0] in _COLLATED else arg
                for arg, (kind, _) in zip(args, call, strict=True)
            ]
        if variadic:
            args[-1] = f"VARIADIC {args[-1]}"
        return (
            f"SELECT CASE WHEN v IS NULL THEN NULL ELSE '=' || format('%s', v) END "
            f'FROM (SELECT pg_catalog."{name}"({", ".join(args)}) AS v OFFSET 0) _'
        )

    def answers(self, queries: list[str]) -> list[str]:
        rows = self.connection.execute(
            "SELECT pg_temp.attempt(q) FROM unnest(%s::text[]) WITH ORDINALITY _(q, n) ORDER BY n", (queries,)
        ).fetchall()
        return ["NULL" if answer is None else "!" if answer.startswith("!") else answer for (answer,) in rows]

    def ours(self, builtin: Builtin, call: list[tuple[str, Literal]], result_oid: int) -> str:
        datums = [self.datum(kind, literal) for kind, literal in call]
        if builtin.strict and None in datums:
            return "NULL"
        try:
            result = builtin.call(*([self.context] if builtin.contextual else []), *datums)
        except Failed:
            return "!"
        except Undecided as reason:
            return f"?{reason}"
        if result is None:
            return "NULL"
        if isinstance(result, bytes):
            return "=\\x" + result.hex()
        output = written if isinstance(result, Array) else Datums(Types()).output(result_oid)
        assert output is not None, result_oid
        return f"={output(self.context, result)}"

    def datum(self, kind: str, literal: Literal) -> object:
        if literal is None:
            return None
        if (kind, literal) not in self._datums:
            row = self.connection.execute(
                f"SELECT format('%%s', %s::{kind}), '{kind}'::regtype::oid",  # type: ignore[arg-type]
                (literal,),
            ).fetchone()
            assert row is not None
            self._datums[kind, literal] = self.reader(row[1])(row[0].encode())
        return self._datums[kind, literal]

    def reader(self, oid: int) -> Callable[[bytes], object]:
        read = Datums(Types()).reader(oid) or {17: _bytes}.get(oid)
        assert read is not None, oid
        return read


def _bytes(cell: bytes) -> bytes:
    return bytes.fromhex(cell[2:].decode())


_COLLATED = {"text", "character varying", "character", "name"}


def quoted(literal: Literal) -> str:
    if literal is None:
        return "NULL"
    doubled = literal.replace("'", "''")
    return f"'{doubled}'"


def _bound(name: str, element: str) -> str:
    if name in ("anyarray", "anycompatiblearray"):
        return f"{element}[]"
    return element if name in ("anyelement", "anycompatible", "anynonarray") else name
