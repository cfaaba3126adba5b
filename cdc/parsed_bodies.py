"""Parsed bodies: what a function's body means, when it is SQL that is kept as a string.

May use psycopg. A policy that calls `app.tenant()` is decided here by the function's parsed body, never by running it.
The server parses BEGIN ATOMIC and RETURN when the function is made, and keeps that; a string it parses when it runs.
So a copy of the function is made with its body in BEGIN ATOMIC, read and rolled back. Nothing of the body is evaluated
by that, and it is sent as one statement by a protocol that takes no second one, whatever is written in it. The copies
have a connection of their own: on the ordinary one others save positions, which must not be rolled back.

A string resolves names by the search_path of whoever calls, which is not known here. It is parsed with pg_catalog
alone, and with every other schema before it; when both do not agree, the function has no parsed body. One with a
search_path of its own is parsed with that. Where no copy can be made, as on a standby, `bodies` knows the usual ones.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

import psycopg

from cdc.connection import connect, connection_string
from cdc.errors import CdcError

__all__ = ["AMBIGUOUS", "add_bodies", "list_functions"]

AMBIGUOUS = ""
"""The tree of a function that must not be decided, not even by a body that cdc knows."""

_MOST = 200
"""Functions that are parsed at once at most."""
_ROUNDS = 8
_PATH = re.compile(r"search_path=(.*)", re.DOTALL)
_SCHEMA = re.compile(r'\s*(?:"([^",]*)"|([a-z_][a-z0-9_]*))\s*')
_TYPES = re.compile(r":(?:\w*type|array_typeid|element_typeid|typeId) ([0-9]{5,10})\b")
_MENTIONED = re.compile(r":(?:funcid|opfuncid) ([0-9]{1,10})\b")
_OPERATORS = re.compile(r":opnos? (?:\(o )?([0-9][0-9 ]*)")
_PLACE = re.compile(r":(?:location|list_start|list_end|stmt_location|stmt_len) -?[0-9]+")

_STATE = """
SELECT pg_catalog.pg_is_in_recovery(), (
    SELECT pg_catalog.string_agg(found.text, ' ') FROM (
        SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_proc WHERE oid >= 16384
        UNION ALL
        SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_operator WHERE oid >= 16384
        UNION ALL
        SELECT pg_catalog.concat(count(*), '/', sum(t.xmin::text::bigint)) FROM pg_catalog.pg_type t
        JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname !~ '^pg_'
        UNION ALL
        SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_cast
        UNION ALL
        SELECT pg_catalog.concat(count(*), '/', sum(xmin::text::bigint)) FROM pg_catalog.pg_namespace
        WHERE nspname !~ '^pg_'
    ) AS found (text))
"""
"""Whether it is a standby, and something that differs when names may mean something else."""
_SCHEMAS = """
SELECT n.nspname FROM pg_catalog.pg_namespace n
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY n.nspname <> 'public', n.nspname
"""
_COPY = """
CREATE FUNCTION pg_temp.cdc_parsed_body() RETURNS {result} LANGUAGE sql STABLE BEGIN ATOMIC
{body}
;END
"""
_PARSED = """
SELECT p.prosqlbody::text FROM pg_catalog.pg_proc p
WHERE p.proname = 'cdc_parsed_body' AND p.pronamespace = pg_catalog.pg_my_temp_schema()
"""
_TYPE = "SELECT pg_catalog.format_type($1::oid, NULL)"
_FUNCTIONS = """
SELECT f.oid::bigint, pg_catalog.jsonb_build_object(
    'schema', n.nspname, 'name', f.proname, 'arguments', pg_catalog.pg_get_function_identity_arguments(f.oid),
    'language', l.lanname, 'body', f.prosrc, 'tree', f.prosqlbody::text, 'definer', f.prosecdef,
    'settings', f.proconfig, 'result', f.prorettype::bigint, 'set', f.proretset, 'count', f.pronargs,
    'kind', f.prokind, 'volatility', f.provolatile, 'owner', f.proowner::bigint,
    'execute', (SELECT pg_catalog.jsonb_agg(DISTINCT g.grantee::bigint)
                FROM pg_catalog.aclexplode(coalesce(f.proacl, pg_catalog.acldefault('f', f.proowner))) g
                WHERE g.privilege_type = 'EXECUTE'))
FROM pg_catalog.pg_proc f
JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace JOIN pg_catalog.pg_language l ON l.oid = f.prolang
WHERE f.oid = ANY ($1::oid[])
"""
"""As `FACTS` describes functions."""
_OPERATOR = """
SELECT o.oid::bigint, pg_catalog.jsonb_build_array(
    CASE n.nspname WHEN 'pg_catalog' THEN o.oprname::text ELSE n.nspname || '.' || o.oprname END,
    o.oprcode::oid::bigint)
FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace WHERE o.oid = ANY ($1::oid[])
"""
_USAGE = """
SELECT n.nspname, (SELECT pg_catalog.jsonb_agg(DISTINCT g.grantee::bigint)
                   FROM pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) g
                   WHERE g.privilege_type = 'USAGE')
