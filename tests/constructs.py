"""The page docs/constructs.md, made of the code: what policies and filters may be made of.

`python -m tests.constructs --write` writes it, with the catalog of a private PostgreSQL, which knows the operators of
functions; without the option it is printed. A test holds the page against the code, and tries each example.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import psycopg

from cdc.errors import SubscriptionError
from cdc.filters import OPERATORS, compile_filter
from cdc.operators import Collation, Datums
from cdc.operators.tables import TABLE
from cdc.relation import Column, Relation
from cdc.rls.tags import HANDLERS
from cdc.testing import Sandbox
from cdc.values import TypeInfo, Types
from cdc.values.builtin import SCALARS

__all__ = ["EXPRESSIONS", "INTERNAL", "PAGE", "SESSION", "page", "tag"]

PAGE = Path(__file__).parent.parent / "docs" / "constructs.md"

INTERNAL = {"CASETEST"}
"""Node tags that stand for a part of another construct."""

EXPRESSIONS: dict[str, tuple[str, str]] = {
    "VAR": ("a column", "is_public"),
    "CONST": ("a constant", "status = 'active'"),
    "BOOL": ("AND, OR, NOT", "is_public AND NOT (status = 'lost' OR depth = 0)"),
    "OP": ("an operator of the tables below", "depth * 2 > 100"),
    "FUNC": ("a function of the tables below, a cast among them", "lower(name) = 'a' OR depth::int = 7"),
    "SCALARARRAYOP": ("IN, = ANY, <> ALL and the like", "status IN ('a', 'b') AND 'x' <> ALL (tags)"),
    "NULLTEST": ("IS NULL, IS NOT NULL", "closed_at IS NULL"),
    "BOOLEANTEST": ("IS TRUE, IS NOT FALSE, IS UNKNOWN …", "is_public IS NOT FALSE"),
    "DISTINCT": ("IS DISTINCT FROM", "status IS NOT DISTINCT FROM 'active'"),
    "CASE": ("CASE, with and without an operand", "CASE status WHEN 'a' THEN is_public ELSE depth > 5 END"),
    "COALESCE": ("COALESCE", "COALESCE(status, 'none') <> 'none'"),
    "NULLIF": ("NULLIF", "NULLIF(status, '') IS NOT NULL"),
    "MINMAX": ("GREATEST, LEAST", "GREATEST(depth, 10) > 20"),
    "ARRAY": ("ARRAY[…]", "tags && ARRAY['a', status]"),
    "ARRAYCOERCE": ("a cast of an array", "id::bigint = ANY (ARRAY[1, id]::bigint[])"),
    "RELABELTYPE": ("a cast that changes nothing but the type's name", "code::text = 'a'"),
    "COERCEVIAIO": ("a cast from and to text", "id::text = status"),
    "COLLATE": ("COLLATE", "name COLLATE \"C\" < 'b'"),
    "SUBSCRIPTINGREF": ("an element of an array, a part of jsonb", "tags[1] = 'a'"),
    "SQLVALUEFUNCTION": ("current_user, current_date and the like", "closed_at < current_date"),
    "SUBLINK": ("(SELECT …) of the session, without FROM", "owner = (SELECT auth.uid())"),
}
"""By node tag: what it is, and an example."""

SESSION: list[tuple[str, str]] = [
    ("the functions of Supabase", "owner = auth.uid() AND auth.role() = 'authenticated'"),
    ("claims", "status = auth.jwt() ->> 'status'"),
    ("claims within claims", "status = auth.jwt() -> 'app_metadata' ->> 'status'"),
    ("a custom setting", "status = current_setting('app.status', true)"),
    ("the role", "status = current_user"),
    ("the time of the change", "closed_at > now() - interval '1 day'"),
]
"""Values of the session, with an example."""

_BEHIND = """
SELECT o.oprname, o.oprleft, pg_catalog.format_type(nullif(o.oprleft, 0), NULL),
       pg_catalog.format_type(o.oprright, NULL),
       p.proname || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')'
FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
WHERE o.oprnamespace = 'pg_catalog'::regnamespace
"""
_CALLED = """
SELECT p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid), ARRAY(
    SELECT pg_catalog.format_type(type, NULL) FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY AS u(type, place)
    ORDER BY place)
FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_cast c WHERE c.castfunc = p.oid)
  AND coalesce(pg_catalog.obj_description(p.oid, 'pg_proc'), '') !~
      '^(implementation of|larger of two|smaller of two|less-equal-greater|increment|I/O)'
"""
_CASTS = """
SELECT pg_catalog.format_type(c.castsource, NULL), pg_catalog.format_type(c.casttarget, NULL),
       p.proname || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')'
FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc
WHERE c.castsource <> c.casttarget AND pg_catalog.format_type(c.castsource, NULL) !~ '^reg'
  AND pg_catalog.format_type(c.casttarget, NULL) !~ '^reg'
"""
_SHORT = {
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "time without time zone": "time",
    "time with time zone": "timetz",
    "character varying": "varchar",
    "character": "char(n)",
    "bit varying": "varbit",
    "anyarray": "arrays",
    "integer[]": "arrays",
    "anycompatiblearray": "arrays",
    "anyelement": "an element",
    "anycompatible": "an element",
    "anyenum": "enums",
    '"any"': "anything",
}
_FAMILIES = {
    "Texts and bytes": ["text", "varchar", "char(n)", "name", "bytea", '"char"', "anything"],
    "Numbers": ["smallint", "integer", "bigint", "numeric", "real", "double precision", "oid"],
    "Dates and times": ["date", "timestamp", "timestamptz", "time", "timetz", "interval", ""],
    "Arrays": ["arrays", "an element"],
    "JSON": ["json", "jsonb"],
    "Networks": ["inet", "cidr", "macaddr", "macaddr8"],
    "Bits": ["bit", "varbit"],
}
_INNER = {"dround", "dtrunc", "numeric_div_trunc", "numeric_sqrt", "textlen", "like", "notlike", "like_escape"}
"""What SQL has another name for."""
_SIGNS = ["=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "||"]
_ENUM, _INTEGERS = 1_000_000, 1007


def page(connection: psycopg.Connection) -> str:
    """The page, as it should be with the functions of this server."""
    parts = [_HEAD, *_expressions(), *_operators(connection), *_functions(connection), *_casts(connection), *_filters()]
    return "\n".join(parts).rstrip() + "\n"


_HEAD = """# What policies and filters may be made of

