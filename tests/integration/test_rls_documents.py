"""Policies of texts, patterns, documents and arrays: what they show, the server shows."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from cdc.catalog import load_types
from cdc.predicate import TRUE
from cdc.relation import Column, Relation
from cdc.rights import load_rights
from cdc.rls import Subject, decide
from cdc.testing import Sandbox, apply_supabase
from cdc.values import Types

SETUP = """
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE TABLE d (
    id int PRIMARY KEY, name text, mail varchar, code char(4), tags text[], numbers int[], doc jsonb, raw json,
    feeling mood, feelings mood[]
);
ALTER TABLE d ENABLE ROW LEVEL SECURITY;
INSERT INTO d VALUES
    (1, 'Alpha', 'ALPHA@example.com', 'ab', '{a,b}', '{1,2}', '{"a": 1, "tags": ["x"], "owner": "u1"}', '{"a": "x"}',
     'sad', '{sad}'),
    (2, '', '', '', '{}', '{}', '{}', '[]', 'glad', '{}'),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (4, 'be ta', 'x', 'abcd', '{NULL,a}', '{NULL}', '[1, "admin", {"a": 1.0}]', '1', 'glad', '{sad,glad}'),
    (5, 'größe_%', 'Ä@example.com', 'x', '{"a b",c}', '{{1,2},{3,4}}', '"admin"', '"a"', 'sad', NULL),
    (6, repeat('ab%', 3000), 'alpha@example.com', '    ', '{A}', '[0:1]={1,2}', '{"a": 1.0, "b": {"a": null}}',
     '{"a": 1, "a": 2}', 'glad', '{glad,NULL}'),
    (7, 'u1', 'u1', 'u1', '{u1}', '{7}', 'null', 'null', 'sad', '{sad,sad}'),
    (8, '2024', '1', '1', '{1,2,3}', '{1,2,3}', '{"n": 5, "t": true, "s": "7"}', '{"n": 5.50}', 'sad', '{}');
GRANT SELECT ON d TO authenticated;
"""
CLAIMS = (
    '{"sub": "u1", "roles": ["admin", "a"], "app": {"tags": ["a", "c"], "name": "Alpha"}, "n": 2, "dom": "example.com"}'
)
POLICIES = """
name LIKE 'A%'
name LIKE '%\\_\\%'
name NOT LIKE '%b%'
mail ILIKE '%@EXAMPLE.com'
name ~ '^[A-Z]'
mail ~* '^alpha@'
name !~ 'a'
name ~ '(?i)alpha'
code LIKE 'ab'
code = 'ab'
code::text LIKE 'ab'
name SIMILAR TO '[a-z]+ ?[a-z]+'
name NOT SIMILAR TO '(A|b)%'
lower(mail) = 'alpha@example.com'
upper(name) = 'ALPHA'
length(name) > 4
length(code) = 2
split_part(mail, '@', 2) = 'example.com'
split_part(mail, '@', 2) = (auth.jwt() ->> 'dom')
substring(name from 2 for 2) = 'lp'
substr(name, 3) = 'pha'
left(name, 1) = 'A' OR right(name, 2) = 'ta'
trim(code) = ''
replace(name, ' ', '') = 'beta'
position('a' in name) = 5
strpos(name, 'e') = 2
concat(name, '-', mail) = 'u1-u1'
name || mail = 'u1u1'
name < 'b'
name >= 'a' AND name < 'c'
starts_with(name, 'be')
name ^@ 'be'
md5(name) = md5('u1')
name = auth.jwt() ->> 'sub'
tags @> ARRAY['a']
tags @> '{a,b}'
tags && ARRAY['c', 'A']
tags <@ ARRAY['a', 'b', 'c']
'a' = ANY (tags)
'a' <> ALL (tags)
name = ANY (tags)
auth.jwt() ->> 'sub' = ANY (tags)
tags = '{a,b}'
tags <> '{a,b}'
numbers = '{{1,2},{3,4}}'
numbers @> ARRAY[1]
numbers && '{7,3}'
numbers[1] = 1
numbers[2][1] = 3
numbers[id] IS NULL
(string_to_array(name, ' '))[1] = 'be'
(string_to_array(name, '_'))[1] = auth.jwt() ->> 'sub'
tags[2] = 'b'
doc['a'] = '1'
doc['tags'][0] = '"x"'
doc[1] = '"admin"'
tags[1:1] = '{a}'
cardinality(tags) = 2
array_length(numbers, 1) = 2
array_upper(numbers, 1) = 1
array_position(tags, 'a') = 2
array_to_string(tags, ',') = 'a,b'
tags || 'z'::text @> ARRAY['u1', 'z']
string_to_array(name, ' ') = '{be,ta}'
name = ANY (string_to_array('Alpha,u1', ','))
doc @> '{"a": 1}'
doc @> '"admin"'
'{"a": 1, "b": {"a": null}, "c": 2}' @> doc
doc ? 'a'
doc ? 'admin'
doc ?| ARRAY['n', 'owner']
doc ?& ARRAY['n', 't']
doc ->> 'owner' = auth.jwt() ->> 'sub'
doc -> 'a' = '1'
doc = '{}'
doc <> 'null'
(doc ->> 'n')::int = 5
(doc -> 'n')::int = 5
(doc ->> 't')::boolean
doc #>> '{tags,0}' = 'x'
doc #> '{b,a}' = 'null'
doc -> 1 = '"admin"'
doc ->> -1 LIKE '%1.0%'
doc::text LIKE '%"a": 1.0%'
jsonb_typeof(doc) = 'object'
jsonb_array_length(doc) = 3
raw ->> 'a' = '2'
raw ->> 'n' = '5.50'
raw #>> '{a}' = 'x'
(auth.jwt() -> 'roles') ? name
(auth.jwt() -> 'roles') ? 'admin' AND id = 1
auth.jwt() -> 'app' ->> 'name' = name
auth.jwt() #>> '{app,name}' = name
auth.jwt() @> '{"roles": ["admin"]}'
(auth.jwt() ->> 'n')::int = id
feeling = 'glad'
feeling > 'sad'
feeling IN ('glad')
feeling::text = 'sad'
feelings @> '{glad}'
'sad' = ANY (feelings)
feelings = ARRAY['sad', 'glad']::mood[]
COALESCE(name, 'none') = 'none'
name = ANY (ARRAY(SELECT 'x'::text)) IS NULL
""".strip().splitlines()
UNSUPPORTED = {
    "tags[1:1] = '{a}'",
    "name ~ '(?i)alpha'",
    "name = ANY (ARRAY(SELECT 'x'::text)) IS NULL",
}


class Documents:
    """The table `d`, its rows as they are sent, and a subject."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        connection.execute(SETUP)
        (self.oid,) = connection.execute("SELECT 'd'::regclass::oid").fetchone() or (0,)
        found = connection.execute(
            "SELECT attname, atttypid, atttypmod FROM pg_attribute WHERE attrelid = %s AND attnum > 0 ORDER BY attnum",
            (self.oid,),
        ).fetchall()
        self.types = Types()
        self.types.add(load_types(connection, self.types.missing(oid for _, oid, _ in found)))
        columns = tuple(Column(name, oid, modifier, name == "id", bytes.decode) for name, oid, modifier in found)
        self.relation = Relation(self.oid, "public", "d", "d", columns, (0,))
        result = connection.execute("SELECT * FROM d ORDER BY id").pgresult
        assert result is not None
        self.rows = [[result.get_value(row, at) for at in range(result.nfields)] for row in range(result.ntuples)]
        self.subject = Subject("authenticated", settings={"request.jwt.claims": CLAIMS})

    def told(self) -> tuple[list[int | str], tuple[object, ...]]:
        """What is shown here, and which policies are not supported."""
        rights = load_rights(self.connection, self.oid, "authenticated")
        decision = decide(rights, self.relation, self.types, self.subject)
        return [int(row[0] or 0) for row in self.rows if decision.predicate.test(row) == TRUE], decision.unsupported

    def shown(self) -> list[int]:
        """What the server shows, row by row, since an error hides one row here."""
        with self.connection.transaction(force_rollback=True):
            self.connection.execute("SET LOCAL ROLE authenticated")
            self.connection.execute("SELECT set_config('request.jwt.claims', %s, true)", (CLAIMS,))
            return [int(row[0] or 0) for row in self.rows if self.sees(int(row[0] or 0))]

    def sees(self, number: int) -> bool:
        try:
            with self.connection.transaction():
                return self.connection.execute("SELECT FROM d WHERE id = %s", (number,)).rowcount == 1
        except psycopg.Error:
            return False