FROM pg_catalog.pg_namespace n WHERE n.nspname::text = ANY ($1::text[])
"""
_TYPE_SCHEMAS = """
SELECT DISTINCT n.nspname FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE t.oid = ANY ($1::oid[]) AND n.nspname <> 'pg_catalog'
"""
_AS_OWNER = """
SELECT coalesce(pg_catalog.bool_and(pg_catalog.has_function_privilege($1::oid, f.oid, 'EXECUTE')), true) AND (
    SELECT coalesce(pg_catalog.bool_and(pg_catalog.has_schema_privilege($1::oid, n.oid, 'USAGE')), true)
    FROM pg_catalog.pg_namespace n WHERE n.nspname::text = ANY ($3::text[]))
FROM pg_catalog.pg_proc f WHERE f.oid = ANY ($2::oid[])
"""


def list_functions(connection: psycopg.Connection[Any], names: frozenset[str]) -> None:
    """Let facts that are added to over this connection say which functions the user has listed, as `schema.name`."""
    _KNOWN[connection] = _Bodies(connection, names)


def add_bodies(connection: psycopg.Connection[Any], facts: Collection[dict[str, Any]]) -> None:
    """Add to the facts about tables, as `FACTS` gives them, the trees of functions, and what these mention.

    Args:
        connection: an ordinary connection; its role needs the TEMPORARY right, and USAGE where the bodies' names lead.
        facts: of several tables; they are changed.
    """
    known = _KNOWN.get(connection)
    if known is None:
        known = _KNOWN[connection] = _Bodies(connection, frozenset())
    known.add(facts)


class _Bodies:
    """The parsed bodies of one server, remembered while nothing is replaced."""

    def __init__(self, connection: psycopg.Connection[Any], listed: frozenset[str]) -> None:
        self._listed = listed
        self._ordinary = weakref.ref(connection)  # This is kept as long as the connection, and no longer.
        self._aside: psycopg.Connection[Any] | None = None
        self._state: object = None
        self._trees: dict[object, str | None] = {}
        self._mutex = threading.Lock()

    def add(self, facts: Collection[dict[str, Any]]) -> None:
        """See `add_bodies`."""
        for said in facts:
            for function in (said["functions"] or {}).values():
                function["asked"] = not function["count"] and f"{function['schema']}.{function['name']}" in self._listed
        wanted = any(_is_text(each) for said in facts for each in (said["functions"] or {}).values())
        if not wanted and not any(_definers(said) for said in facts):
            return
        with self._mutex:
            in_recovery, state = self._ask(_STATE)[0]
            if state != self._state:
                self._state = state
                self._trees.clear()
            try:
                for said in facts:
                    if not in_recovery:
                        self._complete(said)
                    self._check_definers(said)
            finally:
                if self._aside is not None:
                    self._aside.close()
                    self._aside = None

    def _complete(self, said: dict[str, Any]) -> None:
        """Give each function whose body is a string a tree; and the functions that these call, and so on."""
        functions, done = said["functions"] or {}, set[str]()
        for _ in range(_ROUNDS):
            found = [oid for oid, each in functions.items() if oid not in done and _is_text(each)][:_MOST]
            if not found:
                break
            done.update(found)
            trees = []
            for oid in found:
                tree = self._tree(oid, functions[oid])
                functions[oid]["tree"] = tree
                if tree:
                    trees.append(tree)
                    self._restrict(functions[oid], tree)
            self._describe(said, functions, trees)
        said["functions"] = functions

    def _tree(self, oid: str, function: Mapping[str, Any]) -> str | None:
        key = (oid, function["body"], function["result"], tuple(function["settings"] or ()))
        if key not in self._trees:
            try:
                self._aside = self._aside or self._another()
            except CdcError:
                return None  # No connection is free. The next time may be better.
            self._trees[key] = self._parse(function, self._aside)
        return self._trees[key]

    def _another(self) -> psycopg.Connection[Any]:
        """Another connection to the same server."""
        ordinary = self._ordinary()
        assert ordinary is not None
        info = ordinary.info
        place = {"host": info.host or None, "hostaddr": info.hostaddr or None, "port": str(info.port)}
        connection = connect(connection_string(info.dsn, password=info.password or None, **place))
        connection.execute("SET lock_timeout = 1000; SET statement_timeout = 5000; SET search_path = pg_catalog")
        return connection

    def _parse(self, function: Mapping[str, Any], aside: psycopg.Connection[Any]) -> str | None:
        """The tree of a body: None when it cannot be had, AMBIGUOUS unless it means the same wherever it is called."""
        row = psycopg.RawCursor(aside).execute(_TYPE, [function["result"]]).fetchone()
        result = None if row is None else row[0]
        text = _COPY.format(result=result, body=function["body"])
        own = _own_path(function)
        if own is not None:
            return AMBIGUOUS if _named(own) is None else _under(own, text, aside)
        schemas = [name.replace('"', '""') for (name,) in self._ask(_SCHEMAS)]
        first = _under("pg_catalog", text, aside)
        second = _under(", ".join(f'"{name}"' for name in [*schemas, "pg_catalog"]), text, aside)
        if first is None:
            return None
        return first if second is not None and _plain(first) == _plain(second) else AMBIGUOUS

    def _describe(self, said: dict[str, Any], functions: dict[str, Any], trees: Collection[str]) -> None:
        """Add the operators and functions that the trees mention."""
        operators = said["operators"] or {}
        mentioned = {number for tree in trees for found in _OPERATORS.findall(tree) for number in found.split()}
        for oid, facts in self._known(_OPERATOR, mentioned - operators.keys()):
            operators[str(oid)] = facts
        said["operators"] = operators
        called = {number for tree in trees for number in _MENTIONED.findall(tree)}
        called |= {str(operators[number][1]) for number in mentioned if number in operators}
        for oid, facts in self._known(_FUNCTIONS, called - functions.keys() - {"0"}):
            functions[str(oid)] = facts

    def _restrict(self, function: dict[str, Any], tree: str) -> None:
        """Names of a string are looked up whenever it runs: so USAGE of their schemas is needed as EXECUTE is."""
        schemas = self._schemas(function, tree)
        if schemas and not function["definer"]:
            for _, usage in self._ask(_USAGE, list(schemas)):
                function["execute"] = _both(function["execute"] or [], usage or [])

    def _schemas(self, function: Mapping[str, Any], tree: str) -> set[str]:
        """The schemas in which the names of a body are looked up, but for pg_catalog."""
        called = self._known(_FUNCTIONS, set(_MENTIONED.findall(tree)))
        types = self._known(_TYPE_SCHEMAS, set(_TYPES.findall(tree)))
        path = _named(_own_path(function) or "") or set()
        return {facts["schema"] for _, facts in called} - {"pg_catalog"} | {name for (name,) in types} | path

    def _check_definers(self, said: dict[str, Any]) -> None:
        """A function that runs as its owner has no tree unless its owner may call what it calls."""
        for function in _definers(said):
            called = [int(number) for number in _MENTIONED.findall(function["tree"])]
            schemas = sorted(self._schemas(function, function["tree"]))
            if not self._ask(_AS_OWNER, function["owner"], called, schemas)[0][0]:
                function["tree"] = AMBIGUOUS

    def _known(self, query: str, oids: Iterable[str]) -> list[Any]:
        asked = [int(oid) for oid in oids]
        return self._ask(query, asked) if asked else []

    def _ask(self, query: str, *arguments: object) -> list[Any]:
        connection = self._ordinary()
        assert connection is not None
        return psycopg.RawCursor(connection).execute(query.encode(), list(arguments)).fetchall()


_KNOWN: weakref.WeakKeyDictionary[psycopg.Connection[Any], _Bodies] = weakref.WeakKeyDictionary()


def _under(path: str, text: str, aside: psycopg.Connection[Any]) -> str | None:
    """The tree of a copy that is made under a search_path; None when the server does not take it."""
    with suppress(psycopg.Error, UnicodeError), aside.transaction(force_rollback=True):
        aside.execute("SELECT pg_catalog.set_config('search_path', %s, true)", (path,))
        # For a result in binary form psycopg uses the protocol in which the server takes one statement only.
        psycopg.RawCursor(aside).execute(text.encode(), binary=True)
        row = aside.execute(_PARSED).fetchone()
        # RETURN is no statement of a string.
        return None if row is None or ":isReturn true" in row[0] else str(row[0])
    return None


def _is_text(function: Mapping[str, Any]) -> bool:
    """Whether it is a function without arguments whose body is a string of SQL."""
    settings = function["settings"] or ()
    plain = function["language"] == "sql" and function["kind"] == "f" and not function["set"]
    own_path = not settings or (len(settings) == 1 and _PATH.fullmatch(settings[0]) is not None)
    return bool(plain and not function["count"] and function["tree"] is None and function["body"] and own_path)


def _own_path(function: Mapping[str, Any]) -> str | None:
    """The search_path that it sets for itself."""
    settings: list[str] = function["settings"] or []
    found = _PATH.fullmatch(settings[0]) if len(settings) == 1 else None
    return None if found is None else found[1]


def _named(path: str) -> set[str] | None:
    """The schemas of a search_path but for those that everybody has; None when it depends on who calls."""
    found = [_SCHEMA.fullmatch(part) for part in path.split(",")] if path else []
    names = {each[1] if each[1] is not None else each[2] for each in found if each is not None}
    return None if None in found or "$user" in names else names - {"", "pg_catalog", "pg_temp"}


def _definers(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    functions: Iterable[dict[str, Any]] = (said["functions"] or {}).values()
    return [each for each in functions if each["definer"] and each["tree"]]


def _plain(tree: str) -> str:
    """A tree without the places in its text."""
    return _PLACE.sub("", tree)


def _both(first: list[int], second: list[int]) -> list[int]:
    """Who surely has both of two rights; 0 is everybody."""
    if 0 in second:
        return first
    return second if 0 in first else sorted(set(first) & set(second))