This page is made from the code by `python -m tests.constructs --write`. What is not here is refused, when somebody
subscribes; [Row-level security](row-level-security.md) and [Filters](filters.md) say how it is used.
"""


def tag(name: str) -> str:
    """A node tag as all versions of the server mean it: 14 writes CASE, later ones CASEEXPR."""
    return name.removesuffix("EXPR") if name != "EXPR" else name


def _expressions() -> Iterator[str]:
    yield "## Expressions\n"
    yield from _table(("construct", "example"), ((words, _code(example)) for words, example in _known()))
    yield "A value of the session is the same for every row. It may be any of these, and whatever is made of them:\n"
    yield from _table(("value", "example"), ((words, _code(example)) for words, example in SESSION))


def _known() -> Iterator[tuple[str, str]]:
    handled = {tag(name) for name in HANDLERS}
    return (said for name, said in EXPRESSIONS.items() if name in handled)


def _operators(connection: psycopg.Connection) -> Iterator[str]:
    """Operators with the same pairs of types share a row."""
    pairs: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for name, unary, left, right, signature in connection.execute(_BEHIND).fetchall():
        if signature in TABLE:
            pairs[name].add(("" if not unary else _short(left), _short(right)))
    rows: dict[frozenset[tuple[str, str]], list[str]] = defaultdict(list)
    for name, found in pairs.items():
        rows[frozenset(found)].append(name)
    yield "## Operators\n"
    yield "`varchar` has the operators of `text`, a domain those of its base.\n"
    ordered = sorted(
        ((sorted(names, key=_place), found) for found, names in rows.items()), key=lambda row: _place(row[0][0])
    )
    yield from _table(("operators", "of"), ((" ".join(map(_code, names)), _pairs(found)) for names, found in ordered))


def _place(name: str) -> tuple[int, str]:
    return (_SIGNS.index(name) if name in _SIGNS else len(_SIGNS), name)


def _pairs(found: Iterable[tuple[str, str]]) -> str:
    """Types with themselves, and each type with others."""
    alike = sorted(left for left, right in found if left == right)
    alone = sorted(right for left, right in found if not left)
    others: dict[str, list[str]] = defaultdict(list)
    for left, right in sorted(found):
        if left and left != right:
            others[left].append(right)
    words = [", ".join(alike)] if alike else []
    words += [f"{left} with {', '.join(rights)}" for left, rights in sorted(others.items())]
    words += [f"before one {', '.join(alone)}"] if alone else []
    return "; ".join(words)


def _functions(connection: psycopg.Connection) -> Iterator[str]:
    groups: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, arguments, names in connection.execute(_CALLED).fetchall():
        if f"{name}({arguments})" in TABLE and name not in _INNER:
            types = [_short(each) for each in names]
            groups[_family(types)][name].add(f"({', '.join(types)})")
    yield "## Functions\n"
    for family in [*_FAMILIES, "Others"]:
        if family in groups:
            yield f"### {family}\n"
            rows = (
                (_code(name), " ".join(map(_code, sorted(forms)))) for name, forms in sorted(groups[family].items())
            )
            yield from _table(("function", "arguments"), rows)


def _family(types: list[str]) -> str:
    """By the first argument, unless that only names a field or a zone, or makes something else."""
    first = types[0] if types else ""
    if len(types) > 2 and first == "integer":
        first = "interval"
    if first in ("text", "interval") and len(types) > 1 and types[1] in _FAMILIES["Dates and times"]:
        first = types[1]
    if "arrays" in types:
        first = "arrays"
    return next((family for family, members in _FAMILIES.items() if first in members), "Others")


def _casts(connection: psycopg.Connection) -> Iterator[str]:
    targets: dict[str, set[str]] = defaultdict(set)
    for source, target, signature in connection.execute(_CASTS).fetchall():
        if signature in TABLE:
            targets[_short(source)].add(_short(target))
    datums = Datums(Types())
    names = {oid: _short(Types().name(oid)) for oid in SCALARS}
    yield "## Casts\n"
    yield from _table(("from", "to"), ((source, ", ".join(sorted(found))) for source, found in sorted(targets.items())))
    reads = sorted(name for oid, name in names.items() if datums.reader(oid) is not None)
    inputs = sorted(name for oid, name in names.items() if datums.input(oid) is not None)
    outputs = sorted(name for oid, name in names.items() if datums.output(oid) is not None)
    yield from _table(
        ("types", ""),
        [
            ("a column may be of", f"{', '.join(reads)}; enums, and arrays and domains of these"),
            ("text may be cast to", f"{', '.join(inputs)}; enums and arrays"),
            ("cast to text may be", f"{', '.join(outputs)}; enums and arrays"),
        ],
    )


def _filters() -> Iterator[str]:
    types = Types()
    types.add([TypeInfo(_ENUM, "public", "enums", "e", labels=("a", "b"))])
    rows: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for oid in [*SCALARS, _ENUM, _INTEGERS]:
        found = tuple(operator for operator in OPERATORS if _takes(oid, operator, types))
        rows[found].append(_short(types.name(oid)))
    yield "## Filters\n"
    yield "Every type has `is.null` and `is.not_null`. The order of texts needs a collation that sorts by code point.\n"
    listed = (
        (", ".join(sorted(names)), " ".join(map(_code, found))) for found, names in rows.items() if len(found) > 1
    )
    yield from _table(("columns", "operators"), sorted(listed, key=lambda row: (-len(row[1]), row)))


def _takes(oid: int, operator: str, types: Types) -> bool:
    """Whether a column of the type has the operator; a value that does not fit says that it has."""
    relation = Relation(1, "public", "t", "f", (Column("c", oid, -1, False, types.decoder(oid)),), None)
    value = {"is": "null", "in": "(1)"}.get(operator, "1")
    try:
        compile_filter(f"c={operator}.{value}", relation, types, {"c": Collation.CODE_POINT})
    except SubscriptionError as error:
        return "does not fit" in str(error)
    return True


def _short(name: str) -> str:
    return _SHORT.get(name, name)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield f"| {head[0]} | {head[1]} |\n|---|---|"
    for left, right in rows:
        yield f"| {left} | {right} |"
    yield ""


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    arguments = parser.parse_args()
    with Sandbox() as sandbox, psycopg.connect(sandbox.dsn, autocommit=True) as connection:
        text = page(connection)
    if arguments.write:
        PAGE.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