@pytest.fixture
def documents(database: str) -> Iterator[Documents]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield Documents(connection)


def test_policies_of_texts_documents_and_arrays_show_what_the_server_shows(documents: Documents) -> None:
    unsupported, wrong, empty = set(), [], 0
    for expression in POLICIES:
        documents.connection.execute(f"DROP POLICY IF EXISTS p ON d; CREATE POLICY p ON d USING ({expression})")  # type: ignore[arg-type]
        here, problems = documents.told()
        if problems:
            unsupported.add(expression)
            continue
        there = documents.shown()
        empty += not there
        if here != there:
            wrong.append((expression, here, there))
    assert not wrong
    assert unsupported == UNSUPPORTED
    assert empty <= 5


def test_the_databases_language_says_what_the_other_case_of_i_is(server: Sandbox) -> None:
    """Under a collation of another order than that of code points; the letters are those of ASCII."""
    name = f"spoken_{secrets.token_hex(4)}"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 LC_COLLATE 'C.utf8' LC_CTYPE 'C.utf8'")  # type: ignore[arg-type]
    dsn = server.dsn_for(name)
    apply_supabase(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        documents = Documents(connection)
        for expression in (
            "mail ILIKE 'ALPHA@%'",
            "lower(mail) LIKE 'alpha@%'",
            "mail ~* 'LPHA'",
            "upper(name) = 'U1'",
        ):
            connection.execute(f"DROP POLICY IF EXISTS p ON d; CREATE POLICY p ON d USING ({expression})")  # type: ignore[arg-type]
            assert documents.told() == (documents.shown(), ())
        rights = load_rights(connection, documents.oid, "authenticated")
        assert rights.plain_case == {100} and not rights.code_point & {100}
        connection.execute("DROP POLICY p ON d; CREATE POLICY p ON d USING (id = 1 AND 'I' || code ILIKE 'iab%')")
        assert documents.told()[0] == documents.shown() == [1]
        unknown = replace(load_rights(connection, documents.oid, "authenticated"), plain_case=frozenset())
        decision = decide(unknown, documents.relation, documents.types, documents.subject)
        assert not any(decision.predicate.test(row) == TRUE for row in documents.rows)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]
